"""The kind of number that an environment gets as its action: what its action space samples, or what it can use."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np


def needs_plain_actions(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment takes only Python's own whole numbers, and not NumPy's, which its action space samples.

    It is reset and stepped once for that, and once more where it refuses. One that refuses both fails for another
    reason, which is told where it is played.
    """
    space = env.action_space
    assert isinstance(space, gym.spaces.Discrete)
    sampled = space.dtype.type(space.start)
    return not _takes(env, sampled) and _takes(env, int(sampled))


def _takes(env: gym.Env[Any, Any], action: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gymnasium's checks, which come again where it is played
        try:
            env.reset(seed=0)
            env.step(action)
        except (Exception, SystemExit):
            return False
    return True


class PlainActions(gym.ActionWrapper[Any, Any, Any]):
    """Hands Python's own numbers to an environment that takes no others."""

    def action(self, action: np.integer[Any]) -> int:
        """The same action as an int."""
        return int(action)
