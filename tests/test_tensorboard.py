"""Event files, read by TensorBoard's own reader: they agree with metrics.jsonl, however a run was stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import signal
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Programs
from PIL import Image

from agent.common.errors import UserError
from agent.common.state import Checkpoint
from agent.config.parsing import parse, to_plain
from agent.config.run import TrainConfig
from agent.records import event_files
from agent.records.console import Console
from agent.records.event_files import EventFiles
from agent.records.metrics import JsonlSink, truncate_jsonl
from agent.running.build import build_tracker
from agent.running.progress import evaluated_again
from envs.video import as_gif, write_video

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN = (
    *("env=CartPole-v1", "agent.network.hidden=[16]", "agent.learning_starts=64", "agent.batch_size=64", "num_envs=2"),
    *("eval.every=350", "eval.episodes=2", "log.every=300", "checkpoint.every=250", "agent.replay_size=600"),
    "wandb.mode=disabled",
)


def said(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and float32 values of each metric in metrics.jsonl, without null, which stands for NaN."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name != "global_step" and value is not None:
                found.setdefault(name, []).append((row["global_step"], float(np.float32(value))))
    return found


def read(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each chart."""
    accumulator = read(run)
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def films(run: Path) -> list[int]:
    """The steps of the videos, each of which must be a GIF of several frames."""
    events = read(run).Images("eval/video")
    for event in events:
        with Image.open(BytesIO(event.encoded_image_string)) as image:
            assert (image.format, image.size) == ("GIF", (event.width, event.height))
            assert getattr(image, "n_frames", 1) > 1
    return [event.step for event in events]


def last_step(run: Path) -> int:
    return int((run / "checkpoints" / "latest").read_text().removeprefix("step_"))


def test_the_event_files_of_a_run_say_what_metrics_jsonl_says(programs: Programs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = programs.run("train", *RUN, "tensorboard=true", "steps=800", "hydra.run.dir=run", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "--logdir run\n" in result.out + result.err
    charts = shown(run)
    assert charts == said(run)
    assert {"train/episode_return", "train/loss", "eval/return_mean", "eval_noisy/return_mean"} <= charts.keys()
    assert films(run) == [last_step(run)]
    (file,) = (run / "tensorboard").iterdir()
    assert file.name.startswith("events.out.tfevents.")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_after_kills_nothing_is_missing_and_nothing_is_there_twice(
    programs: Programs, tmp_path: Path, number: signal.Signals
) -> None:
    run, words = tmp_path / "run", (*RUN, "tensorboard=true", "steps=2600", "eval.video=false")
    file = run / "metrics.jsonl"
    process = programs.start("train", *words, "hydra.run.dir=run", cwd=tmp_path)
    for lines in (60, 110):
        process.until(lambda: file.exists() and file.read_text().count("\n") > lines)  # noqa: B023
        process.kill(number)
        process.wait()
        process = programs.start("train", *words, "resume=run", cwd=tmp_path)
    assert process.wait().code == 0
    assert len(list((run / "tensorboard").iterdir())) == 3
    assert shown(run) == said(run)


def test_switched_on_or_on_again_it_has_all_that_was_logged_before(programs: Programs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for steps, value in ((400, "false"), (700, "true"), (1000, "false"), (1300, "true"), (1600, "true")):
        place = "resume=run" if steps > 400 else "hydra.run.dir=run"
        result = programs.run("train", *RUN, f"tensorboard={value}", f"steps={steps}", place, cwd=tmp_path)
        assert result.code == 0, result.err
        if value == "true":
            assert shown(run) == said(run)
    assert len(list((run / "tensorboard").iterdir())) == 3
    filmed = sorted(int(path.stem.removeprefix("step_")) for path in (run / "videos").iterdir())
    assert len(filmed) == 5
    assert films(run) == filmed
    shutil.rmtree(run / "tensorboard")
    result = programs.run("train", *RUN, "steps=1700", "resume=run", cwd=tmp_path)
    assert result.code == 0, result.err
    assert shown(run) == said(run)


# ---- the parts


def console() -> tuple[Console, StringIO]:
    stream = StringIO()
    return Console(1000, stream=stream), stream


def test_an_evaluation_that_is_played_again_is_there_once(tmp_path: Path) -> None:
    """After a kill between the evaluation's line and the note beside the checkpoint, the step is evaluated again."""
    file, rows = tmp_path / "metrics.jsonl", [(10, {"a": 1.0}), (20, {"a": 2.0}), (20, {"eval/x": 3.0})]
    first, lines = EventFiles(tmp_path, console()[0]), JsonlSink(file)
    for step, row in rows:
        first.log(step, row)
        lines.log(step, row)
    truncate_jsonl(file, 20, rewritten="eval/")
    second, lines = EventFiles(tmp_path, console()[0], since=20), JsonlSink(file)
    for sink in (second, lines):
        sink.log(20, {"eval/x": 4.0})
    assert shown(tmp_path) == said(tmp_path) == {"a": [(10, 1.0), (20, 2.0)], "eval/x": [(20, 4.0)]}


#: States of a checkpoint at step 30, and the evaluations that a run logs after it.
PENDING: dict[str, tuple[dict[str, Any], list[tuple[int, float]]]] = {
    "one of an earlier step is under way": ({"under_way": {"step": 20}}, [(20, 5.0), (30, 6.0)]),
    "one is due": ({"evaluation_due": True}, [(30, 6.0)]),
    "none": ({}, []),
}


@pytest.mark.parametrize("name", PENDING)
def test_an_evaluation_that_was_under_way_is_there_once(tmp_path: Path, name: str) -> None:
    pending, later = PENDING[name]
    config = parse(TrainConfig, {"tensorboard": True, "wandb": {"mode": "disabled"}, "log": {"progress": False}})
    state = {"config": to_plain(config), "wandb_run_id": None, **pending}
    tracker = build_tracker(config, tmp_path, console()[0], None)
    tracker.open()
    for step in (10, 20, 30):
        tracker.log(step, {"a": 1.0})
        tracker.log(step, {"eval/x": 2.0})
    tracker.finish(1)  # it was killed after the checkpoint of step 30
    truncate_jsonl(tmp_path / "metrics.jsonl", 30, *evaluated_again(30, state))
    tracker = build_tracker(config, tmp_path, console()[0], Checkpoint(30, state))
    tracker.open()
    for step, value in later:
        tracker.log(step, {"eval/x": value})
    tracker.finish(0)
    kept = [(step, 2.0) for step in (10, 20, 30) if not later or step < later[0][0]]
    assert shown(tmp_path) == said(tmp_path) == {"a": [(10, 1.0), (20, 1.0), (30, 1.0)], "eval/x": kept + later}


def test_what_is_no_number_is_left_out_and_a_half_record_hurts_nobody(tmp_path: Path) -> None:
    files = EventFiles(tmp_path, console()[0])
    files.log(1, {"a": 1.0, "b": math.nan, "c": math.inf, "d": 2})
    files.log(2, {"a": 3.0})
    files.finish(0)
    files.finish(0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-7])  # as after a stop of the machine
    EventFiles(tmp_path, console()[0], since=2).log(2, {"a": 5.0})
    assert shown(tmp_path) == {"a": [(1, 1.0), (2, 5.0)], "d": [(1, 2.0)]}


def test_what_goes_wrong_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("no folder")
    screen, stream = console()
    files: Any = EventFiles(tmp_path, screen)
    for step in range(5):
        files.log(step, {"a": 1.0})
    files.video(1, tmp_path / "missing.gif")
    files.finish(0)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("TensorBoard's files failed (")
    assert files.dashboard == "TensorBoard has no files"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the extra tensorboard: pip install -e '\.\[tensorboard\]'"):
        EventFiles(tmp_path, console()[0])
    assert not (tmp_path / event_files.FOLDER).exists()


def test_any_video_becomes_a_gif_of_the_same_length(tmp_path: Path) -> None:
    frames = [np.zeros((40, 60, 3), np.uint8) for _ in range(20)]
    for number, frame in enumerate(frames):
        frame[:, 3 * number : 3 * number + 3] = 255  # a moving bar
    path = write_video(frames, tmp_path / "film", fps=20)
    data, height, width = as_gif(path)
    assert (height, width) == (40, 60)
    milliseconds = 0
    with Image.open(BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 20
        for number in range(20):
            image.seek(number)
            milliseconds += image.info["duration"]
            columns = np.asarray(image.convert("L"), float).mean(axis=0)
            assert abs(int(columns.argmax()) - (3 * number + 1)) <= 1
    assert milliseconds == 1000
