"""Statistics of returns: Student's t for few seeds, the bootstrap for many values.

A percentile bootstrap interval of n normal values at a nominal 95 % covers 75 % (n = 3), 83 % (5) and 89 % (10);
Student's t interval covers 95 % at every n. Means over seeds therefore have Student's t interval. The bootstrap is for
a hundred episodes, and for statistics without a simpler interval. A single value has no interval: None.

Student's distribution is computed here: SciPy would be needed for nothing else, and it takes 100 MB.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

Interval = tuple[float, float]
#: The most values that the bootstrap resamples at a time; each takes an index and a value (64 MiB in all).
MAX_PICKS = 1 << 22
#: In the continued fraction of the incomplete beta function: the most terms, and the replacement for zero.
_TERMS, _TINY = 10_000, 1e-300


def interquartile_mean(values: np.ndarray) -> float:
    """Computes the mean of the middle half of values [n]; see `interquartile_means`."""
    return float(interquartile_means(values))


def interquartile_means(values: np.ndarray) -> np.ndarray:
    """Computes the mean of the middle half of each row of values [..., n] (Agarwal et al. 2021).

    As in rliable, ⌊n/4⌋ whole values are dropped at each end.
    """
    trim = values.shape[-1] // 4
    return np.asarray(np.sort(values, axis=-1)[..., trim : values.shape[-1] - trim].mean(axis=-1))


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 2_000) -> Interval:
    """Computes a percentile bootstrap interval of the mean of values [n] (Efron 1979), with a fixed random seed.

    It is for many values, such as the returns of a hundred episodes; for few, see `mean_interval`.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    n, means = len(values), np.empty(resamples)
    rows = max(1, MAX_PICKS // n)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        chunk[:] = values[generator.integers(n, size=(len(chunk), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: np.ndarray, level: float = 0.95) -> Interval | None:
    """Computes Student's t interval of the mean of values [n], such as one return for each seed; None if n < 2."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half_width = t_quantile((1 + level) / 2, len(values) - 1) * error
    return mean - half_width, mean + half_width


class Difference(NamedTuple):
    """The difference of two means: the first less the second, its interval, and the p-value of no difference."""

    mean: float
    interval: Interval
    p: float


def welch(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> Difference | None:
    """Compares the means of a [m] and b [n], whose variances may differ (Welch 1947); None if m or n < 2."""
    if min(len(a), len(b)) < 2:
        return None
    mean = float(np.mean(a) - np.mean(b))
    variances = [float(np.var(values, ddof=1)) / len(values) for values in (a, b)]
    error = math.sqrt(sum(variances))
    if error == 0.0:  # in each group all values are equal
        return Difference(mean, (mean, mean), 1.0 if mean == 0.0 else 0.0)
    shares = [variance / max(variances) for variance in variances]  # their squares are not rounded to zero
    dof = sum(shares) ** 2 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, (a, b), strict=True))
    half_width = t_quantile((1 + level) / 2, dof) * error
    return Difference(mean, (mean - half_width, mean + half_width), 2 * t_probability(-abs(mean) / error, dof))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of one table with Holm's correction (1979).

    The probability of any false rejection in the table is at most the level.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def t_probability(t: float, dof: float) -> float:
    """P(T ≤ t) of Student's distribution with `dof` degrees of freedom, which need not be whole."""
    tail = 0.5 * incomplete_beta(dof / (dof + t * t), dof / 2, 0.5)
    return tail if t < 0.0 else 1.0 - tail


@lru_cache(maxsize=4096)
def t_quantile(p: float, dof: float) -> float:
    """The t below which Student's distribution has probability p, 0 < p < 1."""
    if p < 0.5:
        return -t_quantile(1.0 - p, dof)
    low, high = 0.0, 1.0
    while t_probability(high, dof) < p:
        low, high = high, 2.0 * high
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (middle, high) if t_probability(middle, dof) < p else (low, middle)
    return high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), 0 ≤ x ≤ 1 (DLMF 8.17)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # where the fraction would converge slowly
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    return front / _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …)) of DLMF 8.17.22, from its front (the modified method of Lentz)."""
    value = numerator = 1.0
    denominator = 0.0
    for term in range(1, _TERMS):
        m, odd = divmod(term, 2)
        if odd:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1.0 / ((1.0 + d * denominator) or _TINY)
        numerator = (1.0 + d / numerator) or _TINY
        value *= numerator * denominator
        if abs(numerator * denominator - 1.0) < 1e-15:
            break
    return value
