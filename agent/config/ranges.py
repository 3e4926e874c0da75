"""The ranges of numbers. Every numeric option has a finite range, and the error for a number outside it states it.

A stranger's file may contain any of these numbers: the ranges limit how much memory and time it can cost.
"""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, for Annotated types; `above` excludes `low` itself."""

    text: str  #: the range in words, for messages
    low: float
    high: float
    above: bool = False

    def holds(self, number: float | Fraction) -> bool:
        """Whether a number is in the range; NaN is in no range."""
        return self.low <= number <= self.high and not (self.above and number == self.low)


def between(low: float, high: float) -> Range:
    """Builds the range from `low` to `high`."""
    return Range(f"between {_format_number(low)} and {_format_number(high)}", low, high)


def at_least(low: float, high: float) -> Range:
    """Builds the range from `low` to `high`, where `high` is far above any sensible value."""
    return Range(f"at least {_format_number(low)} and at most {_format_number(high)}", low, high)


def above_zero(high: float) -> Range:
    """Builds the range from 0 to `high`, without 0 itself."""
    return Range(f"greater than 0 and at most {_format_number(high)}", 0, high, above=True)


def positive(low: float, high: float) -> Range:
    """Builds the range of a positive divisor: within it, quotients stay finite in float32."""
    return Range(f"greater than 0, from {_format_number(low)} to {_format_number(high)}", low, high)


def _format_number(number: float) -> str:
    """Writes 1000000 as 1e6, and 65536 in full."""
    short = f"{number:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return short if number and float(short) == number and not 1e-3 < abs(number) < 1e5 else f"{number:.15g}"


UNIT = between(0, 1)
POSITIVE_UNIT = above_zero(1)
POSITIVE = above_zero(1e9)
NOT_NEGATIVE = at_least(0, 1e12)
AT_LEAST_ONE = at_least(1, 1e12)
TIME_LIMIT = Range("at least 1 and below 2³¹", 1, 2**31 - 1)
SEED = Range("at least 0 and below 2⁶³", 0, 2**63 - 1)

#: Atoms, quantiles, levels.
COUNT = between(1, 1024)
ATOMS = between(2, 1024)
#: Directions of an index, and its draws for each row.
DIMENSIONS = between(1, 256)
#: Sides of a pool, and factors of a trunk's channels.
SIDE = between(1, 64)
#: Units of a layer.
WIDTH = between(1, 65_536)
#: Rows of a batch.
ROWS = at_least(1, 2**20)
#: Parts of a batch, or of the environments; 0 has a meaning of its own.
PARTS = at_least(0, 2**20)
#: Copies of an environment, each an object or a process.
COPIES = at_least(1, 65_536)
#: Threads; too many would use up the machine's processes.
THREADS = at_least(1, 1024)
EPISODES = at_least(1, 1e6)
#: Rewards and returns.
VALUE = between(-1e9, 1e9)
#: Factors.
SCALE = at_least(0, 1e6)
#: Step sizes. The highest is far above any useful one, and finite in float32: a run that diverges reports it.
STEP_SIZE = above_zero(1e30)
