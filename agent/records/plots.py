"""Plots of a run: the learning curve, and the returns of evaluated agents.

The colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.common.files import atomic_write_bytes
from agent.common.texts import printable
from agent.records.console import format_return
from agent.records.drawing import drawing_errors
from agent.records.metrics import Series, read_series

if TYPE_CHECKING:  # matplotlib takes half a second to import: only when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY, BLUE, ORANGE, GREEN, RED = "#8a8f98", "#0072b2", "#e69f00", "#009e73", "#d55e00"
PALETTE = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", RED)
ROLLING_EPISODES = 20
WIDTH = 8.0  # of a picture, in inches
MARKS = ("an episode", "middle half and median", "95 % interval of the mean", "mean", "interquartile mean")
BAND = "band: ± one standard deviation"
CURVES = (
    "train/episode_return",
    *(f"eval/return_{statistic}" for statistic in ("mean", "std", "min", "max")),
    *(f"eval_noisy/return_{statistic}" for statistic in ("mean", "std")),
)
MAX_CHARACTERS = 80  # of a title or label; a longer one is cut at its start
MAX_DOTS = 5000  # at most about so many episodes are drawn, evenly spaced

Curve = NDArray[np.float64]


def plot_learning_curve(metrics_path: Path, out: Path, title: str, threshold: float | None) -> None:
    """Draws training and evaluation returns against environment steps.

    Args:
        metrics_path: a run's metrics.jsonl; it may be missing, and may have incomplete lines or rows without returns.
        out: the PNG file.
        title: the title above the curve.
        threshold: the return from which the task counts as solved, drawn as a line; None for no line.

    Raises:
        UserError: the plot cannot be drawn or written; an older file is intact.
    """
    with drawing_errors(out):
        _plot_learning_curve(metrics_path, out, title, threshold)


def _plot_learning_curve(metrics_path: Path, out: Path, title: str, threshold: float | None) -> None:
    series = read_series(metrics_path, CURVES)
    figure, axes = new_figure(title, 4.6)
    _draw_training(axes, *series["train/episode_return"])
    _draw_evaluation(axes, series, "eval_noisy", ORANGE, "evaluation with noise")
    _draw_evaluation(axes, series, "eval", BLUE, "evaluation (mean network)")
    _name_bands(axes)
    if not axes.has_data():
        axes.text(0.5, 0.5, "no finished episode yet", transform=axes.transAxes, ha="center", color=GREY)
        axes.set(xticks=[], yticks=[])
    if threshold is not None:
        axes.axhline(threshold, color=GREEN, linestyle="--", linewidth=1.2, label=f"solved: {threshold:g}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return per episode")
    axes.xaxis.set_major_formatter(short_number)
    write_figure(figure, axes, out)


def plot_evaluation(results: Sequence[Mapping[str, object]], out: Path) -> None:
    """Draws the returns of one or several evaluated agents: every episode, the quartiles, mean and IQM.

    Args:
        results: one mapping per agent with `label`, `returns` (a list), `return_mean`, `return_iqm` and
            `return_ci95` (low, high): the 95 % interval of the mean.
        out: the PNG file.

    Raises:
        UserError: the plot cannot be drawn or written; an older file is intact.
    """
    with drawing_errors(out):
        _plot_evaluation(results, out)


def _plot_evaluation(results: Sequence[Mapping[str, Any]], out: Path) -> None:
    figure, axes = new_figure(_evaluation_title(results), 1.7 + 1.05 * max(1, len(results)))
    for row, result in enumerate(results):
        _draw_agent(axes, row, result, PALETTE[row % len(PALETTE)], first=row == 0)
    axes.set_yticks(range(len(results)), [_label(result) for result in results], parse_math=False)
    axes.set_ylim(len(results) - 0.45, -0.55)  # the first agent is at the top
    axes.use_sticky_edges = False  # a box that ends at the highest return would sit on the frame
    axes.margins(x=0.05)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("return per episode")
    write_figure(figure, axes, out)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"…{text[1 - MAX_CHARACTERS :]}"


def empty_figure(width: float, height: float) -> Figure:
    """Creates a figure without axes; `width` and `height` are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(title: str, height: float) -> tuple[Figure, Axes]:
    """Creates an empty figure in the style of all plots, `height` inches high, without pyplot's global state."""
    figure = empty_figure(WIDTH, height)
    axes = figure.add_subplot()
    text = _shortened(printable(title))  # it may contain a path or an id, where $ starts no formula
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold", pad=10, parse_math=False)
    style(axes, 9)
    return figure, axes


def style(axes: Axes, label_size: int) -> None:
    """Gives axes a light grid, two spines, and small ticks with labels of `label_size` points."""
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(color=GREY, labelsize=label_size)


def write_figure(figure: Figure, axes: Axes, out: Path) -> None:
    """Writes the figure with a legend below its axes; raises UserError if the file cannot be written."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    atomic_write_bytes(out, picture.getvalue())


def _draw_training(axes: Axes, steps: Curve, returns: Curve) -> None:
    if len(steps) == 0:
        return
    thin = slice(None, None, -(-len(steps) // MAX_DOTS))
    label = "an episode of training"
    axes.plot(steps[thin], returns[thin], ".", color=GREY, alpha=0.4, ms=3.5, mew=0, label=label, zorder=1)
    label = f"mean of the last {ROLLING_EPISODES}"
    axes.plot(steps, _rolling_mean(returns), color=GREY, linewidth=1.4, label=label, zorder=2)


def _rolling_mean(values: Curve) -> Curve:
    """Computes the mean of the last `ROLLING_EPISODES` values at each position, of fewer at the start."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - ROLLING_EPISODES)
    return (total[end] - total[start]) / (end - start)


def _draw_evaluation(axes: Axes, series: Mapping[str, Series], name: str, color: str, label: str) -> None:
    steps, means = series[f"{name}/return_mean"]
    if len(steps) == 0:
        return
    axes.plot(steps, means, "o-", color=color, linewidth=1.8, markersize=3.5, label=label, zorder=4)
    band_steps, stds = series[f"{name}/return_std"]
    if np.array_equal(band_steps, steps):
        low, high = _bounds(series, name)
        lower, upper = np.clip((means - stds, means + stds), low, high)
        axes.fill_between(steps, lower, upper, color=color, alpha=0.15, linewidth=0, zorder=3)


def _bounds(series: Mapping[str, Series], name: str) -> tuple[float, float]:
    """Returns the lowest and the highest return of the run, which limit the bands."""
    names = (
        "train/episode_return",
        *(f"eval/return_{statistic}" for statistic in ("min", "max")),
        f"{name}/return_mean",
    )
    returns = np.concatenate([series[metric][1] for metric in names])
    return float(returns.min()), float(returns.max())


def _name_bands(axes: Axes) -> None:
    """Adds the bands to the legend if there are any."""
    if axes.collections:
        axes.fill_between([], [], [], color=BLUE, alpha=0.15, linewidth=0, label=BAND)


def _draw_agent(axes: Axes, row: int, result: Mapping[str, Any], color: str, first: bool) -> None:
    """Draws one horizontal strip: a dot for each episode, a box of the quartiles, and the marks to compare."""
    returns = np.asarray(result["returns"], dtype=np.float64)
    heights = row + spread(len(returns), 0.34)
    low, median, high = np.percentile(returns, (25, 50, 75))
    # Matplotlib leaves a label that starts with "_" out of the legend, which needs each mark only once.
    dot, box, interval, mean, iqm = MARKS if first else ("_",) * len(MARKS)
    axes.plot(returns, heights, ".", color=color, alpha=0.35, markersize=5, markeredgewidth=0, label=dot, zorder=2)
    axes.barh(row, high - low, left=low, height=0.5, color=color, alpha=0.18, label=box, zorder=1)
    axes.plot((median, median), (row - 0.25, row + 0.25), color=color, linewidth=1.5, zorder=3)
    axes.plot(result["return_ci95"], (row, row), color="black", linewidth=2.2, label=interval, zorder=4)
    axes.plot(result["return_mean"], row, "o", color="black", markersize=7, ls="none", label=mean, zorder=5)
    axes.plot(result["return_iqm"], row, "D", mfc="white", mec="black", ls="none", label=iqm, zorder=6)


def spread(count: int, reach: float) -> np.ndarray:
    """Computes offsets [count] between -reach and reach, so that the dots of equal values are distinct.

    They are multiples of the golden ratio, which are spread evenly without random numbers.
    """
    return reach * (2.0 * ((np.arange(count) * 0.618034) % 1.0) - 1.0)


def _evaluation_title(results: Sequence[Mapping[str, object]]) -> str:
    """Names the tasks in a title."""
    tasks = dict.fromkeys(str(result["env"]) for result in results if "env" in result)
    return f"{', '.join(tasks)}: return of each episode" if tasks else "Evaluation: return of each episode"


def _label(result: Mapping[str, Any]) -> str:
    low, high = result["return_ci95"]
    episodes = len(result["returns"])
    played = f"{episodes} episode{'s' * (episodes != 1)}"
    step = result.get("global_step")  # the file may be a stranger's
    played += f", step {step:,}" if isinstance(step, int) else ""
    mean = f"mean {format_return(result['return_mean'])} [{format_return(low)}, {format_return(high)}]"
    return f"{_shortened(printable(str(result['label'])))}\n{played}\n{mean}\nIQM {format_return(result['return_iqm'])}"


def short_number(value: float, _position: float = 0) -> str:
    """Formats a number as 1.5M, 20k or 300."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
