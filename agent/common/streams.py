"""Standard streams whose reader may go away, or whose disk may be full: a program goes on."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from agent.common.errors import UserError

#: What the system says where the reader has gone, as `head -1` does.
_GONE = {errno.EPIPE, errno.EBADF, errno.EIO}


class Tolerant:
    """A stream whose reader may go away, as `| tee log` does at Ctrl-C: no more is printed, and the run goes on.

    Attributes:
        error: why the stream takes no more, None while it does.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream does; once it fails, to nowhere."""
        try:
            return self._stream.write(text)
        except OSError as error:
            return self._silence(error)
        except ValueError:
            return self._silence(OSError(errno.EBADF, "it is closed"))

    def flush(self) -> None:
        """As the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)
        except ValueError:
            self._silence(OSError(errno.EBADF, "it is closed"))

    def close(self) -> None:
        """Only flushes: it is the program's, and no environment's to close."""
        self.flush()

    def _silence(self, error: OSError) -> int:
        """Lets what is still in the stream's buffer, and whatever else the process prints there, go nowhere."""
        self.error = error
        with suppress(OSError, ValueError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._stream = io.StringIO()
        return 0


def tolerant(stream: TextIO | Tolerant) -> Tolerant:
    """The stream as one whose reader may go away."""
    return stream if isinstance(stream, Tolerant) else Tolerant(stream)


#: The standard streams of a program, by their names.
_own: dict[str, Tolerant] = {}


def tolerate_streams() -> None:
    """Makes what the process prints tolerant, and lets it print characters that a terminal has not."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # results are not lost for an … that a Latin-1 terminal has not
        _own[name] = tolerant(stream)
    restore_streams()


def restore_streams() -> None:
    """Puts a program's standard streams back where an environment has put others, or none, in their place."""
    for name, stream in _own.items():
        setattr(sys, name, stream)


def check_output() -> None:
    """Sees to it that all that was printed has arrived, or that nobody wants it.

    Raises:
        UserError: where it could not be written, as on a full disk.
    """
    restore_streams()
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is not None and error.errno not in _GONE:
        raise UserError(f"what was printed could not be written ({error.strerror}): free some disk space")
