"""One trial: train.py runs its seeds one after the other, each in its own process."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.common import disk
from agent.common.errors import UserError, plain
from agent.common.files import open_log, read_plain
from agent.common.quoting import from_python, quote_override
from agent.common.signals import WARNINGS
from agent.config.parsing import parse, to_plain
from agent.config.run import TrainConfig, upgraded
from agent.config.tune import StudyConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.metrics import number, read_new_rows, read_series
from agent.records.names import METRICS
from agent.running.progress import nothing_left, with_evaluation
from agent.running.tuning.study import Trial

RETURN = "eval/return_mean"
#: The largest output of a run that is read, in bytes.
MAX_LOG_BYTES = 64 << 20
#: How the system words that a disk takes nothing more, and the advice.
DISK_REFUSES = {
    **dict.fromkeys(map(os.strerror, disk.FULL_DISK), "free some space"),
    os.strerror(errno.EFBIG): "allow larger files (ulimit -f unlimited)",
    os.strerror(errno.EROFS): "make the disk writable",
}


class TrialRun:
    """The runs of a trial, which `advance` moves on.

    A run that was stopped before continues from its checkpoint. A run is stopped with SIGTERM, which train.py handles
    even if Ctrl-C is ignored; it then saves itself.

    Args:
        trial: the trial of the study.
        folder: the folder of the trial.
        config: the config of the study.
        program: the file of train.py.
        overrides: further options of train.py, which name modules to import.
    """

    def __init__(
        self, trial: Trial, folder: Path, config: StudyConfig, program: Path, overrides: Sequence[str] = ()
    ) -> None:
        self.trial, self._folder, self._config = trial, folder, config
        self._program, self._more_overrides = program, overrides
        self._process: subprocess.Popen[bytes] | None = None
        self._seed = 0  # index of the seed in training
        self._read = 0  # bytes of its metrics that have been read
        self._pruned = 0  # the evaluation that ended the trial, among those of all seeds

    # ---- the state of the trial

    def advance(self) -> str | None:
        """Continues the trial; returns a sentence once it has ended, and None while it goes on.

        Raises:
            UserError: the machine ended the run, by its disk or a signal; the trial continues when the study does.
        """
        if self._process is None:
            return self._end_early() if self._pruned else self._start_next()
        code = self._process.poll()
        self._report()
        if code is None:
            return None
        self._process = None
        if self._pruned:
            return self._end_early()
        if code:
            return self._fail(code)
        self._note_score()
        return None

    def stop(self) -> None:
        """Asks the run to save and stop; the trial continues when the study does."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kills the run."""
        if self._process is not None:
            self._process.kill()

    def has_ended(self) -> bool:
        """Whether the trial has no process."""
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """Releases the trial."""
        self.trial.lock.close()

    # ---- its runs

    def _start_next(self) -> str | None:
        """Starts the run of the next seed without a score; ends the trial if there is none."""
        scores = self.trial.seeds()
        for index, seed in enumerate(self._config.seeds):
            if str(seed) in scores:
                continue
            self._seed, self._read = index, 0
            if self._is_complete():  # a process was killed between the end of the run and the note of its score
                self._note_score()
                return None
            self._process = self._start(seed)
            return None
        score = float(np.mean([scores[str(seed)] for seed in self._config.seeds]))
        self.trial.complete(score)
        each = ", ".join(f"{scores[str(seed)]:.1f}" for seed in self._config.seeds)
        return f"{score:.1f}" + (f" (seeds: {each})" if len(self._config.seeds) > 1 else "")

    def _start(self, seed: int) -> subprocess.Popen[bytes]:
        overrides = run_overrides(self._config, self.trial.number, self.trial.settings, seed, self._folder)
        with open_log(self._folder / f"seed{seed}.log") as log:
            posix = sys.platform != "win32"
            return subprocess.Popen(
                [sys.executable, str(self._program), *overrides, *self._more_overrides],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self.trial.lock.descriptor,) if posix else (),
                start_new_session=posix,  # Ctrl-C in a terminal reaches this process alone, which asks the run to stop
            )

    @property
    def _run(self) -> Path:
        return run_folder(self._folder, self._config.seeds[self._seed])

    def _is_complete(self) -> bool:
        latest = latest_checkpoint(self._run)
        if latest is None:
            return False
        try:
            step, saved = load_checkpoint(latest)
            state = with_evaluation(self._run, step, saved)
            config = parse(TrainConfig, upgraded(state["config"]))
        except (UserError, ValueError, KeyError):
            return False  # the run itself says what is wrong
        return nothing_left(config, step, {**state, "config": to_plain(config)}) is not None

    # ---- its evaluations

    def _report(self) -> None:
        """Reports new evaluations to the study, and stops the run if the trial should be pruned."""
        if self._pruned:
            return
        rows, self._read = read_new_rows(self._run / METRICS, self._read)
        values = [(step, value) for step, row in rows if (value := number(row.get(RETURN))) is not None]
        before = list(self.trial.seeds().values()) if values else []
        for step, value in values:
            evaluation = self._evaluation_number(step)
            if self.trial.report(evaluation, float(np.mean([*before, value]))) and self._config.pruner != "none":
                self._pruned = evaluation
                self.stop()
                return

    def _evaluation_number(self, step: int) -> int:
        """The number of an evaluation over all seeds, counted from 1, at which a pruner compares trials."""
        config = self._config
        last = step >= config.steps or not config.eval_every
        number = config.evaluations if last else min(step // config.eval_every, config.evaluations)
        return self._seed * config.evaluations + number

    def _note_score(self) -> None:
        _, values = read_series(self._run / METRICS, [RETURN])[RETURN]
        self._report()
        if len(values) == 0:
            raise UserError(f"{self._run} has no evaluation: leave eval.episodes above 0")
        scores = {"last": values[-1], "best": values.max(), "mean": values.mean()}
        self.trial.note(self._config.seeds[self._seed], float(scores[self._config.score]))

    # ---- other endings

    def _end_early(self) -> str:
        self.trial.prune()
        total = self._config.evaluations * len(self._config.seeds)
        return f"pruned at evaluation {self._pruned} of {total}"

    def _fail(self, code: int) -> str:
        message = last_message(self._folder / f"seed{self._config.seeds[self._seed]}.log")
        name, go_on = ending_signal(code), f"then go on with {quote_override('resume', self._folder.parent)}"
        if name:
            raise UserError(f"{name} ended trial {self.trial.number}: if memory was short, free some, {go_on}")
        if advice := next((advice for reason, advice in DISK_REFUSES.items() if reason in message), None):
            raise UserError(f"trial {self.trial.number} cannot go on ({message}): {advice}, {go_on}")
        self.trial.fail(message)
        return f"failed: {message}"


def run_folder(trial: Path, seed: int) -> Path:
    """The folder of a trial's run with a seed."""
    return trial / f"seed{seed}"


def run_overrides(config: StudyConfig, number: int, settings: dict[str, object], seed: int, folder: Path) -> list[str]:
    """The command line of a trial's run; the study's own options follow the defaults that they may change."""
    study = folder.absolute().parent.name
    return [
        "log.progress=false",
        "eval.video=false",
        quote_override("wandb.group", study),
        quote_override("wandb.name", f"{study}_trial{number}_seed{seed}"),
        *config.overrides,
        *(override for name, value in settings.items() for override in from_python(name, value)),
        f"seed={seed}",
        quote_override("hydra.run.dir", os.fspath(run_folder(folder, seed))),
        "resume=auto",
    ]


def last_message(log: Path) -> str:
    """The last message of a run: its error, or its last line."""
    try:
        lines = read_plain(log, MAX_LOG_BYTES).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    lines = [line for line in lines if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if line.startswith("error: ")]
    return plain((errors or lines)[-1].removeprefix("error: "))


def ending_signal(code: int) -> str:
    """The name of the signal by which a person or the system ended a process; empty for an error or a crash.

    Args:
        code: minus the number of the signal, or 128 + the number where the process saved itself first.
    """
    number = -code if code < 0 else code - 128
    ends = [*stop_signals(), *WARNINGS, *([signal.SIGKILL] if sys.platform != "win32" else [])]
    return next((end.name for end in ends if end == number), "")


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals with which the user or the system ends a study."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))
