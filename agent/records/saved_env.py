"""Checks of the environment that a file names: a registered one, with plain arguments of bounded size."""

from __future__ import annotations

import math
import re
from pathlib import Path

from agent.common.errors import UserError
from agent.common.texts import printable
from agent.records.names import AGENT
from envs.bounds import advice_on_bounds, max_magnitude
from envs.wrapping import wrapping_of

# For an id "module:Id" Gymnasium imports the module, so an id has no colon, nor any other unusual character.
_ENV_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_WRAPPING_IDS = ("GymV21Environment", "GymV26Environment")  # they make any other environment, whose id is an argument
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEYWORD_TEXT = re.compile(r"(?:[A-Za-z0-9_+-][A-Za-z0-9_ .,+-]{0,99})?")  # excludes paths and modules
_MAKE_PARAMETERS = {  # parameters of gymnasium.make, make_vec and EnvSpec, which are no arguments of the environment
    *{"id", "env_id", "env_fn", "env_fns", "env_spec", "kwargs", "entry_point", "vector_entry_point"},
    *{"render_mode", "max_episode_steps", "autoreset", "disable_env_checker", "apply_api_compatibility"},
    *{"num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "additional_wrappers"},
}

#: The optional keys of an environment's description.
_OPTIONAL_KEYS = {"observation", "wrappers", "eval_kwargs"}


def check_env(env: object, path: Path) -> None:
    """Refuses an environment description that could do more than make a registered environment.

    Raises:
        UserError: the description is not {"id": <plain Gymnasium id>, "kwargs": <flat dict of plain values>}, with the
            optional keys `observation` (parts to keep), `wrappers` and `eval_kwargs` (arguments for evaluations).
    """
    if not isinstance(env, dict) or env.keys() - _OPTIONAL_KEYS != {"id", "kwargs"}:
        raise refusal(path, "its description does not say the environment as id and kwargs")
    env_id, kwargs = env["id"], env["kwargs"]
    if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id):
        raise refusal(path, f"its environment id {short(env_id)} is not a plain one such as 'CartPole-v1'")
    if env_id.rpartition("/")[2].startswith(_WRAPPING_IDS):
        raise refusal(path, f"its environment {env_id!r} would make another one of its choice")
    _check_arguments(env_id, "kwargs", kwargs, path)
    _check_arguments(env_id, "eval_kwargs", env.get("eval_kwargs", {}), path)
    try:
        wrapping_of(env.get("observation", ()), env.get("wrappers", ()))
    except UserError as error:
        raise refusal(path, str(error)) from error


def _check_arguments(env_id: str, name: str, kwargs: object, path: Path) -> None:
    """Refuses arguments of an environment's constructor that are not plain or are too large."""
    if not isinstance(kwargs, dict):
        raise refusal(path, f"its environment's {name} are not a dict")
    for key, value in kwargs.items():
        if not isinstance(key, str) or not _KEYWORD.fullmatch(key) or key in _MAKE_PARAMETERS:
            raise refusal(path, f"its environment has the keyword {short(key)}, which is not allowed")
        if not _is_plain(value):
            plain = "a number, a truth value or a short plain text"
            raise refusal(path, f"its environment's {key!r} is {short(value)}, not {plain}")
        if not isinstance(value, str) and not abs(value) <= (limit := max_magnitude(env_id, key)):
            reason = (
                f"its environment's {key!r} is {short(value)}, where {limit:,} is the most{advice_on_bounds(env_id)}"
            )
            raise refusal(path, reason)


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _KEYWORD_TEXT.fullmatch(value) is not None
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def short(value: object) -> str:
    """Shortens a value for messages and escapes control characters, which a terminal would obey."""
    return f"{value!r:.80}"


def refusal(path: Path, reason: str) -> UserError:
    """Words the error for a file that is refused."""
    return UserError(f"{printable(str(path))} cannot be used: {reason}; give an {AGENT} saved by this program.")
