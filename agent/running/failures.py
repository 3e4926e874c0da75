"""External failures that end a run: an environment raises an error, or the run's folder disappears."""

import traceback
from pathlib import Path

from agent.common.errors import UserError, words_of
from agent.records.checkpoint import latest_checkpoint
from envs.failure import BrokenEnvironmentError

#: The folder of this package: an error that it raises is not the environment's.
_AGENT_FOLDER = Path(__file__).resolve().parents[1]


class EnvironmentFailedError(UserError):
    """An environment raised an error or broke a rule during training."""


def is_environments_own(error: BaseException) -> bool:
    """Whether an error comes from an environment or from envs/, which checks it, rather than from agent/ or torch."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or isinstance(error, BrokenEnvironmentError):
        return True
    innermost = Path(frames[-1].filename)
    return not innermost.is_relative_to(_AGENT_FOLDER) and "torch" not in innermost.parts


def environment_failed(error: BaseException, name: str, step: int, saved: str) -> EnvironmentFailedError:
    """One sentence for an error of an environment with this name, with the place in the environment's own code.

    A sentence from envs/ is kept, with the author's lines below it.
    """
    if isinstance(error, UserError):
        return EnvironmentFailedError(f"{error}; training stopped at step {step}: fix it; {saved}", error.detail)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    location = f", in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return EnvironmentFailedError(f"{name} failed at step {step} ({words_of(error)}{location}): fix it; {saved}")


def _is_foreign(filename: str) -> bool:
    """Whether a file belongs neither to this project nor to Gymnasium, which only pass on an environment's errors."""
    path = Path(filename)
    in_project = any(path.is_relative_to(folder) for folder in (_AGENT_FOLDER, _AGENT_FOLDER.parent / "envs"))
    return not in_project and "gymnasium" not in path.parts and path.is_file()


def not_finite(error: Exception, step: int, name: str, source: str | None, folder: "Folder") -> UserError:
    """The error for numbers that are not finite.

    Args:
        error: names the numbers.
        step: the step of the run.
        name: the name of the environment.
        source: the environment's values that are not finite, if any.
        folder: the folder of the run.
    """
    latest = latest_checkpoint(folder.path)
    where = f"the last good checkpoint is {folder.shown(latest)}" if latest else "there is no checkpoint yet"
    if source:
        reason = f"{source} that {name} gave are NaN or infinite: fix the environment; {where}"
    else:
        reason = f"{error}; {where}; a lower agent.lr or agent.max_grad_norm often helps"
    return UserError(f"training stopped at step {step} because {reason}")


class Folder:
    """A run's folder, which must not be moved or replaced during the run.

    Attributes:
        path: the absolute path, as an environment may change the current folder.
    """

    def __init__(self, path: Path) -> None:
        self._as_named, self.path = path, path.absolute()
        self._identity: tuple[int, int] | None = None

    def open(self) -> None:
        """Creates the folder if it is missing, and remembers its identity."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._identity = self._current_identity()

    def check(self) -> None:
        """Checks that the folder is still the one that was opened.

        Raises:
            UserError: if it was deleted, moved or replaced.
        """
        if self._identity is not None and self._current_identity() != self._identity:
            raise UserError(
                f"{self._as_named} was deleted or moved while the run wrote to it: what it held is not written again, "
                "and the run ends; start a new one"
            )

    def __str__(self) -> str:
        return str(self._as_named)

    def shown(self, inside: Path) -> Path:
        """A path inside the folder, as the user named it on the command line."""
        return self._as_named / inside.relative_to(self.path)

    def _current_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
