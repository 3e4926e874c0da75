"""How an environment that fails is told of: one sentence, and below it the lines of its author's code that failed."""

import re
import sysconfig
import traceback
from pathlib import Path

import gymnasium as gym
import numpy as np

from agent.common.beginning import is_ctrl_c
from agent.common.errors import UserError, plain, words_of
from agent.common.interrupt import Stopped, end_if_stray

#: The most frames that are shown.
FRAMES = 12

_HOUSE = Path(__file__).parent.parent
_FOLDERS = tuple(f"{folder}/" for folder in (_HOUSE / "agent", _HOUSE / "envs", Path(gym.__file__).parent))
_STANDARD = sysconfig.get_path("stdlib")
_PACKAGES = ("site-packages", "dist-packages")
_COUNT = re.compile(r"(not enough|too many) values to unpack \(expected (\d)(?:, got (\d+))?\)")
_NOTHING = re.compile(r"cannot unpack non-iterable (\S+) object")
_ARGUMENTS = re.compile(r"unexpected keyword argument|positional argument")

RESULT = {
    "reset": "reset must return (observation, info)",
    "step": "step must return (observation, reward, terminated, truncated, info)",
}


class BrokenEnvironmentError(UserError):
    """An environment raised an exception, or broke a rule of Gymnasium."""


class RuleError(Exception):
    """A value that breaks a rule: `rule` says what it must be, `came` what it is."""

    def __init__(self, rule: str, came: str) -> None:
        super().__init__(rule, came)
        self.rule, self.came = rule, came


def is_stop(error: BaseException) -> bool:
    """Whether a signal raised an error in the middle of a call: that is no fault of the environment.

    A KeyboardInterrupt is one where it may be made of Ctrl-C; elsewhere it is the environment's own.
    """
    return isinstance(error, Stopped) or (isinstance(error, KeyboardInterrupt) and is_ctrl_c())


def failed(env_id: str, place: str, error: BaseException) -> UserError:
    """The error to raise where a call into an environment raised `error`.

    Args:
        env_id: the environment.
        place: the method that was called.
        error: is given back where it is a sentence already.
    """
    end_if_stray(f": {env_id} failed in {place}: {words_of(error)}")
    if isinstance(error, UserError):
        return error
    if isinstance(error, RuleError):
        return broken(env_id, error)
    lines = authors_lines(error)
    rule = None if lines else _broken_rule(place, error)
    return (
        broken(env_id, rule)
        if rule
        else BrokenEnvironmentError(f"{env_id} failed in {place}: {words_of(error)}", lines)
    )


def broken(env_id: str, error: RuleError) -> UserError:
    """The error to raise where an environment gave what it may not give."""
    return BrokenEnvironmentError(f"{env_id} breaks a rule of Gymnasium: {error.rule}, not {error.came}")


def _broken_rule(place: str, error: BaseException) -> RuleError | None:
    """The rule behind an exception that no line of the author's raised, but the code that called it."""
    said = str(error)
    if place in RESULT and isinstance(error, ValueError | TypeError):
        if count := _COUNT.search(said):
            return RuleError(RESULT[place], f"{count[3] or f'more than {count[2]}'} values{_old(place)}")
        if nothing := _NOTHING.search(said):
            return RuleError(RESULT[place], plain(nothing[1].strip("'")))
    if isinstance(error, TypeError) and f"{place}() " in said and _ARGUMENTS.search(said):
        arguments = {"reset": "seed and options by name", "step": "one action"}.get(place, "no arguments")
        return RuleError(f"{place} must take {arguments}", f"what it takes ({plain(said)}){_old(place)}")
    if isinstance(error, NotImplementedError):
        return RuleError(f"{place} must be a method of the environment", "missing")
    return None


def _old(place: str) -> str:
    return ", as in gym before version 0.26" if place in RESULT else ""


def authors_lines(error: BaseException) -> str:
    """The frames of a traceback that are neither ours nor Gymnasium's nor Python's own; '' where there are none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_authors(frame.filename)]
    lines = ["  …"] if len(frames) > FRAMES else []
    for frame in frames[-FRAMES:]:
        lines.append(f'  File "{plain(frame.filename)}", line {frame.lineno}, in {plain(frame.name)}')
        lines += [f"    {plain(frame.line)}"] if frame.line else []
    return "\n".join(lines)


def _is_authors(file: str) -> bool:
    if file.startswith(("<frozen", *_FOLDERS)):
        return False
    return not file.startswith(_STANDARD) or any(name in file for name in _PACKAGES)


def described(value: object) -> str:
    """A value that was not expected, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and {plain(value.dtype)}"
    if isinstance(value, tuple | list):
        kind = "a tuple" if isinstance(value, tuple) else "a list"
        return f"{kind} of length {len(value)}"
    if isinstance(value, dict):
        return f"a dict of {plain(list(value), 80)}" if value else "an empty dict"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        try:
            return plain(repr(value), 80)
        except ValueError:  # a whole number of more digits than Python writes
            return "a number with thousands of digits"
    return f"an object of class {plain(type(value).__name__)}"
