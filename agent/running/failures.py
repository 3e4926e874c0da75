"""External failures that end a run: foreign code raises an error, or the run's folder disappears."""

import traceback
from pathlib import Path

from agent.common.errors import UserError, one_line
from agent.common.foreign import OwnCodeError, file_name, foreign_frames, own_frames, shown
from agent.records.checkpoint import latest_checkpoint
from agent.replay.rings import AnyReplay
from envs import failure
from envs.failure import BrokenEnvironmentError

_ENVS = f"{Path(failure.__file__).parent}/"


#: The squares of larger rewards and observations come to the end of float32: no learning rate helps against them.
HUGE = 1e18
_SCALE = {
    "rewards": "scale them, or set env.clip_rewards=true",
    "observations": "scale them with a wrapper (env.wrappers)",
}


class ForeignCodeError(UserError):
    """Code that is not this project's failed during training: an environment, or an encoder or head of the user's."""


def is_environments_own(error: BaseException) -> bool:
    """Whether an error comes from an environment, which only envs/ calls."""
    frames = traceback.extract_tb(error.__traceback__)
    called = any(frame.filename.startswith(_ENVS) for frame in frames)
    return called or not frames or isinstance(error, BrokenEnvironmentError)


def is_foreign(error: BaseException) -> bool:
    """Whether an error comes from an environment or from the user's own code, rather than from this project."""
    return is_environments_own(error) or isinstance(error, OwnCodeError) or bool(own_frames(error))


def sentence_of(error: BaseException, name: str, when: str = "") -> tuple[str, str]:
    """A sentence about an error of foreign code, and the lines of that code that failed.

    Args:
        error: a sentence from envs/ is kept.
        name: the name of the environment.
        when: is added to the sentence, such as " at step 3".
    """
    if isinstance(error, UserError):
        return str(error), error.detail
    of_environment = is_environments_own(error)
    frames = foreign_frames(error) if of_environment else own_frames(error)
    culprit = name if of_environment else file_name(frames)
    return f"{culprit} failed{when} ({one_line(error)})", shown(frames)


def foreign_failure(error: BaseException, name: str, step: int, folder: "Folder") -> ForeignCodeError:
    """The error that ends a run after foreign code failed at a step, before which all is saved."""
    saved = f"all before it is saved and goes on with resume={folder}" if step else "nothing is lost"
    if isinstance(error, UserError):
        return ForeignCodeError(f"{error}; training stopped at step {step}: fix it; {saved}", error.detail)
    sentence, lines = sentence_of(error, name, f" at step {step}")
    return ForeignCodeError(f"{sentence}: fix it; {saved}", lines)


def not_finite(error: Exception, step: int, name: str, replay: AnyReplay, folder: "Folder") -> UserError:
    """The error for numbers that are not finite.

    Args:
        error: names the numbers.
        step: the step of the run.
        name: the name of the environment.
        replay: holds the rewards and observations that the environment gave.
        folder: the folder of the run.
    """
    latest = latest_checkpoint(folder.path)
    where = f"the last good checkpoint is {folder.shown(latest)}" if latest else "there is no checkpoint yet"
    if source := replay.not_finite():
        reason = f"{source} that {name} gave are NaN, infinite or beyond float32: fix the environment; {where}"
    elif huge := [
        f"{what} that {name} gave reach {f'{size:.0e}'.replace('+', '')}: {_SCALE[what]}"
        for what, size in replay.largest().items()
        if size > HUGE
    ]:
        reason = f"{error}; {'; '.join(huge)}; {where}"
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
                f"{self._as_named} was deleted or moved while the run wrote to it: its files are not written again, "
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
