"""Ctrl-C and SIGTERM: the first asks the loop to save and stop, the second stops at once."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn, Self


def at_once(signum: int, frame: FrameType | None) -> NoReturn:
    """The handler of a program that still imports what it needs, which takes a second: there is nothing to save."""
    os._exit(128 + signum)


def quit_at_once() -> None:
    """Ends the process at Ctrl-C without a traceback, until `quit_by_exception`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as behind nohup
        signal.signal(signal.SIGINT, at_once)


def quit_by_exception() -> None:
    """Makes Ctrl-C a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupt:
    """A context in which the first SIGINT or SIGTERM only sets `signum`; outside the main thread none comes.

    The conventional exit code of a process that a signal ended is 128 + its number.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one handle signals
            self._previous = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        """Whether a signal came."""
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number; 0 where none came."""
        return 0 if self.signum is None else 128 + self.signum

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        with suppress(OSError):  # not print: the signal may have come in the middle of one
            os.write(2, b"\nsaving and stopping; a second signal stops at once\n")
