"""A comparison's numbers as plain data for comparison.json, and as texts for tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from agent.records.comparison.comparing import Comparison
from agent.records.comparison.reading import Run
from agent.records.comparison.scoring import AGENTS, Summary
from agent.records.console import format_return
from agent.records.statistics import Interval

FORMAT, VERSION = "noisy-dqn-comparison", 1


def with_interval(value: float, interval: Interval | None, runs: int) -> str:
    """Formats a number with its interval, or with the reason why it has none."""
    if interval is None:
        return f"{format_return(value)} (one seed)" if runs == 1 else format_return(value)
    return f"{format_return(value)} [{format_return(interval[0])}, {format_return(interval[1])}]"


def plain_data(comparison: Comparison, curves: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Converts everything on the page to JSON types."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "groups": [
            {"name": group.name, "runs": {task: [_run(run) for run in runs] for task, runs in group.runs.items()}}
            for group in comparison.groups
        ],
        "tasks": [
            {
                "name": task.name,
                "score_0": task.scale.low,
                "score_1": task.scale.high,
                "scale": task.scale.source,
                "scores": {
                    which: {
                        "source": task.score_sources[which],
                        "groups": {
                            name: {"per_seed": list(values), **_summary(task.summaries[which].get(name))}
                            for name, values in task.scores[which].items()
                        },
                    }
                    for which in AGENTS
                },
                "curves": curves.get(task.name, {}),
            }
            for task in comparison.tasks
        ],
        "over_tasks": {
            "tasks": [task.name for task in comparison.shared],
            **{which: {name: _summary(s) for name, s in by.items()} for which, by in comparison.overall.items()},
        },
        "probability_of_improvement": {
            which: [
                {"group": ours, "over": theirs, "probability": value.probability, "ci95": value.interval}
                for (ours, theirs), value in pairs.items()
            ]
            for which, pairs in comparison.improvement.items()
        },
        "against_baseline": [
            {"task": task, "group": group, **asdict(value)}
            for (task, group), value in comparison.baseline_differences.items()
        ],
        "notes": list(comparison.notes),
    }


def _run(run: Run) -> dict[str, object]:
    return {"folder": str(run.folder), "seed": run.seed, "step": run.step, "commands": list(run.commands)}


def _summary(summary: Summary | None) -> dict[str, object]:
    return {} if summary is None else asdict(summary)


HEADER = ("group", "seeds", "steps", "last agent: mean", "median", "IQM", "optimality gap", "best agent: mean")


def table_rows(comparison: Comparison) -> list[tuple[str, list[Sequence[str]]]]:
    """Builds a table for each task: its title, and its rows below a header."""
    tables: list[tuple[str, list[Sequence[str]]]] = []
    for task in comparison.tasks:
        rows: list[Sequence[str]] = [(*HEADER, *([f"less {comparison.baseline}"] if comparison.baseline else []))]
        for group in comparison.groups:
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
                        *([_difference(comparison, task.name, group.name)] if comparison.baseline else []),
                    )
                )
        tables.append((task.name, rows))
    if comparison.overall:
        rows = [("group", "runs", "last agent: mean", "median", "IQM", "optimality gap", "best agent: mean")]
        for name, last in comparison.overall["last"].items():
            rows.append((name, str(last.runs), *_cells(last), _gap(last), _cells(comparison.overall["best"][name])[0]))
        tables.append((f"all {len(comparison.shared)} tasks, normalised", rows))
    return tables


def _gap(summary: Summary) -> str:
    """Formats the optimality gap: how far normalised scores stay below 1."""
    return "–" if summary.gap is None else with_interval(summary.gap, summary.gap_interval, summary.runs)


def _cells(summary: Summary) -> tuple[str, str, str]:
    return (
        with_interval(summary.mean, summary.mean_interval, summary.runs),
        with_interval(summary.median, summary.median_interval, summary.runs),
        with_interval(summary.iqm, summary.iqm_interval, summary.runs),
    )


def _difference(comparison: Comparison, task: str, group: str) -> str:
    if group == comparison.baseline:
        return ""
    value = comparison.baseline_differences.get((task, group))
    if value is None:
        return "– (one seed)"
    low, high = value.interval
    p = f"p = {value.p:.3f}" if value.p >= 0.001 else "p < 0.001"
    return f"{format_return(value.difference)} [{format_return(low)}, {format_return(high)}], {p}"
