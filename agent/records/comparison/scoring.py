"""Scores of the last and the best agents, and their statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.records.comparison import aggregates
from agent.records.comparison.grouping import Group, below
from agent.records.comparison.reading import EMPTY, STEP, Run, Series
from agent.records.statistics import Interval, holm, welch
from envs.returns import reference_returns, return_bounds, solved_return

Array = NDArray[np.float64]
EVALUATED = "eval/return_mean"
Bounds = tuple[float | None, float | None]
AGENTS = ("last", "best")


@dataclass(frozen=True)
class Summary:
    """Statistics of one group's scores on one or several tasks, with 95 % intervals; None where there is none."""

    runs: int
    mean: float
    mean_interval: Interval | None
    median: float
    median_interval: Interval | None
    iqm: float
    iqm_interval: Interval | None
    gap: float | None
    gap_interval: Interval | None


@dataclass(frozen=True)
class BaselineDifference:
    """A group's mean on one task less the baseline's (Welch); Holm's method corrects the p-values of the table."""

    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Scale:
    """The returns whose normalised scores are 0 and 1 on a task, and their source."""

    low: float
    high: float
    source: str

    def __call__(self, values: Array) -> Array:
        """Normalises scores."""
        return (values - self.low) / ((self.high - self.low) or 1.0)


@dataclass(frozen=True)
class TaskResult:
    """The result of a comparison on one task; the mappings are by agent and then by group."""

    name: str
    scale: Scale
    bounds: Bounds
    threshold: float | None
    score_sources: Mapping[str, str]
    scores: Mapping[str, Mapping[str, Array]]
    summaries: Mapping[str, Mapping[str, Summary]]
    evaluated: Mapping[str, bool]  # by agent, whether evaluate.py played it


# ---- scores


def last_value(series: Series) -> float:
    """Returns the newest value."""
    return float(series.values[-1])


def best_value(series: Series) -> float:
    """Returns the greatest value, which selected the run's best agent and is therefore too high on average."""
    return float(series.values.max())


def score(run: Run, metric: str, which: str, evaluated: bool) -> float | None:
    """Returns the score of a run's last or best agent; None if there is none yet."""
    series = run.series.get(metric, EMPTY)
    if not len(series):
        return None
    if evaluated:
        return float(run.evaluations[which]["return_mean"])
    return last_value(series) if which == "last" else best_value(series)


def has_fresh_evaluations(runs: Sequence[Run], which: str) -> bool:
    """Whether evaluate.py has played that agent of every run in its current state, with equal episodes and seeds."""
    protocols = {_protocol(run, which) for run in runs}
    return len(protocols) == 1 and None not in protocols


def _protocol(run: Run, which: str) -> tuple[int, int] | None:
    """Returns the episodes and the seed with which evaluate.py played a run's current agent; None if it did not."""
    found, series = run.evaluations.get(which), run.series.get(EVALUATED, EMPTY)
    if not found or not len(series):
        return None
    values = series.values
    index = len(series) - 1 if which == "last" else len(series) - 1 - int(np.argmax(values[::-1]))
    return (found["episodes"], found["seed"]) if found[STEP] == series.steps[index] else None


def task_result(task: str, groups: Sequence[Group], metric: str) -> TaskResult:
    """Computes the scores of all groups on one task and their statistics."""
    members = {group.name: group.runs[task] for group in groups if task in group.runs}
    all_runs = [run for runs in members.values() for run in runs if len(run.series.get(metric, EMPTY))]
    score_sources, scores = {}, {}
    evaluated = {which: metric == EVALUATED and has_fresh_evaluations(all_runs, which) for which in AGENTS}
    for which in AGENTS:
        score_sources[which] = _score_source(all_runs, which, evaluated[which])
        found = {name: [score(run, metric, which, evaluated[which]) for run in runs] for name, runs in members.items()}
        scores[which] = {name: np.array([v for v in values if v is not None]) for name, values in found.items()}
    env_id, plain = _plain_task(all_runs)
    scale = _scale(env_id if plain and metric.endswith("return_mean") else "", scores)
    bounds = return_bounds(env_id) if plain and "return" in metric else (None, None)
    threshold = solved_return(env_id) if plain and metric.endswith("return_mean") else None
    summaries = {
        which: {name: summarise([values], [scale(values)], bounds) for name, values in found.items() if len(values)}
        for which, found in scores.items()
    }
    return TaskResult(task, scale, bounds, threshold, score_sources, scores, summaries, evaluated)


def _score_source(runs: Sequence[Run], which: str, evaluated: bool) -> str:
    if evaluated:
        return f"evaluate.py: {runs[0].evaluations[which]['episodes']} episodes of seeds of its own"
    return "the run's last evaluation" if which == "last" else "the highest of the run's own evaluations"


def _plain_task(runs: Sequence[Run]) -> tuple[str, bool]:
    """Returns the task's id, and whether it is the standard task, without the user's own arguments or time limit."""
    if not runs:
        return "", False
    env_id = runs[0].options.get("env.id", "")
    plain = all(
        run.options.get("env.id") == env_id
        and run.options.get("env.time_limit", "null") == "null"
        and all(run.options.get(name, "[]") == "[]" for name in ("env.observation", "env.wrappers"))
        and not any(name.startswith("env.eval_kwargs.") for name in run.options)
        and (
            env_id.startswith("ALE/")
            or not any(below(name, ("env.kwargs",)) for name in run.options if name != "env.kwargs")
        )
        for run in runs
    )
    return env_id, plain


def _scale(env_id: str, scores: Mapping[str, Mapping[str, Array]]) -> Scale:
    if (reference := reference_returns(env_id)) is not None:
        return Scale(*reference)
    values = np.concatenate([v for found in scores.values() for v in found.values()] or [np.zeros(1)])
    if not len(values):
        return Scale(0.0, 1.0, "nothing yet")
    return Scale(float(values.min()), float(values.max()), "the lowest and the highest score of these runs")


def summarise(scores: aggregates.Scores, normalised: aggregates.Scores, bounds: Bounds = (None, None)) -> Summary:
    """Computes the statistics of a group's scores [n] on each task, and the optimality gap of its normalised scores.

    The mean's interval is clipped to the bounds of a return, and keeps its coverage.
    """
    return Summary(
        sum(map(len, scores)),
        float(aggregates.mean(scores)),
        within_bounds(aggregates.mean_interval(scores), bounds),
        float(aggregates.median(scores)),
        aggregates.bootstrap(scores, aggregates.median),
        float(aggregates.iqm(scores)),
        aggregates.bootstrap(scores, aggregates.iqm),
        float(aggregates.optimality_gap(normalised)),
        aggregates.gap_interval(normalised),
    )


def within_bounds(interval: Interval | None, bounds: Bounds) -> Interval | None:
    """Clips an interval to the bounds."""
    if interval is None:
        return None
    low, high = (-math.inf if bounds[0] is None else bounds[0]), (math.inf if bounds[1] is None else bounds[1])
    return min(max(interval[0], low), high), max(min(interval[1], high), low)


def baseline_differences(tasks: Sequence[TaskResult], baseline: str) -> dict[tuple[str, str], BaselineDifference]:
    """Computes the difference of every group's last agents from those of the baseline, by task and group.

    The p-values have Holm's correction for the number of all differences.
    """
    differences = {}
    for task in tasks:
        baseline_scores = task.scores["last"].get(baseline)
        for name, values in task.scores["last"].items():
            if (
                baseline_scores is not None
                and name != baseline
                and (difference := welch(values, baseline_scores)) is not None
            ):
                differences[task.name, name] = difference
    corrected = holm([difference.p for difference in differences.values()])
    return {
        key: BaselineDifference(difference.mean, difference.interval, p)
        for (key, difference), p in zip(differences.items(), corrected, strict=True)
    }
