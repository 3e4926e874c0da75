"""How a resumed run comes back into the middle of episodes: environments cannot be saved, but played again.

A `stretch` is all that one copy of an environment plays from one seeded reset to the next: an episode, or several where
seeding is dear. Its seed depends on (seed of the run, number of the copy, number of the stretch) alone. A checkpoint
keeps the actions of the stretch that is under way and a checksum of all that it has shown; a resumed run resets with
the same seed, plays these actions and compares.
"""

import struct
import zlib
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from agent.common.seeds import EpisodeSeeds
from envs.aside import answer
from envs.kinds import Env, Info, Wrapper

_PAID = struct.Struct("d??").pack  # a reward, and the two ways to end


class Stretch(NamedTuple):
    """Where one copy stands: all that has to be played again. At its end and without actions it is yet to begin."""

    number: int
    ended: bool  # its newest episode: the next step only resets
    checksum: int  # of what it has shown and paid
    actions: np.ndarray  # counted from 0


class Repeatable(Wrapper):
    """One copy of an environment, which can be brought back to where it was.

    Until `begin_episodes` it passes everything on.

    Args:
        env: the copy, with all its other wrappers.
        shortest: steps that a stretch has at least, in whole episodes; 0: every episode is one.
    """

    def __init__(self, env: Env, shortest: int = 0) -> None:
        super().__init__(env)
        assert isinstance(env.action_space, gym.spaces.Discrete)
        self._space, self._code = env.action_space, action_code(int(env.action_space.n))
        self._first, self._shortest = int(env.action_space.start), shortest
        self._seeds: EpisodeSeeds | None = None
        self._before(0)

    def begin_episodes(self, seed: int, copy: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of copy number `copy` of a run with this seed."""
        self._seeds = EpisodeSeeds(seed, copy)
        self._before(number)

    def _before(self, number: int) -> None:
        """Stands before the reset that begins stretch `number`."""
        self._number, self._ended, self._checksum, self._actions = number, True, 0, array(self._code)
        self._waiting = False  # for a step that only resets: a worker process does not know that the episode has ended

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Any, Info]:
        """Begins an episode; where it begins a stretch, with the seed of that."""
        self._waiting = False
        if self._seeds is None:
            return self.env.reset(seed=seed, options=options)
        if not self._ended:  # somebody resets in the middle of an episode
            self._before(self._number + 1)
        if not self._actions:
            seed = self._seeds(self._number)
        observation, info = self.env.reset(seed=seed, options=options)
        self._checksum, self._ended = checksum(observation, self._checksum), False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Steps, and takes down what was done, shown and paid."""
        if self._waiting:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        result = observation, reward, terminated, truncated, _ = self.env.step(action)
        if self._seeds is not None:
            self._actions.append(int(action) - self._first)
            self._checksum = _with_ending(checksum(observation, self._checksum), reward, terminated, truncated)
            try:
                self._ended = bool(terminated or truncated)
            except Exception:  # they are no truth values: others say so
                return result
            if self._ended and len(self._actions) >= self._shortest:
                self._before(self._number + 1)
        return result

    def rests(self) -> bool:
        """Whether it stands between two stretches: whatever is done to the environment now, the next begins anew."""
        return self._ended and not self._actions

    def play_aside(self, env_id: str, name: str, *arguments: object) -> tuple[bool, Any]:
        """Calls a method of the environment without taking it down, see envs.aside."""
        return answer(self.env, env_id, name, *arguments)

    def stretch(self) -> Stretch:
        """Where it stands."""
        return Stretch(self._number, self._ended, self._checksum, np.array(self._actions, dtype=self._code))

    def come_back(self, to: Stretch) -> bool:
        """Goes to where it stood, and says whether it came there; if not, the next step begins a new stretch."""
        self._before(to.number)
        if len(to.actions) or not to.ended:
            with suppress(Exception):  # of an environment that does not take these actions now
                self._play(to.actions)
        now = self.stretch()
        came = now[:3] == to[:3] and len(now.actions) == len(to.actions)
        if not came:
            self._before(to.number + 1)
        self._waiting = self._ended
        return came

    def _play(self, actions: np.ndarray) -> None:
        number = self._number
        self.reset()
        for action in actions.tolist():
            if self._ended and self._number == number:
                self.reset()
            if self._number != number:
                return  # it ended later before
            self.step(self._space.dtype.type(action + self._first))


def action_code(actions: int) -> str:
    """The smallest of the kinds of numbers, by their letters in `array` and NumPy, that hold so many actions."""
    return "B" if actions <= 2**8 else "H" if actions <= 2**16 else "i"


def checksum(shown: object, before: int = 0) -> int:
    """A checksum of an observation of any kind, after another one; `before` where it cannot be read."""
    try:
        if isinstance(shown, dict):
            shown = tuple(shown.values())
        if isinstance(shown, tuple):
            for part in shown:
                before = checksum(part, before)
            return before
        if isinstance(shown, str):
            return zlib.crc32(shown.encode(), before)
        values = np.ascontiguousarray(shown)
        return before if values.dtype.hasobject else zlib.crc32(values.data, before)
    except Exception:  # it breaks a rule, and others will say which
        return before


def _with_ending(before: int, reward: object, terminated: object, truncated: object) -> int:
    try:
        return zlib.crc32(_PAID(reward, terminated, truncated), before)
    except Exception:  # no number: others will say so
        return checksum((reward, terminated, truncated), before)


# ---- many copies


class ActionLog:
    """The newest actions of copies that are stepped side by side.

    Args:
        copies: how many there are.
        actions: how many an environment has.
    """

    def __init__(self, copies: int, actions: int) -> None:
        self._rows, self._count = np.zeros((1024, copies), dtype=action_code(actions)), 0

    def add(self, actions: np.ndarray, keep: int) -> None:
        """Appends a row [E]; at least the `keep` rows before it stay."""
        if self._count == len(self._rows):
            kept = self._rows[self._count - keep :].copy()
            if 2 * keep > len(self._rows):
                self._rows = np.concatenate([self._rows, self._rows])
            self._rows[:keep], self._count = kept, keep
        self._rows[self._count] = actions
        self._count += 1

    def last(self, copy: int, count: int) -> np.ndarray:
        """The newest `count` actions of a copy."""
        return self._rows[self._count - count : self._count, copy].copy()


@runtime_checkable
class Repeats(Protocol):
    """What a vector class offers whose copies can be brought back to where they were."""

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of every copy."""

    def stretches(self) -> list[Stretch]:
        """Where each copy stands."""

    def come_back(self, stretches: Sequence[Stretch]) -> list[bool]:
        """Goes to where the copies stood; one that does not come there begins a new episode at the next step."""


class RepeatableCopies:
    """Makes a vector class of Repeatables one that `Repeats`."""

    num_envs: int

    def call_each(self, name: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        """What a method of every copy gives for arguments of its own."""
        raise NotImplementedError

    def call_one(self, copy: int, name: str, *arguments: object) -> object:
        """What a method of one copy gives."""
        raise NotImplementedError

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """See Repeats."""
        self.call_each("begin_episodes", [(seed, copy, number) for copy in range(self.num_envs)])

    def stretches(self) -> list[Stretch]:
        """See Repeats."""
        return self.call_each("stretch", [()] * self.num_envs)

    def come_back(self, stretches: Sequence[Stretch]) -> list[bool]:
        """See Repeats."""
        return self.call_each("come_back", [(stretch,) for stretch in stretches])
