"""Gymnasium's rules for an environment's values, and harmless deviations that are accepted.

Accepted are rewards in arrays of one number, integers in place of floats, numbers of another precision, booleans that
are 0 or 1, and infos of any kind, since only `life_lost` is ever read. Anything else raises a RuleError.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.common.errors import plain
from envs.failure import RESULT, RuleError, described
from envs.kinds import Observation, Space

#: Types that need no further checks.
NUMBER_TYPES = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.int32})
BOOL_TYPES = frozenset({bool, np.bool_})

_INTEGER_KINDS = "iub"


def unpacked(method: str, result: object) -> tuple[Any, ...]:
    """The values that `reset` or `step` returned, of which there must be two or five."""
    count = 2 if method == "reset" else 5
    if not isinstance(result, tuple | list) or len(result) != count:
        note = ", as in gym before version 0.26" if not isinstance(result, tuple | list) or len(result) == 4 else ""
        raise RuleError(RESULT[method], described(result) + (note if result is not None else ""))
    return tuple(result)


def as_number(reward: object) -> float:
    """A reward as a float. It may be infinite or NaN: training checks that itself."""
    if type(reward) is float or type(reward) is np.float64:
        return float(reward)
    rule = "the reward must be a number"
    array = _array(reward, lambda: rule)
    if isinstance(reward, str | bytes | list | tuple) or np.ma.is_masked(reward) or array.size != 1:
        raise RuleError(rule, described(reward))
    if array.dtype.kind not in "fiubO" or (array.dtype.kind == "O" and not hasattr(type(reward), "__float__")):
        raise RuleError(rule, described(reward))
    try:
        return float(array.reshape(())[()])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RuleError(rule, described(reward)) from error


def as_bool(name: str, value: object) -> bool:
    """`terminated` or `truncated` as a boolean."""
    if type(value) in BOOL_TYPES:
        return bool(value)
    rule = f"{name} must be True or False"
    array = _array(value, lambda: rule)
    if isinstance(value, list | tuple) or np.ma.is_masked(value) or array.size != 1 or array.dtype.kind not in "biuf":
        raise RuleError(rule, described(value))
    number = array.reshape(())[()]
    if number not in (0, 1):
        raise RuleError(rule, described(value))
    return bool(number)


def are_booleans(array: np.ndarray) -> bool:
    """Whether all values are True or False, or 1 or 0."""
    return array.dtype.kind in "biuf" and bool(((array == 0) | (array == 1)).all())


def life_lost(info: object) -> bool | None:
    """Whether an info reports a lost life; None if it reports nothing, or has another value under this name."""
    # dict.get, as a subclass may override the methods.
    lost = dict.get(info, "life_lost") if isinstance(info, dict) else None
    try:
        return None if lost is None else as_bool("life_lost", lost)
    except RuleError:
        return None


def checked_observation(space: Space, value: object, name: str = "an observation") -> Observation:
    """An observation in a form that `concatenate` takes, if it is in its space or deviates harmlessly.

    Raises:
        RuleError: it has another shape, structure or kind of numbers, or is not in a finite space.
    """
    match space:
        case spaces.Box():
            return _box(space, value, name)
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return _finite(space, value, name)
        case spaces.Text():
            if not (isinstance(value, str) and len(value) <= space.max_length and set(value) <= space.character_set):
                raise RuleError(f"{name} must be in {plain(space, 80)}, as observation_space says", described(value))
            return value
        case spaces.Tuple():
            if not isinstance(value, tuple | list | np.ndarray) or len(value) != len(space.spaces):
                raise RuleError(f"{name} must be a tuple of {len(space.spaces)} parts", described(value))
            parts = zip(space.spaces, value, strict=True)
            return tuple(checked_observation(part, item, f"part {i} of {name}") for i, (part, item) in enumerate(parts))
        case spaces.Dict():
            if not isinstance(value, Mapping) or any(key not in value for key in space.spaces):
                raise RuleError(f"{name} must be a dict of {list(space.spaces)}", described(value))
            return {
                key: checked_observation(part, value[key], f"{key!r} of {name}") for key, part in space.spaces.items()
            }
    return value


def _box(space: spaces.Box, value: object, name: str) -> np.ndarray:
    def rule() -> str:  # to write a dtype takes as long as a step of a small environment
        return f"{name} must have shape {space.shape} and {space.dtype}, as observation_space says"

    array, dtype = _array(value, rule), space.dtype
    if array.shape == space.shape:
        if np.can_cast(array.dtype, dtype, "same_kind"):
            return array
        if array.dtype.kind in _INTEGER_KINDS and dtype.kind in _INTEGER_KINDS:
            converted = array.astype(dtype)
            if np.array_equal(converted, array):
                return converted
    raise RuleError(rule(), described(array if isinstance(value, list) else value))


def _finite(space: Space, value: object, name: str) -> np.ndarray:
    def rule() -> str:
        return f"{name} must lie in {space}, as observation_space says"

    array = _array(value, rule)
    if array.shape != space.shape or array.dtype.kind not in _INTEGER_KINDS:
        raise RuleError(rule(), described(value))
    if isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.full(space.shape, 2)
    else:
        assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        low = np.asarray(space.start)
        high = low + (space.n if isinstance(space, spaces.Discrete) else space.nvec)
    if not ((array >= low) & (array < high)).all():
        raise RuleError(rule(), described(value) if array.size == 1 else str(array.tolist())[:80])
    return array


def _array(value: object, rule: Callable[[], str]) -> np.ndarray:
    try:
        array: np.ndarray = np.asarray(value)
    except Exception as error:  # a list of lists of different lengths, a tensor on a device, an author's __array__
        raise RuleError(rule(), described(value)) from error
    return array


def check_space(name: str, space: object) -> Space:
    """The space of an environment.

    Raises:
        RuleError: it is not a space of Gymnasium.
    """
    if not isinstance(space, gym.Space):
        kind = f"{type(space).__module__}.{type(space).__name__}" if hasattr(space, "sample") else described(space)
        raise RuleError(f"{name} must be one of gymnasium.spaces", kind)
    return space


def check_equal(name: str, found: Sequence[Space]) -> None:
    """Raises a RuleError if the spaces of the copies differ."""
    for space in found[1:]:
        if space != found[0]:
            raise RuleError(f"all copies must have the {name} {plain(found[0], 80)}", plain(space, 80))
