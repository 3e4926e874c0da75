"""An environment whose steps sleep, like one that waits for a simulator or a game."""

import time
from typing import Any

import gymnasium as gym
import numpy as np

ID = "Sleeping-v0"


class Sleeping(gym.Env[np.ndarray, np.int64]):
    """Four numbers, two actions, episodes of 100 steps.

    Args:
        seconds: that a step takes.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds, self._time = seconds, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(self._seconds)
        self._time += 1
        return self._observation(), float(action), False, self._time == 100, {}


def register() -> None:
    """Registers the environment in this process. Actors find this file, since they search the same folders."""
    gym.register(ID, "sleeping:Sleeping")
