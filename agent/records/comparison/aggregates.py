"""Aggregates of the scores of runs on one or several tasks, with intervals (Agarwal et al. 2021, arXiv 2108.13264).

`Scores` has one array [..., n_t] for each task t with n_t runs; leading axes are resamples. Point estimates equal those
of rliable if every task has the same number of runs. The intervals of rliable are stratified percentile bootstraps,
whose coverage is too low for few runs. Here
- a mean has Student's t interval, over several tasks with the degrees of freedom of Satterthwaite (1946);
- an IQM or median has the *expanded* percentile bootstrap (Hesterberg 2015), from MIN_RUNS runs on;
- a probability of improvement has Newcombe's score interval (2006), which has a width even if all runs of one group
  are above all of the other, and a share of runs has Wilson's (1927); MOVER (Zou and Donner 2008) combines either over
  several tasks.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from agent.records.statistics import Interval, interquartile_means, t_quantile

Array = NDArray[np.float64]
Scores = Sequence[Array]
Statistic = Callable[[Scores], Array]
#: The fewest runs for which an IQM or a median has an interval.
MIN_RUNS = 10
RESAMPLES = 2_000
#: The standard normal distribution and its 97.5 % quantile.
NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)


def mean(scores: Scores) -> Array:
    """Computes the mean over tasks of the mean over runs."""
    return np.asarray(np.mean([values.mean(axis=-1) for values in scores], axis=0))


def median(scores: Scores) -> Array:
    """Computes the median over tasks of the mean over runs; for a single task, the median over its runs."""
    if len(scores) == 1:
        return np.asarray(np.median(scores[0], axis=-1))
    return np.asarray(np.median([values.mean(axis=-1) for values in scores], axis=0))


def iqm(scores: Scores) -> Array:
    """Computes the mean of the middle half of all runs of all tasks, without fractions of runs at the edges."""
    return interquartile_means(np.concatenate(scores, axis=-1))


def optimality_gap(scores: Scores) -> Array:
    """Computes by how much normalised scores stay below 1 on average; a score above 1 counts as 1."""
    return 1.0 - mean([np.minimum(values, 1.0) for values in scores])


def profile(scores: Scores, levels: Array) -> Array:
    """Computes the share of runs above each of the levels [k], averaged over tasks."""
    return np.asarray(np.mean([(values[:, None] > levels).mean(axis=0) for values in scores], axis=0))


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Computes the probability that a run of ours is better than one of theirs; a tie counts half; mean over tasks."""
    return float(np.mean([_above(a, b) for a, b in zip(ours, theirs, strict=True)]))


def _above(a: Array, b: Array) -> float:
    return float(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b)))


# ---- 95 % intervals


def mean_interval(scores: Scores) -> Interval | None:
    """Computes Student's t interval of `mean`; None if a task has fewer than two runs."""
    if min(len(values) for values in scores) < 2:
        return None
    variances = np.array([values.var(ddof=1) / len(values) for values in scores])
    dofs = np.array([len(values) - 1 for values in scores])
    if not variances.any():
        dof = float(dofs.sum())
    else:
        dof = float(variances.sum() ** 2 / (variances**2 / dofs).sum())
    half_width = t_quantile(0.975, dof) * math.sqrt(variances.sum()) / len(scores)
    return float(mean(scores)) - half_width, float(mean(scores)) + half_width


def gap_interval(scores: Scores) -> Interval | None:
    """Computes the interval of `optimality_gap`, which is a mean; it is cut at 0."""
    interval = mean_interval([np.minimum(values, 1.0) for values in scores])
    return None if interval is None else (max(0.0, 1.0 - interval[1]), 1.0 - interval[0])


def bootstrap(scores: Scores, statistic: Statistic, expanded: bool = True) -> Interval | None:
    """Computes a stratified bootstrap interval: runs are resampled within each task.

    Args:
        scores: the scores of the runs.
        statistic: the statistic of the scores.
        expanded: use the quantiles that make the interval of a mean as wide as Student's t; False: those of rliable.

    Returns:
        The interval; None for fewer than MIN_RUNS runs in all, or fewer than 3 of a task.
    """
    smallest, runs = min(len(values) for values in scores), sum(len(values) for values in scores)
    if smallest < 3 or runs < MIN_RUNS:
        return None
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = [values[generator.integers(len(values), size=(RESAMPLES, len(values)))] for values in scores]
    tail = expanded_tail(smallest, runs - len(scores)) if expanded else 0.025
    low, high = np.quantile(statistic(drawn), [tail, 1.0 - tail])
    return float(low), float(high)


def expanded_tail(n: int, dof: int) -> float:
    """Computes the probability of each tail for n runs of a task, instead of 2.5 % (Hesterberg 2015, §4.4)."""
    return NORMAL.cdf(-math.sqrt(n / (n - 1)) * t_quantile(0.975, dof))


def profile_interval(scores: Scores, levels: Array) -> tuple[Array, Array] | None:
    """Computes pointwise intervals of `profile`; None if a task has fewer than two runs."""
    if min(len(values) for values in scores) < 2:
        return None
    shares = [(values[:, None] > levels).mean(axis=0) for values in scores]
    return _mover(shares, [wilson(share, len(values)) for share, values in zip(shares, scores, strict=True)])


def improvement_interval(ours: Scores, theirs: Scores) -> Interval | None:
    """Computes the interval of `probability_of_improvement`; None if a task has fewer than two runs of a group."""
    pairs = list(zip(ours, theirs, strict=True))
    if min(min(len(a), len(b)) for a, b in pairs) < 2:
        return None
    estimates = [np.array(_above(a, b)) for a, b in pairs]
    intervals = [newcombe(float(p), len(a), len(b)) for p, (a, b) in zip(estimates, pairs, strict=True)]
    low, high = _mover(estimates, [(np.array(low), np.array(high)) for low, high in intervals])
    return float(low), float(high)


def wilson(share: Array, n: int) -> tuple[Array, Array]:
    """Computes the score interval of shares [k] of n runs (Wilson 1927)."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half_width = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return np.minimum(share, centre - half_width), np.maximum(share, centre + half_width)


def newcombe(p: float, m: int, n: int) -> Interval:
    """Computes the score interval of a probability of improvement (Newcombe 2006, method 5).

    Args:
        p: the estimated probability that one of m values is above one of n.
        m: the number of values that may be above.
        n: the number of the other values.
    """

    def beyond(theta: float) -> bool:
        count = (m + n) / 2 - 1
        spread = 1 + count * (1 - theta) / (2 - theta) + count * theta / (1 + theta)
        return (p - theta) ** 2 > Z**2 * theta * (1 - theta) * spread / (m * n)

    return _edge(p, 0.0, beyond), _edge(p, 1.0, beyond)


def _edge(inside: float, outside: float, beyond: Callable[[float], bool]) -> float:
    """Finds the point between `inside` and `outside` at which `beyond` becomes true, with bisection."""
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return inside


def _mover(estimates: Sequence[Array], intervals: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Computes the limits of a mean of independent estimates from the limits of each (Zou and Donner 2008)."""
    estimate_of_mean = np.mean(estimates, axis=0)
    low, high = (
        np.sqrt(
            np.sum([(estimate - limits[side]) ** 2 for estimate, limits in zip(estimates, intervals, strict=True)], 0)
        )
        for side in (0, 1)
    )
    return estimate_of_mean - low / len(estimates), estimate_of_mean + high / len(estimates)
