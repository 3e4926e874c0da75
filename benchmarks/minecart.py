"""mo-gymnasium's minecart with the sum of its three rewards, for train.py: imports=benchmarks.minecart env=Minecart-v0.

The rewards are the two kinds of ore that are sold and the fuel that is burnt, which is negative: their sum is a profit.
"""

from typing import Any

import gymnasium as gym
import mo_gymnasium
import numpy as np


def make(**kwargs: Any) -> gym.Env[np.ndarray, np.int64]:
    env = mo_gymnasium.make("minecart-v0", **kwargs)
    return mo_gymnasium.wrappers.LinearReward(env, weight=np.ones(3))


gym.register("Minecart-v0", entry_point=make)
