"""Observations from a user: checks them, makes arrays of them, and tells one from a batch."""

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from agent.common.errors import plain
from envs.kinds import Observation, Space
from envs.leaves import leaves_of, values_of


def arrays_of(space: Space, observation: Observation, name: str = "the observation") -> Observation:
    """The same Dicts and Tuples of arrays of numbers, of the kind of the space's.

    Raises:
        ValueError: it has other parts than the space, or holds something else than such numbers.
    """
    is_pair = isinstance(observation, tuple) and len(observation) == 2 and not isinstance(space, spaces.Tuple)
    if is_pair and isinstance(observation[1], Mapping):
        raise ValueError(f"{name} is a pair with a dict, as `reset` returns: pass its first item, the observation")
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or any(key not in observation for key in space.spaces):
            raise ValueError(f"{name} must be a dict of {', '.join(map(str, space.spaces))}")
        return {key: arrays_of(part, observation[key], f"{key!r} of {name}") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(observation, tuple | list | np.ndarray) or len(observation) != len(space.spaces):
            raise ValueError(f"{name} must be a tuple of {len(space.spaces)} parts")
        pairs = enumerate(zip(space.spaces, observation, strict=True))
        return tuple(arrays_of(part, value, f"part {number} of {name}") for number, (part, value) in pairs)
    return observation if isinstance(space, spaces.Text) else _numbers(np.dtype(space.dtype), observation, name)


def _numbers(dtype: np.dtype, value: object, name: str) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(value)
    except Exception as error:  # lists of different lengths, a tensor that has a gradient or is on another device
        raise ValueError(f"{name} cannot be read as an array: {plain(error, 120)}") from error
    array = array.astype(np.float64) if array.size == 0 else array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, not {plain(repr(value), 60)}")
    if dtype.kind not in "biu" or array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        whole: np.ndarray = array.astype(dtype)
    if not (whole == array).all():
        raise ValueError(f"{name} must hold whole numbers, of {dtype}, not {plain(repr(value), 60)}")
    return whole


def is_batch(space: Space, observation: object) -> bool:
    """True for observations of n environments, batched as Gymnasium does; False for one observation.

    Raises:
        ValueError: the observation has the shape of neither, or n is 0.
    """
    found = [np.shape(value) for value in values_of(space, observation)]
    singles = [leaf.shape or () for leaf in leaves_of(space)]
    if found == singles:
        return False
    rows = found[0][:1]
    for shape, single in zip(found, singles, strict=True):
        if not shape or shape != (*rows, *single):
            raise ValueError(f"the observation has shape {shape}: one has {single}, a batch has {('n', *single)}")
    if rows == (0,):
        raise ValueError("the observation is a batch of none: give one at least")
    return True


def first_leaf(space: Space, observation: Observation) -> Observation:
    """The first part of an observation, or of a batch, that is neither a Dict nor a Tuple."""
    while isinstance(space, spaces.Dict | spaces.Tuple):
        name, space = next(iter(space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)))
        observation = observation[name]
    return observation
