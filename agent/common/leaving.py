"""The last moments of a program: what others have left running does not keep it for ever."""

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

#: How long threads and processes are waited for that somebody else has begun, such as an environment.
SECONDS = 5.0
_POLL = 0.1


def leave_others_behind(code: int) -> None:
    """Ends the process with `code` where Python, as it ends, would wait longer than `SECONDS` for what others began.

    Python waits for every thread that is no daemon, and for such processes of multiprocessing, which are then killed.
    """
    if _others():
        threading.Thread(target=_watch, args=(code,), daemon=True).start()


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
