"""Statistics of returns."""

import numpy as np

#: Of the bootstrap: resampled numbers at a time, of which there are an index and a value (64 MiB).
MAX_PICKS = 1 << 22


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of values [n]; a value on a quartile counts for its part (Agarwal et al. 2021)."""
    ordered = np.sort(values)
    n = len(ordered)
    edges = np.arange(n + 1) / n  # the i-th value stands for the quantiles i/n … (i+1)/n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return float(weights @ ordered / weights.sum())


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 2_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [n] (Efron 1979), always drawn from the same stream."""
    generator = np.random.Generator(np.random.PCG64(0))
    n, means = len(values), np.empty(resamples)
    rows = max(1, MAX_PICKS // n)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        chunk[:] = values[generator.integers(n, size=(len(chunk), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
