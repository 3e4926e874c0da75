"""Ring replay, time-major: one row per vector step, written once; n-step returns are gathered when sampling.

Row t of environment e holds s_t, a_t, r_{t+1} and how that step ended. The next observation is the row below it, so
nothing is stored twice. This fits Gymnasium's NEXT_STEP autoreset: the row after an ending holds the true final
observation, its action is ignored by the environment, and it is never sampled as a start.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import as_array, integer, take, take_round, upload, write
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator, uniform
from agent.compute.compiled import Compiled
from agent.replay.batch import Batch as Batch  # from here as well, for those who sample
from agent.replay.frames import Frames

# Columns of the packed scalars of a row.
ACTION, REWARD, TERMINATED, STOP = range(4)
#: Of a draw that is brought below a count by its remainder: uniform but for one part in 2⁶² / count.
WIDE = 2**62


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

    Every completed transition is a start until its row is overwritten, the last states of an episode and the newest
    row included: a window of n steps ends early at an ending, at a cut and at the newest row, and bootstraps there
    with γ^k. Reset rows are no starts, and count towards the capacity.

    Starts are kept as a queue in time order, so that a uniform draw is one index computation on the device: exact,
    without rejection.

    Args:
        capacity: transitions to hold.
        num_envs: E, environments that are written side by side.
        observation: what is stored; a number n stands for float32 vectors of that length.
        n_step: n.
        gamma: γ.
        device: where the rows lie and are sampled.
        batch_device: where batches are handed out (None: there too).
        tensors: whether it computes by torch, as on any other device, or by NumPy (None: on the CPU by NumPy).
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
        batch_device: torch.device | str | None = None,
        tensors: bool | None = None,
    ) -> None:
        spec = as_spec(observation)
        self.rows, self.num_envs = ring_rows(capacity, num_envs, spec.stack), num_envs
        self.n_step, self.gamma, self.device = n_step, gamma, torch.device(device)
        self._batch_device = self.device if batch_device is None else torch.device(batch_device)
        self.by_numpy = self.device.type == "cpu" and not tensors
        view = as_array if self.by_numpy else Tensor.detach
        self._size = size = self.rows * num_envs
        #: Of the two observations of a transition, as they are handed out.
        self.transition_bytes = 2 * spec.size * np.dtype(spec.dtype).itemsize
        self._frames = Frames(spec, self.rows, num_envs, self.device, view)
        self.scalars = torch.zeros((size, 4), device=self.device)
        self.starts = torch.zeros(size, dtype=torch.int64, device=self.device)
        powers = gamma ** torch.arange(n_step + 1, dtype=torch.float64)  # γ^0 … γ^n
        self._powers = view(powers.float().to(self.device))
        self._scalars, self._starts = view(self.scalars), view(self.starts)
        self.head = 0  # the row that holds the current observation and waits for its action
        self.first = self.count = 0  # queue of starts: position of the oldest, and how many there are
        self._queue = torch.zeros(2, dtype=torch.int64, device=self.device)  # both, for draws that do not ask the host
        self._fresh = np.ones(num_envs, dtype=bool)  # environments whose row `head` may become a start
        self._starts_of_row = np.zeros(self.rows, dtype=np.int64)
        self._previous_stop = np.ones(num_envs, dtype=np.float32)
        self._row = np.ones((num_envs, 4), dtype=np.float32)  # what `add` writes

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
        """Completes the waiting row with what `envs.step(action)` gave; each [E], next_observation [E, *shape].

        Where a life was lost, the return ends as by termination, and the game goes on: the next row is a start.
        """
        ended = (terminated | truncated) & self._fresh
        stop = ended
        if life_lost is not None:
            terminated, stop = terminated | life_lost, ended | (life_lost & self._fresh)
        row = self._row  # its STOP is 1, as the newest row's: no window reads past it, until the next one is complete
        row[:, ACTION], row[:, REWARD], row[:, TERMINATED] = action, reward, terminated
        self._put(self._scalars[:, STOP], (self.head - 1) % self.rows, self._previous_stop)
        self._put(self._scalars, self.head, row)
        self._previous_stop[:] = stop
        self._push_starts()
        self._advance()
        self._frames.put(self.head, next_observation, ~self._fresh)
        self._fresh = ~ended

    def cut(self, copies: np.ndarray) -> None:
        """Ends the episodes of some environments, bool [E], as truncations with their newest transition.

        What they show now is the last that is known of these episodes; their next row only resets.
        """
        self._previous_stop[copies], self._fresh[copies] = True, False

    def compile(self, size: int, strict: bool) -> None:
        """Has torch.compile make one function of all that gathers batches of `size`; for a replay on a device.

        `strict` and what it raises: see Compiled.
        """
        if not isinstance(self._gather, Compiled):
            self._gather = Compiled(self._gather, strict, size)  # type: ignore[method-assign, assignment]

    def sample(self, size: int, generator: Generator | None = None, arrays: bool = False) -> Batch:
        """Draws `size` transitions uniformly, with replacement, from all starts.

        Args:
            size: B.
            generator: draws them; on a device one of torch's.
            arrays: whether a replay by NumPy hands out arrays.

        Raises:
            ValueError: where there is no start yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        return Batch(*self._handed(self._gather(self._draw(size, generator)), arrays))

    def _handed(self, fields: Iterable[Any], arrays: bool) -> Iterable[Any]:
        """What was gathered, as it is handed out."""
        if self._batch_device != self.device:
            return [upload(as_array(field), self._batch_device) for field in fields]
        return map(torch.from_numpy, fields) if self.by_numpy and not arrays else fields

    def _draw(self, size: int, generator: Any) -> Any:
        """Flat rows [size] of starts. On a device its own counters say how many there are: nothing of the host's."""
        if self.by_numpy:  # a product of numbers below 1 with a count is below the count, rounded or not
            rank = uniform(size, generator)
            rank *= self.count
            return take_round(self._starts, integer(rank) + self.first)
        first, count = self._queue
        wide = WIDE if self.device.type != "mps" else 2**31 - 1  # Apple's GPU draws no more bits
        rank = torch.randint(wide, (size,), generator=generator, device=self.device) % count
        return take_round(self._starts, rank + first)

    def sample_many(
        self, count: int, size: int, generator: Generator | None = None, arrays: bool = False
    ) -> list[Batch]:
        """`count` independent batches of `size`, gathered at once, which costs little more than one; see `sample`."""
        if count == 1:
            return [self.sample(size, generator, arrays)]
        drawn = self.sample(count * size, generator, arrays)
        return [Batch(*(field[i : i + size] for field in drawn)) for i in range(0, count * size, size)]

    def gather(self, start: Any) -> Batch:
        """The n-step transitions that begin at the flat rows `start` [B], int64: a tensor, or on the CPU an array."""
        return self._gather(as_array(start) if self.by_numpy else start).tensors()

    def _gather(self, start: Any) -> Batch:
        """The same by what the replay computes by."""
        at = start
        row = first = take(self._scalars, start)  # [B, 4]
        reward, terminated = row[:, REWARD], row[:, TERMINATED]
        if self.n_step == 1:
            discount, after = self.gamma * (1.0 - terminated), start + self.num_envs
        else:
            going, steps = 1.0 - row[:, STOP], 1.0  # whether the next step belongs to the window; k
            for i in range(1, self.n_step):
                at = at + self.num_envs
                row = take_round(self._scalars, at)
                reward = reward + going * row[:, REWARD] * self.gamma**i
                terminated = terminated + going * row[:, TERMINATED]
                steps, going = steps + going, going * (1.0 - row[:, STOP])
            steps = integer(steps)
            discount, after = take(self._powers, steps) * (1.0 - terminated), start + steps * self.num_envs
        following = self._frames.take(after)
        return Batch(self._frames.take(start), integer(first[:, ACTION]), reward, discount, following)

    def not_finite(self) -> str:
        """What of what is stored is no finite number: rewards, observations, or nothing, ""."""
        stored = {"rewards": self.scalars[:, REWARD], "observations": self._frames.observations}
        floats = {name: values for name, values in stored.items() if values.is_floating_point()}
        return " and ".join(name for name, values in floats.items() if not torch.isfinite(values).all())

    def _push_starts(self) -> None:
        """Appends the waiting row's starts to the queue: all environments but those that are being reset."""
        flat = self._fresh.nonzero()[0] + self.head * self.num_envs
        count = self._starts_of_row[self.head] = len(flat)
        begin = (self.first + self.count) % self._size
        fits = min(count, self._size - begin)
        write(self._starts, slice(begin, begin + fits), flat[:fits])
        if fits < count:
            write(self._starts, slice(0, count - fits), flat[fits:])
        self.count += count

    def _advance(self) -> None:
        """Goes on to the next row and takes the starts that need what it overwrites off the queue: its oldest."""
        self.head = (self.head + 1) % self.rows
        row = (self.head + self._frames.stack - 1) % self.rows
        dropped = int(self._starts_of_row[row])
        self._starts_of_row[row] = 0
        self.first = (self.first + dropped) % self._size
        self.count -= dropped
        self._tell_device()

    def _tell_device(self) -> None:
        """Brings the device's counters up to date: two launches, and nothing to wait for."""
        if not self.by_numpy:
            self._queue[0].fill_(self.first)
            self._queue[1].fill_(self.count)

    def _put(self, target: Any, row: int, values: np.ndarray) -> None:
        write(target, slice(row * self.num_envs, (row + 1) * self.num_envs), values)

    def state(self) -> dict[str, Any]:
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

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: where it comes from a replay of another size.
        """
        if len(state["fresh"]) != self.num_envs:
            raise ValueError(f"replay of {len(state['fresh'])} environments, expected {self.num_envs}")
        self._frames.load_state(state)
        for name in ("scalars", "starts"):
            target, source = getattr(self, name), state[name]
            if target.shape != source.shape:
                raise ValueError(f"replay {name} are {tuple(source.shape)}, expected {tuple(target.shape)}")
            target.copy_(source)
        self.head, self.first, self.count = state["head"], state["first"], state["count"]
        self._tell_device()
        self._fresh = np.array(state["fresh"], dtype=bool)
        self._starts_of_row = np.array(state["starts_of_row"], dtype=np.int64)
        self._previous_stop = np.array(state["previous_stop"], dtype=np.float32)
