"""Plots of training: learning curves, and the metrics that diagnose a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.records.comparison.canvas import (
    Canvas,
    Picture,
    color,
    dash,
    limit,
    marker_of,
    plain,
    round_to,
)
from agent.records.comparison.curves import Curve, over_seeds
from agent.records.comparison.grouping import Group
from agent.records.comparison.reading import EMPTY, SIGMA, Series
from agent.records.comparison.scoring import TaskResult
from agent.records.plots import GREY, short_number

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

#: The most layers whose σ is drawn.
MAX_LAYERS = 8


def curves(
    number: int, result: TaskResult, groups: Sequence[Group], metric: str, robust: bool
) -> tuple[Picture, dict[str, dict[str, object]]]:
    """Draws a metric against steps and against training time; also returns its numbers by group and axis."""
    canvas = Canvas(f"curves_{number}", result.name, 1, 2, 4.4)
    numbers: dict[str, dict[str, object]] = {}
    for axes, by_time in zip(canvas.axes, (False, True), strict=True):
        for index, group in enumerate(groups):
            runs = [run.series.get(metric, EMPTY) for run in group.runs.get(result.name, ())]
            curve = over_seeds(runs, by_time, robust)
            draw_runs(axes, index, runs, by_time, len(groups))
            if curve is not None:
                curve = clip_band(curve, result.bounds)
                draw_curve(canvas, axes, index, curve)
                numbers.setdefault(group.name, {})["seconds" if by_time else "steps"] = curve_numbers(curve)
        axes.set_xlabel("training seconds" if by_time else "environment steps")
        axes.xaxis.set_major_formatter(short_number)
        axes.margins(x=0.02)
        if result.threshold is not None:
            draw_solved(axes, result.threshold)
        limit(axes, result.bounds)
    canvas.axes[0].set_ylabel(plain(metric_label(metric)))
    band = "IQM over seeds, band: 95 % by a bootstrap" if robust else "Mean over seeds, band: 95 % by Student's t"
    caption = f"{band}; thin: single seeds. A group's line ends where its first run ends. One seed has no band."
    return canvas.finish(caption, [group.name for group in groups]), numbers


def draw_solved(axes: Axes, threshold: float) -> None:
    """Draws the return from which the task counts as solved, if it is near the returns of the runs."""
    low, high = axes.get_ylim()
    if low < threshold < high + 0.5 * (high - low):
        axes.axhline(threshold, color=GREY, linestyle=(0, (6, 3)), linewidth=1.0)
        axes.annotate(
            f"solved: {threshold:g}", (1.0, threshold), (0, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=7, color=GREY,
        )  # fmt: skip


def metric_label(metric: str) -> str:
    """Returns the label of a metric's axis."""
    labels = {"eval/return_mean": "greedy return", "train/episode_return": "return of training episodes"}
    return labels.get(metric, metric)


def draw_runs(axes: Axes, index: int, runs: Sequence[Series], by_time: bool, groups: int) -> None:
    """Draws every seed as a thin line."""
    mark = marker_of(index)
    for run in runs:
        x = run.seconds if by_time else run.steps
        mark(*axes.plot(x, run.values, color=color(index), linestyle=dash(index), linewidth=0.6,
                        alpha=0.35 if groups <= 12 else 0.15, zorder=2))  # fmt: skip


def draw_curve(canvas: Canvas, axes: Axes, index: int, curve: Curve) -> None:
    """Draws the line over seeds and its band."""
    mark = marker_of(index)
    marker = "o" if len(curve.x) == 1 else ""
    mark(*axes.plot(curve.x, curve.centre, marker=marker, ls=dash(index), color=color(index), lw=1.8, ms=4, zorder=4))
    if curve.low is not None and curve.high is not None:
        band = axes.fill_between(curve.x, curve.low, curve.high, color=color(index), alpha=0.15, linewidth=0)
        mark(band)
    canvas.lines[axes].append({"group": index, "runs": curve.runs, **curve_numbers(curve)})


def curve_numbers(curve: Curve) -> dict[str, object]:
    """Converts a curve to lists of numbers."""
    columns = {"x": curve.x, "centre": curve.centre, "low": curve.low, "high": curve.high}
    return {
        "runs": curve.runs,
        **{name: None if column is None else [round_to(x) for x in column] for name, column in columns.items()},
    }


def clip_band(curve: Curve, bounds: tuple[float | None, float | None]) -> Curve:
    """Clips a curve's band to the possible returns; an interval of a mean keeps its coverage."""
    if curve.low is None or curve.high is None:
        return curve
    low, high = bounds
    limits = (-np.inf if low is None else low, np.inf if high is None else high)
    return Curve(curve.x, curve.centre, np.clip(curve.low, *limits), np.clip(curve.high, *limits), curve.runs)


def diagnostics(number: int, result: TaskResult, groups: Sequence[Group]) -> Picture | None:
    """Draws σ of each layer, how often noise changes an action, the loss and the speed; None if nothing was logged."""
    runs = [run for group in groups for run in group.runs.get(result.name, ())]
    layers = [name for name in dict.fromkeys(name for run in runs for name in run.series) if name.startswith(SIGMA)]
    titles = {
        "noise/action_change": "greedy actions that noise changes",
        "train/loss": "loss",
        "speed/env_steps_per_second": "environment steps per second",
    }
    names = [name for name in titles if any(len(run.series.get(name, EMPTY)) for run in runs)]
    names = [*layers[:MAX_LAYERS], *names]
    if not names:
        return None
    rows = -(-len(names) // 3)
    canvas = Canvas(f"inside_{number}", result.name, rows, 3, 0.8 + 2.3 * rows)
    for axes, name in zip(canvas.axes, names, strict=False):
        for index, group in enumerate(groups):
            series = [run.series.get(name, EMPTY) for run in group.runs.get(result.name, ())]
            draw_runs(axes, index, series, False, len(groups))
            if (curve := over_seeds(series, False, False)) is not None:
                draw_curve(canvas, axes, index, Curve(curve.x, curve.centre, None, None, curve.runs))
        axes.set_title(
            plain(titles.get(name, f"mean |σ|·√inputs, {name.removeprefix(SIGMA)[-40:]}")), loc="left", fontsize=9
        )
        axes.xaxis.set_major_formatter(short_number)
        if name == "train/loss":
            use_log_scale(axes)
    for axes in canvas.axes[len(names) :]:
        axes.set_visible(False)
    return canvas.finish("Against environment steps: mean over seeds, and single seeds thin.", [g.name for g in groups])


def use_log_scale(axes: Axes) -> None:
    """Makes the y axis logarithmic if all values are above 0."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines] or [np.zeros(1)])
    from matplotlib.ticker import LogLocator, NullFormatter

    if len(values) and values.min() > 0.0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(short_number)
        axes.yaxis.set_minor_formatter(NullFormatter())
