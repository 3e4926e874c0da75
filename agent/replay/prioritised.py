"""Prioritised replay: transitions are drawn in proportion to how much there was to learn from them when last seen.

Schaul et al. 2016 (arXiv 1511.05952), the proportional variant: P(i) = p_i^α / Σ p_k^α (eq. 1). Deviation: the rows of
a batch are drawn independently, where the paper takes one from each of B equal parts of the sum (appendix B.2.1): in
such an order, groups of rows that share a draw of noise would be of one age.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import upload
from agent.common.observation import ObservationSpec, as_spec
from agent.common.seeding import Generator, uniform
from agent.compute.compiled import Compiled
from agent.replay.ring import Batch, Replay, required_bytes, ring_rows
from agent.replay.sum_tree import level_sizes, sum_tree

#: ε of p = |δ| + ε: what has been learnt is still seen now and then (§3.3).
LEAST = 1e-6


class Prioritised(NamedTuple):
    """A batch of B transitions, the weights [B] of their losses, and their rows [B] in the replay, for `reprioritise`.

    Rows are an array on the CPU and a tensor on an accelerator; weights are of the batch's kind.
    """

    batch: Batch
    weight: Any
    rows: Any


class PrioritisedReplay(Replay):
    """A Replay whose starts have priorities as well: `sample` draws uniformly, `sample_prioritised` by priority.

    Priorities p^α are float64, raised to α when they are stored and never again. What may not be sampled has priority 0
    and is never drawn: the waiting row, reset rows, overwritten ones. A new start gets the largest priority seen so
    far, 1 before any; a transition that is named twice in one call gets the larger.

    Args:
        capacity: see Replay, as for all others but these.
        num_envs: E.
        observation: what is stored.
        exponent: α; 0 draws uniformly.
        options: see Replay.
    """

    def __init__(
        self, capacity: int, num_envs: int, observation: ObservationSpec | int, *, exponent: float, **options: Any
    ) -> None:
        super().__init__(capacity, num_envs, observation, **options)
        self.exponent = exponent
        self._tree = sum_tree(self.rows * num_envs, self.device, self.by_numpy)
        #: The largest p^α that was ever stored: of one element, so that a device never has to be asked.
        self._largest: Any = np.ones(1) if self.by_numpy else torch.ones(1, dtype=torch.float64, device=self.device)

    def compile(self, size: int, strict: bool) -> None:
        """See Replay; of what finds them by priority, too. Compiled writes to the tree would copy it as a whole."""
        if not isinstance(self._chosen, Compiled):
            self._chosen = Compiled(self._chosen, strict, size)  # type: ignore[method-assign, assignment]
            self._raised = Compiled(self._raised, strict, size)  # type: ignore[method-assign, assignment]

    def sample_prioritised(
        self, size: int, beta: float | Tensor, generator: Generator | None = None, arrays: bool = False
    ) -> Prioritised:
        """Draws `size` transitions by priority, with replacement; see `sample`.

        The weights are (N·P(i))^−β over the largest of the batch (§3.4), so that they only ever shrink a step; N and
        the sum of the priorities cancel.

        Raises:
            ValueError: where there is no start yet.
        """
        if not self.count:
            raise ValueError("the replay holds no transition yet")
        chosen, rows = self._chosen(self._shares(size, generator), beta)
        *fields, weight = self._handed(chosen, arrays)
        return Prioritised(Batch(*fields), weight, rows)

    def _chosen(self, share: Any, beta: float | Tensor) -> tuple[tuple[Any, ...], Any]:
        """The transitions at shares [B] of the sum of all priorities with their weights [B], and their rows [B]."""
        rows = self._tree.find(share)
        priority = self._tree.leaves[rows]
        weight = (priority / priority.min()) ** -beta
        weight = weight.astype(np.float32) if self.by_numpy else weight.float()
        return (*self._gather(rows), weight), rows

    def _shares(self, size: int, generator: Any) -> Any:
        """Uniform numbers [size] in [0, 1)."""
        if self.by_numpy:
            return uniform(size, generator)
        return torch.rand(size, dtype=torch.float64, generator=generator, device=self.device)

    def learn(
        self,
        count: int,
        size: int,
        beta: float,
        update: Callable[[Batch, Any], Any],
        generator: Generator | None = None,
        arrays: bool = False,
    ) -> Iterator[Any]:
        """What `update` gives for `count` batches and weights; each is drawn by the priorities that the last one left.

        It is the `priority` [size] of what update gives that becomes the rows' own.
        """
        for _ in range(count):
            batch, weight, rows = self.sample_prioritised(size, beta, generator, arrays)
            metrics = update(batch, weight)
            self.reprioritise(rows, metrics.priority)
            yield metrics

    def reprioritise(self, rows: Any, priority: Any) -> None:
        """Stores priorities [B], at least 0, of rows that `sample_prioritised` gave, before anything else is added.

        One that is not a number counts as the largest seen: the run is about to be stopped, and must get there.
        """
        self._tree.put(rows, self._raised_on_cpu(priority) if self.by_numpy else self._raised(priority))

    def _raised_on_cpu(self, priority: Any) -> np.ndarray:
        """(p + ε)^α, and the largest seen brought up to date."""
        if isinstance(priority, Tensor):
            priority = priority.cpu()
        raised = (np.maximum(np.asarray(priority, dtype=np.float64), 0.0) + LEAST) ** self.exponent
        raised = np.where(np.isfinite(raised), raised, self._largest)
        np.maximum(self._largest, raised.max(), out=self._largest)
        return raised

    def _raised(self, priority: Any) -> Tensor:
        """The same on a device."""
        raised = (torch.as_tensor(priority).to(self.device, torch.float64).clamp(min=0.0) + LEAST) ** self.exponent
        raised = torch.where(torch.isfinite(raised), raised, self._largest)
        self._largest.copy_(torch.maximum(self._largest, raised.amax()))
        return raised

    def priority_metrics(self) -> dict[str, float]:
        """Mean priority p^α of all starts, and the largest ever seen; waits for the device."""
        mean = float(self._tree.total()) / max(self.count, 1)
        return {"replay/priority_mean": mean, "replay/priority_largest": float(self._largest[0])}

    def _push_starts(self) -> None:
        super()._push_starts()
        fresh = self._fresh if self.by_numpy else upload(self._fresh, self.device)
        self._tree.fill(self.head * self.num_envs, fresh * self._largest)

    def _advance(self) -> None:
        row = (self.head + self._frames.stack) % self.rows
        if self._starts_of_row[row]:
            zeros = torch.zeros(self.num_envs, dtype=torch.float64, device=self.device)
            self._tree.fill(row * self.num_envs, zeros.numpy() if self.by_numpy else zeros)
        super()._advance()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold: the sums are made of the priorities again."""
        return {**super().state(), "priorities": self._tree.leaves, "largest_priority": self._largest}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave, on whatever device this replay is.

        Raises:
            ValueError: where it comes from a replay of another size, or of one without priorities.
        """
        if "priorities" not in state:
            raise ValueError("replay without priorities, expected some")
        super().load_state(state)
        for target, name in ((self._tree.leaves, "priorities"), (self._largest, "largest_priority")):
            source = torch.as_tensor(state[name])
            target[:] = source.numpy() if self.by_numpy else source
        self._tree.rebuild()


def prioritised_bytes(capacity: int, num_envs: int, observation: ObservationSpec | int) -> int:
    """Bytes that a PrioritisedReplay of `capacity` transitions takes."""
    leaves = ring_rows(capacity, num_envs, as_spec(observation).stack) * num_envs
    return required_bytes(capacity, num_envs, observation) + 8 * sum(level_sizes(leaves))
