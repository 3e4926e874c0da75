"""The kind of number that an environment gets as its action: what its action space samples, or what it can use."""

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError, plain
from envs.failure import RuleError
from envs.kinds import ActionWrapper, Space

#: More than any environment has: a network gives a value for each.
MOST_ACTIONS = 100_000


class PlainActions(ActionWrapper):
    """Hands Python's own numbers to an environment that takes no others."""

    def action(self, action: np.integer) -> int:
        """The same action as an int."""
        return int(action)


def checked_actions(space: Space, env_id: str) -> gym.spaces.Discrete:
    """The actions as a plain Discrete space, whatever class of an author's own they have.

    Raises:
        UserError, RuleError: where this agent cannot choose among them, or their space does not hold them.
    """
    if not isinstance(space, gym.spaces.Discrete):
        raise UserError(
            f"{env_id} has actions {plain(space, 200)}: this agent chooses among Discrete actions; "
            "for continuous ones, or several at once, use a policy-gradient or actor-critic library"
        )
    count, start, dtype = int(space.n), int(space.start), np.dtype(space.dtype)
    if count > MOST_ACTIONS:
        raise UserError(f"{env_id} has {count:,} actions: the most that are supported are {MOST_ACTIONS:,}")
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if start < least or start + count - 1 > most:
        raise RuleError(f"actions of {dtype} must lie from {least} to {most}", f"{start} to {start + count - 1}")
    return gym.spaces.Discrete(count, start=start, dtype=dtype.type)
