"""Locks of a study: one process at a time chooses a trial, and one process has each trial."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.common.files import check_no_link

if sys.platform != "win32":
    import fcntl


class Lock:
    """A trial's folder, which this process and the runs that it started keep locked until they end.

    Attributes:
        descriptor: that runs inherit: a trial stays theirs where only the process that started them was killed.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Gives the folder back."""
        os.close(self.descriptor)


def lock(folder: Path) -> Lock | None:
    """Locks a folder, which is made where there is none; None where others have it."""
    check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            pass  # a network folder that knows no locks
    return Lock(descriptor)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time into the block, on the same study."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if sys.platform != "win32":
            with suppress(OSError):  # as above
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
