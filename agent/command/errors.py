"""How the programs end: one clear sentence and a non-zero exit code for every error that a user can correct."""

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.command.arguments import Program
from agent.command.config_errors import CONFIG_ERRORS, config_sentence
from agent.common.disk import FULL_DISK, NO_FILES, TOO_MANY_FILES, advice
from agent.common.errors import UserError, device_failed, memory_is_full, one_line
from agent.common.files import why
from agent.common.foreign import file_name, is_exit, is_stop, own_frames, shown
from agent.common.streams import restore_streams
from agent.records.places import run_around

#: Packages that compose a config or launch jobs, and those of this project.
_HYDRA, _OURS = ("hydra", "omegaconf", "yaml", "hydra_plugins"), ("agent", "envs", "__main__")
#: The plugin of this project.
_OUR_PLUGIN = "hydra_plugins.noisy_dqn_ray"
#: Exit codes: of a program that ended with an error that a user can correct, and of one that Ctrl-C ended.
FAILED, INTERRUPTED = 2, 130


#: Names of the jobs of a sweep that ended with an error.
_failed_jobs: list[str] = []


def record_failed(names: Iterable[str]) -> None:
    """Records jobs of a sweep that ended with an error, for `check_jobs`."""
    _failed_jobs.extend(names)


def check_jobs() -> None:
    """Raises a UserError if jobs of a sweep have failed."""
    if _failed_jobs:
        raise UserError(f"{len(_failed_jobs)} of the jobs failed: {'; '.join(_failed_jobs)}")


@contextmanager
def job(name: str | None) -> Iterator[None]:
    """Lets a sweep continue after one of its jobs has ended with an error.

    A job that a signal stopped (an exit code above 128) stops the sweep as well.

    Args:
        name: the name of the job; None outside a sweep.
    """
    try:
        yield
    except SystemExit as end:
        if name is None or not isinstance(end.code, int) or end.code == 0 or end.code > 128:
            raise
        record_failed([name])


@contextmanager
def sentences(program: Program) -> Iterator[None]:
    """Ends the process with exit code 2 and one sentence for an error that a user can correct.

    The function that Hydra calls uses it too, since Hydra would otherwise print its own messages. Any other error is a
    defect of this project, and keeps its traceback.
    """
    try:
        yield
    except BaseException as error:  # the user's own code may raise one that is no Exception
        if isinstance(error, KeyboardInterrupt) and (is_stop(error) or not own_frames(error)):
            sys.exit(INTERRUPTED)
        if is_exit(error) or is_stop(error):
            raise
        restore_streams()
        sentence = sentence_of(error, program)
        if sentence is None:
            raise
        print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
        if detail := _detail(error):
            print(detail, file=sys.stderr)
        sys.exit(FAILED)


@contextmanager
def as_user_errors(program: Program) -> Iterator[None]:
    """Turns each error that has a sentence into a UserError, for callers of a program's function."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if is_exit(error):
            raise
        sentence = sentence_of(error, program)
        if sentence is None:
            raise
        raise UserError(" ".join(sentence.split()), _detail(error)) from error


def sentence_of(error: BaseException, program: Program) -> str | None:
    """Says what happened and what to do about it; None for a defect."""
    if isinstance(error, CONFIG_ERRORS):
        return config_sentence(error, program)
    return _sentence(error) or _own_sentence(error) or (_hydra_sentence(error) if _of_hydra(error) else None)


def _own_sentence(error: BaseException) -> str | None:
    """Names the file of the user's own that failed, such as one with an encoder or a callback of Hydra's; or None."""
    frames = own_frames(error)
    return f"{file_name(frames)} failed ({one_line(error)}): fix it" if frames else None


def _detail(error: BaseException) -> str:
    """The lines to print below the sentence."""
    return error.detail if isinstance(error, UserError) else shown(own_frames(error))


def _sentence(error: BaseException) -> str | None:
    text = str(error).partition("\n")[0]
    match error:
        case UserError():
            return str(error)
        case FileExistsError() if error.filename and (run := run_around(Path(error.filename))):
            return f"cannot use {error.filename}: it is a file of the run {run}; resume={run} goes on with that run"
        case FileExistsError() if error.filename:
            return f"cannot use {error.filename}: it is not a folder; move it away, or name another one"
        case OSError() if error.errno in NO_FILES:
            return f"no more files can be opened: {TOO_MANY_FILES}"
        case OSError() if error.filename:
            return f"cannot use {error.filename} ({why(error)}): {advice(error)}"
        case OSError() if error.errno in FULL_DISK:
            return f"a file cannot be written ({why(error)}): {advice(error)}"
        case FileNotFoundError() if "temporary directory" in text:  # raised by Python where each is full or read-only
            return "no temporary folder can be written: free some space, or name a folder with TMPDIR=<folder>"
        case OSError():
            return text
        case ValueError() if "Config group override" in text:  # raised by Hydra for env= and agent=1
            return "options that choose a file, such as env=CartPole-v1 or agent=dqn, take its name; see --help"
        case ValueError() if text.startswith("invalid literal for int()") and _of_omegaconf(error):
            name = text.rpartition(": ")[2]
            return f"a list has no item called {name}: write the whole list, such as wandb.tags=[a,b]"
        case MemoryError():
            return f"the memory is full ({text}); lower agent.network.hidden, agent.batch_size or num_envs"
        case RuntimeError():
            return _torch_sentence(error, text)
    return None


def _of_omegaconf(error: BaseException) -> bool:
    """Whether OmegaConf raised the error, as it does for a name below a list, where it expects an index."""
    return _packages(error)[-1:] == ["omegaconf"]


def _of_hydra(error: BaseException) -> bool:
    """Whether the error comes from Hydra, or from a library that Hydra called, and not from a function of ours."""
    callers = [name for name in _packages(error) if name in {*_HYDRA, *_OURS}]
    return bool(callers) and callers[-1] in _HYDRA


def _packages(error: BaseException) -> list[str]:
    """The packages of a traceback's frames, the innermost last."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [_OURS[0] if module == _OUR_PLUGIN else module.partition(".")[0] for module in modules]


def _hydra_sentence(error: BaseException) -> str:
    """Names the command line's options of Hydra, one of which it raised an error about."""
    options = [word for word in sys.argv[1:] if re.search(r"^[+~]*hydra[./=]|^-", word) and word not in ("-m", "-r")]
    return f"Hydra cannot use {' '.join(options) or 'its config'} ({one_line(error)}): correct it, or leave it out"


def _torch_sentence(error: RuntimeError, text: str) -> str | None:
    """Says what to do about full memory or a failed device; None for any other error."""
    if memory_is_full(error):
        advice = "lower agent.network.hidden or agent.batch_size, or try another device"
        return f"the memory of the device is full ({text}); {advice}"
    if device_failed(error):
        return f"the device failed ({text}); go on with resume=<run folder>, on another one with device=cpu"
    return None
