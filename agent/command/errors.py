"""How the programs end: one clear sentence and a non-zero exit code for every error that a user can correct."""

import difflib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from agent.command.arguments import Program
from agent.command.synonyms import OTHER_LIBRARIES
from agent.common.errors import UserError, device_failed, memory_is_full, one_line
from agent.common.files import NO_FILES, TOO_MANY_FILES
from agent.common.foreign import file_name, is_exit, is_stop, own_frames, shown
from agent.common.streams import restore_streams

#: Launchers of sweeps, and the extras that install them.
LAUNCHERS = {"joblib": "parallel", "submitit_local": "slurm", "submitit_slurm": "slurm"}
#: Errors of a config that cannot be composed.
CONFIG_ERRORS = (HydraException, OmegaConfBaseException)
#: Packages that compose a config, and those of this project.
_HYDRA, _OURS = ("hydra", "omegaconf", "yaml"), ("agent", "envs", "hydra_plugins", "__main__")
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
        return _config_sentence(error, program)
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
        case FileExistsError() if error.filename:
            return f"cannot use {error.filename}: it is not a folder"
        case OSError() if error.errno in NO_FILES:
            return f"no more files can be opened: {TOO_MANY_FILES}"
        case OSError():
            return f"cannot use {error.filename}: {error.strerror}" if error.filename else text
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
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames]


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


def _config_sentence(error: BaseException, program: Program) -> str:
    """Words Hydra's error as one sentence, with the nearest option where a name is unknown."""
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        nested = re.search(r"full_key: (\S+)", str(error.__cause__))  # the name of one in braces: env.kwargs={size: 3}
        name = nested[1] if nested and nested[1].startswith(f"{found[1]}.") else found[1]
        if re.match(r"(env\.(eval_)?kwargs|agent\.head_options)\.", name):
            return f"no preset has {name}: write +{name}=… to add it"
        if name in program.options:
            return _missing(name, program)
        return f"unknown option {name}{_nearest(name, program.options)}"
    if found := re.match(r"Key '(\w+)' is not in struct", message):
        return _missing(found[1], program)
    if found := re.search(
        r"Could not find '(.+?)'\s+Available options in '(.+?)':(.*?)Config search", message, re.DOTALL
    ):
        if extra := LAUNCHERS.get(found[1].removeprefix("hydra/launcher/")):
            return f"{found[1].replace('launcher/', 'launcher=')} needs the extra {extra}: pip install -e '.[{extra}]'"
        plugin = ", or the name of an installed plugin" if found[2].startswith("hydra/") else ""
        name = f"{found[2]}={found[1].removeprefix(found[2])[1:]}"
        return f"there is no {name}: it must be one of {', '.join(found[3].split())}{plugin}"
    if found := re.match(r"Error resolving interpolation '(.+?)', possible interpolation keys: (.*)", message):
        name = next(name for name in re.findall(r"\$\{(\w+)\}", found[1]) if name not in found[2].split(", "))
        return f"{name} takes one name, and cannot be left out: write {name}=<name>; see --help"
    if found := re.search("Cannot find primary config '(.+?)'", message):
        return f"there is no config {found[1]}: --config-name takes the name of a file in conf/ or --config-dir"
    if re.match("(Additional|Primary) config directory", message):
        return f"{message.partition(chr(10))[0].rstrip('.')}: --config-dir and --config-path take a folder"
    if found := re.match("Ambiguous value for argument '(.*?)'\n", message):
        advice = program.several or "add -m for a run with each"
        name, _, value = found[1].partition("=")
        return f"{found[1]} reads as several values: {advice}, or write it as one text, '{name}=\"{value}\"'"
    if found := re.search(
        r"Cannot merge DictConfig with ListConfig\s+full_key: (\S+)\s+object_type=(\w+)", str(error.__cause__)
    ):
        kind = "a list, such as [a,b]" if found[2] == "list" else "options of its own, such as {name:value}"
        return f"{message.removeprefix('Error merging override ')} cannot be used: {found[1]} takes {kind}"
    if "dereferencing interpolation '${run_folder:" in message:
        return "resume takes one run folder, such as resume=runs/CartPole-v1/<run>, or resume=auto"
    if found := re.match(r"Error merging override (hydra\.(?:run|sweep)\.dir)=", message):
        return f"{found[1]} takes a folder, such as {found[1]}=runs/mine"
    if isinstance(error, OverrideParseException):
        example = "a text with spaces, commas, brackets, quotes, = or # is in quotes, such as 'wandb.tags=[\"a = b\"]'"
        return f"cannot read {error.override}: options are written name=value, such as {program.example}, and {example}"
    text = message.partition("See https://")[0].strip()
    return f"{text}; options are written name=value, such as {program.example}, see --help"


def _missing(name: str, program: Program) -> str:
    own = program.name.removesuffix(".py")
    return f"the config has no {name}: a config of your own begins with defaults: [{own}, _self_]"


def _nearest(name: str, options: Sequence[str]) -> str:
    """Suggests the options that end in `name`, that other libraries call so, or that are spelt alike."""
    name = name.replace("-", "_")
    equivalent = OTHER_LIBRARIES.get(name.removeprefix("agent."))
    close = [option for option in options if option.endswith(f".{name}") or option == equivalent]
    close = close or difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else "; see --help"
