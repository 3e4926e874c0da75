"""Ctrl-C, SIGTERM and warnings: the first one requests saving and stopping; a second Ctrl-C or SIGTERM stops at once.

Two kinds of work respond to the first signal. Training checks for it between two steps. Work that a stop may drop (an
evaluation, a video, a plot, compiling, the end of W&B) runs inside `droppable`: the signal raises `Stopped` in the
middle of it. Some work cannot even be interrupted in this way, such as a C library that does not return: a thread then
saves in place of the main thread.
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
from agent.common.signals import ASKED, WARNINGS, tell, to_handle

#: Seconds that dropped work has to end after a signal. After them the run is saved without waiting for it.
GRACE = 2.0
#: Seconds from a signal to the end of the program, if everything is saved. Batch systems kill after 30.
PATIENCE = 4.5
#: Seconds for the rest, such as W&B's files, after saving, if saving took longer than `PATIENCE`.
REST = 0.5

_POLL = 0.05
_active: "Interrupt | None" = None  # handles the signals
_in_charge = False  # this process plays environments of a run
_stray = False  # it is a copy of such a process, forked by an environment


class Stopped(BaseException):
    """A signal has ended droppable work. Like KeyboardInterrupt it is no Exception, so that no handler swallows it."""


@contextmanager
def droppable() -> Iterator[None]:
    """Marks work that the current run drops when it is asked to stop; does nothing without such a run.

    Raises:
        Stopped: at any place in the work, or at its beginning if the signal has already come.
    """
    handled = _active is not None and threading.current_thread() is threading.main_thread()
    with _active.droppable() if handled and _active is not None else nullcontext():
        yield


def stopping() -> bool:
    """Whether the current run was asked to stop. Nothing should wait then."""
    return _active is not None and bool(_active)


def take_charge() -> None:
    """Marks this process as one that plays environments of a run; its forks are not."""
    global _in_charge, _stray
    _in_charge, _stray = True, False


def end_if_stray(detail: str = "") -> None:
    """Ends a process that an environment has forked and that has come back from there: the run is its parent's."""
    if _stray:
        tell(f"a process that an environment has forked came back from it{detail}")
        os._exit(1)


class Interrupt:
    """A context in which the first of `SIGNALS` sets `signum`, and raises `Stopped` in `droppable` work.

    Only the main thread receives signals. A program ends within `PATIENCE` of the signal, or shortly after saving.
    Other processes, such as a notebook, are never ended.

    Attributes:
        rescue: called by another thread if the main thread has not saved within `GRACE`. Its argument says whether the
            main thread is in droppable work. It saves the run if it can, and returns whether it did.
    """

    SIGNALS = (*ASKED, *WARNINGS)

    def __init__(self) -> None:
        self.signum: int | None = None
        self.rescue: Callable[[bool], bool] = _nothing
        self._previous: dict[signal.Signals, object] = {}
        self._depth = 0  # of droppable work
        self._saved_at: float | None = None
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1
        self._thread: threading.Thread | None = None  # watches the pipe

    def __enter__(self) -> Self:
        global _active
        take_charge()
        if threading.current_thread() is threading.main_thread():  # no other thread may handle signals
            if beginning.is_program:
                self._begin_to_watch()
            self._previous = {number: signal.signal(number, self._on_signal) for number in to_handle()}
            _active = self
        return self

    def __exit__(self, *exception: object) -> None:
        global _active, _in_charge
        end_if_stray()
        _in_charge = False
        for number, handler in self._previous.items():
            if self.handles(number):
                signal.signal(number, handler)  # type: ignore[arg-type]
        if self._previous:
            _active = None
        self.rescue = _nothing  # the thread must not hold the last reference to the run, and free it while Python ends
        if self._saved_at is None:  # nothing waits for a run that cannot be saved
            self.saved()
        if self._pipe is not None and self._thread is not None:
            signal.set_wakeup_fd(self._wakeup)
            with suppress(OSError):  # an environment has closed it
                os.write(self._pipe[1], b"\0")
                os.close(self._pipe[1])
            if self.signum is None:
                self._thread.join(1.0)

    def __bool__(self) -> bool:
        """Whether a signal has come; ends a process that is a copy of the run's."""
        if _stray:
            end_if_stray()
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, by convention; 0 without a signal."""
        return 0 if self.signum is None else 128 + self.signum

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """Marks work that a stop drops.

        Raises:
            Stopped: at any place in the work, or at its beginning if the signal has already come.
        """
        depth = self._depth
        try:  # a signal may come before and after each statement
            self._depth = depth + 1
            if self:
                raise Stopped
            yield
        finally:
            self._depth = depth

    def saved(self) -> None:
        """Notes that everything is saved, so that all further work may be dropped."""
        self._saved_at = time.monotonic()

    def handles(self, number: int) -> bool:
        """Whether it handles a signal; an environment may have taken a warning for itself."""
        return number in ASKED or (number in WARNINGS and signal.getsignal(number) == self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            if signum in ASKED:
                os._exit(128 + signum)
            return
        self.signum = signum
        tell("\nsaving and stopping; a second signal stops at once")
        if self._depth:
            raise Stopped

    # ---- work that does not respond

    def _begin_to_watch(self) -> None:
        """Starts a thread that CPython wakes at a signal, even if the main thread is busy in C code."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True)
        self._thread.start()

    def _watch(self, pipe: int) -> None:
        while not self.handles(number := _next_signal(pipe)):  # other signals have their own handlers
            if number == 0:
                with suppress(OSError):
                    os.close(pipe)
                return
        came = time.monotonic()
        with suppress(OSError, AttributeError):  # Windows: only the main thread receives a second signal
            os.set_blocking(pipe, False)
        while not self._is_over(came):
            with suppress(BlockingIOError):
                if (second := _signal_from(pipe)) in ASKED:
                    os._exit(128 + second)
            time.sleep(_POLL)
        tell("everything is saved; the remaining work is dropped")
        os._exit(128 + number)

    def _is_over(self, came: float) -> bool:
        """Whether the process should end now. Saves the run if the main thread does not."""
        now = time.monotonic()
        if self._saved_at is None and now > came + GRACE:
            try:
                if self.rescue(self._depth > 0):
                    return True
            except BaseException as error:  # such as a full disk
                tell(f"error: {error}")
                os._exit(2)
        return self._saved_at is not None and now > max(came + PATIENCE, self._saved_at + REST)


def _signal_from(pipe: int) -> int:
    """The number of the next signal; 0 if the pipe is closed."""
    return next(iter(os.read(pipe, 1)), 0)


def _next_signal(pipe: int) -> int:
    """`_signal_from`, and 0 if an environment has closed the pipe."""
    try:
        return _signal_from(pipe)
    except OSError:
        return 0


def _nothing(dropped: bool) -> bool:
    """The `rescue` of a process that has nothing to save."""
    return dropped


def _block() -> None:
    """Blocks signals during a fork: before the new process has set its handlers, a signal would be lost there."""
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, filter(_active.handles, Interrupt.SIGNALS))


def _unblock() -> None:
    if _active is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, filter(_active.handles, Interrupt.SIGNALS))


def _leave_to_parent() -> None:
    """Resets the handlers in a process that an environment forks: it ignores Ctrl-C, and the others end it."""
    global _active, _stray
    _stray = _in_charge
    if _active is not None:
        signal.set_wakeup_fd(-1)
        handled = list(filter(_active.handles, Interrupt.SIGNALS))
        for number in handled:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        _active = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_leave_to_parent)
