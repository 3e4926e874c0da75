"""Plots of scores: those of every seed, performance profiles, probabilities of improvement, aggregates over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.records.comparison import aggregates
from agent.records.comparison.canvas import Canvas, Picture, color, dash, labels, limit, marker_of, round_to
from agent.records.comparison.comparing import Comparison, Improvement
from agent.records.comparison.scoring import AGENTS, Summary, TaskResult
from agent.records.plots import GREY, spread

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

#: The most groups in a plot with a row for each group, and in one with a cell for each pair.
MAX_ROWS, MAX_PAIRS = 60, 12
#: Levels of a performance profile.
LEVELS = 101
#: With more groups than this, profiles have no bands, which would hide each other, and pairs have no numbers.
CROWDED = 8


def scores(number: int, task: TaskResult, names: Sequence[str]) -> Picture:
    """Draws every seed's score on one task, with each group's mean and interval, for the last and the best agents."""
    shown = _shown(task, names)
    canvas = Canvas(f"scores_{number}", task.name, 1, 2, 1.5 + row_height(len(shown)) * len(shown))
    for axes, which in zip(canvas.axes, AGENTS, strict=True):
        for row, index in enumerate(shown):
            values = task.scores[which].get(names[index], np.empty(0))
            if len(values):
                _strip(axes, row, index, values, task.summaries[which][names[index]])
        texts = labels(names)
        _rows(axes, [texts[index] for index in shown] if which == "last" else None, len(shown))
        axes.set_title(f"{which} agent", loc="left", fontsize=9)
        axes.set_xlabel("return")
        limit(axes, task.bounds, "x")
    canvas.axes[1].set_xlim(*_union(canvas.axes))
    canvas.axes[0].set_xlim(*_union(canvas.axes))
    scored = len(task.summaries["last"])
    left_out = f" The {len(shown)} best of {scored} groups." if len(shown) < scored else ""
    return canvas.finish(f"Dots: seeds. Black: mean and its 95 % interval (Student's t). White: IQM.{left_out}")


def row_height(rows: int) -> float:
    """Returns the height of a row in inches, smaller for many rows."""
    return 0.34 if rows <= 15 else 0.22


def _shown(task: TaskResult, names: Sequence[str]) -> list[int]:
    """Returns the indices of the groups to draw, in order; only the best if there are too many."""
    scored = [index for index, name in enumerate(names) if name in task.summaries["last"]]
    best = sorted(scored, key=lambda index: -task.summaries["last"][names[index]].mean)[:MAX_ROWS]
    return sorted(best)


def _strip(axes: Axes, row: int, index: int, values: np.ndarray, summary: Summary) -> None:
    heights = row + spread(len(values), 0.22)
    mark = marker_of(index)
    mark(*axes.plot(values, heights, "o", color=color(index), alpha=0.55, markersize=5, markeredgewidth=0))
    if summary.mean_interval is not None:
        mark(*axes.plot(summary.mean_interval, (row, row), color="black", linewidth=1.6, zorder=4))
    if len(values) == 1:
        return
    mark(*axes.plot(summary.iqm, row, "D", mfc="white", mec="black", markersize=5, zorder=5))
    mark(*axes.plot(summary.mean, row, "o", color="black", markersize=5, zorder=6))


def _rows(axes: Axes, names: Sequence[str] | None, count: int) -> None:
    axes.set_yticks(range(count), [""] * count if names is None else names)
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _union(axes: Sequence[Axes]) -> tuple[float, float]:
    limits = [ax.get_xlim() for ax in axes]
    return min(low for low, _ in limits), max(high for _, high in limits)


def profiles(comparison: Comparison) -> Picture | None:
    """Draws the share of runs whose score is above each level: returns of one task, or normalised scores of several."""
    indices = [index for index, group in enumerate(comparison.groups) if group.seeds > 1]
    if not comparison.shared or not indices:
        return None
    is_one_task = len(comparison.shared) == 1
    canvas = Canvas("profiles", "Performance profile", 1, 2, 4.0)
    for axes, which in zip(canvas.axes, AGENTS, strict=True):
        scores_of = comparison.raw if is_one_task else comparison.normalised
        runs = {index: scores_of(comparison.groups[index].name, which) for index in indices}
        all_scores = np.concatenate([values for group in runs.values() for values in group])
        levels = np.linspace(all_scores.min(), all_scores.max(), LEVELS)
        for index, group in runs.items():
            _profile(canvas, axes, index, group, levels, len(runs) <= CROWDED)
        axes.set_title(f"{which} agent", loc="left", fontsize=9)
        axes.set_xlabel("return" if is_one_task else "normalised score")
        axes.set_ylim(-0.02, 1.02)
    canvas.axes[0].set_ylabel("share of runs above")
    bands = "Bands: 95 % at each point (Wilson)." if len(indices) <= CROWDED else ""
    caption = f"A curve that lies above another has more runs above every score. {bands}"
    return canvas.finish(caption, [group.name for group in comparison.groups])


def _profile(
    canvas: Canvas, axes: Axes, index: int, runs: aggregates.Scores, levels: aggregates.Array, band: bool
) -> None:
    share, limits = aggregates.profile(runs, levels), aggregates.profile_interval(runs, levels)
    mark = marker_of(index)
    mark(*axes.plot(levels, share, color=color(index), linestyle=dash(index), linewidth=1.8, drawstyle="steps-post"))
    if limits is not None and band:
        low, high = np.clip(limits, 0.0, 1.0)
        mark(axes.fill_between(levels, low, high, color=color(index), alpha=0.12, linewidth=0, step="post"))
    columns = {"x": levels, "centre": share, **({} if limits is None else {"low": limits[0], "high": limits[1]})}
    numbers = {name: [round_to(value) for value in column] for name, column in columns.items()}
    canvas.lines[axes].append({"group": index, "runs": sum(map(len, runs)), "low": None, "high": None, **numbers})


def improvements(comparison: Comparison) -> Picture | None:
    """Draws the probability that a run of the row's group is better than one of the column's group."""
    names = [group.name for group in comparison.groups if group.seeds > 1][:MAX_PAIRS]
    if len(names) < 2 or not comparison.shared:
        return None
    size = len(names)
    canvas = Canvas("improvement", "Probability of improvement", 1, 2, 1.9 + 0.55 * size)
    texts = labels(names)
    numbered = size > 4 or max(map(len, texts)) > 18
    for axes, which in zip(canvas.axes, AGENTS, strict=True):
        pairs = comparison.improvement[which]
        table = np.array([[pairs[a, b].probability if a != b else np.nan for b in names] for a in names])
        edges = np.arange(size + 1) - 0.5
        axes.pcolormesh(edges, edges, np.ma.masked_invalid(table), cmap="PuOr_r", vmin=0.0, vmax=1.0)
        axes.set_ylim(size - 0.5, -0.5)
        for row, ours in enumerate(names):
            for column, theirs in enumerate(names):
                if ours != theirs and size <= CROWDED:
                    _field(axes, row, column, pairs[ours, theirs], size > 3 or numbered)
        axes.set_title(f"{which} agent: row better than column", loc="left", fontsize=9)
        axes.set_xticks(range(size), [str(i + 1) for i in range(size)] if numbered else texts)
        rows = [f"{i + 1}: {text}" if numbered else text for i, text in enumerate(texts)]
        axes.set_yticks(range(size), rows if which == "last" else [""] * size)
        axes.grid(visible=False)
    more = f" The first {size} groups of several seeds." if size < sum(g.seeds > 1 for g in comparison.groups) else ""
    return canvas.finish(f"A tie counts as half; with 95 % intervals (Newcombe 2006).{more}")


def _field(axes: Axes, row: int, column: int, improvement: Improvement, narrow: bool) -> None:
    """Writes the probability and its interval into a cell; in a narrow cell on several lines."""
    probability, interval, separator = improvement.probability, improvement.interval, "–\n" if narrow else ", "
    text = f"{probability:.2f}"
    if interval is not None:
        text += f"\n[{interval[0]:.2f}{separator}{interval[1]:.2f}]"
    shade = "white" if abs(probability - 0.5) > 0.35 else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=6.5 if narrow else 7, color=shade)


def over_tasks(comparison: Comparison) -> Picture | None:
    """Draws mean, median, IQM and optimality gap of the last agents over all tasks, in the style of rliable.

    The scores are normalised.
    """
    summaries = comparison.overall.get("last", {})
    if not summaries:
        return None
    names = [group.name for group in comparison.groups][:MAX_ROWS]
    canvas = Canvas(
        "over_tasks",
        f"{len(comparison.shared)} tasks, last agent",
        1,
        4,
        1.4 + row_height(len(names)) * len(names),
    )
    kinds = ("mean", "median", "iqm", "gap")
    for axes, kind in zip(canvas.axes, kinds, strict=True):
        for row, name in enumerate(names):
            value, interval = getattr(summaries[name], kind), getattr(summaries[name], f"{kind}_interval")
            mark = marker_of(row)
            if interval is not None:
                mark(*axes.plot(interval, (row, row), color=color(row), linewidth=6, alpha=0.4, solid_capstyle="butt"))
            mark(*axes.plot((value, value), (row - 0.25, row + 0.25), color="black", linewidth=1.6))
        _rows(axes, labels(names) if kind == "mean" else None, len(names))
        axes.set_title({"iqm": "IQM", "gap": "optimality gap"}.get(kind, kind), loc="left", fontsize=9)
        if kind != "gap":
            axes.axvline(1.0, color=GREY, linestyle=(0, (6, 3)), linewidth=0.8)
    return canvas.finish(
        "Normalised scores with 95 % intervals: of mean and gap Student's t; of median and IQM a bootstrap, from ten "
        "runs on."
    )
