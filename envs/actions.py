"""Actions of a type that an environment accepts: NumPy's, as its action space samples them, or Python's int."""

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError, plain
from envs.failure import RuleError
from envs.kinds import ActionWrapper, Space

#: More actions than any environment has; a network computes a value for each.
MAX_ACTIONS = 100_000
#: The most actions that a message advises.
FEW_ACTIONS = 256


class PlainActions(ActionWrapper):
    """Passes Python ints to an environment that accepts no other actions."""

    def action(self, action: np.integer) -> int:
        """The same action as an int."""
        return int(action)


def checked_actions(space: Space, env_id: str) -> gym.spaces.Discrete:
    """The action space as a plain Discrete, also if its class is a subclass of Discrete.

    Raises:
        UserError, RuleError: if this agent cannot choose among the actions, or their dtype cannot hold them.
    """
    if not isinstance(space, gym.spaces.Discrete):
        raise UserError(
            f"{env_id} has actions {plain(space, 200)}: this agent chooses among Discrete actions; {_bins(space)}"
            "a policy-gradient or actor-critic library takes continuous ones, and several at once"
        )
    count, start, dtype = int(space.n), int(space.start), np.dtype(space.dtype)
    if count > MAX_ACTIONS:
        raise UserError(f"{env_id} has {count:,} actions: the most that are supported are {MAX_ACTIONS:,}")
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if start < least or start + count - 1 > most:
        raise RuleError(f"actions of {dtype} must lie from {least} to {most}", f"{start} to {start + count - 1}")
    return gym.spaces.Discrete(count, start=start, dtype=dtype.type)


def _bins(space: Space) -> str:
    """The option that makes few Discrete actions of continuous ones; "" if none does."""
    if isinstance(space, gym.spaces.Box) and space.shape and space.is_bounded():
        for bins in (5, 3, 2):
            if (count := bins ** int(np.prod(space.shape))) <= FEW_ACTIONS:
                return f"env.wrappers=[{{DiscretizeAction:{{bins:{bins}}}}}] makes {count:,} of them; "
    return ""
