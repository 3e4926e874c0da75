"""Atari games side by side in ale-py's C++ class, as `envs.atari.Atari` plays them one by one.

A test plays whole games with both. Rewards, lives and endings are the same. Frames differ by one grey level at most,
since means are rounded differently; only the last frame of a game that ends within a step differs more, and nothing is
learned from it. The draws of a seed differ: sticky actions, and the idle steps at the start (0 to 30; Atari has 1 to
30). The limit of 108000 frames does not count these idle steps.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agent.common.seeds import EpisodeSeeds
from envs.atari import NOOP_MAX, SIDE, SKIP, STACK
from envs.episodes import ActionLog, Stretch
from envs.kinds import Info

#: Arguments of an Atari id that the class supports; it does not support others, such as mode and difficulty.
SUPPORTED_KWARGS = frozenset({"repeat_action_probability", "full_action_space", "max_num_frames_per_episode"})
#: A number of frames, the largest that the class takes, that no game reaches.
UNLIMITED = 2**31 - 1
#: Steps that a copy plays with one seed, rounded up to whole games. A new seed makes the emulator load its game again,
#: which takes 65 ms, as long as 200 steps. To replay this many steps takes 2 s.
STRETCH_STEPS = 10_000


class AtariVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of one game in C++ threads, with NEXT_STEP autoreset.

    Observations are stacks [E, 4, 84, 84], uint8, the newest last; the first of an episode is its first frame, four
    times. Rewards are the game's own and episodes whole games. `info["life_lost"]` [E] marks the loss of a life other
    than the last.

    Args:
        num_envs: E.
        spec: Gymnasium's entry for an id of ale-py.
        kwargs: arguments of its constructor, all of them in SUPPORTED_KWARGS.
        time_limit: steps after which an episode is truncated, in addition to the spec's own limit of frames.
    """

    metadata: dict[str, object] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        spec: gym.envs.registration.EnvSpec,
        kwargs: Mapping[str, object],
        time_limit: int | None = None,
    ) -> None:
        from ale_py.vector_env import AtariVectorEnv  # type: ignore[import-not-found, unused-ignore]

        options: dict[str, Any] = {"game": spec.kwargs["game"]}
        options |= {name: value for name, value in {**spec.kwargs, **kwargs}.items() if name in SUPPORTED_KWARGS}
        limits = [options.get("max_num_frames_per_episode"), None if time_limit is None else SKIP * time_limit]
        # With a limit below 1 the class ends each game at once; for the emulator alone it is no limit.
        options["max_num_frames_per_episode"] = min([limit for limit in limits if limit and limit > 0] + [UNLIMITED])
        self._games = AtariVectorEnv(
            num_envs=num_envs,
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=SIDE,
            img_width=SIDE,
            stack_num=STACK,
            frameskip=SKIP,
            noop_max=NOOP_MAX + 1,  # the class draws below this number
            reward_clipping=False,  # training itself clips rewards and ends lives, and only for learning
            episodic_life=False,
            use_fire_reset=False,  # nor does Atari
            **options,
        )
        self.num_envs = num_envs
        self.single_observation_space = self._games.single_observation_space
        self.single_action_space = self._games.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._age = np.zeros(num_envs, dtype=np.int64)  # frames that the episode had before its newest, up to 3
        self._ended = np.zeros(num_envs, dtype=bool)
        self._stacks = np.zeros((num_envs, STACK, SIDE, SIDE), dtype=np.uint8)  # the newest
        # The stretch that each copy plays (see envs.episodes): its number, its steps and rewards so far, and whether
        # the next step only begins it.
        self._seeds: list[EpisodeSeeds] = []
        self._number, self._steps = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._stretch_return, self._waiting = np.zeros(num_envs), np.zeros(num_envs, dtype=bool)
        self._actions = ActionLog(num_envs, self._games.single_action_space.n)  # type: ignore[attr-defined, unused-ignore]

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, Info]:
        """Begins a game in every copy; each game depends on `seed` and the number of the copy alone."""
        seeds = None if seed is None else np.random.SeedSequence(seed).generate_state(self.num_envs) >> 1  # of 31 bits
        stacks, info = self._games.reset(seed=None if seeds is None else seeds.astype(np.int64))
        self._lives, self._age[:], self._ended[:] = info["lives"], 0, False
        self._stacks = self._filled(stacks)
        if seed is None and self._seeds:
            self._begin_stretch(np.ones(self.num_envs, dtype=bool))
        return self._stacks, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """The same action for four emulator frames, in every copy; the reward is their sum."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        """Begins a step; the games compute it while the caller does something else, until `step_wait`."""
        actions = np.asarray(actions, dtype=np.int64)
        self._actions.add(actions, keep=int(self._steps.max()))
        self._games.send(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """The result of the step that `step_async` began."""
        stacks, reward, terminated, truncated, info = self._games.recv()
        reward, fresh, lives = reward.astype(np.float64), self._ended, info["lives"]
        if begin_now := self._waiting.any():
            reward, terminated, truncated = (
                np.where(self._waiting, 0, values) for values in (reward, terminated, truncated)
            )
            terminated, truncated = terminated.astype(bool), truncated.astype(bool)
        self._age = np.where(fresh, 0, np.minimum(self._age + 1, STACK - 1))
        life_lost = (lives > 0) & (lives < self._lives) & ~fresh
        self._lives, self._ended = lives, terminated | truncated
        self._stacks = self._filled(stacks)
        self._stretch_return += reward
        self._steps += 1
        if begin_now:
            self._begin_stretch(self._waiting)
        if self._seeds and (finished := self._ended & (self._steps >= STRETCH_STEPS)).any():
            self._wait(finished, self._number + 1)
        return self._stacks, reward, terminated, truncated, {"life_lost": life_lost}

    # ---- see envs.episodes

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """The next reset without a seed begins stretch `number` of every copy."""
        self._seeds = [EpisodeSeeds(seed, copy) for copy in range(self.num_envs)]
        self._number[:] = number

    def stretches(self) -> list[Stretch]:
        """The position of each copy; the checksum covers its newest stack and the rewards of the stretch."""
        return [
            Stretch(int(self._number[i]), True, 0, self._actions.last(i, 0))
            if self._waiting[i]
            else Stretch(
                int(self._number[i]),
                bool(self._ended[i]),
                zlib.crc32(self._stacks[i], zlib.crc32(self._stretch_return[i].tobytes())),
                self._actions.last(i, int(self._steps[i])),
            )
            for i in range(self.num_envs)
        ]

    def return_to(self, stretches: Sequence[Stretch]) -> list[bool]:
        """Replays the stretches; a copy that does not reach the same position begins a new game at the next step.

        All copies reach their positions at the same step: a copy with fewer actions begins later.
        """
        self._number[:] = [stretch.number for stretch in stretches]
        lengths = np.array([len(stretch.actions) for stretch in stretches])
        actions = np.zeros((lengths.max(), self.num_envs), dtype=np.int64)
        for i, stretch in enumerate(stretches):
            actions[len(actions) - lengths[i] :, i] = stretch.actions
        self.reset()
        for remaining in range(len(actions), -1, -1):
            if (begin_now := lengths == remaining).any() and remaining < len(actions):
                self._number[begin_now] = np.array([stretch.number for stretch in stretches])[begin_now]
                self._begin_stretch(begin_now)
            if remaining:
                self.step(actions[-remaining])
        self._wait(np.array([stretch.ended and not len(stretch.actions) for stretch in stretches]), self._number)
        succeeded = [current[:3] == target[:3] for current, target in zip(self.stretches(), stretches, strict=True)]
        self._wait(~np.array(succeeded), np.array([stretch.number + 1 for stretch in stretches]))
        return succeeded

    def _begin_stretch(self, copies: np.ndarray) -> None:
        """Begins games of some copies, bool [E], with the seeds of their stretches."""
        seeds = np.array([self._seeds[i](int(self._number[i])) for i in copies.nonzero()[0]], dtype=np.int64)
        stacks, info = self._games.reset(seed=seeds, options={"reset_mask": copies})
        self._lives, self._age, self._ended = info["lives"], np.where(copies, 0, self._age), self._ended & ~copies
        self._stretch_return[copies], self._steps[copies] = 0.0, 0
        self._waiting = self._waiting & ~copies
        self._stacks = self._filled(stacks)

    def _wait(self, copies: np.ndarray, numbers: np.ndarray) -> None:
        """Makes the next step of some copies, bool [E], only begin the stretch with the given number."""
        self._number[copies] = numbers[copies]
        self._stretch_return[copies], self._steps[copies] = 0.0, 0
        self._waiting, self._ended = self._waiting | copies, self._ended | copies

    def _filled(self, stacks: np.ndarray) -> np.ndarray:
        """The stacks, with zeros from before the episode replaced by its first frame."""
        for i in (self._age < STACK - 1).nonzero()[0]:
            first = STACK - 1 - self._age[i]
            stacks[i, :first] = stacks[i, first]
        return stacks
