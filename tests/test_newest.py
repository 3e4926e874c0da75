"""The newest run is the one that was saved last: the same for all programs."""

import os
from pathlib import Path

import pytest
import yaml

from agent.common.errors import UserError
from agent.records.newest import is_run_of, newest_agent, newest_run
from agent.records.run_folder import run_folder, write_config

BEST, LAST, CHECKPOINTS = "best/agent.safetensors", "last/agent.safetensors", "checkpoints/latest"


def saved(run: Path, name: str, seconds: float) -> None:
    """Makes a file of a run, with the given time of writing."""
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    for written in (path, path.parent):
        os.utime(written, (seconds, seconds))


def test_it_is_the_one_saved_last_at_any_depth(tmp_path: Path) -> None:
    assert newest_run(tmp_path / "absent", lambda run: True) is None
    assert newest_run(tmp_path, lambda run: True) is None
    for run, name, seconds in (
        ("ALE/Pong-v5/b", BEST, 2_000),
        ("CartPole-v1/z", BEST, 1_000),
        ("CartPole-v1/a", BEST, 3_000),
        ("CartPole-v1/y", BEST, 3_400),  # its checkpoints are older
        ("CartPole-v1/y", CHECKPOINTS, 100),
        ("CartPole-v1/z", CHECKPOINTS, 3_500),  # its best agent is older, but its newest checkpoint is the last of all
    ):
        saved(tmp_path / run, name, seconds)
    assert newest_run(tmp_path, lambda run: True) == tmp_path / "CartPole-v1/z"
    assert newest_run(tmp_path, lambda run: run.name != "z") == tmp_path / "CartPole-v1/y"
    assert newest_run(tmp_path / "ALE", lambda run: True) == tmp_path / "ALE/Pong-v5/b"
    assert newest_run(tmp_path, lambda run: False) is None


def test_links_are_followed_and_may_lead_in_circles(tmp_path: Path) -> None:
    saved(tmp_path / "disk" / "CartPole-v1" / "a", BEST, 2_000)
    saved(tmp_path / "runs" / "CartPole-v1" / "b", BEST, 1_000)
    (tmp_path / "runs" / "large").symlink_to(tmp_path / "disk")
    (tmp_path / "runs" / "CartPole-v1" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "disk" / "circle").symlink_to(tmp_path / "runs")
    assert newest_run(tmp_path / "runs", lambda run: True) == tmp_path / "runs" / "large" / "CartPole-v1" / "a"
    assert newest_run(tmp_path / "runs", lambda run: run.name == "b") == tmp_path / "runs" / "CartPole-v1" / "b"
    (tmp_path / "linked").symlink_to(tmp_path / "runs")
    assert newest_run(tmp_path / "linked", lambda run: run.name == "b") == tmp_path / "linked" / "CartPole-v1" / "b"


def test_of_two_that_were_saved_at_once_it_is_the_last_by_name_and_number(tmp_path: Path) -> None:
    for name in ("2026-01-02_seed0_job10", "2026-01-02_seed0_job9", "2026-01-01_seed0_11", "other"):
        saved(tmp_path / name, LAST, 1_000)
    order = []
    while (found := newest_run(tmp_path, lambda run: run not in order)) is not None:
        order.append(found)
    assert [run.name for run in order] == [
        *("other", "2026-01-02_seed0_job10", "2026-01-02_seed0_job9", "2026-01-01_seed0_11")
    ]


CONFIG = "# python train.py\nenv:\n  id: ALE/Pong-v5\nagent:\n  lr: 0.1\nseed: 3\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONFIG, True),
        (CONFIG.replace("seed: 3", "seed: 33"), False),
        (CONFIG.replace("ALE/Pong-v5", "Pong-v5"), False),
        (CONFIG.replace("Pong-v5", "Pong"), True),  # an id without a version means the newest version
        (CONFIG.replace("Pong-v5", "Pong-v4"), False),
        (CONFIG.replace("Pong-v5", "Pong-v55"), False),
        (CONFIG.replace("env:", "eval:"), False),
        ("seed: 3", False),
        ("[", False),
        ("seed: 3\n- x", False),
        ("", False),
        (None, False),
    ],
)
def test_a_run_is_known_by_its_config(tmp_path: Path, text: str | None, expected: bool) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    assert is_run_of(tmp_path, "ALE/Pong-v5", 3) == expected


def test_a_run_is_of_an_id_without_a_version(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert is_run_of(tmp_path, "ALE/Pong", 3)
    assert not is_run_of(tmp_path, "ALE/Pon", 3)
    assert not is_run_of(tmp_path, "Pong", 3)


def test_another_kind_of_agent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without evaluations has no best agent."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no run under runs/"):
        newest_agent("best", "evaluating")
    (tmp_path / "runs/Game/a/last").mkdir(parents=True)
    (tmp_path / "runs/Game/a/last/agent.safetensors").touch()
    with pytest.raises(UserError, match=r"^no run under runs/ has a best agent: try which=last$"):
        newest_agent("best", "evaluating")
    assert newest_agent("last", "evaluating") == "runs/Game/a"


def test_auto_takes_it_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agent.records.run_folder.has_checkpoint", lambda run: run.name != "killed")
    for name, seconds in (("runs/mine", 3_000), ("runs/ALE/Pong-v5/a_seed3", 2_000), ("runs/killed", 4_000)):
        saved(tmp_path / name, CHECKPOINTS, seconds)
        (tmp_path / name / "config.yaml").write_text(CONFIG)
    assert run_folder("auto", "my_games:ALE/Pong-v5", 3) == "runs/mine"
    assert run_folder("auto", "ALE/Pong-v5", 4).startswith("runs/ALE/Pong-v5/2")


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\x0c", "\x1b", "\x07", "\x85", "\u2028", "\u2029", "\ufffe", "\udcff"]
)
def test_no_character_of_a_command_hides_its_run(tmp_path: Path, character: str) -> None:
    """Each start adds a comment to config.yaml, from which runs are found; however often, the file stays small."""
    config = {"seed": 0, "env": {"id": "Game-v0"}}
    for start in range(300):
        write_config(tmp_path, config, [f"wandb.group=a{character}b: c{'x' * 250}", f"start={start}"])
    assert is_run_of(tmp_path, "Game-v0", 0)
    lines = (tmp_path / "config.yaml").read_text().split("\n")
    assert yaml.safe_load("\n".join(lines)) == config
    assert [line[-9:] for line in lines if line.startswith("# ")][-2:] == ["start=298", "start=299"]
    assert len("\n".join(lines)) < 20_000
