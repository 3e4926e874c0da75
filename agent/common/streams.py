"""Standard output that may fail, because its reader has gone or a disk is full: the program continues."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from agent.common.disk import advice
from agent.common.errors import UserError

#: The errors of a stream whose reader has gone, as `head -1` does.
_GONE = {errno.EPIPE, errno.EBADF, errno.EIO}


class Tolerant:
    """A stream whose reader may go away, as `| tee log` does at Ctrl-C: printing stops, and the run continues.

    Attributes:
        error: the error that ended printing; None so far.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:  # any attribute of the stream
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes to the stream; after an error, nowhere."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            return self._silence(error)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._silence(error)

    def close(self) -> None:
        """Only flushes: it is the program's, and no environment's to close."""
        self.flush()

    def _silence(self, error: OSError | ValueError) -> int:
        """Discards the buffer of the stream, and all that the process prints there from now on."""
        self.error = error if isinstance(error, OSError) else OSError(errno.EBADF, "it is closed")
        with suppress(OSError, ValueError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = io.StringIO()
        return 0


def tolerant(stream: TextIO | Tolerant) -> Tolerant:
    """Wraps a stream in Tolerant, unless it is one."""
    return stream if isinstance(stream, Tolerant) else Tolerant(stream)


#: The standard streams of a program, by their names.
_own: dict[str, Tolerant] = {}


def tolerate_streams() -> None:
    """Makes the standard streams tolerant, of errors and of characters that the terminal cannot show."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a Latin-1 terminal has no …
        _own[name] = tolerant(stream)
    restore_streams()


def restore_streams() -> None:
    """Puts a program's standard streams back where an environment has replaced or removed them."""
    for name, stream in _own.items():
        setattr(sys, name, stream)


def check_output() -> None:
    """Checks that everything printed has been written, unless its reader has gone.

    Raises:
        UserError: if it could not be written, as on a full disk.
    """
    restore_streams()
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is not None and error.errno not in _GONE:
        raise UserError(f"the output could not be written ({error.strerror}): {advice(error)}")
