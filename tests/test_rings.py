"""Draws from several rings as from one: each start has the same chance or its priority, and streams stay separate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.common.observation import ObservationSpec, packed
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.ring import Replay
from agent.replay.rings import PrioritisedRings, Rings

SHARES = (3, 1, 2)
STEPS = (4, 9, 2)


def filled(kind: type[Any], collection: type[Any], **options: Any) -> Any:
    """Rings of SHARES environments after STEPS vector steps each; an observation is (ring, env, time)."""
    rings = collection([kind(share * 20, share, 3, gamma=0.9, **options) for share in SHARES])
    for number, (share, steps) in enumerate(zip(SHARES, STEPS, strict=True)):
        rings.begin(number, observations(number, share, 0))
        play(rings, number, range(steps))
    return rings


def observations(ring: int, share: int, time: int) -> np.ndarray:
    return np.array([[ring, env, time] for env in range(share)], dtype=np.float32)


def play(rings: Any, ring: int, times: range) -> None:
    no = np.zeros(SHARES[ring], dtype=bool)
    for time in times:
        rings.rings[ring].add(no, no, no, no, observations(ring, len(no), time + 1))


TOTAL = sum(share * steps for share, steps in zip(SHARES, STEPS, strict=True))


@pytest.mark.parametrize("priorities", [False, True])
def test_every_start_of_every_ring_has_the_same_chance(priorities: bool) -> None:
    kind, collection = (PrioritisedReplay, PrioritisedRings) if priorities else (Replay, Rings)
    rings = filled(kind, collection, **({"exponent": 0.5} if priorities else {}))
    assert len(rings) == TOTAL
    generator = rings.place.generator(0, "replay")
    (sample,) = rings.samples(1, 200 * TOTAL, 0.4, generator)
    found, counts = np.unique(sample.batch.observation, axis=0, return_counts=True)
    assert len(found) == TOTAL
    assert abs(counts - 200).max() < 5.0 * np.sqrt(200)
    following = sample.batch.observation + np.array([0, 0, 1], dtype=np.float32)
    assert np.array_equal(sample.batch.next_observation, following), "a row of another ring, or in another order"


STACKED = ObservationSpec((3, 2, 2), "uint8", 255.0, 3)


@pytest.mark.parametrize("spec", [ObservationSpec((3,)), STACKED, packed([ObservationSpec((2,)), STACKED], 3)])
@pytest.mark.parametrize("priorities", [False, True])
def test_a_ring_of_which_a_batch_has_no_row_gives_none(spec: ObservationSpec, priorities: bool) -> None:
    """Such a ring is that of an actor that has not delivered yet, or one that a draw does not hit."""
    kind, collection = (PrioritisedReplay, PrioritisedRings) if priorities else (Replay, Rings)
    options: Any = {"exponent": 0.5} if priorities else {}
    rings = collection([kind(40, 2, spec, n_step=2, **options) for _ in range(3)])
    no, zeros = np.zeros(2, dtype=bool), np.zeros((2, *spec.shape), np.uint8 if spec.parts else spec.dtype)
    for number in (0, 2):
        rings.begin(number, zeros)
        for _ in range(4):
            rings.rings[number].add(no, no, no, no, zeros)
    for sample in rings.samples(20, 1, 0.5, rings.place.generator(0, "replay")):
        assert sample.batch.observation.shape == (1, *spec.shape)
        rings.update_priorities(sample.rows, np.ones(1) if priorities else None)


def test_several_batches_at_once_are_as_many_and_as_large_as_asked() -> None:
    samples = list(filled(Replay, Rings).samples(5, 7, 0.0))
    assert [len(sample.batch.action) for sample in samples] == [7] * 5


def test_priorities_count_over_all_rings() -> None:
    rings = filled(PrioritisedReplay, PrioritisedRings, exponent=1.0)
    generator = rings.place.generator(0, "replay")
    (sample,) = rings.samples(1, 2_000, 1.0, generator)
    wanted = 1.0 + sample.batch.observation[:, 0] * 3.0  # 1, 4 and 7 for the three rings
    rings.update_priorities(sample.rows, wanted)
    (sample,) = rings.samples(1, 40_000, 1.0, generator)
    ring = sample.batch.observation[:, 0]
    weights = np.array(
        [share * steps * (1.0 + 3.0 * i) for i, (share, steps) in enumerate(zip(SHARES, STEPS, strict=True))]
    )
    expected = weights / weights.sum()
    assert np.allclose([np.mean(ring == i) for i in range(3)], expected, atol=0.015)
    assert np.allclose(sample.weight, 1.0 / (1.0 + 3.0 * ring), rtol=1e-4), "(N·P)^−1 by the largest"
    play(rings, 0, range(4, 5))
    assert rings.rings[0].total() == pytest.approx(SHARES[0] * (STEPS[0] + 7.0), rel=1e-4), "the largest of all rings"


def test_a_ring_that_begins_anew_cuts_its_own_streams_alone() -> None:
    rings = filled(Replay, Rings, n_step=3)
    rings.begin(1, observations(1, 1, 100))
    play(rings, 1, range(100, 103))
    batch = rings.sample(20_000, rings.place.generator(0, "replay"))
    gone = batch.next_observation - batch.observation
    assert not gone[:, :2].any()
    assert gone[:, 2].max() == 3.0
    times = batch.observation[batch.observation[:, 0] == 1.0][:, 2]
    assert set(times.tolist()) == {*range(9), 100, 101, 102}, "the final observation is no start"
    assert len(rings) == TOTAL + 3


def test_what_is_saved_comes_back() -> None:
    rings, others = (filled(PrioritisedReplay, PrioritisedRings, exponent=0.5) for _ in range(2))
    rings.begin(2, observations(2, 2, 50))
    play(rings, 2, range(50, 55))
    rings.update_priorities(np.array([0, 1]), np.array([5.0, 2.0]))
    others.load_state(rings.state())
    one, two = (next(iter(r.samples(1, 64, 0.5, r.place.generator(1, "replay")))) for r in (rings, others))
    assert all(np.array_equal(a, b) for a, b in zip(one.batch, two.batch, strict=True))
    assert np.array_equal(one.weight, two.weight)
