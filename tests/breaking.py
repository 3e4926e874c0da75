"""Environments that break Gymnasium's rules, each in one way, from the first step on or later."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

GOOD = np.zeros(3, np.float32)


class UnpicklableError(Exception):
    """Holds a function, which cannot be sent to another process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.made = lambda: text


class Silent(Exception):
    """Has no text, since its author's `__str__` fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Leaving(Exception):
    """Its author's `__str__` ends the program."""

    def __str__(self) -> str:
        sys.exit(0)


class Stopping(Exception):
    """Its author's `__str__` raises KeyboardInterrupt, as Ctrl-C does."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Unread:
    """An array class of its author's own, whose values cannot be read."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no array")


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


def ends(*_: Any) -> Any:
    sys.exit(3)


#: Functions that turn the right results of a step, (observation, reward, terminated, truncated, info), into wrong ones,
#: and words of the sentence that names the mistake.
STEPS: dict[str, tuple[Callable[..., Any], str]] = {
    "four values": (lambda o, r, e, t, i: (o, r, e, i), "step must return (observation, reward, terminated"),
    "six values": (lambda o, r, e, t, i: (o, r, e, t, i, i), "step must return (observation, reward, terminated"),
    "nothing": (lambda o, r, e, t, i: None, "step must return (observation, reward, terminated"),
    "observation alone": (lambda o, r, e, t, i: o, "step must return (observation, reward, terminated"),
    "shape ()": (lambda o, r, e, t, i: (np.float32(0), r, e, t, i), "must have shape (3,)"),
    "shape (1,)": (lambda o, r, e, t, i: (o[:1], r, e, t, i), "must have shape (3,)"),
    "shape (1, 3)": (lambda o, r, e, t, i: (o[None], r, e, t, i), "must have shape (3,)"),
    "shape (4,)": (lambda o, r, e, t, i: (np.zeros(4, np.float32), r, e, t, i), "not an array of shape (4,)"),
    "ragged": (lambda o, r, e, t, i: ([0.0, [1.0], 2.0], r, e, t, i), "not a list of length 3"),
    "words": (lambda o, r, e, t, i: (["a", "b", "c"], r, e, t, i), "must have shape (3,) and float32"),
    "objects": (lambda o, r, e, t, i: (np.array([None, 1, 2]), r, e, t, i), "and object"),
    "complex": (lambda o, r, e, t, i: (o * 1j, r, e, t, i), "complex64"),
    "a dict": (lambda o, r, e, t, i: ({"a": o}, r, e, t, i), "not a dict of ['a']"),
    "no observation": (lambda o, r, e, t, i: (None, r, e, t, i), "as observation_space says, not None"),
    "reward None": (lambda o, r, e, t, i: (o, None, e, t, i), "the reward must be a number, not None"),
    "reward '1'": (lambda o, r, e, t, i: (o, "1", e, t, i), "the reward must be a number, not '1'"),
    "reward numpy '1'": (lambda o, r, e, t, i: (o, np.str_("1"), e, t, i), "the reward must be a number, not"),
    "reward b'1'": (lambda o, r, e, t, i: (o, b"1", e, t, i), "the reward must be a number, not b'1'"),
    "reward vector": (lambda o, r, e, t, i: (o, np.ones(2), e, t, i), "not an array of shape (2,)"),
    "reward empty": (lambda o, r, e, t, i: (o, np.ones(0), e, t, i), "not an array of shape (0,)"),
    "reward list": (lambda o, r, e, t, i: (o, [1.0], e, t, i), "not a list of length 1"),
    "reward dict": (lambda o, r, e, t, i: (o, {}, e, t, i), "not an empty dict"),
    "reward complex": (lambda o, r, e, t, i: (o, 1j, e, t, i), "the reward must be a number, not 1j"),
    "reward NaT": (lambda o, r, e, t, i: (o, np.datetime64("NaT"), e, t, i), "the reward must be a number, not"),
    "reward duration": (lambda o, r, e, t, i: (o, np.timedelta64(3, "s"), e, t, i), "the reward must be a number, not"),
    "reward unread": (lambda o, r, e, t, i: (o, Unread(), e, t, i), "must be a number, not an object of class Unread"),
    "dates": (lambda o, r, e, t, i: (np.zeros(3, "M8[s]"), r, e, t, i), "not an array of shape (3,) and datetime64[s]"),
    "unread": (lambda o, r, e, t, i: (Unread(), r, e, t, i), "as observation_space says, not an object of class Unr"),
    "reward masked": (lambda o, r, e, t, i: (o, np.ma.masked, e, t, i), "the reward must be a number, not"),
    "reward too large": (lambda o, r, e, t, i: (o, 10**400, e, t, i), "the reward must be a number, not 1000"),
    "terminated 'no'": (lambda o, r, e, t, i: (o, r, "no", t, i), "terminated must be True or False, not 'no'"),
    "terminated None": (lambda o, r, e, t, i: (o, r, None, t, i), "terminated must be True or False, not None"),
    "terminated masked": (lambda o, r, e, t, i: (o, r, np.ma.masked, t, i), "terminated must be True or False, not"),
    "terminated 2": (lambda o, r, e, t, i: (o, r, 2, t, i), "terminated must be True or False, not 2"),
    "terminated two": (lambda o, r, e, t, i: (o, r, np.ones(2, bool), t, i), "terminated must be True or False"),
    "truncated dict": (lambda o, r, e, t, i: (o, r, e, {}, i), "truncated must be True or False, not an empty dict"),
    "raises": (raising(ValueError("no wheel")), "failed in step: ValueError: no wheel"),
    "raises lines": (raising(ValueError("one\ntwo \x1b[31m")), r"failed in step: ValueError: one two \x1b[31m"),
    "raises much": (raising(ValueError("x" * 10**6)), "failed in step: ValueError: xxx"),
    "raises no text": (raising(Silent()), "failed in step: Silent"),
    "raises a text that ends": (raising(Leaving()), "failed in step: Leaving"),
    "raises a text that stops": (raising(Stopping()), "failed in step: Stopping"),
    "raises unpicklable": (raising(UnpicklableError("a lambda")), "failed in step: UnpicklableError: a lambda"),
    "raises SystemExit": (ends, "failed in step: it ended the program, by sys.exit(3)"),
    "raises GeneratorExit": (raising(GeneratorExit()), "failed in step: GeneratorExit"),
    "raises KeyboardInterrupt": (raising(KeyboardInterrupt()), "failed in step: KeyboardInterrupt"),
    "raises StopIteration": (raising(StopIteration("over")), "failed in step: StopIteration: over"),
    "raises MemoryError": (raising(MemoryError()), "failed in step: MemoryError"),
    "raises EOFError": (raising(EOFError("the game is gone")), "failed in step: EOFError: the game is gone"),
    "raises BrokenPipe": (raising(BrokenPipeError(32, "Broken pipe")), "failed in step: BrokenPipeError"),
    "not implemented": (raising(NotImplementedError()), "failed in step: NotImplementedError"),
}

#: Functions that turn the right results of a reset, (observation, info), into wrong ones, and words of the sentence.
RESETS: dict[str, tuple[Callable[..., Any], str]] = {
    "observation alone": (lambda o, i: o, "reset must return (observation, info)"),
    "nothing": (lambda o, i: None, "reset must return (observation, info)"),
    "three values": (lambda o, i: (o, i, i), "reset must return (observation, info)"),
    "shape ()": (lambda o, i: (0.0, i), "must have shape (3,)"),
    "shape (1,)": (lambda o, i: (o[:1], i), "must have shape (3,)"),
    "no observation": (lambda o, i: (None, i), "as observation_space says, not None"),
    "raises": (raising(RuntimeError("no port")), "failed in reset: RuntimeError: no port"),
    "raises a text that ends": (raising(Leaving()), "failed in reset: Leaving"),
    "raises SystemExit": (ends, "failed in reset: it ended the program, by sys.exit(3)"),
    "raises unpicklable": (raising(UnpicklableError("a lambda")), "failed in reset: UnpicklableError: a lambda"),
}

#: Functions that turn the right results of a step into unusual ones that do no harm.
HARMLESS: dict[str, Callable[..., Any]] = {
    "a list of results": lambda o, r, e, t, i: [o, r, e, t, i],
    "a list": lambda o, r, e, t, i: (o.tolist(), r, e, t, i),
    "a tuple": lambda o, r, e, t, i: (tuple(o.tolist()), r, e, t, i),
    "double precision": lambda o, r, e, t, i: (o.astype(np.float64), r, e, t, i),
    "whole numbers": lambda o, r, e, t, i: (o.astype(np.int64), r, e, t, i),
    "reward (1,)": lambda o, r, e, t, i: (o, np.array([r]), e, t, i),
    "reward (1, 1)": lambda o, r, e, t, i: (o, np.array([[r]], np.float32), e, t, i),
    "reward whole": lambda o, r, e, t, i: (o, int(r), e, t, i),
    "reward float16": lambda o, r, e, t, i: (o, np.float16(r), e, t, i),
    "reward True": lambda o, r, e, t, i: (o, True, e, t, i),
    "endings 0 and 1": lambda o, r, e, t, i: (o, r, int(e), np.uint8(t), i),
    "endings (1,)": lambda o, r, e, t, i: (o, r, np.array([e]), np.array([t]), i),
    "info None": lambda o, r, e, t, i: (o, r, e, t, None),
    "info a list": lambda o, r, e, t, i: (o, r, e, t, [1, "x"]),
    "info odd": lambda o, r, e, t, i: (o, r, e, t, {3: object(), "f": lambda: 0, "life_lost": None}),
    "another life": lambda o, r, e, t, i: (o, r, e, t, {"life_lost": "yes"}),
}


class Breaking(gym.Env[Any, Any]):
    """Has episodes of ten steps with a reward of 1 each, and breaks a rule from its step or reset number `at` on.

    Args:
        step: a name of STEPS or HARMLESS.
        reset: a name of RESETS.
        close: raises | hangs.
        at: counted over all episodes; 0: the rule is broken when the task is loaded.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(
        self, step: str = "", reset: str = "", close: str = "", at: int = 0, render_mode: str | None = None
    ) -> None:
        self.broken_step = (STEPS.get(step) or (HARMLESS.get(step),))[0]
        self.broken_reset = (RESETS.get(reset) or (None,))[0]
        self.closing, self.at, self.steps, self.resets, self.time = close, at, 0, 0, 0
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time, self.resets = 0, self.resets + 1
        if self.broken_reset is not None and self.resets > self.at:
            return self.broken_reset(GOOD, {})
        return GOOD, {}

    def step(self, action: Any) -> Any:
        self.time, self.steps = self.time + 1, self.steps + 1
        result = GOOD, 1.0, self.time >= 10, False, {}
        if self.broken_step is not None and self.steps > self.at:
            return self.broken_step(*result)
        return result

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        if self.closing == "raises":
            raise RuntimeError("not connected to the physics server")
        while self.closing == "hangs":
            time.sleep(1000)


def register() -> None:
    """Registers the environment with Gymnasium."""
    gym.register("Test/Breaking-v0", entry_point=Breaking)  # type: ignore[arg-type]
