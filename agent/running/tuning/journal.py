"""The journal of a study: a lock that ends with its process, and one sentence for each thing that is wrong with it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.common.errors import UserError, plain
from agent.common.files import could_not_write
from agent.running.tuning.locks import exclusive

JOURNAL = "study.log"
#: Errors that Optuna and the code that reads its trials raise on a damaged journal.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError)


class JournalLock:
    """Lets one process at a time write to a journal; Optuna calls it.

    Optuna's own lock is a file, which a killed process leaves behind: others then wait for half a minute, or for ever.
    This one is the system's lock on the journal itself, which ends with its process.

    Args:
        path: the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Waits for the lock, and removes a last line that is half written; raises OSError."""
        with ExitStack() as stack:
            stack.enter_context(exclusive(self._path))
            _remove_half_line(self._path)
            self._held = stack.pop_all()
        return True

    def release(self) -> None:
        """Releases the lock."""
        self._held.close()


def _remove_half_line(path: Path) -> None:
    """Removes a last line without an end, which a full disk or a kill has left: another line would follow in it."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def journal_errors(folder: Path) -> Iterator[None]:
    """Turns errors of a damaged journal, or of a disk that refuses it, into one sentence.

    Args:
        folder: the folder of the study.

    Raises:
        UserError: instead of these errors.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # its sentence names the file
            raise
        raise could_not_write(folder / JOURNAL, error) from error
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {plain(error, 100)}"
        raise UserError(f"{folder / JOURNAL} is damaged ({reason}): begin a new study") from error
