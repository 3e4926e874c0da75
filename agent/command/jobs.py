"""A job of a sweep that a launcher runs in another process: its output, its end, and its resumption after a restart."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from hydra.conf import HydraConf
from hydra.types import RunMode

from agent.command.errors import INTERRUPTED
from agent.common.errors import NothingLeftError
from agent.common.files import open_log
from agent.records.board import Board, Note
from agent.records.console import report_through
from agent.running.resources import cores

#: Launchers that submit jobs to a queue, which may preempt them and outlives the process that waits for them.
QUEUES = ("submitit_local", "submitit_slurm")
#: This project's launcher; Ray ends its jobs when the process that waits for them ends.
RAY = "ray"
#: A signal's handler, as `signal.signal` takes and returns it.
Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None
#: Seconds between two checks whether the sweep is to stop.
POLL = 0.2


class Job:
    """A job that runs in a launcher's process.

    Attributes:
        restarted: the job has begun before, and resumes in the folder of its run.
        was_done: the job was complete before this start.
        initial_note: its note at this start.
        score: the score that it returns.
    """

    def __init__(self, board: Board, number: int, overrides: str, folder: str) -> None:
        self.board, self.number = board, number
        self.score: float | None = None
        previous = board.read(number)
        self.restarted = previous is not None and previous.folder == folder
        self.was_done = self.restarted and previous is not None and previous.state == "done"
        self.initial_note = (
            Note(overrides, folder) if previous is None else replace(previous, overrides=overrides, folder=folder)
        )

    def execute(self, run: Callable[[dict[str, str]], float | None]) -> float | None:
        """Runs the job, or the rest of one that has begun before; returns its score.

        Args:
            run: takes the options that resume the run, and returns its score.
        """
        if self.board.is_stopping():
            sys.exit(INTERRUPTED)
        if self.was_done:
            return self.initial_note.score
        try:
            self.score = run({"resume": "auto"} if self.restarted else {})
        except NothingLeftError as error:  # it was stopped after its last step
            if not self.restarted:
                raise
            self.score = error.score
        return self.score

    def end(self, state: str, score: float | None = None) -> None:
        """Writes its final state and score to its note."""
        note = self.board.read(self.number) or self.initial_note
        self.board.write(self.number, replace(note, state=state, score=score))


#: Whether this process runs the jobs of its sweep itself, though their launcher could start others.
_runs_jobs_itself = False


def choose_processes(composed: HydraConf) -> None:
    """Notes whether joblib would run the jobs of a sweep in this process, which begins it, as it does one at a time."""
    global _runs_jobs_itself
    _runs_jobs_itself = False
    if launcher_of(composed) == "joblib":
        jobs = composed.launcher.n_jobs
        # −1 means all cores; joblib counts as many as these at most.
        _runs_jobs_itself = jobs in (None, 1) or (isinstance(jobs, int) and jobs < 0 and cores() + jobs < 1)


def launcher_of(composed: HydraConf) -> str:
    """Returns the name of a sweep's launcher; "basic" runs all jobs in this process, one after the other."""
    return "basic" if _runs_jobs_itself else str(composed.runtime.choices.get("hydra/launcher", "basic"))


def board_of(composed: HydraConf) -> Board:
    """Returns the board on which a sweep's jobs report their progress."""
    return Board(Path(composed.runtime.cwd) / composed.sweep.dir, composed.callbacks["watch"].started)


@contextmanager
def launched_job(composed: HydraConf) -> Iterator[Job | None]:
    """Runs a job in a launcher's process: its output goes to its log, and its note says how it ended.

    Yields:
        The job; None outside a sweep, or where the sweep's jobs run one after the other in this process.
    """
    if composed.mode is not RunMode.MULTIRUN or launcher_of(composed) == "basic":
        yield None
        return
    overrides = " ".join(composed.overrides.task)
    job = Job(board_of(composed), composed.job.num, overrides, composed.runtime.output_dir)
    job.board.write(job.number, replace(job.initial_note, state="running"))
    queued = launcher_of(composed) in QUEUES
    stopping = _stopped_by_queue(job) if queued else _stopped_with(job.board)
    with _output_redirected(job.board.log(job.number)), stopping:
        print(overrides, file=sys.stderr)
        report_through(lambda step, steps: job.board.advance(job.number, step, steps))
        try:
            yield job
            job.end("done", job.initial_note.score if job.was_done else job.score)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            job.end("stopped" if code > 128 else "failed" if code else "done", job.score)
            if queued and code > 128:
                raise  # the job is not done, and its queue decides whether to start it again
        except KeyboardInterrupt:
            job.end("stopped")
        except Exception:  # a defect, which ends only this job
            traceback.print_exc()
            job.end("failed")
        finally:
            report_through(None)


@contextmanager
def _output_redirected(path: Path) -> Iterator[None]:
    """Redirects all output of this process to a file, that of C libraries included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_log(path) as file:
        log = os.dup(file.fileno())
    saved_descriptors = [os.dup(number) for number in (1, 2)]
    streams = sys.stdout, sys.stderr
    _flush()
    for number in (1, 2):
        os.dup2(log, number)
    sys.stdout = sys.stderr = open(log, "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115, PTH123
    try:
        yield
    finally:
        _flush()
        for number, descriptor in zip((1, 2), saved_descriptors, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stderr.close()
        sys.stdout, sys.stderr = streams


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


@contextmanager
def _stopped_with(board: Board) -> Iterator[None]:
    """Makes the job save and stop when the sweep is to stop, or when the sweep's own process has ended.

    In the second case this process ends as well. A terminal's Ctrl-C reaches all processes of a group; here only the
    process that waits for the jobs handles it.
    """
    ended, main = threading.Event(), threading.main_thread()
    _quit_if_orphaned(board)
    if threading.current_thread() is not main:
        yield
        return

    def watch() -> None:
        while not ended.wait(POLL):
            if board.is_stopping() or board.is_orphaned():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if hasattr(os, "setpgrp"):
        os.setpgrp()  # training handles SIGINT itself: our SIGTERM would count as a second signal after it
    handlers: dict[int, Handler] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: _quit}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
        _quit_if_orphaned(board)


def _quit_if_orphaned(board: Board) -> None:
    """Ends a process whose sweep has ended: its launcher would begin the next job, which nobody could stop."""
    if board.is_orphaned():
        _flush()
        os._exit(INTERRUPTED)


@contextmanager
def _stopped_by_queue(job: Job) -> Iterator[None]:
    """Makes the job save and stop on its queue's signal; a job that is preempted or out of time is then queued again.

    submitit's own handler of that signal queues the job at once, and ends it in the middle of a step.
    """
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
    queue_again = signal.getsignal(number)
    preempted = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal preempted
        if not preempted:
            preempted = True
            os.kill(os.getpid(), signal.SIGTERM)

    handlers: dict[int, Handler] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: _quit, number: stop}
    previous = {name: signal.signal(name, handler) for name, handler in handlers.items()}
    try:
        yield
    except SystemExit:
        for name, handler in previous.items():
            signal.signal(name, handler)
        if preempted and callable(queue_again):
            job.end("queued")
            queue_again(number, None)  # this ends the process
        raise
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _quit(signum: int, frame: FrameType | None) -> None:
    """Handles a signal before training has begun and after it has ended."""
    sys.exit(128 + signum)
