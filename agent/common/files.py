"""Files that are whole or not there: atomic replacement, forced to disk."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import IO

from agent.common.errors import UserError

TEMPORARY = ".tmp-"


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that its name always holds the old content or the new one; creates its folder.

    Raises:
        UserError: the disk is full or refuses; the old content is intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        hint = "free some space or check the folder's permissions"
        raise UserError(f"could not write {path} ({why(error)}): {hint}.") from error


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of the text in UTF-8."""
    atomic_write_bytes(path, text.encode())


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write_bytes` into an existing folder; raises OSError."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and forces it to disk; not atomic, raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)


def sync_file(file: IO[bytes]) -> None:
    """Forces what was written to disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Forces renames in the folder to disk, where the system lets a folder be synced."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network folders that know no such thing
            raise
    finally:
        os.close(descriptor)


def why(error: BaseException) -> str:
    """The reason an error gives, without the path and number that OSError adds."""
    return getattr(error, "strerror", None) or str(error)
