"""Bounds on the numeric arguments of an environment that a saved file names: the file may come from a stranger.

An environment that a person's own module registers takes what its author likes: no file can name a module to import.
"""

import math
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id

from agent.common.errors import UserError
from agent.common.foreign import is_own_file
from envs.failure import described

#: A larger number could make an environment endless, or fill the memory.
MAX_NUMBER, MAX_SEED = 1_000_000, 2**63
#: Arguments with their own bounds.
MAX_ARGUMENTS = {"size": 1_000, "frameskip": 100, "frame_skip": 1_000, "max_num_frames_per_episode": 10**9}


def max_magnitude(env_id: str, name: str) -> int:
    """The largest absolute value that an argument may have."""
    return MAX_SEED if "seed" in name or is_own(env_id) else MAX_ARGUMENTS.get(name, MAX_NUMBER)


def check_bounds(env_id: str, kwargs: Mapping[str, object]) -> None:
    """Refuses numbers that could make an environment from a file use up the machine's time or memory.

    Raises:
        UserError: an argument is too large.
    """
    for name, value in kwargs.items():
        if isinstance(value, int | float) and not abs(value) <= (limit := max_magnitude(env_id, name)):
            subject = f"env.kwargs.{name} of {env_id} is {described(value)}"
            if is_own(env_id) and isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{subject}: it must be a finite number")
            raise UserError(f"{subject}: in a saved file it may be {limit:,} at most{advice_on_bounds(env_id)}")


def advice_on_bounds(env_id: str) -> str:
    """Advice at the end of a sentence on a number that is too large."""
    own = "; an environment that a module of your own registers, which imports= names, may have more"
    return "" if is_own(env_id) else own


def is_own(env_id: str) -> bool:
    """Whether an id was registered here with a class or function of the person's own: of no installed package."""
    spec = gym.registry.get(env_id) or gym.registry.get(_newest(env_id))
    entry: Any = None if spec is None else spec.entry_point
    if entry is None:
        return False
    entry = getattr(entry, "func", entry)  # of a partial
    file = _file_of(entry.partition(":")[0] if isinstance(entry, str) else str(getattr(entry, "__module__", "")))
    return file is not None and is_own_file(str(file))


def full_id(env_id: str) -> str:
    """Returns the id with its newest version, if it was written without one and exists only with versions."""
    newest = _newest(env_id)
    return newest if env_id not in gym.registry and newest in gym.registry and newest.startswith(env_id) else env_id


def _newest(env_id: str) -> str:
    """The id with its newest version, where it is written without one."""
    try:
        namespace, name, _ = parse_env_id(env_id)
    except gym.error.Error:
        return ""
    return get_env_id(namespace, name, find_highest_version(namespace, name))


def _file_of(module: str) -> Path | None:
    """The file of a module, or of the package that it lies in, which is not imported for it."""
    if (known := sys.modules.get(module)) is not None:
        file = getattr(known, "__file__", None)
        return Path(file).resolve() if file else Path.cwd() / module if module == "__main__" else None
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin else None
