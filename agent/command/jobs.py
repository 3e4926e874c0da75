"""A job of a sweep that a launcher runs in another process: its lines, its end, its way on after a second start."""

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
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode

from agent.command.errors import INTERRUPTED
from agent.common.errors import NothingLeftError
from agent.records.board import Board, Note
from agent.records.console import report_through

#: Launchers that hand jobs to a queue, which may preempt them, and outlives the process that waits for them.
QUEUES = ("submitit_local", "submitit_slurm")
#: That of this project, whose jobs Ray ends where the process that waits for them is gone.
RAY = "ray"
#: Seconds between two looks at whether the sweep is to stop.
POLL = 0.2


class Job:
    """A job that runs in a process of a launcher.

    Attributes:
        restarted: the job has begun before, and goes on in the folder of its run.
        score: that it returns.
    """

    def __init__(self, board: Board, number: int, overrides: str, folder: str) -> None:
        self.board, self.number = board, number
        self.score: float | None = None
        previous = board.read(number)
        self.restarted = previous is not None and previous.folder == folder
        self.was_done = self.restarted and previous is not None and previous.state == "done"
        self.initial_note = (
            Note(overrides, folder) if previous is None else replace(previous, words=overrides, folder=folder)
        )

    def execute(self, run: Callable[[dict[str, str]], float | None]) -> float | None:
        """Runs it, or the rest of it where it has begun before; returns its score.

        Args:
            run: takes the options that make it go on, and returns its score.
        """
        if self.board.is_stopping():
            sys.exit(INTERRUPTED)
        if self.was_done:
            return self.initial_note.score
        try:
            self.score = run({"resume": "auto"} if self.restarted else {})
        except NothingLeftError:  # it was stopped after its last step
            if not self.restarted:
                raise
        return self.score

    def end(self, state: str, score: float | None = None) -> None:
        """Notes how it ended."""
        note = self.board.read(self.number) or self.initial_note
        self.board.write(self.number, replace(note, state=state, score=score))


def launcher_of(composed: HydraConf) -> str:
    """The name of what launches a sweep: basic, where all jobs run here, one after the other."""
    return str(composed.runtime.choices.get("hydra/launcher", "basic"))


def board_of(composed: HydraConf) -> Board:
    """Where a sweep's jobs tell how far they are."""
    return Board(Path(composed.runtime.cwd) / composed.sweep.dir)


@contextmanager
def launched_job(composed: HydraConf) -> Iterator[Job | None]:
    """Runs a job that is not the only one at a time: its lines go to its log, and its end is noted, however it ends.

    None: there is no sweep, or its jobs run one after the other in this process.
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
                raise  # the queue decides whether it begins again: it is not done
        except KeyboardInterrupt:
            job.end("stopped")
        except Exception:  # a defect, which ends this job alone
            traceback.print_exc()
            job.end("failed")
        finally:
            report_through(None)


@contextmanager
def _output_redirected(path: Path) -> Iterator[None]:
    """Sends all that this process prints to a file, what C libraries print included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
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
    """Stops the job, which saves first, where the sweep is to stop or its own process has gone, and then this process.

    A terminal's Ctrl-C reaches all processes of a group; here it is left to the process that waits for the jobs.
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
        os.setpgrp()  # training handles SIGINT itself: a terminal's would be the first signal, and ours the second
    handlers: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: _quit}
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
    """Ends a process whose sweep has gone: its launcher would begin the next job, which nobody could stop."""
    if board.is_orphaned():
        _flush()
        os._exit(INTERRUPTED)


@contextmanager
def _stopped_by_queue(job: Job) -> Iterator[None]:
    """Saves and stops the job where its queue says so; a job that is preempted, or out of time, is queued again then.

    submitit's own handler of that signal queues the job at once, and ends it in the middle of a step.
    """
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
    queue_again: Any = signal.getsignal(number)
    preempted = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal preempted
        if not preempted:
            preempted = True
            os.kill(os.getpid(), signal.SIGTERM)

    handlers: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: _quit, number: stop}
    previous = {name: signal.signal(name, handler) for name, handler in handlers.items()}
    try:
        yield
    except SystemExit:
        for name, handler in previous.items():
            signal.signal(name, handler)
        if preempted and callable(queue_again):
            job.end("queued")
            queue_again(number, None)  # which ends the process
        raise
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _quit(signum: int, frame: FrameType | None) -> None:
    """The handler of a job that does not train yet, or no more."""
    sys.exit(128 + signum)
