"""An environment that writes every step that it plays to a file, and that fails if a file in its folder asks for it.

Its observations are (process, episode, time), so that a replay can be compared with the journal.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

ID, FOLDER, LENGTH = "Journal-v0", "NOISY_DQN_JOURNAL", 10
Row = tuple[int, int, int, int, float, int]  # process, episode, time, action, reward, whether it terminated


class JournalEnv(gym.Env[np.ndarray, int]):
    """Rewards action 1. Episodes end after ten steps, every other one by truncation."""

    episodes = 0  # episodes of this process

    def __init__(self, nap: float = 0.0) -> None:
        self._nap = nap  # seconds that each episode takes to begin
        self.observation_space = gym.spaces.Box(0.0, 2.0**24, (3,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self._folder = Path(os.environ[FOLDER])
        self._file = os.open(self._folder / f"{os.getpid()}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        time.sleep(self._nap)
        JournalEnv.episodes += 1
        self._episode, self._time = JournalEnv.episodes, 0
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return np.array([os.getpid(), self._episode, self._time], dtype=np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._go_wrong()
        before, reward = self._time, float(action)
        self._time += 1
        ended, dies = self._time == LENGTH, self._episode % 2 == 0
        row = os.getpid(), self._episode, before, int(action), reward, int(ended and dies)
        os.write(self._file, (" ".join(map(str, row)) + "\n").encode())
        return self._observation(), reward, ended and dies, ended and not dies, {}

    def _go_wrong(self) -> None:
        if (self._folder / "slow").exists():
            time.sleep(0.002)
        if (self._folder / "always").exists():
            raise ValueError("the wheel is off")
        for name in ("kill", "hang", "raise"):
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()  # only one process removes the file and fails
                if name == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if name == "raise":
                    raise ValueError("a wheel came off")
                time.sleep(600.0)


def register() -> None:
    gym.register(ID, "tests.journal:JournalEnv")


def rows(folder: Path) -> list[Row]:
    """All steps that any process has played."""
    lines = [line.split() for path in folder.glob("*.journal") for line in path.read_text().splitlines()]
    return [(int(a), int(b), int(c), int(d), float(e), int(f)) for a, b, c, d, e, f in lines]
