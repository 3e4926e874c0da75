"""Intervals have their nominal coverage, and numbers are those of standard programs."""

import math

import numpy as np
import pytest

from agent.records.statistics import (
    holm,
    incomplete_beta,
    interquartile_mean,
    mean_interval,
    t_probability,
    t_quantile,
    welch,
)

scipy_stats = pytest.importorskip("scipy.stats")
scipy_special = pytest.importorskip("scipy.special")

#: With so many simulations a fraction of 0.95 has a standard error of 0.0049.
SIMULATIONS = 2_000


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 3.0, 4.7, 9.0, 30.0, 250.0, 1e4])
def test_students_distribution_is_scipys(freedom: float) -> None:
    for t in (-40.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 2.5, 40.0):
        assert t_probability(t, freedom) == pytest.approx(scipy_special.stdtr(freedom, t), rel=1e-10, abs=1e-15)
    for p in (0.001, 0.025, 0.3, 0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, freedom) == pytest.approx(scipy_special.stdtrit(freedom, p), rel=1e-9)


def test_students_quantiles_are_those_of_the_printed_tables() -> None:
    table = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}
    assert {n: round(t_quantile(0.975, n), 3) for n in table} == table
    assert t_quantile(0.975, 1e9) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "a", "b"), [(0.0, 2, 3), (1.0, 2, 3), (1e-8, 0.5, 0.5), (0.3, 400, 0.5), (0.999, 5, 0.5)]
)
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(scipy_special.betainc(a, b, x), rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 100, 101])
def test_interquartile_mean_is_the_fields(n: int) -> None:
    values = np.random.Generator(np.random.PCG64(n)).standard_normal(n) ** 3
    assert interquartile_mean(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25), abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_an_interval_of_few_seeds_covers_the_mean_19_times_in_20(n: int) -> None:
    """The coverage is within two points of 95 %. A percentile bootstrap has 75, 83 and 89."""
    random = np.random.Generator(np.random.PCG64(n))
    inside = sum(_covers(mean_interval(random.normal(200.0, 50.0, n)), 200.0) for _ in range(SIMULATIONS))
    assert inside / SIMULATIONS == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("m", "n", "spread"), [(3, 3, 1.0), (5, 5, 4.0), (10, 5, 4.0), (10, 10, 1.0)])
def test_of_two_equal_agents_one_wins_in_one_table_of_twenty(m: int, n: int, spread: float) -> None:
    random = np.random.Generator(np.random.PCG64(m * 100 + n))
    wins = inside = 0
    for _ in range(SIMULATIONS):
        found = welch(random.normal(0.0, 1.0, m), random.normal(0.0, spread, n))
        assert found is not None
        wins += found.p < 0.05
        inside += _covers(found.interval, 0.0)
    assert wins + inside == SIMULATIONS, "interval and p-value disagree"
    assert inside / SIMULATIONS == pytest.approx(0.95, abs=0.02)


def _covers(interval: tuple[float, float] | None, value: float) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e-60, 1e100])
def test_welch_does_not_depend_on_the_unit(scale: float) -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 3.5, 7.0])
    found, expected = welch(a * scale, b * scale), welch(a, b)
    assert found is not None
    assert expected is not None
    assert found.p == pytest.approx(expected.p)
    assert np.array(found.interval) / scale == pytest.approx(expected.interval)


def test_welch_is_scipys() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    a, b = random.normal(size=5), 1.0 + 3.0 * random.normal(size=7)
    found, theirs = welch(a, b), scipy_stats.ttest_ind(a, b, equal_var=False)
    assert found is not None
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx((theirs.confidence_interval().low, theirs.confidence_interval().high))


def test_one_seed_has_no_interval() -> None:
    one, two = np.array([-7.6]), np.array([1.0, 3.0])
    assert mean_interval(one) is None
    assert welch(one, two) is None
    assert welch(two, one) is None
    low, high = mean_interval(two) or (math.nan, math.nan)
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - low == pytest.approx(2 * 12.7062 * math.sqrt(2) / math.sqrt(2), rel=1e-4)


def test_runs_that_all_end_alike_differ_or_not() -> None:
    same = welch(np.full(5, 500.0), np.full(3, 500.0))
    other = welch(np.full(5, 500.0), np.full(3, 499.0))
    assert same is not None
    assert other is not None
    assert (same.p, same.interval) == (1.0, (0.0, 0.0))
    assert (other.p, other.interval) == (0.0, (1.0, 1.0))


def test_holms_correction_by_hand() -> None:
    """The values are 0.01·4, 0.02·3, the same again since 0.03·2 must not be smaller, and 0.5."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holms_correction_keeps_a_whole_table_to_one_error_in_twenty() -> None:
    random = np.random.Generator(np.random.PCG64(3))
    tables = random.uniform(size=(SIMULATIONS, 7))
    assert np.mean([min(holm(row)) < 0.05 for row in tables.tolist()]) == pytest.approx(0.05, abs=0.02)
    assert np.mean(tables.min(axis=1) < 0.05) > 0.25, "without the correction"
