"""Closes environments: one that fails or hangs in `close` is reported in one line, and nothing is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from agent.common.errors import one_line
from agent.common.foreign import is_stop
from agent.common.interrupt import stopping
from agent.common.notices import tell_once
from agent.common.patience import TooLongError, call_within
from envs.kinds import Env

#: Seconds that an environment may take to close.
CLOSE_SECONDS = 5.0

_hanging: set[str] = set()  # names of environments that hung: their other copies get a tenth of a second


def guard_close(env: Env, name: str) -> Env:
    """Replaces `close` of an environment with one that never raises and always returns; other methods stay as fast."""
    close = env.close
    env.close = lambda: close_quietly(close, name)  # type: ignore[method-assign]
    return env


def close_quietly(close: Callable[[], object], name: str) -> None:
    """Closes an environment, and reports in one line if it fails or takes longer than `CLOSE_SECONDS`."""
    stop_requested = stopping()
    seconds = 0.1 if stop_requested or name in _hanging else CLOSE_SECONDS
    try:
        _within(seconds, close)
    except TooLongError:
        if not stop_requested:
            _hanging.add(name)
            tell_once(f"{name} hangs in close(): it is left as it is")
    except BaseException as error:
        if is_stop(error):
            raise
        tell_once(f"{name} could not be closed ({one_line(error)}): it is left as it is")


def _within(seconds: float, close: Callable[[], object]) -> None:
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        call_within(seconds, close)
    elif hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]:
        with _alarm(seconds):
            close()
    else:  # there is no such timer, or the environment uses it
        close()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises TooLongError in the main thread after some seconds: windows must be closed where they were opened."""

    def raise_timeout(signum: int, frame: FrameType | None) -> NoReturn:
        raise TooLongError

    previous = signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)  # repeated, for an environment that catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
