"""The folder of a run, and the checks before a run starts or resumes there."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path

import yaml

from agent.common.errors import UserError, plain
from agent.common.files import RUN_FOLDERS, atomic_write_text, check_inner_folder, check_readable, read_plain
from agent.common.state import Checkpoint
from agent.common.texts import printable
from agent.config.resuming import first_difference
from agent.records.checkpoint import damaged_checkpoints, has_checkpoint, latest_checkpoint, load_checkpoint
from agent.records.config_file import MAX_CONFIG, parse_config
from agent.records.names import CONFIG, CURVE, METRICS, RUNS
from agent.records.newest import is_run_of, newest_run
from agent.records.places import place_in_a_run, run_around, runs_below
from agent.records.schema import check_parts

#: The other files and folders that a run writes.
OUTPUTS = (METRICS, CURVE, "best", "last")
#: The most characters of earlier command lines in config.yaml, which is read up to MAX_CONFIG bytes.
MAX_HEADER = 16_384


def run_folder(resume: str | None, env_id: str | None, seed: int) -> str:
    """Returns the folder of this run: that of the run to resume, or a new runs/<env>/<time>_seed<k>."""
    task = task_folder(env_id)
    if resume == "auto":
        newest = newest_run(RUNS, lambda run: is_run_of(run, task, seed) and has_checkpoint(run))
        if newest is not None:
            return str(newest)
    elif resume:
        return resume
    return str(new_folder(RUNS / task / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_seed{seed}"))


def task_folder(env_id: str | None) -> str:
    """Returns a task's folder below runs/: its id without the module that registers it, and without . and .. in it."""
    name = str(env_id or "").rpartition(":")[2]  # any value: the options are not checked yet
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def agent_name(choice: str | None) -> str:
    """Returns the agent's part of a folder name: its file in conf/agent/, which may be in a user's subfolder."""
    return (choice or "agent").replace("/", "_")


def folder_of_runs(sweep: str) -> str:
    """Returns the parent of a sweep's runs relative to its folder: runs/, or that folder if the user named it."""
    return "../.." if Path(sweep).parent == RUNS / "multirun" else "."


def sweep_folder(time: str) -> str:
    """Makes the folder of a sweep that began at `time`, and returns its name, which no other sweep has."""
    return str(new_folder(RUNS / "multirun" / time))


def sweep_time(sweep: str, time: str) -> str:
    """Returns the start of the names of a sweep's runs: its folder's name, or `time` if the user named the folder.

    Args:
        sweep: the folder of the sweep.
        time: when the sweep began, to the microsecond, since sweeps of one second may share a folder that was named.
    """
    return Path(sweep).name if Path(sweep).parent == RUNS / "multirun" else time


def new_folder(path: Path) -> Path:
    """Makes a folder, and appends a number to its name if it exists: two runs may start in the same second."""
    folder, number = path, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not os.path.lexists(folder):  # a folder above it is a file, or a link that leads nowhere
                return folder
            number += 1
            folder = path.with_name(f"{path.name}_{number}")
        except OSError:  # Hydra will fail in the same way and report it
            return folder
        else:
            return folder


def open_run(folder: Path, resume: str | None) -> Checkpoint | None:
    """Loads the checkpoint to resume from; returns None for a new run.

    With resume=auto a run without a checkpoint starts again in its folder, so that a job can be repeated until it is
    done.

    Raises:
        UserError: `resume` names a folder without a checkpoint, the checkpoint is damaged or cannot be read, or a new
            run would write into the folder of an old one.
    """
    named_folder = resume if resume != "auto" else None
    if named_folder and Path(named_folder).resolve() != folder.resolve():
        raise UserError(f"resume={named_folder} does not go with hydra.run.dir={folder} or -m: leave one of them out")
    if resume == "":
        raise UserError("resume= names no run: write resume=<run folder>, or leave it out")
    for name in RUN_FOLDERS:
        check_inner_folder(folder / name)
    check_readable(folder / "checkpoints")
    latest = latest_checkpoint(folder)
    damaged = damaged_checkpoints(folder)
    place, begun = place_in_a_run(folder), latest is not None or bool(damaged)
    if place is not None and (place.name in RUN_FOLDERS or not begun):  # that run replaces what lies in its own folders
        run = run_around(folder)
        advice = f"write resume={run}" if named_folder else "choose another hydra.run.dir"
        raise UserError(f"{folder} lies in the run {run}: {advice}")
    if resume and latest is not None:
        if damaged:
            print(f"{damaged[0]} is not a whole checkpoint: going on from {latest.name}", file=sys.stderr)
        return _load(latest)
    if resume and damaged:
        raise UserError(
            f"{folder} cannot be resumed: {', '.join(path.name for path in damaged)} in it is not a whole checkpoint; "
            "start a new run without resume"
        )
    if named_folder:
        problem, another = "no such run", "another one"
        if folder.is_dir() and any(folder.iterdir()):
            problem, inner_run = "no checkpoint in it", next(runs_below(folder), None)
            another = another if inner_run is None else f"a run in it, such as resume={inner_run}"
        raise UserError(f"resume={named_folder}: there is {problem}; name {another}, or start a new run without resume")
    if resume is None and latest is not None:
        raise UserError(f"{folder} holds a run already: go on with resume={folder}, or choose another hydra.run.dir")
    has_config = (folder / CONFIG).exists()
    if resume is None and has_config:
        raise UserError(f"{folder} holds a run without a checkpoint: choose another hydra.run.dir")
    if not has_config and (inner_run := next(runs_below(folder), None)) is not None:
        raise UserError(
            f"{folder} holds other runs, such as {inner_run}, and would hide them: name a folder of its own"
        )
    existing = [name for name in OUTPUTS if _holds_anything(folder / name)]
    if existing and not has_config:
        raise UserError(f"{folder} holds {existing[0]}, which a new run would replace: choose another hydra.run.dir")
    if "last" in existing and not (folder / "checkpoints").exists():
        raise UserError(
            f"{folder} holds the agents of a run without its checkpoints, and cannot be resumed: start a new run "
            "without resume, in another folder"
        )
    return None


def check_folder_of_study(folder: Path, outputs: Sequence[str]) -> None:
    """Refuses a folder for a new study in which compare.py would not find its trials, or which holds other files of it.

    Args:
        folder: the folder, which may be missing.
        outputs: names and patterns of the files and folders that a study writes.

    Raises:
        UserError: the folder is a run or lies in one, or holds runs or such a file.
    """
    if (run := run_around(folder)) is not None:
        raise UserError(f"{folder} lies in the run {run}: choose another out")
    if (folder / CONFIG).exists() or (folder / METRICS).exists():
        raise UserError(f"{folder} holds a run: choose another out")
    if (inner_run := next(runs_below(folder), None)) is not None:
        raise UserError(f"{folder} holds other runs, such as {inner_run}: name a folder of its own with out")
    existing = (path for name in outputs for path in sorted(folder.glob(name)) if _holds_anything(path))
    if (path_of_other := next(existing, None)) is not None:
        raise UserError(f"{folder} holds {path_of_other.name}, which a new study would replace: choose another out")


def _holds_anything(path: Path) -> bool:
    """Whether the path is a folder or a non-empty file; a run that could not begin leaves empty files."""
    return path.is_dir() or (path.is_file() and path.stat().st_size > 0)


def _load(checkpoint: Path) -> Checkpoint:
    try:
        step, state = load_checkpoint(checkpoint)
        return Checkpoint(step, check_parts(state))
    except ValueError as error:
        raise UserError(f"{checkpoint} cannot be resumed: {error}; start a new run without resume") from error
    except UserError as error:
        earlier = sorted(path.name for path in checkpoint.parent.glob("step_*") if path != checkpoint)
        if not earlier:
            raise
        raise UserError(f"{error} To go on from {earlier[-1]} instead, delete {checkpoint}.") from error


def note_on_edits(folder: Path, saved: object) -> str | None:
    """Names an option that config.yaml has otherwise than the checkpoint, because a resumed run does not read the file.

    Args:
        folder: the folder of the run.
        saved: the options in the checkpoint.

    Returns:
        One sentence; None if they are equal.
    """
    path = folder / CONFIG
    try:
        written = parse_config(read_plain(path, MAX_CONFIG))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):  # the resumed run writes a new one
        return None
    difference = first_difference(saved, written, "") if isinstance(written, Mapping) else None
    if difference is None:
        return None
    name, kept, edited = plain(difference[0].removeprefix("."), 80), *map(_shown, difference[1:])
    origin = "a resumed run has the options of its checkpoint and of the command line"
    return f"{path} has {name}={edited}, and the checkpoint {kept}: {origin}"


def _shown(value: object) -> str:
    """A value of a file that anyone may have edited, as part of a sentence."""
    return repr(printable(value))[:80] if isinstance(value, str) else plain(value, 80)


def write_config(folder: Path, config: Mapping[str, object], overrides: Sequence[str] = ()) -> None:
    """Writes the resolved config to the run's folder, below its command line and those of earlier starts as comments.

    Raises:
        UserError: the file cannot be written.
    """
    path, header = folder / CONFIG, ""
    with suppress(OSError):  # there is no config yet, or none that a run has written
        lines = read_plain(path, MAX_CONFIG).decode(errors="replace").split("\n")
        header = "".join(f"{line}\n" for line in takewhile(lambda line: line.startswith("# "), lines))
        header = header[-MAX_HEADER:].partition("\n")[2] if len(header) > MAX_HEADER else header  # the newest lines
    # A comment is one line, and YAML ends it, or refuses it, at other characters than this one as well.
    command = printable(shlex.join(("python", "train.py", *overrides)).replace("\n", " "))
    atomic_write_text(
        path, f"{header}# {command}\n" + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    )
