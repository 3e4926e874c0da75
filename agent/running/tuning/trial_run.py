"""One trial: the runs of its seeds, one after the other, each by train.py in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.common.errors import UserError, plain
from agent.common.files import open_log, read_plain
from agent.common.quoting import from_python, quote_override
from agent.config.parsing import parse, to_plain
from agent.config.run import TrainConfig, upgraded
from agent.config.tune import StudyConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.metrics import read_series
from agent.running.progress import nothing_left, with_evaluation
from agent.running.tuning.study import Trial

RETURN = "eval/return_mean"
#: Bytes of a run's output of which its last words are taken.
LONGEST = 64 << 20


class TrialRun:
    """The runs of a trial, which `look` moves on.

    A run that was stopped before goes on from its checkpoint. A stop is SIGTERM, which train.py hears even where
    Ctrl-C is ignored; the run saves itself then.

    Args:
        trial: of the study.
        folder: of the trial.
        config: of the study.
        program: the file of train.py.
        words: options of train.py that are not of the study: those of its imports.
    """

    def __init__(
        self, trial: Trial, folder: Path, config: StudyConfig, program: Path, words: Sequence[str] = ()
    ) -> None:
        self.trial, self._folder, self._config = trial, folder, config
        self._program, self._more = program, words
        self._process: subprocess.Popen[bytes] | None = None
        self._seed = 0  # index of the one that is trained
        self._read = -1  # bytes of its metrics that were read
        self._pruned = 0  # the evaluation that ended the trial, among those of all seeds

    # ---- the state of the trial

    def look(self) -> str | None:
        """Moves the trial on. A sentence once it has ended; None while it goes on."""
        if self._process is None:
            return self._start_next()
        code = self._process.poll()
        self._report()
        if code is None:
            return None
        self._process = None
        if self._pruned:
            return self._end_early()
        if code:
            return self._fail()
        self._note_score()
        return None

    def stop(self) -> None:
        """Asks the run to save and stop; the trial goes on when the study does."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the run at once."""
        if self._process is not None:
            self._process.kill()

    def rests(self) -> bool:
        """Whether no process of the trial is left."""
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """Leaves the trial to whoever goes on with the study."""
        self.trial.lock.close()

    # ---- its runs

    def _start_next(self) -> str | None:
        """Starts the run of the next seed that has no score; ends the trial where all have one."""
        scores = self.trial.seeds()
        for index, seed in enumerate(self._config.seeds):
            if str(seed) in scores:
                continue
            self._seed, self._read = index, -1
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
        words = run_words(self._config, self.trial.number, self.trial.settings, seed, self._folder)
        with open_log(self._folder / f"seed{seed}.log") as log:
            posix = sys.platform != "win32"
            return subprocess.Popen(
                [sys.executable, str(self._program), *words, *self._more],
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
            step, state = load_checkpoint(latest)
            state = with_evaluation(self._run, step, state)
            config = parse(TrainConfig, upgraded(state["config"]))
        except (UserError, ValueError, KeyError):
            return False  # the run itself says what is wrong
        return nothing_left(config, step, {**state, "config": to_plain(config)}) is not None

    # ---- its evaluations

    def _report(self) -> None:
        """Tells the study of evaluations that are new, and stops the run where the trial should be ended."""
        metrics = self._run / "metrics.jsonl"
        try:
            size = metrics.stat().st_size
        except OSError:
            return
        if size == self._read or self._pruned:
            return
        self._read = size
        before = list(self.trial.seeds().values())
        for step, value in zip(*read_series(metrics, [RETURN])[RETURN], strict=True):
            place = self._place(int(step))
            if self.trial.report(place, float(np.mean([*before, value]))) and self._config.pruner != "none":
                self._pruned = place
                self.stop()
                return

    def _place(self, step: int) -> int:
        """The number of an evaluation among those of all seeds, from 1 on: the step at which a pruner compares."""
        config = self._config
        last = step >= config.steps or not config.every
        number = config.evaluations if last else min(step // config.every, config.evaluations)
        return self._seed * config.evaluations + number

    def _note_score(self) -> None:
        _, values = read_series(self._run / "metrics.jsonl", [RETURN])[RETURN]
        self._report()
        if len(values) == 0:
            raise UserError(f"{self._run} has no evaluation: leave eval.episodes above 0")
        scores = {"last": values[-1], "best": values.max(), "mean": values.mean()}
        self.trial.note(self._config.seeds[self._seed], float(scores[self._config.score]))

    # ---- other endings

    def _end_early(self) -> str:
        self.trial.prune()
        all_of_them = self._config.evaluations * len(self._config.seeds)
        return f"pruned at evaluation {self._pruned} of {all_of_them}"

    def _fail(self) -> str:
        words = last_words(self._folder / f"seed{self._config.seeds[self._seed]}.log")
        self.trial.fail(words)
        return f"failed: {words}"


def run_folder(trial: Path, seed: int) -> Path:
    """The folder of a trial's run with a seed."""
    return trial / f"seed{seed}"


def run_words(config: StudyConfig, number: int, settings: dict[str, object], seed: int, folder: Path) -> list[str]:
    """The command line of a trial's run: the study's own words come after what they may change."""
    study = folder.parent.name
    return [
        "log.progress=false",
        "eval.video=false",
        quote_override("wandb.group", study),
        quote_override("wandb.name", f"{study}_trial{number}_seed{seed}"),
        *config.words,
        *(word for name, value in settings.items() for word in from_python(name, value)),
        f"seed={seed}",
        quote_override("hydra.run.dir", os.fspath(run_folder(folder, seed))),
        "resume=auto",
    ]


def last_words(log: Path) -> str:
    """The sentence that a run ended with: its error, or its last line."""
    try:
        lines = read_plain(log, LONGEST).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    lines = [line for line in lines if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if line.startswith("error: ")]
    return plain((errors or lines)[-1].removeprefix("error: "))


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that a person or the system ends a study with."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))
