"""Files: written completely or not at all, and read only if they are regular files of a bounded size.

The folder of a run may come from a stranger, with links in place of files and folders. So nothing writes to an existing
name: the content goes to a new file, which is synced to disk and then replaces the old one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent.common.disk import advice
from agent.common.errors import UserError

TEMPORARY = ".tmp-"
#: The folders inside the folder of a run. A link in place of one of them would lead files elsewhere.
RUN_FOLDERS = ("best", "last", "checkpoints", "videos", "wandb", "tensorboard")


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whose name holds either the old content or the new one at any time; creates its folder.

    Raises:
        UserError: if the disk is full or refuses, or if a link would lead the file elsewhere. The old content is
        intact.
    """
    try:
        make_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise could_not_write(path, error) from error


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` for text, in UTF-8. File names in the text that are not UTF-8 keep their bytes."""
    atomic_write_bytes(path, text.encode(errors="surrogateescape"))


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, but does not make a deleted folder of a run again; raises OSError."""
    folder.mkdir(parents=not _is_inner(folder), exist_ok=True)


def could_not_write(path: Path, error: OSError) -> UserError:
    """The UserError for a file that cannot be written."""
    reason = "it is a link" if error.errno == errno.ELOOP else why(error).partition("\n")[0]
    return UserError(f"could not write {path} ({reason}): {advice(error)}")


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write_bytes` in an existing folder; raises OSError."""
    with new_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block has ended and its content is on disk.

    Its own name, `file.name`, has the suffix of `path`, so that another program can write it. A block that fails leaves
    nothing.

    Raises:
        OSError: if the disk is full or refuses.
        UserError: if the folder is a link that would lead the file elsewhere.
    """
    check_inner_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}{path.suffix}")
    made = temporary.open("xb")  # fails if the name exists, as a file or a link
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


def open_log(path: Path) -> BinaryIO:
    """A plain file to which lines are added, and read; made where there is none, and no link to another one.

    Raises:
        UserError: it is something else, or the disk refuses.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "ab+", buffering=0)
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            file.close()
            raise OSError(errno.EINVAL, "it is not a plain file, or it has another name as well")
    except OSError as error:
        raise could_not_write(path, error) from error
    return file


def without_link(path: Path) -> Path:
    """Removes a link at `path`, so that the next write cannot follow it; returns the path."""
    if path.is_symlink():
        path.unlink()
    return path


def write_synced(path: Path, data: bytes) -> None:
    """Writes a new file and syncs it to disk. It is not atomic, and it raises OSError."""
    with path.open("xb") as file:
        file.write(data)
        sync_file(file)


def check_inner_folder(folder: Path) -> None:
    """Refuses a link in place of a folder that belongs to a run.

    Raises:
        UserError: if the folder is a link.
    """
    if _is_inner(folder):
        check_no_link(folder)


def check_no_link(path: Path) -> None:
    """Refuses a link in the place of a folder or a file that another program is to write.

    Raises:
        UserError: it is a link.
    """
    if path.is_symlink():
        kind = "file" if path.is_file() else "folder"
        raise UserError(
            f"{path} is a link, and a run writes to no other {kind}: put a {kind} in its place, or name the {kind} "
            "that it leads to"
        )


def _is_inner(folder: Path) -> bool:
    return folder.name in RUN_FOLDERS or folder.name.startswith("step_")  # a checkpoint


def sync_file(file: BinaryIO) -> None:
    """Syncs the content of a file to disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Syncs renames in a folder to disk, if the system can sync a folder."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network folders that cannot sync
            raise
    finally:
        os.close(descriptor)


def open_plain(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Opening a pipe may wait for ever, and reading a device may never end.

    Raises:
        OSError: if the file is missing, cannot be read, or is not a regular file.
    """
    _check_plain(path.stat())  # before opening it, since opening some devices has effects
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_plain(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: if the file is missing, cannot be read, is not a regular file, or is larger.
    """
    with open_plain(path) as file:
        data = file.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
    return data


def check_readable(path: Path) -> None:
    """Refuses a file or a folder that this user may not read, since a search would pass over it without a word.

    Raises:
        UserError: it is there, and cannot be read.
    """
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if path.exists() and not os.access(path, needed):
        raise UserError(f"{path} cannot be read: check its permissions")


def not_written_by(program: str, path: Path) -> UserError:
    """The error for a file in the way that a program has not written."""
    return UserError(f"{path} was not written by {program}, which would replace it: name another folder by out=")


def _check_plain(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe or device"
        raise OSError(errno.EINVAL, f"it is a {kind}, not a plain file")


def why(error: BaseException) -> str:
    """The reason of an error, without the path and number of an OSError."""
    return getattr(error, "strerror", None) or str(error)
