"""Code that is not this project's: an environment, or a module of the user's own with an encoder or a head."""

import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary

from agent.common.beginning import is_ctrl_c
from agent.common.errors import UserError, device_failed, memory_is_full, one_line, plain
from agent.common.interrupt import Stopped

#: The largest number of frames that are shown.
MAX_FRAMES = 12

_PROJECT = Path(__file__).parents[2]
_FOLDERS = tuple(
    f"{home / name}/" for home in {_PROJECT, _PROJECT.resolve()} for name in ("agent", "envs", "hydra_plugins")
)
_PROGRAMS = {f"{name}.py" for name in ("train", "evaluate", "compare", "share", "tune")}
_STANDARD = (sysconfig.get_path("stdlib"), str(Path(sysconfig.get_path("stdlib")).resolve()))
_PACKAGES = {"site-packages", "dist-packages"}
#: Code without a file: Python's own, NumPy's, and main functions of our programs, which cloudpickle sends to jobs.
_WITHOUT_FILE = ("<frozen", "<string>", "<__array_function__", "<dynamic-code>")


def foreign_frames(error: BaseException) -> list[FrameSummary]:
    """The frames of a traceback outside this project and Python's standard library, the innermost last."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]


def own_frames(error: BaseException) -> list[FrameSummary]:
    """`foreign_frames` without those of installed packages: the user's own code."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if is_own_file(frame.filename)]


def is_exit(error: BaseException) -> bool:
    """Whether sys.exit ends the program. Where the user's own code called it, as an encoder may, it is an error."""
    if not isinstance(error, SystemExit):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    ours = [place for place, frame in enumerate(frames) if frame.filename.startswith(_FOLDERS)]
    return not any(is_own_file(frame.filename) for frame in frames[max(ours, default=-1) + 1 :])


def _is_foreign(file: str) -> bool:
    if _is_program(file) or file.startswith((*_WITHOUT_FILE, *_FOLDERS)):
        return False
    return not file.startswith(_STANDARD) or _is_installed(file)


def _is_program(file: str) -> bool:
    """Whether a file is one of this project's programs, under any of its names, such as ../train.py or a link."""
    return Path(file).name in _PROGRAMS and Path(file).resolve().parent == _PROJECT.resolve()


def is_own_file(file: str) -> bool:
    """Whether code is the user's own: not of this project, Python's standard library or an installed package."""
    return _is_foreign(file) and not _is_installed(file)


def _is_installed(file: str) -> bool:
    return not _PACKAGES.isdisjoint(Path(file).parts)


def file_name(frames: Sequence[FrameSummary]) -> str:
    """The name of the file of the innermost frame, without its folder."""
    return Path(frames[-1].filename).name


def shown(frames: Sequence[FrameSummary]) -> str:
    """The last of the frames, as the lines of a traceback; '' if there are none."""
    lines = ["  …"] if len(frames) > MAX_FRAMES else []
    for frame in frames[-MAX_FRAMES:]:
        lines.append(f'  File "{plain(frame.filename)}", line {frame.lineno}, in {plain(frame.name)}')
        lines += [f"    {plain(frame.line)}"] if frame.line else []
    return "\n".join(lines)


class OwnCodeError(UserError):
    """An encoder or a head of the user's own gave a result that does not fit its network."""


def own_failure(name: str, error: BaseException) -> UserError:
    """One sentence for an error of the user's own encoder or head, and below it the lines of their code that failed.

    Args:
        name: the option that names it, such as agent.head=mine.
        error: returned as it is if it is one sentence already.
    """
    if isinstance(error, OwnCodeError):
        return OwnCodeError(f"{error}: fix it", error.detail)  # in a run, the sentence goes on
    if isinstance(error, UserError):
        return error
    return UserError(f"{name} failed: {one_line(error)}", shown(own_frames(error)))


@contextmanager
def own_code(options: str) -> Iterator[None]:
    """Makes an error of the user's own encoder or head show whose it is, also where no line of their file raised it.

    Torch raises an error of a backward pass, a package one of its own encoder, and foreign code may raise exceptions
    that nothing else expects. Errors of the machine, of this project and of the user's file stay as they are.

    Args:
        options: the options that name the user's own parts; empty if there are none.

    Raises:
        OwnCodeError: names the options.
    """
    try:
        yield
    except BaseException as error:
        if not options or is_stop(error) or isinstance(error, UserError):
            raise
        if memory_is_full(error) or device_failed(error):
            raise
        innermost = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, Exception | SystemExit) and (own_frames(error) or not _is_foreign(innermost)):
            raise
        raise OwnCodeError(f"{options} failed: {one_line(error)}", shown(foreign_frames(error))) from error


def is_stop(error: BaseException) -> bool:
    """Whether a signal raised this error during a call of foreign code, which is then not at fault.

    A KeyboardInterrupt counts as a stop if Ctrl-C may have raised it; otherwise the foreign code raised it.
    """
    return isinstance(error, Stopped) or (isinstance(error, KeyboardInterrupt) and is_ctrl_c())
