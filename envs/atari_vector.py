"""Atari games side by side in ale-py's C++ class, as `envs.atari.Atari` plays them one by one.

A test plays whole games of both: rewards, lives and endings are the same, and frames within one grey level, since means
are rounded in another way; but for the last frame of a game that ends within a step, which nothing is learned from.
What differs is what a seed draws: sticky actions, and the idle steps of a start, 0 to 30 where Atari idles 1 to 30. The
limit of 108000 frames counts from after these.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.atari import NOOP_MAX, SIDE, SKIP, STACK

#: Arguments of an Atari id that the class knows too; what else there is, such as mode and difficulty, it does not.
KNOWN = frozenset({"repeat_action_probability", "full_action_space", "max_num_frames_per_episode"})


class AtariVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of one game in C++ threads, with NEXT_STEP autoreset.

    Observations are stacks [E, 4, 84, 84], uint8, the newest last; the first of an episode is its first frame, four
    times. Rewards are the game's own and episodes whole games; `info["life_lost"]` [E] says whose step lost a life that
    was not the last.

    Args:
        num_envs: E.
        spec: of an id of ale-py.
        kwargs: of its constructor, of those that are KNOWN.
        time_limit: steps after which an episode is cut, besides the spec's own limit of frames.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        spec: gym.envs.registration.EnvSpec,
        kwargs: Mapping[str, Any],
        time_limit: int | None = None,
    ) -> None:
        from ale_py.vector_env import AtariVectorEnv  # type: ignore[import-not-found, unused-ignore]

        options: dict[str, Any] = {"game": spec.kwargs["game"]}
        options |= {name: value for name, value in {**spec.kwargs, **kwargs}.items() if name in KNOWN}
        if time_limit is not None:
            options["max_num_frames_per_episode"] = min(options["max_num_frames_per_episode"], SKIP * time_limit)
        self._games = AtariVectorEnv(
            num_envs=num_envs,
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=SIDE,
            img_width=SIDE,
            stack_num=STACK,
            frameskip=SKIP,
            noop_max=NOOP_MAX + 1,  # it draws below that
            reward_clipping=False,  # rewards and lives are changed for learning alone, by training
            episodic_life=False,
            use_fire_reset=False,  # Atari does not either
            **options,
        )
        self.num_envs = num_envs
        self.single_observation_space = self._games.single_observation_space
        self.single_action_space = self._games.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._age = np.zeros(num_envs, dtype=np.int64)  # frames of the episode before the newest, up to 3
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins a game in every copy; what comes is of `seed` and the copy's number alone."""
        seeds = None if seed is None else np.random.SeedSequence(seed).generate_state(self.num_envs) >> 1  # of 31 bits
        stacks, info = self._games.reset(seed=None if seeds is None else seeds.astype(np.int64))
        self._lives, self._age[:], self._ended[:] = info["lives"], 0, False
        return self._filled(stacks), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The same action for four emulator frames, in every copy; the reward is their sum."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        """Sends the actions off; the games go on while the caller does something else, until `step_wait`."""
        self._games.send(np.asarray(actions, dtype=np.int64))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """What the step has led to that `step_async` began."""
        stacks, reward, terminated, truncated, info = self._games.recv()
        fresh, lives = self._ended, info["lives"]
        self._age = np.where(fresh, 0, np.minimum(self._age + 1, STACK - 1))
        life_lost = (lives > 0) & (lives < self._lives) & ~fresh
        self._lives, self._ended = lives, terminated | truncated
        return self._filled(stacks), reward.astype(np.float64), terminated, truncated, {"life_lost": life_lost}

    def _filled(self, stacks: np.ndarray) -> np.ndarray:
        """Stacks whose frames from before the episode, zeros, are its first frame instead."""
        for i in (self._age < STACK - 1).nonzero()[0]:
            first = STACK - 1 - self._age[i]
            stacks[i, :first] = stacks[i, first]
        return stacks
