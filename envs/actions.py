"""Actions of a type that an environment accepts: NumPy's, as its action space samples them, or Python's int."""

import numpy as np

from envs.kinds import ActionWrapper


class PlainActions(ActionWrapper):
    """Passes Python ints to an environment that accepts no other actions."""

    def action(self, action: np.integer) -> int:
        """The same action as an int."""
        return int(action)
