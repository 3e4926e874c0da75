"""Prioritised replay: a transition is drawn with probability proportional to a power of its most recent error.

Schaul et al. 2016 (arXiv 1511.05952), the proportional variant: P(i) = p_i^α / Σ p_k^α (eq. 1). Deviation: the rows of
a batch are drawn independently. The paper takes one from each of B equal parts of the sum (appendix B.2.1); the rows
of such a batch are ordered by age, and each group of rows that shares a draw of noise would be of one age.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from agent.common.arrays import Array, as_array, double, finite_or, keep_largest, restore_array, single
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator
from agent.replay.batch import Batch, Sample
from agent.replay.ring import Compile, Replay, as_it_is, required_bytes, ring_rows
from agent.replay.sum_tree import DeviceSumTree, SumTree, level_sizes

#: ε of p = |δ| + ε: transitions without an error are still drawn now and then (§3.3).
LEAST = 1e-6


class PrioritisedReplay(Replay):
    """A Replay whose starts also have priorities: `sample` draws uniformly, `sample_to_learn` by priority.

    The stored priorities are p^α, float64. Rows that may not be sampled have priority 0: the waiting row, reset rows,
    overwritten ones. A new start gets the largest priority so far, or 1 before any is known. A transition that is named
    twice in one call gets the larger priority.

    Args:
        capacity: see Replay.
        num_envs: E.
        observation: form of the observations.
        exponent: α; 0 draws uniformly.
        options: see Replay.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation: ObservationSpec | int,
        *,
        exponent: float,
        compiled: Compile = as_it_is,
        **options: Any,
    ) -> None:
        super().__init__(capacity, num_envs, observation, **options)
        self.exponent = exponent
        self._tree = self.place.pick(SumTree, DeviceSumTree)(self.rows * num_envs, self.place.device)
        #: The largest p^α that was ever stored: of one element, so that nobody waits for a device.
        self._largest = self.place.put(np.ones(1))
        self._beta = self.place.zeros((), "float64")  # a number would be compiled anew whenever it changes
        # The writes to the tree are not compiled: compiled ones would copy the whole tree.
        self._chosen, self._raised = compiled(self._at_shares), compiled(self._raise)

    def sample_to_learn(self, size: int, beta: Array | float, generator: Generator | None = None) -> Sample:
        """Draws `size` transitions by priority, with replacement; see `sample`.

        The weights are (N·P(i))^−β divided by the largest of the batch (§3.4), so that they only make a step smaller;
        N and the sum of the priorities cancel.

        Raises:
            ValueError: where there is no start yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        fields, weight, rows = self._chosen(self.place.uniform(size, generator), beta)
        return Sample(Batch(*fields), weight, rows)

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """`count` samples; each is drawn when it is asked for, by the priorities of that moment."""
        self._beta[...] = beta
        for _ in range(count):
            yield self.sample_to_learn(size, self._beta, generator)

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Stores the priorities [B], at least 0, of the rows of a sample; call it before anything else is added.

        A priority that is not finite counts as the largest so far: the monitor will stop the run at its next look.
        """
        assert rows is not None
        assert priority is not None
        self._tree.put(rows, self._raised(self.place.put(priority)))

    def prioritise(self, end: int, priority: np.ndarray) -> None:
        """Stores first priorities [T, E] of the newest T rows, before row `end`; NaN leaves what `add` has stored.

        Rows that are no starts, or that are overwritten already, stay as they are.
        """
        held = priority[-(self.rows - self._frames.stack) :]
        rows = (end - len(held) + np.arange(len(held)))[:, None] % self.rows * self.num_envs + np.arange(self.num_envs)
        known = np.isfinite(held) & (as_array(self._tree.leaves[rows.ravel()]).reshape(rows.shape) > 0.0)
        if known.any():
            self.update_priorities(self.place.put(rows[known]), held[known].astype(np.float64))

    def _at_shares(self, share: Array, beta: Array | float) -> tuple[tuple[Array, ...], Array, Array]:
        """The transitions at shares [B] of the sum of all priorities, their weights [B], and their rows [B]."""
        rows, priority = self.at_shares(share)
        weight = (priority / priority.min()) ** -beta
        return self._n_step.transitions(rows), single(weight), rows

    def at_shares(self, share: Array) -> tuple[Array, Array]:
        """The rows at shares [B] of the sum of all priorities, and their priorities p^α [B]."""
        rows = self._tree.find(share)
        return rows, self._tree.leaves[rows]

    def total(self) -> float:
        """The sum of all priorities p^α; waits for the device."""
        return float(self._tree.total())

    def share_largest(self, other: "PrioritisedReplay") -> None:
        """Has the largest priority so far in common with another replay, before either is written to."""
        self._largest = other._largest

    def _raise(self, priority: Array) -> Array:
        """(p + ε)^α; also keeps the largest ever stored up to date."""
        raised = finite_or((double(priority).clip(0.0) + LEAST) ** self.exponent, self._largest)
        keep_largest(self._largest, raised)
        return raised

    def priority_metrics(self) -> dict[str, float]:
        """Mean priority p^α of all starts, and the largest ever seen; waits for the device."""
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
        """Everything that a checkpoint has to hold: the sums are made of the priorities again."""
        return {**super().state(), "priorities": self._tree.leaves, "largest_priority": self._largest}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, which may come from another device.

        Raises:
            ValueError: where it comes from a replay of another size, or of one without priorities.
        """
        if "priorities" not in state:
            raise ValueError("replay without priorities, expected some")
        super().load_state(state)
        restore_array(self._tree.leaves, state["priorities"], "priorities")
        restore_array(self._largest, state["largest_priority"], "largest_priority")
        self._tree.rebuild()


def prioritised_bytes(capacity: int, num_envs: int, observation: ObservationSpec | int) -> int:
    """Bytes that a PrioritisedReplay of `capacity` transitions takes; on a CPU up to 1/15 of its priorities less."""
    leaves = ring_rows(capacity, num_envs, as_spec(observation).stack) * num_envs
    return required_bytes(capacity, num_envs, observation) + 8 * sum(level_sizes(leaves))
