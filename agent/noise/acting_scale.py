"""The scale of the acting noise: it is adapted so that the noise changes a given fraction of the greedy actions."""

from math import exp, log

import numpy as np

from agent.common.arrays import Array, Place
from agent.common.state import State


class ActingScale:
    """Multiplies the acting noise by a factor that follows the fraction of greedy actions that the noise changes.

    Learned noise can vanish before the agent has found what it needs, or be so large where all values are alike that
    the agent acts at random. The factor changes only how the agent acts: updates draw unscaled noise. Plappert et al.
    2018 (arXiv 1706.01905, §3) adapt a scale in this way to the distance between the noisy and the mean policy.

    Args:
        scaled: bool [size], which numbers of a draw are multiplied.
        place: the device of the draws.
    """

    SHARE = 0.25  # of the calls are measured, which takes another forward pass
    GOLDEN = (5**0.5 - 1) / 2  # multiples of an irrational number: no episode length makes measured steps alike
    RATE = 0.1  # change of the logarithm for a difference of 1 between the two fractions
    LIMIT = 5.0  # the greatest absolute value of the logarithm

    def __init__(self, scaled: np.ndarray, place: Place) -> None:
        self._scaled = place.put(scaled.astype(np.float32))
        self._calls = 0
        self._set(0.0)

    def __call__(self, noise: Array) -> Array:
        """Returns noise [E, size], scaled."""
        self._calls += 1
        return noise * self._multiplier

    @property
    def factor(self) -> float:
        """The factor of the noise."""
        return exp(self._log)

    @factor.setter
    def factor(self, factor: float) -> None:
        self._set(log(factor))

    def is_due(self) -> bool:
        """Whether the effect of the noise is to be measured at this step."""
        return self._calls * self.GOLDEN % 1.0 < self.SHARE

    def adapt(self, measured: float, goal: float) -> None:
        """Moves the factor after a measurement.

        Args:
            measured: the fraction of the exploring environments' actions that the scaled noise changed at this step.
            goal: the fraction that it shall change.
        """
        moved = self._log + self.RATE * (goal - measured)
        self._set(min(max(moved, -self.LIMIT), self.LIMIT))

    def _set(self, logarithm: float) -> None:
        self._log = logarithm
        self._multiplier: Array = self._scaled * (self.factor - 1.0) + 1.0  # [size]

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds."""
        return {"log": self._log, "calls": self._calls}

    def load_state(self, state: State) -> None:
        """Restores `state`."""
        self._calls = state["calls"]
        self._set(state["log"])
