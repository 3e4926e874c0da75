"""A time-major ring replay: each row holds one vector step, and sampling computes n-step returns.

Row t of environment e holds s_t, a_t, r_{t+1} and how that step ended. The next observation is in the next row, so
nothing is stored twice. This fits Gymnasium's NEXT_STEP autoreset: the row after an ending holds the true final
observation, the environment ignores its action, and it is never sampled as a start.
"""

from collections.abc import Iterator

import numpy as np
import torch

from agent.common.arrays import Array, Place, all_finite, largest, restore_array, take_round, write
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator
from agent.common.state import State
from agent.replay.batch import Batch, Sample
from agent.replay.frames import Frames
from agent.replay.memory import ring_rows
from agent.replay.n_step import ACTION, REWARD, STOP, TERMINATED, NStep
from agent.replay.options import Compile, uncompiled

#: Several batches, of at most this many bytes together, are gathered at once; this costs little more than one batch.
AT_ONCE = 64 * 2**20


class Replay:
    """The last `capacity` transitions (rounded up to whole vector steps) of `num_envs` environments.

    A start is a row at which a sampled transition may begin. Every completed transition is a start until its row is
    overwritten, including the last ones of an episode and the newest: a window of n steps ends early at an ending, at a
    cut and at the newest row, and bootstraps there with γ^k. Reset rows are not starts, but count towards the capacity.

    The starts form a queue in the order of time, so that a uniform draw is one index: exact, without rejection.

    Args:
        capacity: the number of transitions to hold.
        num_envs: E, the number of environments in a vector step.
        observation: the form of the observations; a number n stands for float32 vectors of that length.
        n_step: n.
        gamma: γ.
        device: the device that holds and samples the rows.
        tensors: True for tensors on the CPU as well (None: NumPy arrays there).
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
        compiled: Compile = uncompiled,
    ) -> None:
        spec = as_spec(observation)
        self.rows, self.num_envs = ring_rows(capacity, num_envs, spec.stack), num_envs
        self.place = Place(device, tensors)
        self._size = size = self.rows * num_envs
        self.observation_bytes = 2 * spec.size * np.dtype(spec.dtype).itemsize  # of the two of a transition
        self._frames = Frames(spec, self.rows, num_envs, self.place)
        self.scalars, self.starts = self.place.zeros((size, 4)), self.place.zeros(size, "int64")
        self._n_step = NStep(self._frames, self.scalars, num_envs, n_step, gamma, self.place)
        self._gather = compiled(self._n_step.transitions)
        self.head = 0  # the row that holds the current observation and waits for its action
        self.first = self.count = 0  # the queue of starts: position of the oldest, and length
        self._queue = self.place.zeros(2, "int64")  # a copy of first and count on the device, for draws
        self._fresh = np.ones(num_envs, dtype=bool)  # the environments whose row `head` may become a start
        self._starts_of_row = np.zeros(self.rows, dtype=np.int64)
        self._previous_stop = np.ones(num_envs, dtype=np.float32)  # the true STOP of the newest complete row
        self._row = np.ones((num_envs, 4), dtype=np.float32)  # the row that `add` writes

    def __len__(self) -> int:
        """The number of transitions that can be sampled."""
        return self.count

    def begin(self, observation: np.ndarray) -> None:
        """Writes the first observations [E, *shape], after a reset of all environments."""
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

        Where a life was lost, the return ends as at a termination, but the episode continues: the next row is a start.
        """
        ended = (terminated | truncated) & self._fresh
        stop = ended
        if life_lost is not None:
            terminated, stop = terminated | life_lost, ended | (life_lost & self._fresh)
        # STOP is 1 in the newest row, so that no window reads past it. The next call writes the actual value.
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
        """Which environments [E] begin a transition with the next `add`; the others will only reset."""
        return self._fresh.copy()

    def cut(self, copies: np.ndarray) -> None:
        """Truncates the episodes of some copies, bool [E], at their newest transition; their next row only resets."""
        self._previous_stop[copies], self._fresh[copies] = True, False

    def sample(self, size: int, generator: Generator | None = None) -> Batch[Array]:
        """Samples `size` transitions uniformly, with replacement.

        Args:
            size: B.
            generator: draws the transitions; from `place.generator` (None: torch's default generator).

        Raises:
            ValueError: if the replay holds no transition yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        return self.at_ranks(self.place.below(self._queue[1], size, generator))

    def sample_many(self, count: int, size: int, generator: Generator | None = None) -> list[Batch[Array]]:
        """`count` independent batches of `size` transitions, gathered together; see `sample`."""
        if count == 1:
            return [self.sample(size, generator)]
        drawn = self.sample(count * size, generator)
        return [Batch(*(field[i : i + size] for field in drawn)) for i in range(0, count * size, size)]

    def sample_to_learn(self, size: int, beta: Array | float, generator: Generator | None = None) -> Sample:
        """Samples a batch to learn from. A prioritised replay uses β, the exponent of the weights."""
        return Sample(self.sample(size, generator))

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """Yields `count` samples to learn from; see `sample_to_learn`."""
        # On a device one at a time: the functions are compiled for one batch size.
        at_once = self.place.pick(max(AT_ONCE // (size * self.observation_bytes), 1), 1)
        while count > 0:
            yield from map(Sample, self.sample_many(min(count, at_once), size, generator))
            count -= at_once

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Does nothing: uniform sampling has no priorities."""

    def gather(self, start: Array) -> Batch[Array]:
        """The n-step transitions that begin at the flat rows `start` [B], int64."""
        return Batch(*self._gather(self.place.put(start)))

    def at_ranks(self, rank: Array) -> Batch[Array]:
        """The transitions at positions `rank` [B] of the queue of starts; 0 is the oldest start."""
        return Batch(*self._gather(take_round(self.starts, rank + self._queue[0])))

    def priority_metrics(self) -> dict[str, float]:
        """No metrics: uniform sampling has no priorities."""
        return {}

    def not_finite(self) -> str:
        """Names the stored values that are not finite: "rewards", "observations", both, or "" for neither."""
        return " and ".join(name for name, values in self._given().items() if not all_finite(values))

    def largest(self) -> dict[str, float]:
        """The largest absolute value of the stored rewards and observations, which are finite."""
        return {name: largest(values) for name, values in self._given().items()}

    def _given(self) -> dict[str, Array]:
        """The numbers that come from the environment."""
        return {"rewards": self.scalars[:, REWARD], "observations": self._frames.numbers()}

    def _push_starts(self) -> None:
        """Appends the starts of the waiting row to the queue: all environments except those that reset."""
        flat = self._fresh.nonzero()[0] + self.head * self.num_envs
        count = self._starts_of_row[self.head] = len(flat)
        begin = (self.first + self.count) % self._size
        fits = min(count, self._size - begin)
        write(self.starts, slice(begin, begin + fits), flat[:fits])
        if fits < count:
            write(self.starts, slice(0, count - fits), flat[fits:])
        self.count += count

    def _advance(self) -> None:
        """Moves to the next row. The oldest starts, whose observations it will overwrite, leave the queue."""
        self.head = (self.head + 1) % self.rows
        row = (self.head + self._frames.stack - 1) % self.rows
        dropped = int(self._starts_of_row[row])
        self._starts_of_row[row] = 0
        self.first = (self.first + dropped) % self._size
        self.count -= dropped
        self._update_queue()

    def _update_queue(self) -> None:
        """Copies the counters to the device, where draws read them: two launches, without waiting."""
        self._queue[0] = self.first
        self._queue[1] = self.count

    def _put(self, target: Array, row: int, values: np.ndarray) -> None:
        write(target, slice(row * self.num_envs, (row + 1) * self.num_envs), values)

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds: tensors, arrays and counters."""
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
        """Restores `state`.

        Raises:
            ValueError: if the state comes from a replay of another size.
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
