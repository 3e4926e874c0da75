"""A comparison's numbers as plain data, for comparison.json, and as words, for tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent.records.comparison.comparing import Comparison
from agent.records.comparison.scoring import AGENTS, Summary
from agent.records.console import shown
from agent.records.statistics import Interval

FORMAT, VERSION = "noisy-dqn-comparison", 1


def with_interval(value: float, interval: Interval | None, runs: int, few: str = "") -> str:
    """A number with its interval, or with the reason why it has none."""
    if interval is None:
        return f"{shown(value)} (one seed)" if runs == 1 else f"{shown(value)}{few}"
    return f"{shown(value)} [{shown(interval[0])}, {shown(interval[1])}]"


def plain_data(found: Comparison, curves: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Everything on the page, as JSON knows it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "metric": found.metric,
        "baseline": found.baseline,
        "groups": [
            {"name": group.name, "runs": {task: [_run(run) for run in runs] for task, runs in group.runs.items()}}
            for group in found.groups
        ],
        "tasks": [
            {
                "name": task.name,
                "score_0": task.scale.low,
                "score_1": task.scale.high,
                "scale": task.scale.source,
                "scores": {
                    which: {
                        "source": task.played[which],
                        "groups": {
                            name: {"per_seed": list(values), **_summary(task.summaries[which].get(name))}
                            for name, values in task.scores[which].items()
                        },
                    }
                    for which in AGENTS
                },
                "curves": curves.get(task.name, {}),
            }
            for task in found.tasks
        ],
        "over_tasks": {
            "tasks": [task.name for task in found.shared],
            **{which: {name: _summary(s) for name, s in by.items()} for which, by in found.overall.items()},
        },
        "probability_of_improvement": {
            which: [
                {"group": ours, "over": theirs, "probability": value.probability, "ci95": value.interval}
                for (ours, theirs), value in pairs.items()
            ]
            for which, pairs in found.improvement.items()
        },
        "against_baseline": [
            {"task": task, "group": group, **asdict(value)} for (task, group), value in found.against.items()
        ],
        "notes": list(found.notes),
    }


def _run(run: Any) -> dict[str, object]:
    return {"folder": str(run.folder), "seed": run.seed, "step": run.step, "commands": list(run.commands)}


def _summary(summary: Summary | None) -> dict[str, object]:
    return {} if summary is None else asdict(summary)


HEADER = ("group", "seeds", "steps", "last agent: mean", "median", "IQM", "optimality gap", "best agent: mean")


def table_rows(found: Comparison) -> list[tuple[str, list[Sequence[str]]]]:
    """A table for each task: its title, and its rows below a header."""
    tables: list[tuple[str, list[Sequence[str]]]] = []
    for task in found.tasks:
        rows: list[Sequence[str]] = [(*HEADER, *([f"less {found.baseline}"] if found.baseline else []))]
        for group in found.groups:
            if (last := task.summaries["last"].get(group.name)) is not None:
                steps = [run.step for run in group.runs[task.name]]
                rows.append(
                    (
                        group.name,
                        str(last.runs),
                        f"{max(steps):,}" if min(steps) > 0.99 * max(steps) else f"{min(steps):,} … {max(steps):,}",
                        *_cells(last),
                        _gap(last),
                        _cells(task.summaries["best"][group.name])[0],
                        *([_difference(found, task.name, group.name)] if found.baseline else []),
                    )
                )
        tables.append((task.name, rows))
    if found.overall:
        rows = [("group", "runs", "last agent: mean", "median", "IQM", "optimality gap", "best agent: mean")]
        for name, last in found.overall["last"].items():
            rows.append((name, str(last.runs), *_cells(last), _gap(last), _cells(found.overall["best"][name])[0]))
        tables.append((f"all {len(found.shared)} tasks, normalised", rows))
    return tables


def _gap(summary: Summary) -> str:
    """How far normalised scores stay below 1."""
    return "–" if summary.gap is None else with_interval(summary.gap, summary.gap_interval, summary.runs)


def _cells(summary: Summary) -> tuple[str, str, str]:
    return (
        with_interval(summary.mean, summary.mean_interval, summary.runs),
        with_interval(summary.median, summary.median_interval, summary.runs),
        with_interval(summary.iqm, summary.iqm_interval, summary.runs),
    )


def _difference(found: Comparison, task: str, group: str) -> str:
    if group == found.baseline:
        return ""
    value = found.against.get((task, group))
    if value is None:
        return "– (one seed)"
    low, high = value.interval
    p = f"p = {value.p:.3f}" if value.p >= 0.001 else "p < 0.001"
    return f"{shown(value.difference)} [{shown(low)}, {shown(high)}], {p}"
