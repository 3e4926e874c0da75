"""Tells an observation of one environment from a batch of observations."""

import numpy as np
from gymnasium import spaces

from envs.kinds import Observation, Space


def is_batch(space: Space, observation: object) -> bool:
    """True for observations of n environments, batched as Gymnasium does; False for one observation.

    Raises:
        ValueError: the observation has the shape of neither.
    """
    shape = np.shape(first_leaf(space, observation))
    while isinstance(space, spaces.Dict | spaces.Tuple):
        space = next(iter(space.values() if isinstance(space, spaces.Dict) else space.spaces))
    single = space.shape or ()
    if shape == single:
        return False
    if shape[1:] == single and shape:
        return True
    raise ValueError(f"the observation has shape {shape}: one has {single}, a batch has {('n', *single)}")


def first_leaf(space: Space, observation: Observation) -> Observation:
    """The first part of an observation, or of a batch, that is neither a Dict nor a Tuple."""
    while isinstance(space, spaces.Dict | spaces.Tuple):
        name, space = next(iter(space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)))
        observation = observation[name]
    return observation
