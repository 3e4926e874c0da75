"""Prioritised replay: the probability of a transition is proportional to a power of its most recent error.

Schaul et al. 2016 (arXiv 1511.05952), the proportional variant: P(i) = p_i^α / Σ p_k^α (eq. 1). Deviation: the rows of
a batch are drawn independently. The paper draws one row from each of B equal parts of the sum (appendix B.2.1). Such a
batch is ordered by age, and a group of rows that shares a draw of noise would then contain rows of one age only.
"""

from collections.abc import Iterator
from typing import Unpack

import numpy as np

from agent.common.arrays import Array, as_array, double, finite_or, keep_largest, restore_array, single
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator
from agent.common.state import State
from agent.replay.batch import Batch, Sample
from agent.replay.memory import required_bytes, ring_rows
from agent.replay.options import Compile, ReplayOptions, uncompiled
from agent.replay.ring import Replay
from agent.replay.sum_tree import DeviceSumTree, SumTree, level_sizes

#: ε in p = |δ| + ε: transitions without an error are still drawn sometimes (§3.3).
LEAST = 1e-6


class PrioritisedReplay(Replay):
    """A Replay whose starts have priorities: `sample` draws uniformly, and `sample_to_learn` draws by priority.

    The stored priorities are p^α, in float64. Rows that must not be sampled have priority 0: the waiting row, reset
    rows and overwritten rows. A new start gets the largest priority so far, or 1 at first. A transition that occurs
    twice in one update of priorities gets the larger one.

    Args:
        capacity: see Replay.
        num_envs: E.
        observation: see Replay.
        exponent: α; 0 draws uniformly.
        compiled: see Replay.
        options: see Replay.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation: ObservationSpec | int,
        *,
        exponent: float,
        compiled: Compile = uncompiled,
        **options: Unpack[ReplayOptions],
    ) -> None:
        super().__init__(capacity, num_envs, observation, **options)
        self.exponent = exponent
        self._tree = self.place.pick(SumTree, DeviceSumTree)(self.rows * num_envs, self.place.device)
        #: The largest p^α ever stored, as an array of one element, so that no one waits for a device.
        self._largest = self.place.put(np.ones(1))
        self._beta = self.place.zeros((), "float64")  # a Python number would cause a new compilation with each change
        # Writes to the tree are not compiled: a compiled write would copy the whole tree.
        self._chosen, self._raised = compiled(self._at_shares), compiled(self._raise)

    def sample_to_learn(self, size: int, beta: Array | float, generator: Generator | None = None) -> Sample:
        """Samples `size` transitions with replacement, in proportion to their priorities.

        The weights are (N·P(i))^−β divided by the largest of the batch (§3.4), so that they only make a step smaller. N
        and the sum of the priorities cancel.

        Args:
            size: B.
            beta: β.
            generator: draws the transitions (None: torch's default generator).

        Raises:
            ValueError: if the replay holds no transition yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        fields, weight, rows = self._chosen(self.place.uniform(size, generator), beta)
        return Sample(Batch(*fields), weight, rows)

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """Yields `count` samples; each is drawn when it is requested, with the priorities at that time."""
        self._beta[...] = beta
        for _ in range(count):
            yield self.sample_to_learn(size, self._beta, generator)

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Stores the priorities [B], at least 0, of the rows of a sample. Call it before the next `add`.

        A priority that is not finite counts as the largest so far; the monitor will then stop the run.
        """
        assert rows is not None
        assert priority is not None
        self._tree.put(rows, self._raised(self.place.put(priority)))

    def prioritise(self, end: int, priority: np.ndarray) -> None:
        """Stores the first priorities [T, E] of the T newest rows, which end before row `end`; NaN stores nothing.

        Rows that are not starts, and rows that are already overwritten, do not change.
        """
        held = priority[-(self.rows - self._frames.stack) :]
        rows = (end - len(held) + np.arange(len(held)))[:, None] % self.rows * self.num_envs + np.arange(self.num_envs)
        known = np.isfinite(held) & (as_array(self._tree.leaves[rows.ravel()]).reshape(rows.shape) > 0.0)
        if known.any():
            self.update_priorities(self.place.put(rows[known]), held[known].astype(np.float64))

    def _at_shares(self, share: Array, beta: Array | float) -> tuple[tuple[Array, ...], Array, Array]:
        """The transitions at fractions [B] of the sum of all priorities, their weights [B], and their rows [B]."""
        rows, priority = self.at_shares(share)
        weight = (priority / priority.min()) ** -beta
        return self._n_step.transitions(rows), single(weight), rows

    def at_shares(self, share: Array) -> tuple[Array, Array]:
        """The rows at fractions [B] of the sum of all priorities, and their priorities p^α [B]."""
        rows = self._tree.find(share)
        return rows, self._tree.leaves[rows]

    def total(self) -> float:
        """The sum of all priorities p^α. Waits for the device."""
        return float(self._tree.total())

    def share_largest(self, other: "PrioritisedReplay") -> None:
        """Shares the largest priority so far with another replay. Call it before the first `add` to either."""
        self._largest = other._largest

    def _raise(self, priority: Array) -> Array:
        """(p + ε)^α; also updates the largest priority so far."""
        raised = finite_or((double(priority).clip(0.0) + LEAST) ** self.exponent, self._largest)
        keep_largest(self._largest, raised)
        return raised

    def priority_metrics(self) -> dict[str, float]:
        """The mean priority p^α of all starts, and the largest priority so far. Waits for the device."""
        mean = self.total() / max(self.count, 1)
        return {"replay/priority_mean": mean, "replay/priority_largest": float(self._largest[0])}

    def _push_starts(self) -> None:
        super()._push_starts()
        self._tree.fill(self.head * self.num_envs, self.place.put(self._fresh) * self._largest)

    def _advance(self) -> None:
        row = (self.head + self._frames.stack) % self.rows
        if self._starts_of_row[row]:
            self._tree.fill(row * self.num_envs, self.place.zeros(self.num_envs, "float64"))
        super()._advance()

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds. The sums of the tree are computed again from the priorities."""
        return {**super().state(), "priorities": self._tree.leaves, "largest_priority": self._largest}

    def load_state(self, state: State) -> None:
        """Restores `state`, which may come from another device.

        Raises:
            ValueError: if the state comes from a replay of another size or without priorities.
        """
        if "priorities" not in state:
            raise ValueError("replay without priorities, expected some")
        super().load_state(state)
        restore_array(self._tree.leaves, state["priorities"], "priorities")
        restore_array(self._largest, state["largest_priority"], "largest_priority")
        self._tree.rebuild()


def prioritised_bytes(capacity: int, num_envs: int, observation: ObservationSpec | int) -> int:
    """Bytes of a PrioritisedReplay of `capacity` transitions; on a CPU up to 1/15 of its priorities less."""
    leaves = ring_rows(capacity, num_envs, as_spec(observation).stack) * num_envs
    return required_bytes(capacity, num_envs, observation) + 8 * sum(level_sizes(leaves))
