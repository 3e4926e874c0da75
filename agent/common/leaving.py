"""The end of a program: threads and processes of other code cannot delay it for ever."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

#: Seconds to wait for threads and processes that other code, such as an environment, has started.
SECONDS = 5.0
_POLL = 0.1
_ENDED_AT_ONCE = (
    b"error: the environment, or another library, ended the program at once, by os._exit(%d): a run goes on from its "
    b"last checkpoint with resume=<run folder>, and env.vectorization=async reports such an environment by name\n"
)


@contextmanager
def loud_exit(failed: int) -> Iterator[None]:
    """Lets `os._exit` of this process print a line, and end with `failed` in place of 0: an environment may call it.

    `os._exit` ends the process before anything is saved. Without the line and the code the run would look complete.
    Codes of our own (`failed`, and those of signals) have their line already; copies of the process exit as they like.
    """
    leave, own = os._exit, os.getpid()

    def leave_loudly(status: int) -> NoReturn:
        if os.getpid() == own and status < 128 and status != failed:
            with suppress(OSError):
                os.write(2, _ENDED_AT_ONCE % status)
            status = status or failed
        leave(status)

    os._exit = leave_loudly
    try:
        yield
    finally:
        os._exit = leave


def leave_others_behind(code: int) -> None:
    """Ends the process with `code` if threads or processes of other code still run after `SECONDS`.

    Python waits for every thread that is no daemon, and for such processes of multiprocessing, which are then killed.
    """
    if _others():
        threading.Thread(target=_watch, args=(code,), daemon=True).start()


def stop_timers() -> None:
    """Stops the interval timers that other code has left: Python puts its handlers back as it ends, and they kill."""
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        if hasattr(signal, name):  # Windows has none
            signal.setitimer(getattr(signal, name), 0.0)


def _watch(code: int) -> None:
    time.sleep(SECONDS)  # pools of threads end by themselves when Python asks them to
    while not (names := _others()):
        time.sleep(_POLL)
    for child in _children():
        with suppress(OSError, AttributeError):  # the processes of joblib cannot be killed so
            child.kill()
    with suppress(OSError, ValueError, AttributeError):
        print(f"not waited for, and still running: {', '.join(names)}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code)


def _others() -> list[str]:
    """The names of all that Python would wait for."""
    own = (threading.main_thread(), threading.current_thread())
    threads = [thread for thread in threading.enumerate() if not thread.daemon and thread not in own]
    processes = [f"process {child.pid} ({child.name})" for child in _children()]
    return [f"thread {thread.name}" for thread in threads] + processes


def _children() -> list[Any]:
    multiprocessing = sys.modules.get("multiprocessing")
    return [] if multiprocessing is None else [one for one in multiprocessing.active_children() if not one.daemon]
