"""Saves the environments' episodes to a checkpoint, and returns a resumed run to the middle of them.

Vector classes whose copies can replay their episodes do so (see envs.episodes). NumPy classes whose attributes are
their whole state are saved as they are. No other class can be saved: it begins new episodes.
"""

import gymnasium as gym
import numpy as np

from agent.common.seeds import environment_seeds
from agent.common.state import State
from envs.episodes import RepeatableEnvs, Stretch, action_code
from envs.kinds import Envs

#: The attributes that are, with `np_random`, the whole state of vector classes that do not name them themselves.
STATE_ATTRIBUTES = {"gymnasium.envs.classic_control.cartpole.CartPoleVectorEnv": ("state", "steps", "prev_done")}

#: Counts of episodes and steps are below this in every run.
MAX_COUNT = 2**40


def begin(envs: Envs, seed: int, step: int = 0) -> object:
    """Begins the episodes of a run, or new ones of a run that continues at `step`; returns the first observations."""
    if isinstance(envs, RepeatableEnvs):
        envs.begin_episodes(seed, step)  # a number that no copy has reached
        return envs.reset()[0]
    (first,) = environment_seeds(seed, "environments", 1, step)
    return envs.reset(seed=first)[0]


def saved(envs: Envs) -> dict[str, object] | None:
    """The state of the episodes under way for a checkpoint; None if they cannot be restored."""
    if isinstance(envs, RepeatableEnvs):
        columns = zip(*envs.stretches(), strict=True)
        numbers, ended, checksums, actions = (list(column) for column in columns)
        return {
            "numbers": np.array(numbers, dtype=np.int64),
            "ended": np.array(ended, dtype=bool),
            "checksums": np.array(checksums, dtype=np.int64),
            "lengths": np.array([len(part) for part in actions], dtype=np.int64),
            "actions": np.concatenate(actions),
        }
    if (names := _state_attributes(envs)) is None:
        return None
    inner = envs.unwrapped
    attributes = {name: np.array(getattr(inner, name)) for name in names}
    return {"attributes": attributes, "generator": inner.np_random.bit_generator.state}


def restore(envs: Envs, seed: int, state: State | None) -> np.ndarray | None:
    """Returns the copies of a run with this seed to their saved positions; the result [E] says which copies succeeded.

    The next step of the other copies only resets, as after an ending. None if the class cannot be restored.

    Raises:
        ValueError: if the state belongs to other environments.
    """
    if state is None:
        return None
    if not isinstance(state, dict):
        raise ValueError(f"episodes that are a {type(state).__name__}")
    if isinstance(envs, RepeatableEnvs):
        if "numbers" not in state:
            return None
        envs.begin_episodes(seed)
        return np.array(envs.return_to(_stretches(envs, state)))
    names, attributes = _state_attributes(envs), state.get("attributes")
    if names is None or not isinstance(attributes, dict) or names != tuple(attributes):
        return None
    envs.reset(seed=0)  # creates the attributes
    inner = envs.unwrapped
    for name, value in attributes.items():
        setattr(inner, name, checked(name, value, np.array(getattr(inner, name))).copy())
    try:
        inner.np_random.bit_generator.state = state["generator"]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"an invalid random generator ({error})") from error
    return np.ones(envs.num_envs, dtype=bool)


def checked(name: str, value: object, expected: np.ndarray) -> np.ndarray:
    """An array of a checkpoint, whose shape and dtype must be the expected ones.

    Raises:
        ValueError: if they are not.
    """
    if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (expected.shape, expected.dtype):
        kind = getattr(value, "shape", None), getattr(value, "dtype", type(value).__name__)
        raise ValueError(f"{name} of {kind[0]} {kind[1]}, expected {expected.shape} {expected.dtype}")
    return value


def _state_attributes(envs: Envs) -> tuple[str, ...] | None:
    """The names of the attributes that are, with `np_random`, a vector class's whole state; None if unknown."""
    kind = type(envs.unwrapped)
    known = STATE_ATTRIBUTES.get(f"{kind.__module__}.{kind.__qualname__}")
    names: tuple[str, ...] | None = getattr(kind, "state_attributes", known)
    return names if names and all(hasattr(envs.unwrapped, name) for name in names) else None


def _stretches(envs: Envs, state: dict[str, object]) -> list[Stretch]:
    """The stretches in a state that `saved` made. Everything is checked: it may come from a stranger."""
    space, integers = envs.single_action_space, np.zeros(envs.num_envs, dtype=np.int64)
    assert isinstance(space, gym.spaces.Discrete)
    numbers, checksums, lengths = (
        checked(name, state.get(name), integers) for name in ("numbers", "checksums", "lengths")
    )
    ended, actions = checked("ended", state.get("ended"), integers > 0), state.get("actions")
    if (numbers < 0).any() or (lengths < 0).any() or (numbers > MAX_COUNT).any() or (lengths > MAX_COUNT).any():
        raise ValueError("episodes with negative or too large numbers")
    if getattr(actions, "shape", None) != (int(lengths.sum()),):
        raise ValueError("another number of actions than the episodes had")
    actions = checked("actions", actions, np.empty(int(lengths.sum()), dtype=action_code(int(space.n))))
    if (actions >= space.n).any() or (actions < 0).any():
        raise ValueError(f"actions of the episodes that are not among {int(space.n)}")
    columns = numbers.tolist(), ended.tolist(), checksums.tolist(), np.split(actions, np.cumsum(lengths)[:-1])
    return [Stretch(*row) for row in zip(*columns, strict=True)]
