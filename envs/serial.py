"""Copies of an environment one after the other in one process: Gymnasium's SyncVectorEnv with less work around them."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate

from envs.episodes import RepeatableCopies


class Serial(RepeatableCopies, SyncVectorEnv):
    """A SyncVectorEnv with NEXT_STEP autoreset, which gives the same for actions that are numbers [E].

    Observations are a buffer that the next step overwrites.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._is_box = isinstance(self.single_observation_space, gym.spaces.Box)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; one whose episode has ended is reset instead, with reward 0."""
        rewards, infos = np.zeros(self.num_envs), {}  # type: ignore[var-annotated]
        terminations, truncations = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            if self._autoreset_envs[i]:
                self._env_obs[i], info = env.reset()
            else:
                self._env_obs[i], rewards[i], terminations[i], truncations[i], info = env.step(action)
            if info:
                infos = self._add_info(infos, info, i)
        self._autoreset_envs = terminations | truncations
        return self._batch(), rewards, terminations, truncations, infos

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What a method of every copy gives for arguments of its own."""
        return [getattr(env, name)(*given) for env, given in zip(self.envs, arguments, strict=True)]

    def _batch(self) -> Any:
        """The environments' observations side by side."""
        if not self._is_box:
            self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
            return self._observations
        observations: Any = self._env_obs
        for i, observation in enumerate(observations):  # with [i, ...] a single number is a place too
            np.copyto(self._observations[i, ...], observation, casting="same_kind")
        return self._observations
