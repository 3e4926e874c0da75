"""Reports an environment that fails: one sentence, and below it the lines of its author's code that failed."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError, one_line, plain
from agent.common.foreign import foreign_frames, shown
from agent.common.interrupt import end_if_stray

_GYMNASIUM = f"{Path(gym.__file__).parent}/"
_COUNT = re.compile(r"(not enough|too many) values to unpack \(expected (\d)(?:, got (\d+))?\)")
_NOT_ITERABLE = re.compile(r"cannot unpack non-iterable (\S+) object")
_ARGUMENTS = re.compile(r"unexpected keyword argument|positional argument")

RESULT = {
    "reset": "reset must return (observation, info)",
    "step": "step must return (observation, reward, terminated, truncated, info)",
}


class BrokenEnvironmentError(UserError):
    """An environment raised an exception, or broke a rule of Gymnasium."""


class RuleError(Exception):
    """A value that breaks a rule: `rule` says what it must be, `actual` what it is."""

    def __init__(self, rule: str, actual: str) -> None:
        super().__init__(rule, actual)
        self.rule, self.actual = rule, actual


def failed(env_id: str, method: str, error: BaseException) -> UserError:
    """The error to raise after a call into an environment raised `error`.

    Args:
        env_id: the environment.
        method: the method that was called.
        error: returned as it is if it is already one sentence.
    """
    end_if_stray(f": {env_id} failed in {method}: {one_line(error)}")
    if isinstance(error, UserError):
        return error
    if isinstance(error, RuleError):
        return broken(env_id, error)
    lines = authors_lines(error)
    rule = None if lines else _broken_rule(method, error)
    return (
        broken(env_id, rule)
        if rule
        else BrokenEnvironmentError(f"{env_id} failed in {method}: {one_line(error)}", lines)
    )


def broken(env_id: str, error: RuleError) -> UserError:
    """The error to raise after an environment returned a value that breaks a rule."""
    return BrokenEnvironmentError(f"{env_id} breaks a rule of Gymnasium: {error.rule}, not {error.actual}")


def _broken_rule(method: str, error: BaseException) -> RuleError | None:
    """The broken rule behind an exception that the calling code raised, not the author's code."""
    message = str(error)
    if method in RESULT and isinstance(error, ValueError | TypeError):
        if count := _COUNT.search(message):
            return RuleError(RESULT[method], f"{count[3] or f'more than {count[2]}'} values{_old_api_note(method)}")
        if not_iterable := _NOT_ITERABLE.search(message):
            return RuleError(RESULT[method], plain(not_iterable[1].strip("'")))
    if isinstance(error, TypeError) and f"{method}() " in message and _ARGUMENTS.search(message):
        arguments = {"reset": "seed and options by name", "step": "one action"}.get(method, "no arguments")
        return RuleError(f"{method} must take {arguments}", f"what it takes ({plain(message)}){_old_api_note(method)}")
    if isinstance(error, NotImplementedError):
        return RuleError(f"{method} must be a method of the environment", "missing")
    return None


def _old_api_note(method: str) -> str:
    return ", as in gym before version 0.26" if method in RESULT else ""


def authors_lines(error: BaseException) -> str:
    """The lines of a traceback outside this project, Gymnasium and the standard library; '' if there are none."""
    return shown([frame for frame in foreign_frames(error) if not frame.filename.startswith(_GYMNASIUM)])


def described(value: object) -> str:
    """A short description of an unexpected value."""
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
