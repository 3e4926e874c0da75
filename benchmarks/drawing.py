"""Learning curves of several agents in one picture, each agent in one colour and under one name in all pictures.

The name is the one that `agent=` takes. A variant is named after a comma, as in "noisy_dqn, no ε", and has the colour
of its agent and dashes. Pictures are SVG, whose text is sharp at every size, or PNG, as the name of the file says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.records.plots import BLUE, GREEN, GREY, ORANGE, RED, short_number
from agent.records.statistics import mean_interval, t_quantile

Bounds = tuple[float | None, float | None]
Curves = Sequence[Sequence[Sequence[float]]]

#: The line under the title of a picture.
BANDS = "lines: mean over seeds; bands: 95 % (Student's t); dots: last agents, 100 episodes, with 95 %"
COLOURS = {
    "noisy_dqn": ORANGE,
    "dqn": BLUE,
    "rainbow": GREEN,
    "munchausen_dqn": "#cc79a7",
    "index_dqn": "#56b4e9",
    "SB3 DQN": "#444a52",
}
#: Colours of labels that are no agents, such as families of noise, and of agents without a colour of their own.
OTHERS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", RED)
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def looks(labels: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes of each label: an agent has a solid line, and its variants have dashes in the same colour."""
    found: dict[str, tuple[str, Any]] = {}
    others = [label for label in labels if label.partition(",")[0] not in COLOURS]
    for label in labels:
        agent, comma, _ = label.partition(",")
        if agent not in COLOURS:
            found[label] = (OTHERS[others.index(label) % len(OTHERS)], "-")
            continue
        variants = [other for other in labels if other.startswith(f"{agent},")]
        found[label] = (COLOURS[agent], DASHES[1 + variants.index(label)] if comma else "-")
    return found


@dataclass(frozen=True)
class Picture:
    """The title, points and bounds of a picture of learning curves.

    Attributes:
        title: the task and its steps.
        every: environment steps between two points.
        bounds: of a return, which no band goes beyond.
        solved: the return that counts as solved; None: no line.
        whole: the axis shows all returns between the bounds.
    """

    title: str
    every: int
    bounds: Bounds = (None, None)
    solved: float | None = None
    whole: bool = False


def learning_curves(
    picture: Picture, curves: Mapping[str, Curves], finals: Mapping[str, Sequence[float]], path: Path
) -> None:
    """Draws the mean greedy return over seeds against environment steps, and the last agents' returns beside it.

    Args:
        picture: its title, points and bounds.
        curves: of each label the runs, of each run its points (step, return, seconds).
        finals: of each label its last agents' returns.
        path: the SVG or PNG.
    """
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    style = looks(list(curves))
    for label, runs in curves.items():
        values = np.array([[point[1] for point in run] for run in runs])
        steps = picture.every * np.arange(1, values.shape[1] + 1)
        many = f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
        _draw(axes, steps, values, picture.bounds, style[label], f"{label} ({many})")
    end = max(picture.every * len(run) for runs in curves.values() for run in runs)
    for number, (label, values) in enumerate(finals.items()):
        _draw_final(axes, end * (1.025 + 0.02 * number), np.array(values), picture.bounds, style[label][0])
    _frame(axes, picture)
    figure.suptitle(picture.title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    axes.set_title(BANDS if any(len(runs) > 1 for runs in curves.values()) else ONE, loc="left", fontsize=8, color=GREY)
    save(figure, path)


ONE = "one run, which has no interval; dot: last agent, 100 episodes"


def _draw(axes: Axes, steps: np.ndarray, values: np.ndarray, bounds: Bounds, look: tuple[str, Any], label: str) -> None:
    """Draws the line of one agent, and its band if it has several seeds."""
    colour, dash = look
    centre = values.mean(axis=0)
    axes.plot(steps, centre, color=colour, linestyle=dash, linewidth=1.8, label=label)
    if len(values) > 1:
        half = t_quantile(0.975, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        low, high = np.clip((centre - half, centre + half), *limits(bounds))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_final(axes: Axes, x: float, values: np.ndarray, bounds: Bounds, colour: str) -> None:
    """Draws a dot for the mean of the last agents, and the interval of the mean."""
    axes.plot(x, values.mean(), "o", color=colour, markersize=4.5, clip_on=False)
    if (interval := mean_interval(values)) is not None:
        axes.plot((x, x), np.clip(interval, *limits(bounds)), color=colour, linewidth=1.4)


def limits(bounds: Bounds) -> tuple[float, float]:
    """Bounds as numbers."""
    low, high = bounds
    return -np.inf if low is None else low, np.inf if high is None else high


def _frame(axes: Axes, picture: Picture) -> None:
    """Draws the axes, the grid, the line of the return that counts as solved, and the legend."""
    low, high = picture.bounds
    if picture.whole and low is not None and high is not None:
        axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        axes.set_yticks(np.linspace(low, high, 7))
    if picture.solved is not None:
        axes.axhline(picture.solved, color=GREY, linewidth=1.0, linestyle=(0, (6, 3)))
        text = f"solved:\n{picture.solved:g}".replace("-", "−")
        place = {"xy": (1.0, picture.solved), "xycoords": ("axes fraction", "data"), "xytext": (5, 0)}
        axes.annotate(text, textcoords="offset points", va="center", fontsize=8, color=GREY, **place)
    axes.set(xlabel="environment steps", ylabel="greedy return")
    axes.xaxis.set_major_formatter(short_number)
    clean(axes)
    axes.legend(frameon=False, fontsize=9, loc="best")


def clean(axes: Axes) -> None:
    """A light grid and two spines."""
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture; the same numbers give the same file."""
    with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
        metadata = {"Date": None} if path.suffix == ".svg" else None  # a date would make each file another one
        figure.savefig(path, dpi=200, metadata=metadata)
