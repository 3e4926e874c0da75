"""One comparison: runs read, grouped and scored, with all that is to be said about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.common.errors import UserError
from agent.records.comparison import aggregates
from agent.records.comparison.grouping import Group, group_runs, task_of
from agent.records.comparison.reading import EMPTY, Run, Stamp, read_run, stamp
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
    """How probable it is that a run of one group is better than one of another."""

    probability: float
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """What a page shows.

    Attributes:
        metric: what is compared.
        groups: in their order.
        tasks: the results of each.
        shared: the tasks that every group has scores on, which the numbers over tasks are of.
        overall: statistics of normalised scores over the shared tasks, by agent and group; empty for one task.
        improvement: of each group (first) over each other, on the shared tasks, by agent.
        baseline_differences: differences from the baseline by task and group.
        baseline: the group's name.
        notes: what a reader has to know.
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
        """A group's scores on the shared tasks, from 0 to 1 by what is known of each."""
        return [task.scale(task.scores[which][group]) for task in self.shared]

    def raw(self, group: str, which: str) -> list[Array]:
        """A group's scores on the shared tasks."""
        return [task.scores[which][group] for task in self.shared]


class NothingYetError(UserError):
    """The runs have no scores yet: they may have some later."""


class Reader:
    """Reads runs; those that have not changed since are not read again.

    Attributes:
        faults: what is wrong with the folders that could not be read last.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._known: dict[Path, tuple[Stamp, Run | None]] = {}
        self.faults: list[str] = []

    def changed(self, folders: Sequence[Path]) -> bool:
        """Whether anything was written to one of the folders since they were read, or one came or went."""
        return {folder: stamp(folder) for folder in folders} != {
            folder: known_stamp for folder, (known_stamp, _) in self._known.items()
        }

    def __call__(self, folders: Sequence[Path]) -> list[Run]:
        """The runs, without those that cannot be used."""
        known, self.faults = self._known, []
        self._known = {folder: self._read(folder, known.get(folder)) for folder in folders}
        return [run for _, run in self._known.values() if run is not None]

    def _read(self, folder: Path, known: tuple[Stamp, Run | None] | None) -> tuple[Stamp, Run | None]:
        current = stamp(folder)  # first: what is written meanwhile is seen the next time
        if known is not None and known[0] == current and known[1] is not None:
            return known
        try:
            return current, read_run(folder, self._metric)
        except UserError as error:
            self.faults.append(str(error))
            return current, None


def compare(runs: Sequence[Run], metric: str, by: Sequence[str] = (), baseline: str | None = None) -> Comparison:
    """Everything that is found.

    Raises:
        NothingYetError: where no run has the metric yet.
        UserError: where an option names nothing.
    """
    with_metric = [run for run in runs if len(run.series.get(metric, EMPTY))]
    if not with_metric:
        raise NothingYetError(
            f"none of the {len(runs)} runs has {metric} yet: wait for an evaluation, or name another metric="
        )
    groups = group_runs(with_metric, by)
    baseline_group = None if baseline is None else _baseline(groups, baseline)
    tasks = [task_result(name, groups, metric) for name in dict.fromkeys(task_of(run, by) for run in with_metric)]
    shared = [task for task in tasks if all(len(task.scores["last"].get(group.name, ())) for group in groups)]
    comparison = Comparison(metric, groups, tasks, shared, {}, {})
    overall = {which: _overall(comparison, which) for which in AGENTS} if len(shared) > 1 else {}
    improvement = {which: _improvement(comparison, which) for which in AGENTS}
    differences = {} if baseline_group is None else baseline_differences(tasks, baseline_group)
    notes = _notes(runs, with_metric, comparison)
    return Comparison(metric, groups, tasks, shared, overall, improvement, differences, baseline_group, notes)


def _baseline(groups: Sequence[Group], requested: str) -> str:
    """The name of the group that is asked for.

    Raises:
        UserError: where none, or more than one, is called so.
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
    if without_metric := len(runs) - len(with_metric):
        notes.append(f"{without_metric} of {len(runs)} runs have no {comparison.metric} yet and are left out.")
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
                f"On {task.name} runs are of different lengths ({steps_text} steps): their scores are not of equal "
                "training."
            )
        for group in comparison.groups:
            seeds = [run.seed for run in group.runs.get(task.name, ()) if run.seed]
            if len(set(seeds)) < len(seeds):
                notes.append(f"{group.name} has several runs of one seed on {task.name}: they are not independent.")
    if len(comparison.tasks) > 1 and len(comparison.shared) < len(comparison.tasks):
        notes.append(
            f"Numbers over tasks are of the {len(comparison.shared)} tasks of {len(comparison.tasks)} where all groups "
            "have runs."
        )
    return notes
