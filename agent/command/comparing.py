"""The command line of compare.py: arguments that are paths, the options, and the printed table."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from agent.records.comparison.canvas import shortened
from agent.records.comparison.comparing import Comparison, NothingYetError, Reader, compare
from agent.records.comparison.finding import find_runs
from agent.records.comparison.numbers import table_rows
from agent.records.comparison.writing import stop_reloading, write_comparison
from agent.records.locking import remove_if_empty
from agent.records.names import RUNS
from agent.records.run_folder import new_folder

#: The signals that end the program.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
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
        with _signals_held() as release:
            folder = new_folder(RUNS / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
            try:
                release()
                yield folder
            finally:
                remove_if_empty(folder.absolute(), RUNS.absolute())
        return
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: name a folder, which the page and its pictures are written to")
    yield folder


@contextmanager
def _signals_held() -> Iterator[Callable[[], None]]:
    """Holds back signals that would end the program. The function that it gives lets them come, and so does its end."""
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}

    def release() -> None:
        while handlers:
            signal.signal(*handlers.popitem())
        while came:
            signal.raise_signal(came.pop())

    try:
        for number in ENDING:
            signal.signal(number, lambda number, frame: came.append(number))
        yield release
    finally:
        release()


def compared(config: CompareConfig, reader: Reader) -> Comparison:
    """Compares the runs in their current state.

    Raises:
        NothingYetError: no run has a score yet; its detail names the runs that cannot be read.
        UserError: there is nothing to compare.
    """
    runs = reader(find_runs(config.runs))
    if reader.faults and not runs:
        raise UserError(reader.faults[0], "\n".join(reader.faults[1:]))
    try:
        return compare(runs, config.metric, config.by, config.baseline)
    except NothingYetError as error:
        raise NothingYetError(str(error), "\n".join(reader.faults)) from error


def write(config: CompareConfig, comparison: Comparison, folder: Path) -> Path:
    """Writes the page, and returns its path.

    Raises:
        UserError: the page cannot be written.
    """
    return write_comparison(comparison, folder, config.every if config.follow else 0.0)


def end_by_exception() -> None:
    """Lets SIGTERM and SIGHUP end the program by an exception, as Ctrl-C does: it then leaves no empty folder."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # else Ctrl-C raises already, or it is ignored, as by nohup
            signal.signal(number, _end)


@contextmanager
def last_page(folder: Path) -> Iterator[None]:
    """Makes the page stop reloading at the end, also where an exception ends the program."""
    try:
        yield
    finally:
        stop_reloading(folder)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


def follow(config: CompareConfig, reader: Reader, folder: Path) -> NoReturn:
    """Writes the page again whenever a run has written something, until a signal ends this."""
    print(f"following {len(find_runs(config.runs))} runs; Ctrl-C ends it", flush=True)
    told = set(reader.faults)
    while True:
        time.sleep(config.every)
        if reader.changed(find_runs(config.runs)):
            with suppress(NothingYetError):
                write(config, compared(config, reader), folder)
            for fault in reader.faults:
                if fault not in told:
                    print(fault, flush=True)
            told.update(reader.faults)


def show_comparison(comparison: Comparison, faults: Sequence[str]) -> None:
    """Prints the tables, the notes on how far to trust them, and a sentence for each run that cannot be read."""
    for title, (header, *rows) in table_rows(comparison):
        names = shortened([row[0] for row in rows], MAX_NAME)
        named = [(name, *row[1:]) for name, row in zip(names, rows, strict=True)]
        print(f"{title}\n{aligned([[cell[:MAX_NAME] for cell in row] for row in (header, *named)])}\n")
    for line in (*comparison.notes, *faults):
        print(line)
    sys.stdout.flush()
