"""Files: written whole or not at all, and read only where they are plain ones of a bounded size.

A run's folder may come from a stranger, with links in the place of files and folders. So nothing is written to a name
that was there before: content goes to a new file, which is forced to disk and then takes the place of the old one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent.common.errors import UserError

TEMPORARY = ".tmp-"
#: Folders that a run makes inside its own folder: a link in the place of one would lead its files elsewhere.
RUN_FOLDERS = ("best", "last", "checkpoints", "videos", "wandb", "tensorboard")


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that its name always holds the old content or the new one; creates its folder.

    Raises:
        UserError: the disk is full or refuses, or a link would lead the file elsewhere; the old content is intact.
    """
    try:
        make_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise could_not_write(path, error) from error


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of the text in UTF-8; names of files that are not UTF-8 keep their bytes."""
    atomic_write_bytes(path, text.encode(errors="surrogateescape"))


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, but no run's folder again that was taken away; raises OSError."""
    folder.mkdir(parents=not _is_inner(folder), exist_ok=True)


def could_not_write(path: Path, error: OSError) -> UserError:
    """The sentence for a file that the system does not let us write."""
    reason = why(error).partition("\n")[0]
    return UserError(f"could not write {path} ({reason}): free some space or check the folder's permissions.")


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write_bytes` into an existing folder; raises OSError."""
    with new_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once the block has ended and its content is on disk.

    Its own name, `file.name`, ends in the suffix of `path`: another program may be told to write it. Of a block that
    fails nothing is left.

    Raises:
        OSError: the disk is full or refuses.
        UserError: the folder is a link that would lead the file elsewhere.
    """
    check_inner_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}{path.suffix}")
    made = temporary.open("xb")  # never one that is there, be it a link or a file
    try:
        with made as file:
            yield file
            sync_file(file)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file that is not there yet and forces it to disk; not atomic, raises OSError."""
    with path.open("xb") as file:
        file.write(data)
        sync_file(file)


def check_inner_folder(folder: Path) -> None:
    """Refuses a link in the place of a folder that a run makes inside its own.

    Raises:
        UserError: it is a link.
    """
    if _is_inner(folder) and folder.is_symlink():
        raise UserError(
            f"{folder} is a link, and a run writes to no other folder: put a folder in its place, or name the folder "
            "that it leads to"
        )


def _is_inner(folder: Path) -> bool:
    return folder.name in RUN_FOLDERS or folder.name.startswith("step_")  # a checkpoint


def sync_file(file: BinaryIO) -> None:
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


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading if it is a plain one: to open a pipe may wait for ever, and a device may never end.

    Raises:
        OSError: it is missing, may not be read, or is something else.
    """
    _check_plain(path.stat())  # before it is opened, which already does something to some devices
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_plain(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        OSError: it is missing, may not be read, is something else, or is larger.
    """
    with open_plain(path) as file:
        data = file.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
    return data


def _check_plain(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe or device"
        raise OSError(errno.EINVAL, f"it is a {kind}, not a plain file")


def why(error: BaseException) -> str:
    """The reason an error gives, without the path and number that OSError adds."""
    return getattr(error, "strerror", None) or str(error)
