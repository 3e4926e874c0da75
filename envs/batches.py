"""Whether an observation is that of one environment or of several side by side."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def is_batch(space: gym.Space[Any], observation: Any) -> bool:
    """True for the observations of n environments, batched as Gymnasium does; False for that of one.

    Raises:
        ValueError: the observation has the form of neither.
    """
    while isinstance(space, spaces.Dict | spaces.Tuple):
        name, space = next(iter(space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)))
        observation = observation[name]
    shape = np.shape(observation)
    single = space.shape or ()
    if shape == single:
        return False
    if shape[1:] == single and shape:
        return True
    raise ValueError(f"the observation has shape {shape}: one has {single}, a batch has {('n', *single)}")
