"""The comparison of runs: it reads, groups and scores them, and adds notes on the reliability of the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.common.errors import UserError
from agent.config.parsing import nearest
from agent.records.comparison import aggregates
from agent.records.comparison.grouping import Group, differing, group_runs, task_of
from agent.records.comparison.reading import EMPTY, STEP, Run, Stamp, read_run, stamp
from agent.records.comparison.scoring import (
    AGENTS,
    BaselineDifference,
    Summary,
    TaskResult,
    baseline_differences,
    summarise,
    task_result,
)
from agent.records.statistics import Interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of one group is better than one of another."""

    probability: float
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, which the page shows.

    Attributes:
        metric: the name of the compared metric.
        groups: the groups, in their order.
        tasks: the results on each task.
        shared: the tasks on which every group has scores; aggregates over tasks use only these.
        overall: statistics of normalised scores over the shared tasks, by agent and group; empty for one task.
        improvement: probabilities of improvement on the shared tasks, by agent and then by (group, other group).
        baseline_differences: differences from the baseline, by (task, group).
        baseline: the name of the baseline group.
        notes: sentences that limit the reliability of the result.
    """

    metric: str
    groups: Sequence[Group]
    tasks: Sequence[TaskResult]
    shared: Sequence[TaskResult]
    overall: Mapping[str, Mapping[str, Summary]]
    improvement: Mapping[str, Mapping[tuple[str, str], Improvement]]
    baseline_differences: Mapping[tuple[str, str], BaselineDifference] = field(default_factory=dict)
    baseline: str | None = None
    notes: Sequence[str] = ()

    def normalised(self, group: str, which: str) -> list[Array]:
        """Returns a group's normalised scores on the shared tasks."""
        return [task.scale(task.scores[which][group]) for task in self.shared]

    def raw(self, group: str, which: str) -> list[Array]:
        """Returns a group's scores on the shared tasks."""
        return [task.scores[which][group] for task in self.shared]


class NothingYetError(UserError):
    """The runs have no scores yet, but may have some later."""


class Reader:
    """Reads runs, and reads a run again only if it has changed.

    Attributes:
        faults: a sentence for each folder that could not be read the last time.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._known: dict[Path, tuple[Stamp, Run | None]] = {}
        self.faults: list[str] = []

    def changed(self, folders: Sequence[Path]) -> bool:
        """Whether one of the folders was written to, added or removed since the last reading."""
        return {folder: stamp(folder) for folder in folders} != {
            folder: known_stamp for folder, (known_stamp, _) in self._known.items()
        }

    def __call__(self, folders: Sequence[Path]) -> list[Run]:
        """Returns the runs, without those that cannot be read."""
        known, self.faults = self._known, []
        self._known = {folder: self._read(folder, known.get(folder)) for folder in folders}
        return [run for _, run in self._known.values() if run is not None]

    def _read(self, folder: Path, known: tuple[Stamp, Run | None] | None) -> tuple[Stamp, Run | None]:
        current = stamp(folder)  # before reading: later writes then count as a change
        if known is not None and known[0] == current and known[1] is not None:
            return known
        try:
            return current, read_run(folder, self._metric)
        except UserError as error:
            self.faults.append(str(error))
            return current, None


def compare(runs: Sequence[Run], metric: str, by: Sequence[str] = (), baseline: str | None = None) -> Comparison:
    """Groups the runs and compares the groups.

    Args:
        runs: runs of any tasks.
        metric: the name of the metric to compare.
        by: options that define the groups; (): all settings in which the runs differ, except the seed.
        baseline: the group to compare the others with, by its name or a part of it.

    Raises:
        NothingYetError: no run has a finite value of the metric yet.
        UserError: `by` or `baseline` names nothing.
    """
    with_metric = [run for run in runs if len(run.series.get(metric, EMPTY))]
    if not with_metric:
        raise _nothing_yet(runs, metric)
    groups = group_runs(with_metric, by)
    baseline_group = None if baseline is None else _baseline(groups, baseline)
    options = differing(with_metric, by)
    tasks = [task_result(name, groups, metric) for name in dict.fromkeys(task_of(run, options) for run in with_metric)]
    shared = [task for task in tasks if all(len(task.scores["last"].get(group.name, ())) for group in groups)]
    comparison = Comparison(metric, groups, tasks, shared, {}, {})
    overall = {which: _overall(comparison, which) for which in AGENTS} if len(shared) > 1 else {}
    improvement = {which: _improvement(comparison, which) for which in AGENTS}
    differences = {} if baseline_group is None else baseline_differences(tasks, baseline_group)
    notes = _notes(runs, with_metric, comparison)
    return Comparison(metric, groups, tasks, shared, overall, improvement, differences, baseline_group, notes)


def _nothing_yet(runs: Sequence[Run], metric: str) -> NothingYetError:
    """Says why no run has a finite value of the metric, and what to do."""
    logged = sorted({name for run in runs for name in run.logged} - {STEP})
    if metric in logged:
        return NothingYetError(
            f"none of the {len(runs)} runs has a finite value of {metric}, only NaN or infinities: name another metric="
        )
    may_come = metric.startswith("eval") and not any(name.startswith("eval") for name in logged)
    advice = "wait for an evaluation, or name another metric="
    if logged and not may_come:
        examples = nearest(metric, logged) or f", such as {', '.join(logged[:3])}"
        advice = f"name a metric that they have{examples}"
    return NothingYetError(f"none of the {len(runs)} runs has {metric} yet: {advice}")


def _baseline(groups: Sequence[Group], requested: str) -> str:
    """Returns the full name of the requested group.

    Raises:
        UserError: no group, or more than one, has this name.
    """
    names = [group.name for group in groups]
    matching = [name for name in names if requested in (name, name.partition("=")[2])]
    matching = matching or [name for name in names if requested in name]
    if len(matching) != 1:
        kind = "no group is" if not matching else f"{len(matching)} groups are"
        raise UserError(f"baseline={requested}: {kind} called so; the groups are {'; '.join(names[:20])}")
    return matching[0]


def _overall(comparison: Comparison, which: str) -> dict[str, Summary]:
    scores = {group.name: comparison.normalised(group.name, which) for group in comparison.groups}
    return {name: summarise(values, values) for name, values in scores.items()}


def _improvement(comparison: Comparison, which: str) -> dict[tuple[str, str], Improvement]:
    if not comparison.shared:
        return {}
    scores = {group.name: comparison.raw(group.name, which) for group in comparison.groups}
    return {
        (ours, theirs): Improvement(
            aggregates.probability_of_improvement(scores[ours], scores[theirs]),
            aggregates.improvement_interval(scores[ours], scores[theirs]),
        )
        for ours in scores
        for theirs in scores
        if ours != theirs
    }


def _notes(runs: Sequence[Run], with_metric: Sequence[Run], comparison: Comparison) -> list[str]:
    notes = []
    not_finite = sum(comparison.metric in run.logged for run in runs) - len(with_metric)
    if without_metric := len(runs) - len(with_metric) - not_finite:
        notes.append(f"{without_metric} of {len(runs)} runs have no {comparison.metric} yet and are left out.")
    if not_finite:
        notes.append(f"{not_finite} of {len(runs)} runs have no finite value of {comparison.metric} and are left out.")
    for group in comparison.groups:
        members = [run for runs_of_task in group.runs.values() for run in runs_of_task]
        if unfinished := sum(run.steps is not None and run.step < run.steps for run in members):
            notes.append(f"{group.name}: {unfinished} of {len(members)} runs have not reached their last step.")
    for task in comparison.tasks:
        members = [run for group in comparison.groups for run in group.runs.get(task.name, ())]
        lengths = {run.steps for run in members if run.steps is not None}
        if len(lengths) > 1:
            steps_text = ", ".join(f"{steps:,}" for steps in sorted(lengths))
            notes.append(
                f"On {task.name} runs are of different lengths ({steps_text} steps): their scores come "
                "from different amounts of training."
            )
        for group in comparison.groups:
            seeds = [run.seed for run in group.runs.get(task.name, ()) if run.seed]
            if len(set(seeds)) < len(seeds):
                notes.append(f"{group.name} has several runs of one seed on {task.name}: they are not independent.")
    if len(comparison.tasks) > 1 and len(comparison.shared) < len(comparison.tasks):
        notes.append(
            f"Numbers over tasks use the {len(comparison.shared)} of {len(comparison.tasks)} tasks on which all groups "
            "have runs."
        )
    return notes
