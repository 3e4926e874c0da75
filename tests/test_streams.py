"""The start of programs, and their streams: closed, full, left by their reader, or of few characters."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, plain_environment

from agent.command.overrides import with_quotes

SMALL = (
    *("wandb.mode=disabled", "eval.video=false", "agent.network.hidden=[16]", "agent.learning_starts=64"),
    *("agent.batch_size=64", "eval.episodes=2", "num_envs=2", "steps=100", "hydra.run.dir=run"),
)

NOISY = """
import os
import gymnasium as gym
import numpy as np


class Noisy(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        for stream in (1, 2):  # as libraries in C do
            os.write(stream, b"a lot of noise")
        print("a lot of noise")
        return np.zeros(3, np.float32), 0.0, False, False, {}


gym.register("Noisy-v0", entry_point=Noisy, max_episode_steps=9)
"""


def start(
    folder: Path, program: str, *words: str, streams: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new interpreter with its streams as a shell redirects them."""
    command = ["bash", "-c", f'"$0" "$@" {streams}', sys.executable, str(ROOT / f"{program}.py"), *words]
    return subprocess.run(
        command, cwd=folder, env={**plain_environment(), **environment}, capture_output=True, text=True, timeout=90
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_training_needs_no_streams(tmp_path: Path, streams: str) -> None:
    """The exit code is the usual one, and no file of the run gets the output of other code."""
    (tmp_path / "noisy.py").write_text(NOISY)
    result = start(tmp_path, "train", *SMALL, "env=noisy:Noisy-v0", streams=streams)
    assert result.returncode == (2 if "/dev/full" in streams else 0)  # the environment's output fails on a full device
    assert result.stderr == ""
    # An environment that cannot print fails at its first step, which load_task tries before training.
    assert (tmp_path / "run" / "last" / "agent.safetensors").exists() is (result.returncode == 0)
    if result.returncode:
        return
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"a lot of noise" not in path.read_bytes(), path
    for line in (tmp_path / "run" / "metrics.jsonl").open():
        json.loads(line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    made = tmp_path_factory.mktemp("streams")
    assert start(made, "train", *SMALL).returncode == 0
    return made


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        ("2>&-", 0, ""),
        (">&-", 0, ""),
        ("| true; exit ${PIPESTATUS[0]}", 0, ""),
        ("| head -1; exit ${PIPESTATUS[0]}", 0, ""),
        (">/dev/full", 2, "error: the output could not be written (No space left on device)"),
    ],
)
def test_the_streams_of_an_evaluation(folder: Path, streams: str, code: int, said: str) -> None:
    (folder / "run" / "last" / "evaluation.json").unlink(missing_ok=True)
    result = start(folder, "evaluate", "checkpoint=run", "which=last", "episodes=2", streams=streams)
    assert result.returncode == code, result
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == bool(said)
    assert (folder / "run" / "last" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("streams", "code"), [("| true; exit ${PIPESTATUS[0]}", 0), (">/dev/full", 2), (">&-", 0), ("2>&-", 0)]
)
def test_the_streams_of_help(tmp_path: Path, streams: str, code: int) -> None:
    result = start(tmp_path, "train", "--help", streams=streams)
    assert result.returncode == code, result
    assert result.stderr == ("" if code == 0 else result.stderr.splitlines()[0] + "\n")


def test_a_refusal_that_nobody_hears_has_its_code(tmp_path: Path) -> None:
    result = start(tmp_path, "train", "steps=0", streams="2>&-")
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize("mode", ["0", "1"])
def test_a_locale_without_umlauts(tmp_path: Path, mode: str) -> None:
    words = (*SMALL[:-1], "hydra.run.dir=münchen", "wandb.name=grün", "wandb.tags=['ö','o']")
    result = start(tmp_path, "train", *words, LC_ALL="C", PYTHONUTF8=mode, PYTHONCOERCECLOCALE="0")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "münchen" / "config.yaml").read_text(encoding="utf-8")
    assert "wandb.name=" in text.splitlines()[0]
    assert "grün" in text.splitlines()[0]
    config = yaml.safe_load(text)
    assert (config["wandb"]["name"], config["wandb"]["tags"]) == ("grün", ["ö", "o"])
    result = start(tmp_path, "evaluate", "checkpoint=münchen", "episodes=1", LC_ALL="C", PYTHONUTF8=mode)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=ü", "a='ü'"),
        ("a.b=runs/ü-1", "a.b='runs/ü-1'"),
        ("a=u", "a=u"),
        ("a='ü'", "a='ü'"),
        ("a=[ü]", "a=[ü]"),
        ("a=ü,ö", "a=ü,ö"),
        ("ü", "ü"),
        ("a=b=c", "a='b=c'"),
        ("a=runs/x#2", "a='runs/x#2'"),
        ("a=it's", r"a='it\'s'"),
        ("a=(x)", "a='(x)'"),
        ("a=me@x", "a=me@x"),
        ("a=b c", "a=b c"),
        ("a=#1,#2", "a=#1,#2"),
        ("a=range(1", "a=range(1"),
        ("a=[b=c]", "a=[b=c]"),
        ("a={b", "a={b"),
        ("a='b", "a='b"),
        ("a=${b}#", "a=${b}#"),
        ("a#=b=c", "a#=b=c"),
        ("a", "a"),
        ("a=~/b", "a=~/b"),
        ("a=x;y&z", "a='x;y&z'"),
        ("a=", "a="),
    ],
)
def test_plain_text_that_the_grammar_refuses_is_put_into_quotes(override: str, expected: str) -> None:
    assert with_quotes(override) == expected


def imported(*arguments: str) -> list[str]:
    """The modules that Python imports after its own start, in order."""
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=90)
    names = [line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import")]
    return names[names.index("site") + 1 :]


def test_all_programs_begin_alike_and_first_let_ctrl_c_end_them_in_silence() -> None:
    """Ctrl-C is silent before the first import from a file, since `_signal` is built into the interpreter."""
    starts = set()
    for program in ("train", "evaluate", "compare", "share", "tune"):
        start, begin, _ = (ROOT / f"{program}.py").read_text(encoding="utf-8").partition("    begin()")
        assert begin
        starts.add(start.partition('"""\n')[2])
    (start,) = starts
    silenced = start.partition("from agent")[0]
    assert silenced.count("\nimport ") == 1
    script = f"__name__ = '__main__'\n{silenced}import os\nos.kill(os.getpid(), 2)\nprint('not reached')"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (result.returncode, result.stdout, result.stderr) == (-2, "", "")


def test_nothing_heavy_is_imported_before_ctrl_c_is_handled() -> None:
    """Earlier imports are those of the interpreter's start, of `signal` and of `types`."""
    needed = {"agent", "agent.common", *imported("-c", "import signal, types")}
    for program in ("train", "evaluate", "compare"):
        names = imported(str(ROOT / f"{program}.py"), "--version")
        before = names[: names.index("agent.common.beginning")]
        assert set(before) <= needed, before
