"""Ctrl-C and SIGTERM: the first asks to save and stop, the second stops at once.

Work of two kinds hears the first. Training asks for it between two steps. Work that a stop drops (an evaluation, a
film, a picture, the compiler, the end of W&B) is marked by `droppable`: the signal raises `Stopped` in the middle of
it. Some work does not even hear that, as a C library that does not come back: a thread then saves in its place.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Self

from agent.common import beginning

#: Seconds after a signal within which work that is dropped has to end by itself; then it is saved without it.
GRACE = 2.0
#: Seconds after a signal until a program ends, where everything is saved: batch systems kill after 30.
PATIENCE = 4.5
#: Seconds that are left after saving for the rest, as W&B's files, where saving took longer than that.
REST = 0.5

_POLL = 0.05
_active: "Interrupt | None" = None  # the one that handles the signals
_in_charge = False  # this process plays environments of a run
_stray = False  # it is a copy of one that does: an environment has forked it


class Stopped(BaseException):
    """A signal has ended work that a stop drops; like KeyboardInterrupt, no Exception, so that nobody swallows it."""


@contextmanager
def droppable() -> Iterator[None]:
    """Marks work that the run under way drops when it is asked to stop; does nothing where there is no such run.

    Raises:
        Stopped: at any place in it, and at its beginning where the signal has come already.
    """
    handled = _active is not None and threading.current_thread() is threading.main_thread()
    with _active.droppable() if handled and _active is not None else nullcontext():
        yield


def stopping() -> bool:
    """Whether the run under way was asked to stop: nothing is worth waiting for."""
    return _active is not None and bool(_active)


def take_charge() -> None:
    """From here on this process plays environments of a run; copies of it that these fork do not."""
    global _in_charge, _stray
    _in_charge, _stray = True, False


def end_if_stray(words: str = "") -> None:
    """Ends a process that an environment has forked and that has come back from there: the run is its parent's."""
    if _stray:
        with suppress(OSError):
            os.write(2, f"a process that an environment has forked came back from it{words}\n".encode(errors="replace"))
        os._exit(1)


class Interrupt:
    """A context in which the first SIGINT or SIGTERM sets `signum`, and raises `Stopped` in work that is `droppable`.

    Outside the main thread no signal comes. The conventional exit code of a process that a signal ended is 128 + its
    number. A program ends within `PATIENCE` of the signal, or right after saving; a process of a person's own, as a
    notebook, is never ended.

    Attributes:
        rescue: called by another thread where the main one has not saved within `GRACE`, with whether that is in work
            that a stop drops; saves the run if it can, and says whether it did.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum: int | None = None
        self.rescue: Callable[[bool], bool] = _nothing
        self._previous: dict[signal.Signals, object] = {}
        self._depth = 0  # of work that is dropped
        self._saved_at: float | None = None
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1
        self._thread: threading.Thread | None = None  # that watches

    def __enter__(self) -> Self:
        global _active
        take_charge()
        if threading.current_thread() is threading.main_thread():  # Python lets no other one handle signals
            if beginning.is_program:
                self._begin_to_watch()
            self._previous = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}
            _active = self
        return self

    def __exit__(self, *exception: object) -> None:
        global _active, _in_charge
        end_if_stray()
        _in_charge = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._previous:
            _active = None
        self.rescue = _nothing  # the thread must not be the last to know the run, and take it apart as Python ends
        if self._saved_at is None:  # what cannot be saved is not waited for
            self.saved()
        if self._pipe is not None and self._thread is not None:
            signal.set_wakeup_fd(self._wakeup)
            with suppress(OSError):  # an environment has closed it
                os.write(self._pipe[1], b"\0")
                os.close(self._pipe[1])
            if self.signum is None:
                self._thread.join(1.0)

    def __bool__(self) -> bool:
        """Whether a signal came; ends a process that is a copy of the run's."""
        if _stray:
            end_if_stray()
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number; 0 where none came."""
        return 0 if self.signum is None else 128 + self.signum

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """Marks work that a stop drops.

        Raises:
            Stopped: at any place in it, and at its beginning where the signal has come already.
        """
        self._depth += 1
        try:
            if self:
                raise Stopped
            yield
        finally:
            self._depth -= 1

    def saved(self) -> None:
        """Everything is saved: whatever comes now may be dropped."""
        self._saved_at = time.monotonic()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        with suppress(OSError):  # not print: the signal may have come in the middle of one
            os.write(2, b"\nsaving and stopping; a second signal stops at once\n")
        if self._depth:
            raise Stopped

    # ---- what does not hear

    def _begin_to_watch(self) -> None:
        """Starts the thread that Python's own C code wakes at a signal, whatever the main thread does."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True)
        self._thread.start()

    def _watch(self, pipe: int) -> None:
        while (number := _next_signal(pipe)) not in self.SIGNALS:  # others have handlers of their own
            if number == 0:
                with suppress(OSError):
                    os.close(pipe)
                return
        came = time.monotonic()
        with suppress(OSError, AttributeError):  # Windows: a second signal is heard by the main thread alone
            os.set_blocking(pipe, False)
        while not self._is_over(came):
            with suppress(BlockingIOError):
                if (second := _signal_from(pipe)) in self.SIGNALS:
                    os._exit(128 + second)
            time.sleep(_POLL)
        with suppress(OSError):
            os.write(2, b"everything is saved; what was left to do is dropped\n")
        os._exit(128 + number)

    def _is_over(self, came: float) -> bool:
        """Whether nothing is left that is worth waiting for; saves the run where the main thread does not."""
        now = time.monotonic()
        if self._saved_at is None and now > came + GRACE:
            try:
                if self.rescue(self._depth > 0):
                    return True
            except BaseException as error:  # as a full disk
                os.write(2, f"error: {error}\n".encode(errors="replace"))
                os._exit(2)
        return self._saved_at is not None and now > max(came + PATIENCE, self._saved_at + REST)


def _signal_from(pipe: int) -> int:
    """The number of the next signal; 0: there will be no more."""
    return next(iter(os.read(pipe, 1)), 0)


def _next_signal(pipe: int) -> int:
    """The same; 0 also where an environment has closed the pipe."""
    try:
        return _signal_from(pipe)
    except OSError:
        return 0


def _nothing(dropped: bool) -> bool:
    """There is nothing to save."""
    return dropped


def _block() -> None:
    """Lets signals wait while a process forks: one that came before the other handlers are set would be lost there."""
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, Interrupt.SIGNALS)


def _unblock() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, Interrupt.SIGNALS)


def _leave_to_parent() -> None:
    """A process that an environment forks is not the run: it may be terminated, and leaves Ctrl-C to the trainer."""
    global _active, _stray
    _stray = _in_charge
    if _active is not None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _unblock()
        _active = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_leave_to_parent)
