"""Curves over seeds: a metric of several runs as one line with a band."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.records.comparison import aggregates
from agent.records.comparison.grouping import Group
from agent.records.comparison.reading import EMPTY, Series
from agent.records.statistics import t_quantile

Array = NDArray[np.float64]
#: The most points of a curve over seeds.
MAX_GRID = 300


@dataclass(frozen=True)
class Curve:
    """A metric over seeds at k points: arrays [k]; a single run has no band (None)."""

    x: Array
    centre: Array
    low: Array | None
    high: Array | None
    runs: int


def over_seeds(runs: Sequence[Series], by_time: bool, robust: bool) -> Curve | None:
    """Computes the mean of runs with Student's t interval, or their IQM with a bootstrap, up to the shortest run's end.

    Args:
        runs: the metric of each run; runs without values are left out.
        by_time: use training seconds instead of steps as x.
        robust: use the IQM instead of the mean.
    """
    lines = [line for run in runs if len((line := _line(run, by_time))[0])]
    if not lines:
        return None
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    if start > end:
        return None
    shortest = min((x for x, _ in lines), key=len)
    grid = np.linspace(start, end, len(shortest)) if by_time else np.clip(shortest, start, end)
    grid = np.unique(grid)[::-1]
    grid = grid[:: -(-len(grid) // MAX_GRID)][::-1]  # fewer points, of which the last is the end
    values = np.stack([np.interp(grid, x, y) for x, y in lines])
    if robust:
        return Curve(grid, *_robust(values), len(lines))
    centre = values.mean(axis=0)
    if len(lines) == 1:
        return Curve(grid, centre, None, None, 1)
    half_width = t_quantile(0.975, len(lines) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(lines))
    return Curve(grid, centre, centre - half_width, centre + half_width, len(lines))


def _robust(values: Array) -> tuple[Array, Array | None, Array | None]:
    """Computes the IQM [k] of values [n, k] with the limits of an expanded bootstrap that resamples whole runs."""
    centre = aggregates.iqm([values.T])
    if len(values) < aggregates.MIN_RUNS:
        return centre, None, None
    low, high = np.array([aggregates.bootstrap([column], aggregates.iqm) for column in values.T]).T
    return centre, low, high


def _line(run: Series, by_time: bool) -> tuple[Array, Array]:
    """Returns x [n] and y [n] of one run with increasing x; of several values at the same x, the last."""
    x, y = (run.seconds if by_time else run.steps), run.values
    is_finite = np.isfinite(x)
    order = np.argsort(x[is_finite], kind="stable")
    x, y = x[is_finite][order], y[is_finite][order]
    keep = np.append(np.diff(x) > 0.0, True)[: len(x)]
    return x[keep], y[keep]


def is_robust(groups: Sequence[Group], task: str, metric: str) -> bool:
    """Whether every group has enough runs for an IQM with an interval."""
    counts = [
        sum(1 for run in group.runs[task] if len(run.series.get(metric, EMPTY)))
        for group in groups
        if task in group.runs
    ]
    return bool(counts) and min(counts) >= aggregates.MIN_RUNS
