"""Returns a resumed run to the middle of its episodes: environments cannot be saved, but can be replayed.

A `stretch` is everything that one copy of an environment plays from one seeded reset to the next: an episode, or
several where seeding is expensive. Its seed depends only on the seed of the run and the numbers of the copy and of the
stretch. A checkpoint keeps the actions of the stretch under way and a checksum of its observations and rewards. A
resumed run resets with the same seed, plays these actions and compares the checksums.
"""

import struct
import zlib
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, SupportsFloat, runtime_checkable

import gymnasium as gym
import numpy as np

from agent.common.seeds import EpisodeSeeds
from envs.kinds import Action, Env, Info, Observation, Wrapper
from envs.shared_env import call_guarded

_pack_outcome = struct.Struct("d??").pack  # a reward, and the two ways to end


class Stretch(NamedTuple):
    """The position of one copy: what has to be replayed. A stretch that has ended and has no actions has not begun."""

    number: int
    ended: bool  # its newest episode has ended: the next step only resets
    checksum: int  # of its observations, rewards and endings
    actions: np.ndarray  # counted from 0


class Repeatable(Wrapper):
    """One copy of an environment, which can return to an earlier position.

    Before `begin_episodes` is called it changes nothing.

    Args:
        env: the copy, with all its other wrappers.
        shortest: the least number of steps of a stretch, rounded up to whole episodes; 0: each episode is a stretch.
    """

    def __init__(self, env: Env, shortest: int = 0) -> None:
        super().__init__(env)
        assert isinstance(env.action_space, gym.spaces.Discrete)
        self._space, self._code = env.action_space, action_code(int(env.action_space.n))
        self._first, self._shortest = int(env.action_space.start), shortest
        self._seeds: EpisodeSeeds | None = None
        self._set_stretch(0)

    def begin_episodes(self, seed: int, copy: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of copy number `copy` of a run with this seed."""
        self._seeds = EpisodeSeeds(seed, copy)
        self._set_stretch(number)

    def _set_stretch(self, number: int) -> None:
        """Sets the position to before the reset that begins stretch `number`."""
        self._number, self._ended, self._checksum, self._actions = number, True, 0, array(self._code)
        self._waiting = False  # the next step only resets: a worker process does not know that the episode has ended

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode; the first of a stretch has the stretch's seed."""
        self._waiting = False
        if self._seeds is None:
            return self.env.reset(seed=seed, options=options)
        if not self._ended:  # a reset in the middle of an episode
            self._set_stretch(self._number + 1)
        if not self._actions:
            seed = self._seeds(self._number)
        observation, info = self.env.reset(seed=seed, options=options)
        self._checksum, self._ended = checksum(observation, self._checksum), False
        return observation, info

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Steps, and records the action and a checksum of the result."""
        if self._waiting:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        result = observation, reward, terminated, truncated, _ = self.env.step(action)
        if self._seeds is not None:
            self._actions.append(int(action) - self._first)
            self._checksum = _with_outcome(checksum(observation, self._checksum), reward, terminated, truncated)
            try:
                self._ended = bool(terminated or truncated)
            except Exception:  # they are no booleans: `Guarded` reports it
                return result
            if self._ended and len(self._actions) >= self._shortest:
                self._set_stretch(self._number + 1)
        return result

    def is_between_episodes(self) -> bool:
        """Whether no stretch is under way: the next one begins with a seeded reset, whatever happens before it."""
        return self._ended and not self._actions

    def call_aside(self, env_id: str, name: str, *arguments: object) -> tuple[bool, object]:
        """Calls a method of the environment without recording it, see envs.shared_env."""
        return call_guarded(self.env, env_id, name, *arguments)

    def stretch(self) -> Stretch:
        """The position now."""
        return Stretch(self._number, self._ended, self._checksum, np.array(self._actions, dtype=self._code))

    def return_to(self, target: Stretch) -> bool:
        """Replays a stretch; returns whether it reached its position. If not, the next step begins a new stretch."""
        self._set_stretch(target.number)
        if len(target.actions) or not target.ended:
            with suppress(Exception):  # an environment may refuse these actions now
                self._play(target.actions)
        current = self.stretch()
        succeeded = current[:3] == target[:3] and len(current.actions) == len(target.actions)
        if not succeeded:
            self._set_stretch(target.number + 1)
        self._waiting = self._ended
        return succeeded

    def _play(self, actions: np.ndarray) -> None:
        number = self._number
        self.reset()
        for action in actions.tolist():
            if self._ended and self._number == number:
                self.reset()
            if self._number != number:
                return  # before, it ended later
            self.step(self._space.dtype.type(action + self._first))


def action_code(actions: int) -> str:
    """The type code of the smallest integers that hold this many actions, for `array` and NumPy."""
    return "B" if actions <= 2**8 else "H" if actions <= 2**16 else "i"


def checksum(observation: object, initial: int = 0) -> int:
    """A checksum of an observation of any kind, continued from another checksum; `initial` if it cannot be read."""
    try:
        if isinstance(observation, dict):
            observation = tuple(observation.values())
        if isinstance(observation, tuple):
            for part in observation:
                initial = checksum(part, initial)
            return initial
        if isinstance(observation, str):
            return zlib.crc32(observation.encode(), initial)
        values = np.ascontiguousarray(observation)
        return initial if values.dtype.hasobject else zlib.crc32(values.data, initial)
    except Exception:  # it breaks a rule, which `Guarded` reports
        return initial


def _with_outcome(initial: int, reward: object, terminated: object, truncated: object) -> int:
    try:
        return zlib.crc32(_pack_outcome(reward, terminated, truncated), initial)
    except Exception:  # not numbers: `Guarded` reports it
        return checksum((reward, terminated, truncated), initial)


# ---- many copies


class ActionLog:
    """The newest actions of copies that are stepped side by side.

    Args:
        copies: number of copies.
        actions: number of actions that an environment has.
    """

    def __init__(self, copies: int, actions: int) -> None:
        self._rows, self._count = np.zeros((1024, copies), dtype=action_code(actions)), 0

    def add(self, actions: np.ndarray, keep: int) -> None:
        """Appends a row [E], and keeps at least the `keep` rows before it."""
        if self._count == len(self._rows):
            recent = self._rows[self._count - keep :].copy()
            if 2 * keep > len(self._rows):
                self._rows = np.concatenate([self._rows, self._rows])
            self._rows[:keep], self._count = recent, keep
        self._rows[self._count] = actions
        self._count += 1

    def last(self, copy: int, count: int) -> np.ndarray:
        """The newest `count` actions of a copy."""
        return self._rows[self._count - count : self._count, copy].copy()


@runtime_checkable
class RepeatableEnvs(Protocol):
    """A vector class whose copies can return to an earlier position."""

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of every copy."""

    def stretches(self) -> list[Stretch]:
        """The position of each copy."""

    def return_to(self, stretches: Sequence[Stretch]) -> list[bool]:
        """Replays the stretches; a copy that does not reach its position begins a new episode at the next step."""


class RepeatableCopies:
    """Implements `RepeatableEnvs` for a vector class whose copies are Repeatable."""

    num_envs: int

    def call_each(self, name: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        """Calls a method of every copy, each with its own arguments, and returns the results."""
        raise NotImplementedError

    def call_one(self, copy: int, name: str, *arguments: object) -> object:
        """Calls a method of one copy, and returns its result."""
        raise NotImplementedError

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """See RepeatableEnvs."""
        self.call_each("begin_episodes", [(seed, copy, number) for copy in range(self.num_envs)])

    def stretches(self) -> list[Stretch]:
        """See RepeatableEnvs."""
        return self.call_each("stretch", [()] * self.num_envs)

    def return_to(self, stretches: Sequence[Stretch]) -> list[bool]:
        """See RepeatableEnvs."""
        return self.call_each("return_to", [(stretch,) for stretch in stretches])
