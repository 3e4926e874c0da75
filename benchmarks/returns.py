"""Returns in the tables of results.py and third_party.py."""

import numpy as np

from agent.records.comparison.scoring import within_bounds
from agent.records.statistics import mean_interval

Bounds = tuple[float | None, float | None]


def number(value: float, sign: str = "", digits: int = 1) -> str:
    """A number with the given decimals and a true minus sign."""
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def bracketed(low: float, high: float, sign: str = "", digits: int = 1) -> str:
    """An interval."""
    return f"[{number(low, sign, digits)}, {number(high, sign, digits)}]"


def spread(values: np.ndarray, bounds: Bounds, digits: int = 1) -> str:
    """The mean with its 95 % interval (Student's t), clipped to possible returns; for one seed only the mean."""
    mean, interval = number(float(values.mean()), digits=digits), within_bounds(mean_interval(values), bounds)
    return f"{mean} (one seed)" if interval is None else f"{mean} {bracketed(*interval, digits=digits)}"
