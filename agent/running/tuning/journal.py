"""The journal of a study: a lock that ends with its process, and one sentence for each thing that is wrong with it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.common.errors import UserError, plain
from agent.running.tuning.locks import exclusive

JOURNAL = "study.log"
#: Errors that Optuna and the code that reads its trials raise on a damaged journal.
DAMAGE = (ValueError, KeyError, TypeError, AssertionError)


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
        """Waits for the lock; raises OSError."""
        self._held.enter_context(exclusive(self._path))
        return True

    def release(self) -> None:
        """Releases the lock."""
        self._held.close()


@contextmanager
def journal_errors(folder: Path) -> Iterator[None]:
    """Turns errors of a damaged journal into one sentence.

    Args:
        folder: the folder of the study.

    Raises:
        UserError: instead of these errors.
    """
    try:
        yield
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {plain(error, 100)}"
        raise UserError(f"{folder / JOURNAL} is damaged ({reason}): begin a new study") from error
