"""Ring replay, time-major: one row per vector step, written once; sampling computes n-step returns.

Row t of environment e holds s_t, a_t, r_{t+1} and how that step ended. The next observation is the row below it, so
nothing is stored twice. This fits Gymnasium's NEXT_STEP autoreset: the row after an ending holds the true final
observation, its action is ignored by the environment, and it is never sampled as a start.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from agent.common.arrays import Array, Place, all_finite, restore_array, take_round, write
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator
from agent.replay.batch import Batch, Sample
from agent.replay.frames import Frames
from agent.replay.n_step import ACTION, REWARD, STOP, TERMINATED, NStep

#: Several batches of together at most so many bytes are gathered at once, which costs little more than one of them.
AT_ONCE = 64 * 2**20

#: Turns a function that gathers batches into a faster one.
Compile = Callable[[Callable[..., object]], Callable[..., Any]]


def as_it_is(function: Callable[..., object]) -> Callable[..., object]:
    """The function itself: nothing is compiled."""
    return function


def required_bytes(capacity: int, num_envs: int, observation: ObservationSpec | int) -> int:
    """Bytes that a Replay of `capacity` transitions takes: observations, packed scalars and the list of starts."""
    spec = as_spec(observation)
    rows = ring_rows(capacity, num_envs, spec.stack)
    return rows * num_envs * (spec.stored_bytes + 4 * 4 + 8) + rows * 8


def ring_rows(capacity: int, num_envs: int, stack: int) -> int:
    """Rows of the ring: whole vector steps, the observation after the newest, and the oldest stack's earlier frames."""
    return -(-capacity // num_envs) + stack


class Replay:
    """The last `capacity` transitions (rounded up to whole vector steps) of `num_envs` environments.

    A start is a row at which a sampled transition may begin. Every completed transition is one until its row is
    overwritten, also the last ones of an episode and the newest: a window of n steps ends early at an ending, at a cut
    and at the newest row, and bootstraps there with γ^k. Reset rows are no starts, but count towards the capacity.

    The starts form a queue in the order of time, so that a uniform draw computes one index: exact, without rejection.

    Args:
        capacity: transitions to hold.
        num_envs: E, environments that are written side by side.
        observation: form of the observations; a number n stands for float32 vectors of that length.
        n_step: n.
        gamma: γ.
        device: where the rows lie and are sampled.
        tensors: True for tensors on the CPU too (None: NumPy's arrays there).
        compiled: compiles the function that gathers batches.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation: ObservationSpec | int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        device: torch.device | str = "cpu",
        tensors: bool | None = None,
        compiled: Compile = as_it_is,
    ) -> None:
        spec = as_spec(observation)
        self.rows, self.num_envs = ring_rows(capacity, num_envs, spec.stack), num_envs
        self.place = Place(device, tensors)
        self._size = size = self.rows * num_envs
        self.transition_bytes = 2 * spec.size * np.dtype(spec.dtype).itemsize  # of its two observations
        self._frames = Frames(spec, self.rows, num_envs, self.place)
        self.scalars, self.starts = self.place.zeros((size, 4)), self.place.zeros(size, "int64")
        self._n_step = NStep(self._frames, self.scalars, num_envs, n_step, gamma, self.place)
        self._gather = compiled(self._n_step.transitions)
        self.head = 0  # the row that holds the current observation and waits for its action
        self.first = self.count = 0  # queue of starts: position of the oldest, and how many there are
        self._queue = self.place.zeros(2, "int64")  # a copy of both on the device, where draws read them
        self._fresh = np.ones(num_envs, dtype=bool)  # environments whose row `head` may become a start
        self._starts_of_row = np.zeros(self.rows, dtype=np.int64)
        self._previous_stop = np.ones(num_envs, dtype=np.float32)  # the true STOP of the newest complete row
        self._row = np.ones((num_envs, 4), dtype=np.float32)  # the row that `add` writes

    def __len__(self) -> int:
        """Transitions that can be sampled as starts."""
        return self.count

    def begin(self, observation: np.ndarray) -> None:
        """Writes the first observations [E, *shape], of a reset of all environments."""
        self._frames.put(self.head, observation, np.ones(self.num_envs, dtype=bool))
        self._fresh[:] = True

    def add(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        next_observation: np.ndarray,
        life_lost: np.ndarray | None = None,
    ) -> None:
        """Completes the waiting row with the result of `envs.step(action)`; each [E], next_observation [E, *shape].

        Where a life was lost, the return ends as at a termination, but the episode goes on: the next row is a start.
        """
        ended = (terminated | truncated) & self._fresh
        stop = ended
        if life_lost is not None:
            terminated, stop = terminated | life_lost, ended | (life_lost & self._fresh)
        # STOP is 1 in the newest row, so that no window reads past it. The next call writes the true value.
        row = self._row
        row[:, ACTION], row[:, REWARD], row[:, TERMINATED] = action, reward, terminated
        self._put(self.scalars[:, STOP], (self.head - 1) % self.rows, self._previous_stop)
        self._put(self.scalars, self.head, row)
        self._previous_stop[:] = stop
        self._push_starts()
        self._advance()
        self._frames.put(self.head, next_observation, ~self._fresh)
        self._fresh = ~ended

    def waiting(self) -> np.ndarray:
        """Which environments [E] begin a transition with the next `add`; the others only reset."""
        return self._fresh.copy()

    def cut(self, copies: np.ndarray) -> None:
        """Ends the episodes of some copies of the environment, bool [E], as truncations with their newest transition.

        Their waiting observation becomes the final one of the episode; their next row only resets.
        """
        self._previous_stop[copies], self._fresh[copies] = True, False

    def sample(self, size: int, generator: Generator | None = None) -> Batch[Array]:
        """Draws `size` transitions uniformly, with replacement, from all starts.

        Args:
            size: B.
            generator: draws them, one that `place.generator` made (None: torch's default generator).

        Raises:
            ValueError: where there is no start yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        return self.at_ranks(self.place.below(self._queue[1], size, generator))

    def sample_many(self, count: int, size: int, generator: Generator | None = None) -> list[Batch[Array]]:
        """`count` independent batches of `size`, gathered in one piece; see `sample`."""
        if count == 1:
            return [self.sample(size, generator)]
        drawn = self.sample(count * size, generator)
        return [Batch(*(field[i : i + size] for field in drawn)) for i in range(0, count * size, size)]

    def sample_to_learn(self, size: int, beta: Array | float, generator: Generator | None = None) -> Sample:
        """Draws a batch to learn from; β is the exponent of the weights, where there are priorities."""
        return Sample(self.sample(size, generator))

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """`count` samples to learn from, one after the other; see `sample_to_learn`."""
        # On a device one at a time: functions are compiled for batches of one size.
        at_once = self.place.pick(max(AT_ONCE // (size * self.transition_bytes), 1), 1)
        while count > 0:
            yield from map(Sample, self.sample_many(min(count, at_once), size, generator))
            count -= at_once

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Takes the new priorities [B] of the rows of a sample; uniform draws need none, and this does nothing."""

    def gather(self, start: Array) -> Batch[Array]:
        """The n-step transitions that begin at the flat rows `start` [B], int64."""
        return Batch(*self._gather(self.place.put(start)))

    def at_ranks(self, rank: Array) -> Batch[Array]:
        """The transitions at the starts number `rank` [B] of the queue, counted from the oldest."""
        return Batch(*self._gather(take_round(self.starts, rank + self._queue[0])))

    def priority_metrics(self) -> dict[str, float]:
        """What is logged of priorities: nothing, where there are none."""
        return {}

    def not_finite(self) -> str:
        """Names the stored values that are not finite: "rewards", "observations", both, or "" for neither."""
        stored = {"rewards": self.scalars[:, REWARD], "observations": self._frames.numbers()}
        return " and ".join(name for name, values in stored.items() if not all_finite(values))

    def _push_starts(self) -> None:
        """Appends the waiting row's starts to the queue: all environments but those that are being reset."""
        flat = self._fresh.nonzero()[0] + self.head * self.num_envs
        count = self._starts_of_row[self.head] = len(flat)
        begin = (self.first + self.count) % self._size
        fits = min(count, self._size - begin)
        write(self.starts, slice(begin, begin + fits), flat[:fits])
        if fits < count:
            write(self.starts, slice(0, count - fits), flat[fits:])
        self.count += count

    def _advance(self) -> None:
        """Goes on to the next row; the oldest starts, which need the row to be overwritten, leave the queue."""
        self.head = (self.head + 1) % self.rows
        row = (self.head + self._frames.stack - 1) % self.rows
        dropped = int(self._starts_of_row[row])
        self._starts_of_row[row] = 0
        self.first = (self.first + dropped) % self._size
        self.count -= dropped
        self._update_queue()

    def _update_queue(self) -> None:
        """Copies the counters to where draws read them: on a device that takes two launches, and nobody waits."""
        self._queue[0] = self.first
        self._queue[1] = self.count

    def _put(self, target: Array, row: int, values: np.ndarray) -> None:
        write(target, slice(row * self.num_envs, (row + 1) * self.num_envs), values)

    def state(self) -> dict[str, object]:
        """Everything that a checkpoint has to hold: tensors, arrays and counters."""
        return {
            **self._frames.state(),
            "scalars": self.scalars,
            "starts": self.starts,
            "head": self.head,
            "first": self.first,
            "count": self.count,
            "fresh": self._fresh,
            "starts_of_row": self._starts_of_row,
            "previous_stop": self._previous_stop,
        }

    def load_state(self, state: State) -> None:
        """Goes on from `state`.

        Raises:
            ValueError: where it comes from a replay of another size.
        """
        if len(state["fresh"]) != self.num_envs:
            raise ValueError(f"replay of {len(state['fresh'])} environments, expected {self.num_envs}")
        self._frames.load_state(state)
        restore_array(self.scalars, state["scalars"], "scalars")
        restore_array(self.starts, state["starts"], "starts")
        self.head, self.first, self.count = state["head"], state["first"], state["count"]
        self._update_queue()
        self._fresh = np.array(state["fresh"], dtype=bool)
        self._starts_of_row = np.array(state["starts_of_row"], dtype=np.int64)
        self._previous_stop = np.array(state["previous_stop"], dtype=np.float32)
