"""The study that trials share: Optuna's, in a journal file. This is the only file that knows Optuna."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.common.errors import UserError
from agent.common.files import check_no_link
from agent.common.kinds import PlainData
from agent.config.tune import StudyConfig
from agent.running.tuning.journal import JOURNAL, JournalLock, journal_errors
from agent.running.tuning.locks import Lock, exclusive, lock
from agent.running.tuning.result import Result
from agent.running.tuning.space import Domain, parse_space

if TYPE_CHECKING:
    import optuna

NAME = "study"


class Trial:
    """A trial under way, and its lock, which this process holds."""

    def __init__(
        self, study: optuna.Study, trial: optuna.Trial, settings: dict[str, object], lock: Lock, folder: Path
    ) -> None:
        self.number, self.settings, self.lock = trial.number, settings, lock
        self._study, self._trial, self._folder = study, trial, folder
        self._reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(self, evaluation: int, value: float) -> bool:
        """Reports the value of an evaluation, by its number; returns whether to prune the trial."""
        with journal_errors(self._folder):
            if evaluation not in self._reported:
                self._trial.report(value, evaluation)
                self._reported.add(evaluation)
            return bool(self._trial.should_prune())

    def seeds(self) -> dict[str, float]:
        """The score of each completed seed."""
        with journal_errors(self._folder):
            return _scores(self._trial.user_attrs)

    def note(self, seed: int, score: float) -> None:
        """Stores the score of a seed."""
        with journal_errors(self._folder):
            self._trial.set_user_attr("seeds", {**self.seeds(), str(seed): score})

    def complete(self, score: float) -> None:
        """Ends the trial with its score."""
        with journal_errors(self._folder):
            self._study.tell(self._trial, score)

    def prune(self) -> None:
        """Ends the trial early."""
        import optuna

        with journal_errors(self._folder):
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)

    def fail(self, error: str) -> None:
        """Ends the trial without a score, and stores the error."""
        import optuna

        with journal_errors(self._folder):
            self._trial.set_user_attr("error", error)
            self._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)


class Study:
    """A study in a folder.

    Args:
        folder: the folder of the study; a missing journal is created.
        config: the config of the study.

    Raises:
        UserError: if Optuna is not installed, or the journal is damaged.
    """

    def __init__(self, folder: Path, config: StudyConfig) -> None:
        check_optuna()
        self.folder, self.config = folder, config
        self.domains = parse_space(config.space)
        with exclusive(folder / "lock"), journal_errors(folder):
            self._study = self._open()

    def _open(self) -> optuna.Study:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        check_no_link(self.folder / JOURNAL)
        path = (self.folder / JOURNAL).absolute()
        journal_lock: Any = None if os.name == "nt" else JournalLock(path)  # of Optuna's form, not of its class
        backend = JournalFileBackend(str(path), journal_lock)
        storage = optuna.storages.JournalStorage(backend)
        if not storage.get_all_studies():  # to create one again would write to the journal
            optuna.create_study(storage=storage, study_name=NAME, direction="maximize")
        study = optuna.load_study(storage=storage, study_name=NAME, pruner=self._pruner())
        if not study.get_trials(deepcopy=False) and self.config.first:
            study.enqueue_trial({domain.name: _stored(domain, self.config.first) for domain in self._known()})
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.config.startup_trials, seed=self._seed(len(study.get_trials(deepcopy=False)))
        )
        return study

    def _known(self) -> Iterator[Domain]:
        """The domains for which the first trial has a value."""
        return (domain for domain in self.domains if domain.name in self.config.first)

    def _seed(self, trials: int) -> int:
        """A seed for the sampler: a new one whenever the study continues, so that no draws are repeated."""
        return int(np.random.SeedSequence([self.config.seeds[0], trials]).generate_state(1)[0])

    def _pruner(self) -> optuna.pruners.BasePruner:
        import optuna

        evaluations, startup = self.config.evaluations, self.config.startup_trials
        match self.config.pruner:
            case "median":  # not in the first third of a run, when little is learned
                return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=evaluations // 3)
            case "hyperband":
                max_resource = evaluations * len(self.config.seeds)
                return optuna.pruners.HyperbandPruner(min_resource=max(1, max_resource // 9), max_resource=max_resource)
        return optuna.pruners.NopPruner()

    def next_trial(self) -> Trial | None:
        """A trial that a process has abandoned, or a new one; None if there are enough."""
        with exclusive(self.folder / "lock"), journal_errors(self.folder):
            trials = self._study.get_trials(deepcopy=False)
            for frozen in trials:
                if (
                    frozen.state.name == "RUNNING"
                    and (trial_lock := lock(self.trial_folder(frozen.number))) is not None
                ):
                    return self._begin(self._resumed(frozen), trial_lock)
            if sum(frozen.state.name != "WAITING" for frozen in trials) >= self.config.trials:
                return None
            trial = self._study.ask()
            trial_lock = lock(self.trial_folder(trial.number))
            assert trial_lock is not None, "a trial that is new belongs to nobody"
            return self._begin(trial, trial_lock)

    def _resumed(self, frozen: optuna.trial.FrozenTrial) -> optuna.Trial:
        import optuna

        return optuna.trial.Trial(self._study, frozen._trial_id)

    def _begin(self, trial: optuna.Trial, trial_lock: Lock) -> Trial:
        settings = {domain.name: _suggest(trial, domain) for domain in self.domains}
        return Trial(self._study, trial, settings, trial_lock, self.folder)

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial's runs."""
        return self.folder / f"trial_{number:04d}"

    # ---- results

    def results(self) -> list[Result]:
        """All trials so far, in order."""
        with journal_errors(self.folder):
            trials = self._study.get_trials(deepcopy=False)
            return [self._result(frozen) for frozen in trials if frozen.state.name != "WAITING"]

    def _result(self, frozen: optuna.trial.FrozenTrial) -> Result:
        values, name = frozen.intermediate_values, frozen.state.name
        score = frozen.value if name == "COMPLETE" else values[max(values)] if values else None
        settings = {
            domain.name: json.loads(value) if domain.choices else domain.number(value)
            for domain in self.domains
            if (value := frozen.params.get(domain.name)) is not None
        }
        seconds = None if frozen.duration is None else frozen.duration.total_seconds()
        attributes = frozen.user_attrs
        state = {"FAIL": "failed"}.get(name, name.lower())
        details = _scores(attributes), len(values), seconds, str(attributes.get("error", ""))
        return Result(frozen.number, state, None if score is None else float(score), settings, *details)

    def importances(self) -> dict[str, float]:
        """The importance of each option for a place among the best trials (PED-ANOVA, Watanabe et al. 2023).

        The sum is 1. Empty if there are too few trials.
        """
        import optuna

        try:
            return dict(optuna.importance.get_param_importances(self._study))
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}


def check_optuna() -> None:
    """Raises a UserError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError("tune.py needs Optuna: pip install '.[tune]'") from error


def _scores(attributes: Mapping[str, Any]) -> dict[str, float]:
    """The score of each completed seed, in a trial's part of the journal."""
    return {str(seed): float(score) for seed, score in attributes.get("seeds", {}).items()}


def _suggest(trial: optuna.Trial, domain: Domain) -> object:
    if domain.choices:
        return json.loads(trial.suggest_categorical(domain.name, tuple(dict.fromkeys(domain.choices))))
    if domain.whole:
        step = int(domain.step or 1)
        return trial.suggest_int(domain.name, int(domain.low), int(domain.high), step=step, log=domain.log)
    return trial.suggest_float(domain.name, domain.low, domain.high, step=domain.step, log=domain.log)


def _stored(domain: Domain, first: PlainData) -> object:
    value = first[domain.name]
    return json.dumps(value) if domain.choices else domain.number(value)
