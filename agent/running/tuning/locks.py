"""Locks of a study: one process at a time chooses a trial, and each trial belongs to one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.common.files import check_no_link
from agent.common.locks import flock


class Lock:
    """A lock on a trial's folder, which this process and the runs that it started hold until they end.

    Attributes:
        descriptor: runs inherit it, so that they keep the lock if only the process that started them is killed.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Releases the lock."""
        os.close(self.descriptor)


def lock(folder: Path) -> Lock | None:
    """Locks a folder, which is created if it is missing; None if another process has it."""
    check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    if not flock(descriptor, wait=False):
        os.close(descriptor)
        return None
    return Lock(descriptor)


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Lets one process at a time into the block, by a lock on a file, which is created if it is missing."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        flock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
