"""Trains several trials at the same time, until the study has enough or is stopped."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from agent.common.errors import UserError
from agent.running.tuning.result import Result
from agent.running.tuning.study import Study
from agent.running.tuning.trial_run import TrialRun, stop_signals

#: Seconds between two polls of the runs.
POLL = 0.25
#: A study ends if this many trials fail before any other trial has ended.
FAILURES = 3


class Stop:
    """Records a request to stop from the user or the system; a second request kills all runs at once."""

    def __init__(self) -> None:
        self.signum = 0
        self.runs: list[TrialRun] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if self.signum:
            for run in self.runs:
                run.kill()
            os._exit(128 + signum)
        self.signum = signum

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handles signals during the block, except ignored ones, such as Ctrl-C under nohup."""
        previous = {number: signal.getsignal(number) for number in stop_signals()}
        handled = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
        for number in handled:
            signal.signal(number, self)
        try:
            yield
        finally:
            for number, handler in handled.items():
                signal.signal(number, handler)


def work(study: Study, jobs: int, program: Path, overrides: Sequence[str], report: Callable[[str], None]) -> int:
    """Trains trials until the study has the requested number.

    Args:
        study: the study.
        jobs: the number of trials at the same time.
        program: the file of train.py.
        overrides: further options of train.py.
        report: prints how each trial ended.

    Returns:
        0, or 128 + the number of the signal that stopped it. The trials under way continue when the study does.

    Raises:
        UserError: if the first trials have all failed.
    """
    stop = Stop()
    with stop.handling_signals():
        try:
            while not stop.signum:
                _fill(study, jobs, program, overrides, stop.runs)
                if not stop.runs:
                    break
                for run in list(stop.runs):
                    if (ending := run.advance()) is not None:
                        stop.runs.remove(run)
                        run.close()
                        report(f"trial {run.trial.number}: {ending}")
                        check_failures(study.results(), FAILURES)
                time.sleep(POLL)
        finally:
            _stop_all(stop.runs)
    return 128 + stop.signum if stop.signum else 0


def _fill(study: Study, jobs: int, program: Path, overrides: Sequence[str], runs: list[TrialRun]) -> None:
    while len(runs) < jobs and (trial := study.next_trial()) is not None:
        runs.append(TrialRun(trial, study.trial_folder(trial.number), study.config, program, overrides))


def _stop_all(runs: list[TrialRun]) -> None:
    """Lets the runs save themselves, and releases their trials."""
    for run in runs:
        run.stop()
    while not all(run.has_ended() for run in runs):
        time.sleep(POLL / 5)
    for run in runs:
        run.close()


def check_failures(results: Sequence[Result], enough: int = 1) -> None:
    """Raises a UserError with the trials' own error, if at least `enough` trials have ended and all have failed."""
    ended = [result for result in results if result.state != "running"]
    if len(ended) < enough or any(result.state != "failed" for result in ended):
        return
    errors = dict.fromkeys(result.error for result in ended)
    first, others = next(iter(errors)), f" (and {len(errors) - 1} other errors)" if len(errors) > 1 else ""
    subject = "the only trial" if len(ended) == 1 else f"all {len(ended)} trials"
    raise UserError(f"{subject} failed{others}: {first}")
