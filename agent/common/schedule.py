"""Schedules: numbers that change with the step, and events that are due every so many steps."""


def linear(start: float, end: float, step: float, steps: float) -> float:
    """A number that changes linearly from `start` to `end` over `steps`, and then stays at `end`."""
    return start + (end - start) * min(1.0, step / steps)


class Every:
    """True each time a counter reaches or passes a new multiple of `period`; never for a period of 0."""

    def __init__(self, period: int, last: int = 0) -> None:
        self._period, self._last = period, last

    def __call__(self, step: int) -> bool:
        """Whether a multiple lies in (the step of the last call, step]."""
        last, self._last = self._last, step
        return self._period > 0 and step // self._period > last // self._period
