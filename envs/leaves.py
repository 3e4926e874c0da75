"""The leaves of an observation space, which are its parts other than Dict and Tuple, and their values as vectors."""

from collections.abc import Iterator
from math import prod

import numpy as np
from gymnasium import spaces

from agent.common.errors import plain
from envs.failure import RuleError
from envs.kinds import Observation, Space
from envs.rules import checked_observation

#: Spaces whose values are flattened to zeros and ones.
ONE_HOT = (spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def leaves_of(space: Space) -> Iterator[Space]:
    """The leaves of a Tuple or Dict, in Gymnasium's order; otherwise the space itself."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        for part in space.spaces if isinstance(space, spaces.Tuple) else space.spaces.values():
            yield from leaves_of(part)
    else:
        yield space


def values_of(space: Space, batch: Observation) -> Iterator[Observation]:
    """The values of a batch, leaf by leaf."""
    if isinstance(space, spaces.Tuple):
        for part, values in zip(space.spaces, batch, strict=True):
            yield from values_of(part, values)
    elif isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from values_of(part, batch[name])
    else:
        yield batch


def is_flat(leaf: Space) -> bool:
    """Whether a leaf's values can be flattened to vectors of one length."""
    return isinstance(leaf, (spaces.Box, spaces.Text, *ONE_HOT))


def length_of(leaf: Space) -> int:
    """The length of a flattened leaf."""
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
        return int(np.sum(leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec))
    if isinstance(leaf, spaces.Text):
        return leaf.max_length
    return prod(leaf.shape or ())


def flat_values(leaf: Space, values: Observation) -> np.ndarray:
    """The values [E, …] of a leaf as [E, n]: `gymnasium.spaces.flatten` for all environments at once."""
    if isinstance(leaf, spaces.Text):
        return np.stack([np.asarray(spaces.flatten(leaf, checked_observation(leaf, value))) for value in values])
    array: np.ndarray = np.asarray(values)
    if isinstance(leaf, spaces.Discrete):
        return _one_hot(leaf, array, array - leaf.start, int(leaf.n))
    array = array.reshape(len(array), -1)
    if isinstance(leaf, spaces.MultiBinary) and array.max() > 1:
        raise _not_a_member(leaf, array)
    if not isinstance(leaf, spaces.MultiDiscrete):
        return array
    columns = zip((array - leaf.start.reshape(-1)).T, leaf.nvec.reshape(-1).tolist(), strict=True)
    return np.concatenate([_one_hot(leaf, array, column, n) for column, n in columns], axis=1)


def _one_hot(leaf: Space, values: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """index [E], counted from 0 → bool [E, n]; `values` are the leaf's own, for the error."""
    hot: np.ndarray = index[:, None] == np.arange(n)
    if np.count_nonzero(hot) != len(index):
        raise _not_a_member(leaf, values)
    return hot


def _not_a_member(leaf: Space, values: np.ndarray) -> RuleError:
    """The error that names the first of the values [E, …] that is not in its space."""
    invalid = next((value for value in values if not leaf.contains(value.reshape(leaf.shape))), values)
    return RuleError(f"a state must lie in {leaf}, as observation_space says", plain(invalid.tolist(), 80))


def is_integral(leaf: Space) -> bool:
    """Whether its values are integers whose range has no meaning of its own."""
    return not isinstance(leaf, ONE_HOT) and not np.issubdtype(leaf.dtype, np.floating)


def bounds_of(leaf: Space) -> tuple[np.ndarray, np.ndarray]:
    """Low and high [n] of a leaf's flattened components; both are 0 for one-hot components."""
    flat = spaces.flatten_space(leaf)
    assert isinstance(flat, spaces.Box)
    if isinstance(leaf, ONE_HOT):
        return np.zeros(flat.shape), np.zeros(flat.shape)
    return flat.low.astype(np.float64), flat.high.astype(np.float64)
