"""The environment that a file names: only one that is registered, made with plain arguments of bounded size."""

from __future__ import annotations

import math
import re
from pathlib import Path

from agent.common.errors import UserError
from agent.common.texts import printable
from envs.bounds import largest
from envs.wrapping import wrapping_of

FILE_NAME = "agent.safetensors"
# Gymnasium imports `module` for an id "module:Id": no colon gets through, nor anything else that is odd.
_ENV_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_WRAPPING_IDS = ("GymV21Environment", "GymV26Environment")  # they make any other id, given as an argument
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEYWORD_TEXT = re.compile(r"(?:[A-Za-z0-9_+-][A-Za-z0-9_ .,+-]{0,99})?")  # no path, no module
_MAKE_PARAMETERS = {  # of gymnasium.make, make_vec and EnvSpec: not the environment's own keywords
    *{"id", "env_id", "env_fn", "env_fns", "env_spec", "kwargs", "entry_point", "vector_entry_point"},
    *{"render_mode", "max_episode_steps", "autoreset", "disable_env_checker", "apply_api_compatibility"},
    *{"num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "additional_wrappers"},
}

#: What a file may say besides the id and the arguments.
_WRAPPING = {"observation", "wrappers", "eval_kwargs"}


def check_env(env: object, path: Path) -> None:
    """Refuses an environment description that could do more than make a registered environment.

    Raises:
        UserError: not {"id": <plain Gymnasium id>, "kwargs": <flat dict of plain values>}, perhaps with the parts of
            the observation that are kept, the wrappers, and other arguments for evaluations.
    """
    if not isinstance(env, dict) or env.keys() - _WRAPPING != {"id", "kwargs"}:
        raise refusal(path, "its description does not say the environment as id and kwargs")
    env_id, kwargs = env["id"], env["kwargs"]
    if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id):
        raise refusal(path, f"its environment id {short(env_id)} is not a plain one such as 'CartPole-v1'")
    if env_id.rpartition("/")[2].startswith(_WRAPPING_IDS):
        raise refusal(path, f"its environment {env_id!r} would make another one of its choice")
    _check_arguments("kwargs", kwargs, path)
    _check_arguments("eval_kwargs", env.get("eval_kwargs", {}), path)
    try:
        wrapping_of(env.get("observation", ()), env.get("wrappers", ()))
    except UserError as error:
        raise refusal(path, str(error)) from error


def _check_arguments(name: str, kwargs: object, path: Path) -> None:
    """Refuses arguments of an environment's constructor that are not plain and of bounded size."""
    if not isinstance(kwargs, dict):
        raise refusal(path, f"its environment's {name} are not a dict")
    for key, value in kwargs.items():
        if not isinstance(key, str) or not _KEYWORD.fullmatch(key) or key in _MAKE_PARAMETERS:
            raise refusal(path, f"its environment has the keyword {short(key)}, which is not allowed")
        if not _is_plain(value):
            plain = "a number, a truth value or a short plain text"
            raise refusal(path, f"its environment's {key!r} is {short(value)}, not {plain}")
        if not isinstance(value, str) and not abs(value) <= (limit := largest(key)):
            raise refusal(path, f"its environment's {key!r} is {short(value)}, where {limit:,} is the most")


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _KEYWORD_TEXT.fullmatch(value) is not None
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def short(value: object) -> str:
    """For messages: escapes control characters, which a terminal would obey, and stays short."""
    return f"{value!r:.80}"


def refusal(path: Path, reason: str) -> UserError:
    """The sentence for a file that is not to be used."""
    return UserError(f"{printable(str(path))} cannot be used: {reason}; give an {FILE_NAME} saved by this program.")
