"""The pictures of a comparison. One drawing is a PNG by itself, and an SVG in the page, whose groups a script can hide.

Colours are those of Okabe and Ito (2008); from the seventh group on lines differ by their dashes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.records.comparison.grouping import Group
from agent.records.comparison.reading import EMPTY, SIGMA, Series
from agent.records.comparison.scoring import Curve, TaskResult, over_seeds
from agent.records.plots import GREY, PALETTE

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
#: Names in legends and on axes are cut to so many characters; the page has them whole.
MAX_LABEL = 44
#: Layers whose σ is drawn.
MAX_LAYERS = 8
_GROUP = "group-of-runs-"


@dataclass
class Picture:
    """A drawing: the PNG's bytes, the SVG's text, and what shows its numbers under the mouse.

    `axes` are mappings with `box` (left, top, right, bottom as parts of the whole), `x` and `y` (limits), `labels`
    and `lines` (group, x, centre, low, high).
    """

    name: str
    title: str
    caption: str
    png: bytes
    svg: str
    axes: list[dict[str, Any]] = field(default_factory=list)


class Canvas:
    """Axes beside each other in the style of all pictures, which becomes a Picture."""

    def __init__(self, name: str, title: str, rows: int, columns: int, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.name, self.title = name, title
        self.figure: Figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(self.figure)
        grid = self.figure.subplots(rows, columns, squeeze=False)
        self.axes: list[Axes] = [axes for row in grid for axes in row]
        self.lines: dict[Axes, list[dict[str, Any]]] = {axes: [] for axes in self.axes}
        self.figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        for axes in self.axes:
            style(axes)

    def finish(self, caption: str, names: Sequence[str] = ()) -> Picture:
        """The picture; `names` of groups make the PNG's legend, as the page has one of its own."""
        import matplotlib

        with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            warnings.simplefilter("ignore")  # a letter that the font has not
            self.figure.canvas.draw()
            places = [self._place(axes) for axes in self.axes if self.lines[axes]]
            text = StringIO()
            self.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            if names:
                self._legend(names)
            picture = BytesIO()
            self.figure.savefig(picture, format="png")
        return Picture(self.name, self.title, caption, picture.getvalue(), inline(text.getvalue()), places)

    def _place(self, axes: Axes) -> dict[str, Any]:
        box, (width, height) = axes.get_window_extent(), self.figure.canvas.get_width_height()
        return {
            "box": [box.x0 / width, 1 - box.y1 / height, box.x1 / width, 1 - box.y0 / height],
            "x": list(axes.get_xlim()),
            "y": list(axes.get_ylim()),
            "label": axes.get_xlabel(),
            "lines": self.lines[axes],
        }

    def _legend(self, names: Sequence[str]) -> None:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=color(i), linestyle=dash(i), linewidth=2.0) for i in range(len(names))]
        longest = max(len(cut(name)) for name in names)
        columns = max(1, min(len(names), int(self.figure.get_figwidth() * 12 / (longest + 6))))
        self.figure.legend(
            handles, [plain(cut(name)) for name in names], loc="outside lower center", ncols=columns, frameon=False,
            fontsize=8 if len(names) <= 12 else 7,
        )  # fmt: skip


def color(index: int) -> str:
    """The colour of a group."""
    return PALETTE[index % len(PALETTE)]


def dash(index: int) -> Dash:
    """The dashes of a group."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def cut(name: str) -> str:
    """A name that is not longer than a label may be."""
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"


def plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def style(axes: Axes) -> None:
    """A light grid, two spines, small ticks."""
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(color=GREY, labelsize=8)
    axes.title.set_fontsize(9)


def inline(svg: str) -> str:
    """An SVG file's drawing as a part of a page: no header, no size of its own, classes of groups in place of ids."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'^<svg ([^>]*?)(width="[^"]*") ?|^(<svg [^>]*?)height="[^"]*"', r"<svg \1\3", text, count=1)
    text = re.sub(r'^(<svg [^>]*?)\bheight="[^"]*" ?', r"\1", text, count=1)
    text = re.sub(rf'id="{_GROUP}(\d+)"', r'class="g\1"', text)
    return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)


@contextmanager
def of_group(index: int) -> Iterator[Any]:
    """Marks what is drawn as a group's, so that it can be hidden."""

    def mark(*artists: Any) -> None:
        for artist in artists:
            artist.set_gid(f"{_GROUP}{index}")

    yield mark


# ---- learning curves


def curves(
    number: int, result: TaskResult, groups: Sequence[Group], metric: str, robust: bool
) -> tuple[Picture, dict[str, dict[str, Any]]]:
    """A metric against steps and against training time; the picture, and its numbers by group and axis."""
    canvas = Canvas(f"curves_{number}", result.name, 1, 2, 11.0, 4.4)
    numbers: dict[str, dict[str, Any]] = {}
    for axes, by_time in zip(canvas.axes, (False, True), strict=True):
        for index, group in enumerate(groups):
            runs = [run.series.get(metric, EMPTY) for run in group.runs.get(result.name, ())]
            curve = over_seeds(runs, by_time, robust)
            draw_runs(axes, index, runs, by_time, len(groups))
            if curve is not None:
                curve = within(curve, result.bounds)
                draw_curve(canvas, axes, index, group.name, curve)
                numbers.setdefault(group.name, {})["seconds" if by_time else "steps"] = curve_numbers(curve)
        axes.set_xlabel("training seconds" if by_time else "environment steps")
        axes.xaxis.set_major_formatter(short_number)
        axes.margins(x=0.02)
        limit(axes, result.bounds)
        if result.threshold is not None:
            axes.axhline(result.threshold, color=GREY, linestyle=(0, (6, 3)), linewidth=1.0)
            axes.annotate("solved", (1.0, result.threshold), xycoords=("axes fraction", "data"), xytext=(0, 2),
                          textcoords="offset points", ha="right", fontsize=7, color=GREY)  # fmt: skip
    canvas.axes[0].set_ylabel(plain(metric_label(metric)))
    band = "IQM over seeds, band: 95 % by a bootstrap" if robust else "mean over seeds, band: 95 % by Student's t"
    caption = f"{band}; thin: single seeds. A group's line ends where its first run ends. One seed has no band."
    return canvas.finish(caption, [group.name for group in groups]), numbers


def metric_label(metric: str) -> str:
    """What a metric's axis says."""
    labels = {"eval/return_mean": "greedy return", "train/episode_return": "return of training episodes"}
    return labels.get(metric, metric)


def draw_runs(axes: Axes, index: int, runs: Sequence[Series], by_time: bool, groups: int) -> None:
    """Every seed, thin."""
    with of_group(index) as mark:
        for run in runs:
            x = run.seconds if by_time else run.steps
            mark(*axes.plot(x, run.values, color=color(index), linestyle=dash(index), linewidth=0.6,
                            alpha=0.35 if groups <= 12 else 0.15, zorder=2))  # fmt: skip


def draw_curve(canvas: Canvas, axes: Axes, index: int, name: str, curve: Curve) -> None:
    """The line over seeds and its band."""
    with of_group(index) as mark:
        mark(*axes.plot(curve.x, curve.centre, color=color(index), linestyle=dash(index), linewidth=1.8, zorder=4,
                        marker="o" if len(curve.x) == 1 else "", markersize=4))  # fmt: skip
        if curve.low is not None and curve.high is not None:
            band = axes.fill_between(curve.x, curve.low, curve.high, color=color(index), alpha=0.15, linewidth=0)
            mark(band)
    canvas.lines[axes].append({"group": index, "runs": curve.runs, **curve_numbers(curve)})


def curve_numbers(curve: Curve) -> dict[str, Any]:
    """A curve as lists."""
    found = {"x": curve.x, "centre": curve.centre, "low": curve.low, "high": curve.high}
    return {"runs": curve.runs, **{name: None if v is None else [round_to(x) for x in v] for name, v in found.items()}}


def round_to(value: float) -> float:
    """Six digits, which are enough for a picture."""
    return float(f"{value:.6g}")


def within(curve: Curve, bounds: tuple[float | None, float | None]) -> Curve:
    """A curve whose band is not beyond what a return can be: the interval of a mean is as good without it."""
    if curve.low is None or curve.high is None:
        return curve
    low, high = bounds
    limits = (-np.inf if low is None else low, np.inf if high is None else high)
    return Curve(curve.x, curve.centre, np.clip(curve.low, *limits), np.clip(curve.high, *limits), curve.runs)


def limit(axes: Axes, bounds: tuple[float | None, float | None]) -> None:
    """Lets the axis end a little beyond a bound that the data come near to, and never much beyond."""
    low, high = axes.get_ylim()
    least, most = bounds
    room = 0.03 * (high - low)
    axes.set_ylim(low if least is None else max(low, least - room), high if most is None else min(high, most + room))


def short_number(value: float, _position: float = 0) -> str:
    """1.5M, 20k, 300."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def inside(number: int, result: TaskResult, groups: Sequence[Group]) -> Picture | None:
    """σ of each layer, how often noise changes an action, the loss and the speed; None where nothing was logged."""
    runs = [run for group in groups for run in group.runs.get(result.name, ())]
    layers = [name for name in dict.fromkeys(name for run in runs for name in run.series) if name.startswith(SIGMA)]
    titles = {
        "noise/action_change": "greedy actions that noise changes",
        "train/loss": "loss",
        "speed/env_steps_per_second": "environment steps per second",
    }
    shown = [name for name in titles if any(len(run.series.get(name, EMPTY)) for run in runs)]
    shown = [*layers[:MAX_LAYERS], *shown]
    if not shown:
        return None
    rows = -(-len(shown) // 3)
    canvas = Canvas(f"inside_{number}", result.name, rows, 3, 11.0, 0.8 + 2.3 * rows)
    for axes, name in zip(canvas.axes, shown, strict=False):
        for index, group in enumerate(groups):
            series = [run.series.get(name, EMPTY) for run in group.runs.get(result.name, ())]
            draw_runs(axes, index, series, False, len(groups))
            if (curve := over_seeds(series, False, False)) is not None:
                draw_curve(canvas, axes, index, group.name, Curve(curve.x, curve.centre, None, None, curve.runs))
        axes.set_title(plain(titles.get(name, f"mean |σ|·√inputs, {cut(name.removeprefix(SIGMA))}")), loc="left")
        axes.xaxis.set_major_formatter(short_number)
        if name == "train/loss":
            positive(axes)
    for axes in canvas.axes[len(shown) :]:
        axes.set_visible(False)
    return canvas.finish("Against environment steps: mean over seeds, and single seeds thin.", [g.name for g in groups])


def positive(axes: Axes) -> None:
    """A logarithmic axis where all values are above 0."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines] or [np.zeros(1)])
    if len(values) and values.min() > 0.0:
        axes.set_yscale("log")
