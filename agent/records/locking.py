"""The lock of a run's folder: only one process may train in it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.common.errors import UserError
from agent.common.locks import flock
from agent.records.names import RUNS

#: File descriptors of the folders that this process has locked.
_locks: set[int] = set()


#: When this program began, in seconds.
_BEGAN = time.time()
#: Folders that were missing when a run's folder was named.
_missing: set[Path] = set()


def note_missing(folder: Path) -> None:
    """Notes which of the folders above a run's folder are missing: they are made for it, and removed with it."""
    with suppress(OSError):  # the current folder has been deleted, which is reported later
        _missing.update(parent for parent in folder.absolute().parents if not os.path.lexists(parent))


@contextmanager
def occupied(folder: Path, own: bool | None = None) -> Iterator[None]:
    """Locks a run's folder against other processes; removes it at the end if this program made it and it is empty.

    Hydra makes the folder before anything is checked. The lock ends with the process, even if that is killed.

    Args:
        folder: the folder.
        own: whether this program made it; None: it did if the folder is younger than the program.

    Raises:
        UserError: another process trains in the folder.
    """
    absolute, runs = folder.absolute(), RUNS.absolute()
    own = is_own(folder) if own is None else own
    with _locked(folder):
        try:
            yield
        finally:
            if own:
                remove_if_empty(absolute, runs)


def is_own(folder: Path) -> bool:
    """Whether a folder was made, or its content changed, after this program began: others belong to the user."""
    return folder.stat().st_mtime >= _BEGAN


def remove_if_empty(folder: Path, runs: Path) -> None:
    """Removes a run's folder if it is empty, and then the folders above it that are empty and were made for it.

    Args:
        folder: an absolute path, since an environment or Hydra may have changed the current folder.
        runs: the folder of all runs, an absolute path.
    """
    with suppress(OSError):  # the folder is not empty
        folder.rmdir()
        for parent in folder.parents:
            if runs not in parent.parents and parent not in _missing:
                break
            parent.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":  # where a folder cannot be opened
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    if not flock(descriptor, wait=False):
        os.close(descriptor)
        raise UserError(f"another process trains in {folder}: wait for it, or choose another hydra.run.dir")
    _locks.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _locks:  # false in a process that was forked in the meantime
            _locks.remove(descriptor)
            os.close(descriptor)


def _forget_locks() -> None:
    """Releases the locks in a forked process: an environment's process may outlive the run and must not lock it."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
