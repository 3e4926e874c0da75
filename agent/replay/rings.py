"""Several replays that are sampled as one: each actor writes to a ring of its own."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from agent.common.arrays import Array, as_array, single
from agent.common.seeding import Generator
from agent.common.state import State
from agent.replay.batch import Batch, Sample
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.ring import AT_ONCE, Replay

R = TypeVar("R", bound=Replay)


class Rings(Generic[R]):
    """Replays on the CPU that are sampled as one; every start of every ring has the same probability.

    Args:
        rings: at least one; all have the same observations, n and γ.
    """

    def __init__(self, rings: Sequence[R]) -> None:
        self.rings = list(rings)
        self.place, self._begun = rings[0].place, [False] * len(rings)

    def __len__(self) -> int:
        """The number of transitions that can be sampled."""
        return sum(map(len, self.rings))

    def begin(self, number: int, observation: np.ndarray) -> None:
        """Begins new episodes in all environments of a ring, at observations [E, *shape]; truncates the old ones."""
        ring, zeros = self.rings[number], np.zeros(len(observation))
        if not self._begun[number]:
            ring.begin(observation)
            self._begun[number] = True
            return
        ring.cut(zeros == 0)
        ring.add(zeros, zeros, zeros > 0, zeros > 0, observation)  # a row that only resets

    def sample(self, size: int, generator: Generator | None = None) -> Batch[Array]:
        """Samples `size` transitions uniformly, with replacement, from all rings.

        Raises:
            ValueError: if no ring holds a transition yet.
        """
        if not len(self):
            raise ValueError("the replay holds no transition yet")
        rank = as_array(self.place.below(np.float64(len(self)), size, generator))  # type: ignore[arg-type]
        return self._gather(*self._split(rank, np.array([len(ring) for ring in self.rings])))

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """Yields `count` samples to learn from; several are gathered at once."""
        at_once = max(AT_ONCE // (size * self.rings[0].observation_bytes), 1)
        while count > 0:
            batches = min(count, at_once)
            drawn = self.sample(batches * size, generator)
            yield from (
                Sample(Batch(*(field[i : i + size] for field in drawn))) for i in range(0, batches * size, size)
            )
            count -= batches

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Does nothing: uniform sampling has no priorities."""

    def priority_metrics(self) -> dict[str, float]:
        """No metrics: uniform sampling has no priorities."""
        return {}

    def not_finite(self) -> str:
        """Names the stored values that are not finite; see `Replay.not_finite`."""
        return next(filter(None, (ring.not_finite() for ring in self.rings)), "")

    def largest(self) -> dict[str, float]:
        """The largest absolute values in all rings; see `Replay.largest`."""
        rings = [ring.largest() for ring in self.rings]
        return {name: max(ring[name] for ring in rings) for name in rings[0]}

    def _split(self, values: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ring [B] into which each value [B] below the sum of `parts` [rings] falls, and its position [B] in it."""
        ends = np.add.accumulate(parts)
        which = np.minimum(np.searchsorted(ends, values, side="right"), int(parts.nonzero()[0][-1]))
        return which, values - (ends - parts)[which]

    def _gather(self, which: np.ndarray, rank: np.ndarray) -> Batch[Array]:
        """The transitions at positions `rank` [B] in the queues of the rings `which` [B]."""
        return self._merge(which, [ring.at_ranks(rank[which == i]) for i, ring in enumerate(self.rings)])

    def _merge(self, which: np.ndarray, batches: Sequence[Batch[Array]]) -> Batch[Array]:
        """The batches of all rings as one batch, in the order of `which` [B]."""
        back = np.empty(len(which), dtype=np.int64)
        back[np.argsort(which, kind="stable")] = np.arange(len(which))
        return Batch(*(np.concatenate(fields)[back] for fields in zip(*batches, strict=True)))

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds."""
        return {"rings": [ring.state() for ring in self.rings]}

    def load_state(self, state: State) -> None:
        """Restores `state`. When an actor begins anew, `begin` truncates the episodes of its ring.

        Raises:
            ValueError: if the state comes from other rings.
        """
        for number, (ring, saved) in enumerate(zip(self.rings, state["rings"], strict=True)):
            ring.load_state(saved)
            self._begun[number] = bool(len(ring))


class PrioritisedRings(Rings[PrioritisedReplay]):
    """Prioritised replays that are sampled as one, with the priorities of all rings: see PrioritisedReplay."""

    def __init__(self, rings: Sequence[PrioritisedReplay]) -> None:
        super().__init__(rings)
        sizes = [ring.rows * ring.num_envs for ring in rings]
        self._offsets = np.add.accumulate([0, *sizes[:-1]])
        for ring in rings[1:]:  # a new start gets the largest priority in all rings
            ring.share_largest(rings[0])

    def samples(self, count: int, size: int, beta: float, generator: Generator | None = None) -> Iterator[Sample]:
        """Yields `count` samples; each is drawn when it is requested, with the priorities at that time."""
        for _ in range(count):
            yield self.sample_to_learn(size, beta, generator)

    def sample_to_learn(self, size: int, beta: float, generator: Generator | None = None) -> Sample:
        """Samples `size` transitions with replacement, by priority; the weights are those of `PrioritisedReplay`.

        Raises:
            ValueError: if no ring holds a transition yet.
        """
        if not len(self):
            raise ValueError("the replay holds no transition yet")
        totals = np.array([ring.total() for ring in self.rings])
        shares = as_array(self.place.uniform(size, generator)) * totals.sum()
        which, inside = self._split(shares, totals)
        rows, priority, batches = np.zeros(size, dtype=np.int64), np.zeros(size), []
        for i, ring in enumerate(self.rings):
            mine = which == i
            share = (inside[mine] / max(totals[i], np.finfo(float).tiny)).clip(0.0, np.nextafter(1.0, 0.0))
            rows[mine], priority[mine] = ring.at_shares(share)
            batches.append(ring.gather(rows[mine]))
        weight = (priority / priority.min()) ** -beta
        return Sample(self._merge(which, batches), single(weight), rows + self._offsets[which])

    def update_priorities(self, rows: Array | None, priority: Array | None) -> None:
        """Stores the priorities [B] of the rows of a sample; see `PrioritisedReplay.update_priorities`."""
        assert rows is not None
        assert priority is not None
        place, priorities = as_array(rows), as_array(self.place.put(priority))
        which = np.searchsorted(self._offsets, place, side="right") - 1
        for i, ring in enumerate(self.rings):
            mine = which == i
            if mine.any():
                ring.update_priorities(place[mine] - self._offsets[i], priorities[mine])

    def priority_metrics(self) -> dict[str, float]:
        """The mean priority p^α of all starts, and the largest priority so far."""
        mean = sum(ring.total() for ring in self.rings) / max(len(self), 1)
        return {**self.rings[0].priority_metrics(), "replay/priority_mean": mean}


AnyRings = Rings[Replay] | PrioritisedRings
#: Any replay that a learner can use.
AnyReplay = Replay | AnyRings
