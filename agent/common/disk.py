"""Advice for errors of files and disks, chosen by the error's number."""

import errno

#: Error numbers of a process, or a machine, that may open no more files, and the advice.
NO_FILES = (errno.EMFILE, errno.ENFILE)
TOO_MANY_FILES = (
    "the environment may leave files open; raise the limit with ulimit -n <number>, and go on with resume=<run folder>"
)
#: Error numbers of a disk, or a user's part of it, that holds no more.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_GROUPS = {
    NO_FILES: TOO_MANY_FILES,
    FULL_DISK: "free some space",
    (errno.EFBIG,): "free some space, or raise the limit on the size of files with ulimit -f <number>",
    (errno.EROFS,): "it lies on a disk that can only be read; use a folder on another disk",
    (errno.EACCES, errno.EPERM): "check the permissions of the file and of its folder",
    (errno.EISDIR, errno.ENOTEMPTY): "a folder is in the place of the file; move it away",
    (errno.EEXIST, errno.ENOTDIR): "a file is in the place of a folder; move it away",
    (errno.ENOENT,): "a folder that it lies in is missing; make that folder, or name another one",
    (errno.ENAMETOOLONG,): "choose a shorter name",
    (errno.ELOOP,): "a link is in its place; move the link away",
    (errno.EINVAL,): "move it away",  # our own number for a pipe or a device in the place of a file
    (errno.EBUSY, errno.ETXTBSY): "another program uses it; close that program",
    (errno.EIO, errno.ENXIO, errno.ENODEV): "the disk fails; use a folder on another one",
    (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT): "the disk does not answer; mount it again",
}
_ADVICE = {number: text for numbers, text in _GROUPS.items() for number in numbers}


def advice(error: OSError) -> str:
    """Advice for a person whose file or folder cannot be used."""
    return _ADVICE.get(error.errno or 0, "check the file, its folder and the disk")
