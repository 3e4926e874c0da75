"""The lock of a run's folder: one process trains in it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.common.errors import UserError

if sys.platform != "win32":
    import fcntl

RUNS = Path("runs")
#: Descriptors of the folders that this process keeps locked.
_locks: set[int] = set()


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder, and takes it away again where nothing was written to it.

    Hydra makes the folder before anything is checked. The lock goes with the process, however that ends.

    Raises:
        UserError: where another process trains in it.
    """
    absolute, runs = folder.absolute(), RUNS.absolute()
    with _locked(folder):
        try:
            yield
        finally:
            remove_if_empty(absolute, runs)


def remove_if_empty(folder: Path, runs: Path) -> None:
    """Takes a run's folder away where nothing was written to it, and with it that of its task below `runs`.

    Args:
        folder: an absolute path, since an environment, or Hydra, may have changed the current folder.
        runs: the folder of all runs, an absolute path.
    """
    with suppress(OSError):  # there is something in it
        folder.rmdir()
        if folder.parent.parent == runs:
            folder.parent.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(f"another process trains in {folder}: wait for it, or choose another hydra.run.dir") from error
    except OSError:
        pass  # a network folder that knows no locks
    _locks.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _locks:  # not in a process that was forked meanwhile
            _locks.remove(descriptor)
            os.close(descriptor)


def _forget_locks() -> None:
    """A process that an environment forks may outlive the run, which it must not keep locked."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
