"""The command line of compare.py: arguments that are paths, the options, and the printed table."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from agent.command.overrides import gather_into_list
from agent.command.tables import aligned
from agent.common.errors import UserError
from agent.common.quoting import override_name
from agent.config.compare import CompareConfig
from agent.config.parsing import parse
from agent.records.comparison.comparing import Comparison, NothingYetError, Reader, compare
from agent.records.comparison.finding import find_runs
from agent.records.comparison.numbers import table_rows
from agent.records.comparison.writing import stop_reloading, write_comparison
from agent.records.locking import remove_if_empty
from agent.records.names import RUNS
from agent.records.run_folder import new_folder

#: The most characters of a name in a printed table.
MAX_NAME = 60


def paths_to_override(arguments: Sequence[str]) -> list[str]:
    """Gathers the paths of a command line into one override runs=[…].

    An argument is a path if it names something that exists, or if no option can have the name before its =.

    Raises:
        UserError: the command line also has runs=.
    """
    return gather_into_list(arguments, "runs", "paths", _is_path)


def _is_path(argument: str) -> bool:
    name = override_name(argument)
    return "=" not in argument or Path(argument).exists() or ("/" in name and not name.startswith("hydra/"))


def comparison_request(options: dict[str, object]) -> CompareConfig:
    """Parses the options of a comparison.

    Raises:
        UserError: an option is wrong.
    """
    for name in ("runs", "by"):
        value = options.get(name)  # missing after ~by
        values = [] if value is None else value if isinstance(value, list) else [value]
        options[name] = [str(item) for item in values]
    return parse(CompareConfig, options)


@contextmanager
def folder_of(config: CompareConfig) -> Iterator[Path]:
    """Gives the folder that the page is written to. With `out` None it is a new one, which no other program writes to.

    At the end a new folder is removed if it is empty, as after an error.

    Raises:
        UserError: `out` is a file.
    """
    if config.out is None:
        folder = new_folder(RUNS / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
        try:
            yield folder
        finally:
            remove_if_empty(folder.absolute(), RUNS.absolute())
        return
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: name a folder, which the page and its pictures are written to")
    yield folder


def write(config: CompareConfig, reader: Reader, folder: Path) -> Comparison:
    """Compares the runs in their current state and writes the page.

    Raises:
        UserError: there is nothing to compare, or the page cannot be written.
    """
    comparison = compare(reader(find_runs(config.runs)), config.metric, config.by, config.baseline)
    write_comparison(comparison, folder, config.every if config.follow else 0.0)
    return comparison


@contextmanager
def last_page(folder: Path) -> Iterator[None]:
    """Makes the page stop reloading at the end, also where Ctrl-C, SIGTERM or SIGHUP ends the program."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # else it is ignored, as by nohup
            signal.signal(number, _end)
    try:
        yield
    finally:
        stop_reloading(folder)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def follow(config: CompareConfig, reader: Reader, folder: Path) -> NoReturn:
    """Writes the page again whenever a run has written something, until a signal ends this."""
    print(f"following {len(find_runs(config.runs))} runs; Ctrl-C ends it", flush=True)
    while True:
        time.sleep(config.every)
        if reader.changed(find_runs(config.runs)):
            with suppress(NothingYetError):
                write(config, reader, folder)


def show_comparison(comparison: Comparison) -> None:
    """Prints the tables, and the notes on how far to trust them."""
    for title, rows in table_rows(comparison):
        print(f"{title}\n{aligned([[cell[:MAX_NAME] for cell in row] for row in rows])}\n")
    for note in comparison.notes:
        print(note)
