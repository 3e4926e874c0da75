"""The method `close` of an environment, wherever it is called: it cannot harm a run, and a line reports its failure."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Programs

from agent.common.interrupt import Stopped
from agent.common.notices import tell_through
from envs import closing
from envs.closing import close_quietly

CLOSING = '''
import os, time
import gymnasium as gym
import numpy as np


class Closing(gym.Env):
    """Ten steps; its server is gone when it is to be closed, or does not answer."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
    steps = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.random(3, np.float32), {}

    def step(self, action):
        self.t += 1
        Closing.steps += 1
        if Closing.steps == int(os.environ.get("FAILS", "0")):
            raise ValueError("no such level")
        if "PLAIN" in os.environ and type(action) is not int:
            raise TypeError("not serializable")
        return self.np_random.random(3, np.float32), 1.0, self.t == 10, False, {}

    def render(self):
        return np.zeros((40, 40, 3), np.uint8)

    def close(self):
        how = os.environ.get("CLOSE")
        if how == "raises":
            raise RuntimeError("Not connected to physics server.")
        if how == "exits":
            raise SystemExit(0)
        if how == "interrupts":
            raise KeyboardInterrupt
        while how == "hangs":
            time.sleep(3600)


gym.register("Closing-v0", Closing)
'''
OPTIONS = (
    *(
        "env=closes:Closing-v0",
        "num_envs=2",
        "agent.network.hidden=[8]",
        "agent.batch_size=8",
        "agent.learning_starts=30",
    ),
    *("agent.replay_size=500", "eval.every=100", "eval.episodes=2", "log.progress=false", "wandb.mode=disabled"),
    *("hydra.run.dir=run", "steps=200"),
)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("raises", "could not be closed (RuntimeError: Not connected to physics server.)"),
        ("exits", "could not be closed (it ended the program, by sys.exit(0))"),
        ("interrupts", "could not be closed (KeyboardInterrupt)"),
    ],
)
def test_close_that_raises_is_one_line(
    programs: Programs, tmp_path: Path, vectorization: str, how: str, line: str
) -> None:
    """It raises in the instance for load_task, in training, in evaluations and in films: at most two lines say so."""
    (tmp_path / "closes.py").write_text(CLOSING)
    result = programs.run("train", *OPTIONS, f"env.vectorization={vectorization}", cwd=tmp_path, CLOSE=how)
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert 1 <= result.err.count(line) <= 2  # one before the run has a console, and one after
    assert "done: evaluation return 10.0 over 2 episodes" in result.err
    played = programs.run("evaluate", "checkpoint=run", "imports=closes", "episodes=3", cwd=tmp_path, CLOSE=how)
    assert played.code == 0, played.err
    assert 1 <= played.err.count(line) <= 2


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_close_that_hangs_is_not_waited_for(programs: Programs, tmp_path: Path, vectorization: str) -> None:
    """The run waits five seconds once, and not for each of the instances of two evaluations."""
    (tmp_path / "closes.py").write_text(CLOSING)
    began = time.monotonic()
    result = programs.run("train", *OPTIONS, f"env.vectorization={vectorization}", cwd=tmp_path, CLOSE="hangs")
    assert time.monotonic() - began < 30.0
    assert result.code == 0, result.err
    assert "Closing-v0 hangs in close()" in result.err
    assert "done: evaluation return 10.0 over 2 episodes" in result.err


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_close_after_an_error_hides_nothing_of_it(programs: Programs, tmp_path: Path, how: str) -> None:
    (tmp_path / "closes.py").write_text(CLOSING)
    options = (*OPTIONS, "env.vectorization=sync", "eval.episodes=0")
    result = programs.run("train", *options, cwd=tmp_path, CLOSE=how, FAILS="60")
    assert result.code == 2, result.err
    assert "ValueError: no such level" in result.err.partition("error: ")[2]
    assert (tmp_path / "run" / "last" / "agent.safetensors").exists()


def test_an_environment_that_takes_only_python_s_numbers_gets_them(programs: Programs, tmp_path: Path) -> None:
    """Actions are Python's numbers in training, evaluation and films, and in episodes that a resume plays again."""
    (tmp_path / "closes.py").write_text(CLOSING)
    for vectorization in ("sync", "async"):
        folder, options = f"hydra.run.dir={vectorization}", (*OPTIONS[:-2], f"env.vectorization={vectorization}")
        result = programs.run("train", *options, folder, "steps=205", cwd=tmp_path, PLAIN="1")
        assert result.code == 0, result.err
        resume = ("env=closes:Closing-v0", f"resume={vectorization}", "steps=300")
        result = programs.run("train", *resume, cwd=tmp_path, PLAIN="1")
        assert result.code == 0, result.err
        assert "begins new episodes" not in result.err
        assert "no video" not in result.err
        assert "no evaluation" not in result.err


# ---- the function by itself


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told = list[str]()
    tell_through(told.append)
    monkeypatch.setattr(closing, "CLOSE_SECONDS", 0.3)
    monkeypatch.setattr(closing, "_hanging", set())
    return told


def swallows() -> None:
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            if time.monotonic() > DEADLINE[0]:
                raise


DEADLINE = [0.0]


@pytest.mark.parametrize("close", [lambda: time.sleep(3600), threading.Event().wait, swallows])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_close_that_does_not_come_back_is_left(
    lines: list[str], close: Callable[[], object], in_thread: bool
) -> None:
    DEADLINE[0] = time.monotonic() + 0.5
    began = time.monotonic()

    def close_all() -> None:
        for _ in range(3):
            close_quietly(close, "Slow-v0")

    if in_thread:
        thread = threading.Thread(target=close_all)
        thread.start()
        thread.join()
    else:
        close_all()
    assert time.monotonic() - began < 1.5
    assert lines == ["Slow-v0 hangs in close(): it is left as it is"]


def raises(error: BaseException) -> Callable[[], None]:
    def close() -> None:
        raise error

    return close


def test_what_is_no_error_of_the_environment_goes_through(lines: list[str]) -> None:
    for error in (KeyboardInterrupt(), Stopped()):
        with pytest.raises(type(error)):
            close_quietly(raises(error), "A-v0")
    for _ in range(2):
        close_quietly(raises(ValueError("two\nlines \x1b[31m")), "A-v0")
    assert lines == ["A-v0 could not be closed (ValueError: two lines \\x1b[31m): it is left as it is"]
