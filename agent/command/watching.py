"""The process that waits for a sweep on many cores or machines: one progress bar, and the output of all jobs."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from math import prod
from pathlib import Path
from types import FrameType
from typing import TextIO

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import setup_globals
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from agent.command import errors
from agent.command.composing import check_sweep, register_resolvers
from agent.command.jobs import QUEUES, RAY, Handler, board_of, choose_processes, launcher_of
from agent.command.program import TRAIN
from agent.common.errors import UserError, one_line
from agent.common.files import without_link
from agent.common.signals import ASKED, tell, to_handle
from agent.records.board import Board, Note
from agent.records.jobs_console import JobsConsole

#: Seconds between two checks of the jobs.
POLL = 0.2
#: Seconds after a signal until this process ends without waiting for the jobs; they save all the same, except on Ray.
PATIENCE, PATIENCE_ON_RAY = 20.0, 300.0
#: The most jobs of a sweep that Hydra's own sweeper makes: it lists them all before it begins the first.
MOST_JOBS = 100_000
#: States of a job that has ended.
ENDED = ("done", "failed", "stopped")
_watcher: "Watcher | None" = None


class Watcher:
    """Shows the jobs of a sweep until it is closed.

    Args:
        board: the sweep's board.
        jobs: the number of jobs; None if a sweeper decides it while the sweep runs.
        bar: whether to show the jobs' progress.
        stops: whether a signal to this process stops the jobs as well.
        stream: the stream to print to; standard error by default.
        outlive: whether the jobs save and stop by themselves if this process ends before them.
    """

    def __init__(
        self,
        board: Board,
        jobs: int | None,
        bar: bool,
        stops: bool,
        stream: TextIO | None = None,
        outlive: bool = True,
    ) -> None:
        self.board, self.signum, self._deadline, self._outlive = board, 0, float("inf"), outlive
        self._console = JobsConsole(jobs, bar, stream)
        self._bytes_shown: dict[int, int] = {}  # by job, the bytes of its log that were shown
        self._ended = threading.Event()
        self._previous_handlers: dict[int, Handler] = {}
        if stops:
            self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in to_handle()}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> dict[int, Note]:
        """Shows the remaining output, and returns all notes."""
        self._ended.set()
        self._thread.join()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        notes = self._show(last=True)
        self._console.close()
        return notes

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            if signum in ASKED:
                os._exit(128 + signum)  # the jobs notice that this process has ended, save and stop
            return
        patience, second = PATIENCE, "stops waiting for them"
        if not self._outlive:
            patience, second = PATIENCE_ON_RAY, "ends them without"
        self._deadline, self.signum = time.monotonic() + patience, signum
        self.board.stop()
        tell(f"\nall jobs save and stop; a second signal {second}")

    def _watch(self) -> None:
        while not self._ended.wait(POLL):
            self._show()
            if self.signum and time.monotonic() > self._deadline:
                end = "save and stop by themselves" if self._outlive else "go on from their last checkpoints"
                tell(f"some jobs have not stopped yet; they {end}")
                os._exit(128 + self.signum)

    def _show(self, last: bool = False) -> dict[int, Note]:
        for job, log in self.board.logs():
            for line in self._lines(job, log, last):
                self._console.line(f"[job {job}] {line}")
        notes = self.board.notes()
        states = [note.state for note in notes.values()]
        self._console.update(
            ended=sum(state in ENDED for state in states),
            running=states.count("running"),
            step=sum(note.step for note in notes.values()),
            progress=sum(1.0 if note.state == "done" else note.step / max(1, note.steps) for note in notes.values()),
        )
        return notes

    def _lines(self, job: int, log: Path, last: bool) -> Iterator[str]:
        """Yields the complete lines of a log that were not shown yet; at the end also an incomplete last line."""
        with log.open("rb") as file:
            file.seek(self._bytes_shown.get(job, 0))
            data = file.read()
        if not last:
            data = data[: data.rfind(b"\n") + 1]
        self._bytes_shown[job] = self._bytes_shown.get(job, 0) + len(data)
        yield from (line for line in data.decode(errors="replace").splitlines() if line.strip())


class Watch(Callback):
    """Starts a `Watcher` for a sweep whose jobs run in other processes.

    Hydra constructs this callback, and pickles it for those processes.

    Args:
        started: when the sweep began, to the microsecond. It names the sweep's board and, where a user named the
            sweep's folder, its runs: another sweep may use that folder. Hydra resolves it here, before the jobs.
    """

    def __init__(self, started: str = "") -> None:
        self.started = started

    def __reduce__(self) -> tuple[Callable[[], "Watch"], tuple[()]]:
        return _unpickled, ()

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Prepares a sweep: opens its board, passes this process's module path to the jobs, and starts the watcher."""
        global _watcher
        composed = config.hydra
        without_link(Path(composed.sweep.dir) / "multirun.yaml")  # which Hydra writes
        choose_processes(composed)
        launcher = launcher_of(composed)
        with errors.sentences(TRAIN):
            own = composed.runtime.choices["hydra/sweeper"] == "basic"
            jobs = number_of_jobs(composed.overrides.task) if own else None
        if launcher == "basic":
            return
        with errors.sentences(TRAIN):
            check_sweep(composed, config.get("resume"))
            board = board_of(composed)
            board.open(owned=launcher not in (*QUEUES, RAY))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        bar = bool(config.get("log", {}).get("progress", True))
        _watcher = Watcher(board, jobs, bar, stops=launcher not in QUEUES, outlive=launcher != RAY)


def _unpickled() -> Watch:
    """Rebuilds the callback in a job's process; as our first code to run there, it registers the resolvers."""
    setup_globals()
    register_resolvers()
    return Watch()


def number_of_jobs(overrides: list[str]) -> int:
    """Counts the jobs that Hydra's own sweeper makes of a command line.

    Raises:
        UserError: an option has no values, so that there is no job, or there are more than `MOST_JOBS`.
    """
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None  # for glob()
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    counts = {item.input_line: _number_of_values(item) for item in parsed if item.is_sweep_override()}
    for override, count in counts.items():
        if count == 0:
            raise UserError(f"{override} stands for no value, so that the sweep has no job: name at least one")
    jobs = prod(counts.values())
    if jobs > MOST_JOBS:
        raise UserError(
            f"{' '.join(map(str, counts))} would make more than {MOST_JOBS:,} jobs, too many for the memory: name "
            "fewer values"
        )
    return jobs


def _number_of_values(override: Override) -> int:
    """Counts the values of an option in a sweep, up to one more than `MOST_JOBS`."""
    value = override.value()
    values = value.range() if isinstance(value, RangeSweep) else override.sweep_string_iterator()
    return sum(1 for _ in islice(values, MOST_JOBS + 1))


def watched(main: Callable[[], object]) -> Callable[[], None]:
    """Wraps a program's main function so that a sweep's watcher is closed and its failed jobs are reported.

    The wrapped function ends the process with exit code 128 + signal number where a signal stopped the jobs.
    """

    def run() -> None:
        with _watcher_closed():
            main()

    return run


@contextmanager
def _watcher_closed() -> Iterator[None]:
    global _watcher
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        if _watcher is None or not _watcher.signum:
            translated = _lost_job_error(error)
            if translated is error:
                raise
            raise translated from error
    finally:
        if _watcher is not None:
            watcher, _watcher = _watcher, None
            notes = watcher.close()
            errors.record_failed(note.overrides for note in notes.values() if note.state == "failed")
            if watcher.signum:
                print(f"stopped after {time.monotonic() - started:.0f} s", file=sys.stderr)
                sys.exit(128 + watcher.signum)


def _lost_job_error(error: BaseException) -> BaseException:
    """Turns a launcher's error into a UserError that says what to do; returns any other error as it is."""
    if not isinstance(error, Exception) and type(error.__cause__).__name__ == "_RemoteTraceback":  # joblib passes it on
        files = re.findall(r'  File "(.+)", line \d+, in ', str(error.__cause__)) or ["a callback of Hydra's"]
        return UserError(f"{Path(files[-1]).name} failed in a job and ended the sweep ({one_line(error)}): fix it")
    if type(error).__name__ == "TerminatedWorkerError":
        advice = "it may have run out of memory; run fewer jobs at once with hydra.launcher.n_jobs=<number>"
        return UserError(f"a process of the sweep has ended, and with it the sweep: {advice}")
    if type(error).__module__.startswith("submitit."):
        first = str(error).partition("\n")[0]
        return UserError(f"a job of the sweep was lost ({first}): its own lines are in jobs/ of the sweep's folder")
    return error
