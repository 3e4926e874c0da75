"""A stranger's run may have links in the place of the files and folders that a program writes: no link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Programs

import envs.video
from agent.common.errors import UserError
from agent.common.files import RUN_FOLDERS, atomic_write_bytes, atomic_write_text, check_no_link, new_file, open_log
from agent.records.board import Board
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.metrics import JsonlSink, truncate_jsonl
from agent.records.plots import plot_evaluation, plot_learning_curve
from agent.records.run_folder import open_run, write_config
from agent.records.saved_agent import read_agent, save_agent
from agent.running.tuning.locks import lock
from envs.video import write_video

RESULT = {"label": "a", "returns": [1.0], "return_mean": 1.0, "return_iqm": 1.0, "return_ci95": (1.0, 1.0)}
FRAMES = [np.full((40, 60, 3), i, np.uint8) for i in range(3)]


def agent(path: Path) -> None:
    save_agent(path, {"w": torch.ones(2)}, {"env": {"id": "CartPole-v1", "kwargs": {}}})


def metrics(path: Path) -> None:
    truncate_jsonl(path, 10)
    sink = JsonlSink(path)
    sink.log(1, {"a": 1.0})
    sink.close()


def latest(path: Path) -> None:
    save_checkpoint(path.parent.parent, 2, {"w": torch.ones(2)}, keep=1)


def film(path: Path) -> None:
    write_video(FRAMES, path.with_suffix(""), 10)


#: Every file that a program writes, as a path in the run, and a function that writes it.
WRITERS: dict[str, Callable[[Path], Any]] = {
    "config.yaml": lambda path: write_config(path.parent, {"seed": 0}, ["env=CartPole-v1"]),
    "metrics.jsonl": metrics,
    "learning_curve.png": lambda path: plot_learning_curve(path.parent / "none", path, "x", None),
    "best/agent.safetensors": agent,
    "last/agent.safetensors": agent,
    "best/evaluation.json": lambda path: atomic_write_text(path, "{}"),
    "best/evaluation.png": lambda path: plot_evaluation([RESULT], path),
    "best/comparison.png": lambda path: plot_evaluation([RESULT, RESULT], path),
    "best/evaluation.gif": film,
    "best/evaluation.mp4": film,
    "videos/step_000000000010.gif": film,
    "videos/step_000000000010.mp4": film,
    "checkpoints/latest": latest,
    "checkpoints/step_000000000002": latest,
    "checkpoints/step_000000000002.old": latest,
    "checkpoints/step_000000000001": latest,
}


@pytest.fixture
def kind_of_film(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    name = request.getfixturevalue("name")
    if name.endswith(".mp4"):
        pytest.importorskip("imageio_ffmpeg")
    if name.endswith(".gif"):
        monkeypatch.setattr(envs.video, "_has_ffmpeg", lambda: False)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with the content of the file; None for folders and links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if plain else None
    return found


@pytest.mark.usefixtures("kind_of_film")
@pytest.mark.parametrize("target", ["file", "missing", "folder", "hard link"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path, name: str, target: str) -> None:
    mine, run = tmp_path / "mine", tmp_path / "run"
    (mine / "folder").mkdir(parents=True)
    (mine / "folder" / "state.json").write_text("mine")
    (mine / "file").write_text('{"global_step": 1, "mine": true}\nprivate')
    path = run / name
    path.parent.mkdir(parents=True)
    if target == "hard link":
        os.link(mine / "file", path)
    else:
        path.symlink_to(mine / target)
    before = contents(mine)
    written = False
    with suppress(UserError):  # a refusal is right as well
        WRITERS[name](path)
        written = True
    assert contents(mine) == before
    if written and not name.startswith("checkpoints/step_") and target != "folder":
        assert stat.S_ISREG(path.lstat().st_mode)
        assert path.lstat().st_nlink == 1
        assert b"private" not in path.read_bytes()
    assert not [found for found in run.rglob("*") if ".tmp" in found.name]


@pytest.mark.usefixtures("kind_of_film")
@pytest.mark.parametrize("name", [name for name in WRITERS if "/" in name])
def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.mkdir()
    (mine / Path(name).name).write_text("mine")
    run.mkdir()
    (run / name).parent.symlink_to(mine)
    before = contents(mine)
    with pytest.raises(UserError, match="is a link, and a run writes to no other folder"):
        WRITERS[name](run / name)
    assert contents(mine) == before


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_lines_are_added_to_plain_files_alone(tmp_path: Path, kind: str) -> None:
    mine, log = tmp_path / "mine", tmp_path / "seed0.log"
    mine.write_text("mine")
    if kind.endswith("link") and kind != "hard link":
        log.symlink_to(mine if kind == "link" else tmp_path / "missing")
    if kind == "hard link":
        os.link(mine, log)
    if kind == "pipe":
        os.mkfifo(log)
    if kind == "folder":
        log.mkdir()
    with pytest.raises(UserError, match=r"could not write .*seed0\.log"):
        open_log(log)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "missing").exists()


def test_the_jobs_of_a_sweep_write_into_its_own_folder(tmp_path: Path) -> None:
    mine, sweep = tmp_path / "mine", tmp_path / "sweep"
    mine.mkdir()
    (mine / "owner").write_text("mine")
    sweep.mkdir()
    (sweep / "jobs").symlink_to(mine)
    board = Board(sweep, "now")
    board.open()
    board.stop()
    assert contents(mine) == {"owner": b"mine"}
    assert board.is_stopping()
    (board.folder / "owner").unlink()
    (board.folder / "owner").symlink_to(mine / "owner")
    board.open()
    assert contents(mine) == {"owner": b"mine"}
    again = Board(sweep, "again")
    again.folder.symlink_to(mine)
    again.open()
    again.stop()
    assert contents(mine) == {"owner": b"mine"}


def test_a_study_with_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "trial").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="trial is a link"):
        lock(tmp_path / "trial")
    (tmp_path / "journal.log").symlink_to(tmp_path / "missing")
    with pytest.raises(UserError, match=r"journal\.log is a link"):
        check_no_link(tmp_path / "journal.log")
    assert not contents(tmp_path / "mine")
    assert not (tmp_path / "missing").exists()


def test_a_sweep_replaces_a_link_in_the_place_of_its_file(programs: Programs, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").symlink_to(mine)
    words = ("steps=64", "eval.episodes=0", "wandb.mode=disabled", "num_envs=2", "hydra.sweep.dir=sweep")
    result = programs.run("train", "-m", *words, "seed=0", cwd=tmp_path)
    assert result.code == 0, result.err
    assert mine.read_text() == "mine"
    assert not (tmp_path / "sweep" / "multirun.yaml").is_symlink()


@pytest.mark.parametrize("name", RUN_FOLDERS)
@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_run_with_a_linked_folder_is_refused_before_it_trains(tmp_path: Path, name: str, resume: str | None) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=f"{name} is a link"):
        open_run(tmp_path / "run", resume)


def test_a_run_folder_that_is_reached_through_a_link_is_as_good_as_any(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    run = tmp_path / "runs" / "run"
    agent(run / "best" / "agent.safetensors")
    save_checkpoint(run, 3, {"w": torch.ones(2)}, keep=1)
    found = latest_checkpoint(run)
    assert found is not None
    assert load_checkpoint(found)[0] == 3
    assert read_agent(tmp_path / "disk" / "run" / "best" / "agent.safetensors").tensors["w"].tolist() == [1.0, 1.0]


def test_a_checkpoint_that_is_a_link_does_not_count(tmp_path: Path) -> None:
    for name in ("mine", "run"):
        (tmp_path / name).mkdir()
    theirs = save_checkpoint(tmp_path / "mine", 9, {"w": torch.ones(2)}, keep=1)
    save_checkpoint(tmp_path / "run", 1, {"w": torch.zeros(2)}, keep=1)
    (tmp_path / "run" / "checkpoints" / theirs.name).symlink_to(theirs)
    assert latest_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "step_000000000001"


def test_names_of_temporary_files_cannot_be_foreseen(tmp_path: Path) -> None:
    seen = set()
    for _ in range(50):
        with new_file(tmp_path / "evaluation.json") as file:
            assert not (tmp_path / "evaluation.json").exists() or seen
            assert Path(file.name).name.startswith(".tmp-")
            assert Path(file.name).suffix == ".json"
            seen.add(file.name)
    assert len(seen) == 50


def test_a_file_that_is_there_is_never_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds even if somebody has guessed the name of a temporary file."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    monkeypatch.setattr(os, "urandom", lambda count: b"\0" * count)
    (tmp_path / f".tmp-{'00' * 8}.txt").symlink_to(mine)
    with pytest.raises(UserError, match="File exists"):
        atomic_write_bytes(tmp_path / "x.txt", b"theirs")
    assert mine.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        atomic_write_bytes(tmp_path / "x", b"1")
        JsonlSink(tmp_path / "y").close()
    finally:
        os.umask(previous)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "xy"] == [0o640, 0o640]


def test_a_deleted_run_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("best/agent.safetensors", "checkpoints/latest", "videos/step_000000000010.gif"):
        with pytest.raises(UserError, match=r"No such file|deleted"):
            WRITERS[name](run / name)
    assert not run.exists()


def test_a_metrics_file_that_is_deleted_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(1, {"a": 1.0})
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl has been deleted"):
        sink.log(2, {"a": 1.0})
