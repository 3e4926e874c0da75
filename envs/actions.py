"""The kind of number that an environment gets as its action: what its action space samples, or what it can use."""

from typing import Any

import gymnasium as gym
import numpy as np


class PlainActions(gym.ActionWrapper[Any, Any, Any]):
    """Hands Python's own numbers to an environment that takes no others."""

    def action(self, action: np.integer[Any]) -> int:
        """The same action as an int."""
        return int(action)
