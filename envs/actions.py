"""The kind of number that an environment gets as its action: what its action space samples, or what it can use."""

import numpy as np

from envs.kinds import ActionWrapper


class PlainActions(ActionWrapper):
    """Hands Python's own numbers to an environment that takes no others."""

    def action(self, action: np.integer) -> int:
        """The same action as an int."""
        return int(action)
