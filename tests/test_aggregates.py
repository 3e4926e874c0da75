"""Scores of several runs and tasks in one number: those of rliable, with intervals that have their nominal coverage."""

import numpy as np
import pytest

from agent.records.comparison import aggregates

#: Ten runs of three tasks, drawn once: np.random.Generator(np.random.PCG64(0)), normal(0.6, 0.3), normal(0.4, 0.5).
A = np.array(
    [
        [0.638, 0.56, 0.792],
        [0.631, 0.439, 0.708],
        [0.991, 0.884, 0.389],
        [0.22, 0.413, 0.612],
        [-0.098, 0.534, 0.226],
        [0.38, 0.437, 0.505],
        [0.723, 0.913, 0.561],
        [1.01, 0.4, 0.705],
        [0.871, 0.628, 0.377],
        [0.323, 0.463, 0.666],
    ]
)
B = np.array(
    [
        [-0.105, 0.295, 0.32],
        [0.67, 0.507, 0.578],
        [0.073, 0.335, 0.792],
        [1.147, -0.23, 1.157],
        [1.073, 0.791, 0.532],
        [0.243, 1.129, 1.38],
        [1.301, 1.058, 0.579],
        [-0.204, 0.398, 0.728],
        [-0.244, 0.598, 0.615],
        [0.748, -0.192, 0.069],
    ]
)
#: rliable 1.2.0 (with arch 7.2.0, pandas 2): metrics.aggregate_mean, aggregate_median, aggregate_iqm and
#: aggregate_optimality_gap of each, and library.get_interval_estimates({"a": a, "b": b}, …, reps=50000,
#: random_state=np.random.RandomState(0)); probability_of_improvement(a, b); and the profiles of
#: library.create_performance_profile(…, [0, .25, .5, .75, 1]).
RLIABLE = {
    "A": (
        [0.5633666667, 0.5671, 0.55625, 0.4369666667],
        [0.4758, 0.4753, 0.4718, 0.3517],
        [0.6488, 0.6519, 0.6533, 0.5244],
    ),
    "B": (
        [0.5380333333, 0.4702, 0.5455625, 0.5034666667],
        [0.3746, 0.312, 0.3527, 0.3625],
        [0.7014, 0.7392, 0.7486, 0.6481],
    ),
}  # fmt: skip
IMPROVEMENT = 0.515
PROFILES = {"A": [29 / 30, 0.9, 0.6, 0.2, 1 / 30], "B": [25 / 30, 22 / 30, 0.6, 0.3, 7 / 30]}
STATISTICS = (aggregates.mean, aggregates.median, aggregates.iqm, aggregates.optimality_gap)


def tasks(table: np.ndarray) -> list[np.ndarray]:
    return [*table.T]


@pytest.mark.parametrize(("name", "table"), [("A", A), ("B", B)])
def test_the_numbers_are_rliables(name: str, table: np.ndarray) -> None:
    points, lows, highs = RLIABLE[name]
    for statistic, point, low, high in zip(STATISTICS, points, lows, highs, strict=True):
        assert statistic(tasks(table)) == pytest.approx(point, abs=1e-9)
        plain = aggregates.bootstrap(tasks(table), statistic, expanded=False)
        assert plain == pytest.approx((low, high), abs=0.015), "two bootstraps of 2 000 and 50 000"
        wider = aggregates.bootstrap(tasks(table), statistic)
        assert plain is not None
        assert wider is not None
        assert wider[0] < plain[0] < plain[1] < wider[1]
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert aggregates.profile(tasks(table), levels) == pytest.approx(PROFILES[name])


def test_the_probability_of_improvement_is_rliables_and_its_mirror() -> None:
    assert aggregates.probability_of_improvement(tasks(A), tasks(B)) == pytest.approx(IMPROVEMENT)
    assert aggregates.probability_of_improvement(tasks(B), tasks(A)) == pytest.approx(1 - IMPROVEMENT)
    tied = [np.array([1.0, 1.0])]
    assert aggregates.probability_of_improvement(tied, tied) == 0.5


def coverage(draw, interval, truth: float, times: int = 500) -> float:  # type: ignore[no-untyped-def]
    hits = 0
    for _ in range(times):
        low, high = interval(draw())
        hits += low <= truth <= high
    return hits / times


@pytest.mark.parametrize(("count", "n"), [(1, 10), (1, 20), (4, 3), (3, 5)])
def test_an_iqm_is_covered_19_times_in_20(count: int, n: int) -> None:
    """A plain percentile bootstrap has 86 % for four tasks of three runs."""
    random = np.random.Generator(np.random.PCG64(count * 100 + n))
    found = coverage(
        lambda: [random.normal(size=n) for _ in range(count)], lambda s: aggregates.bootstrap(s, aggregates.iqm), 0.0
    )
    assert found == pytest.approx(0.955, abs=0.03)


@pytest.mark.parametrize(("count", "n"), [(1, 3), (1, 5), (3, 5)])
def test_a_mean_over_tasks_is_covered_19_times_in_20(count: int, n: int) -> None:
    random = np.random.Generator(np.random.PCG64(count * 100 + n))
    found = coverage(
        lambda: [random.normal(task, 1.0 + task, n) for task in range(count)],
        aggregates.mean_interval,
        (count - 1) / 2,
        2_000,
    )
    assert found == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("m", "n", "ahead", "truth"), [(5, 5, 0.0, 0.5), (10, 10, 1.0, 0.76025), (5, 5, 2.0, 0.92135)])
def test_a_probability_of_improvement_is_covered_19_times_in_20(m: int, n: int, ahead: float, truth: float) -> None:
    random = np.random.Generator(np.random.PCG64(m * 100 + n))
    hits = 0
    for _ in range(1_000):
        ours, theirs = [random.normal(ahead, 1.0, m)], [random.normal(0.0, 1.0, n)]
        low, high = aggregates.improvement_interval(ours, theirs) or (np.nan, np.nan)
        hits += low <= truth <= high
    assert hits / 1_000 == pytest.approx(0.95, abs=0.025)


def test_three_seeds_above_three_others_prove_little() -> None:
    ours, theirs = [np.array([4.0, 5.0, 6.0])], [np.array([1.0, 2.0, 3.0])]
    low, high = aggregates.improvement_interval(ours, theirs) or (np.nan, np.nan)
    assert high == 1.0
    assert 0.4 < low < 0.6


def test_newcombes_interval_satisfies_its_equation() -> None:
    """(p − θ)² = z² θ (1 − θ) (1 + c (1 − θ)/(2 − θ) + c θ/(1 + θ)) / (m n) at both limits, c = (m + n)/2 − 1."""
    p, m, n = 0.7, 8, 5
    for theta in aggregates.newcombe(p, m, n):
        count = (m + n) / 2 - 1
        variance = theta * (1 - theta) * (1 + count * (1 - theta) / (2 - theta) + count * theta / (1 + theta)) / (m * n)
        assert (p - theta) ** 2 == pytest.approx(1.95996**2 * variance, rel=1e-4)


def test_wilsons_interval_by_hand() -> None:
    """For none of five the interval is 0 to z²/(n + z²)."""
    low, high = aggregates.wilson(np.array([0.0, 1.0]), 5)
    assert [low[0], high[0]] == pytest.approx([0.0, 3.8415 / 8.8415], abs=1e-4)
    assert [low[1], high[1]] == pytest.approx([5 / 8.8415, 1.0], abs=1e-4)


def test_few_runs_have_no_interval() -> None:
    one, few = [np.array([1.0])], [np.array([1.0, 2.0, 4.0])]
    assert aggregates.mean_interval(one) is None
    assert aggregates.gap_interval(one) is None
    assert aggregates.bootstrap(few, aggregates.iqm) is None
    assert aggregates.improvement_interval(one, few) is None
    assert aggregates.profile_interval(one, np.array([0.0])) is None
    assert aggregates.bootstrap([np.arange(9.0), np.array([1.0])], aggregates.iqm) is None
    assert aggregates.bootstrap([np.arange(10.0)], aggregates.iqm) is not None


def test_a_gap_is_not_negative_and_counts_no_more_than_the_goal() -> None:
    above = [np.array([1.5, 2.0, 0.9])]
    assert aggregates.optimality_gap(above) == pytest.approx(0.1 / 3)
    low, high = aggregates.gap_interval(above) or (np.nan, np.nan)
    assert low == 0.0
    assert high > 0.1 / 3
