"""The canvas of a comparison's plots: a PNG file, and an SVG in the page, whose groups a script can hide.

The colours are those of Okabe and Ito (2008); from the seventh group on, colours repeat with other dashes.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Literal

from agent.records.plots import PALETTE, empty_figure, style

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Dash = Literal["-", "--", ":", "-."]
#: Of every picture, in inches.
WIDTH = 11.0
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
#: The most characters of a name in legends and on axes; the page has the full names.
MAX_LABEL = 44
_GROUP = "group-of-runs-"


@dataclass
class Picture:
    """A finished plot: the PNG's bytes, the SVG's text, and the data with which the page shows numbers at the mouse.

    `axes` has one mapping for each axes: `box` (left, top, right, bottom as fractions of the figure), `x` and `y`
    (limits), `label` (of the x axis) and `lines` (group, x, centre, low, high).
    """

    name: str
    title: str
    caption: str
    png: bytes
    svg: str
    axes: list[dict[str, object]] = field(default_factory=list)


class Canvas:
    """A grid of axes in the style of all plots, `height` inches high in all; `finish` turns it into a Picture."""

    def __init__(self, name: str, title: str, rows: int, columns: int, height: float) -> None:
        self.name, self.title = name, title
        self.figure = empty_figure(WIDTH, height)
        grid = self.figure.subplots(rows, columns, squeeze=False)
        self.axes: list[Axes] = [axes for row in grid for axes in row]
        self.lines: dict[Axes, list[dict[str, object]]] = {axes: [] for axes in self.axes}
        self.figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        for axes in self.axes:
            style(axes, 8)

    def finish(self, caption: str, names: Sequence[str] = ()) -> Picture:
        """Renders the picture; `names` of groups become a legend of the PNG only, since the page has its own."""
        import matplotlib

        with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            warnings.simplefilter("ignore")  # about characters that the font lacks
            self.figure.canvas.draw()
            axes_data = [self._axes_data(axes) for axes in self.axes if self.lines[axes]]
            text = StringIO()
            self.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            if names:
                self._legend(names)
            picture = BytesIO()
            self.figure.savefig(picture, format="png")
        return Picture(self.name, self.title, caption, picture.getvalue(), inline(text.getvalue()), axes_data)

    def _axes_data(self, axes: Axes) -> dict[str, object]:
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
        texts = labels(names)
        longest = max(map(len, texts))
        columns = max(1, min(len(names), int(self.figure.get_figwidth() * 12 / (longest + 6))))
        self.figure.legend(
            handles, texts, loc="outside lower center", ncols=columns, frameon=False,
            fontsize=8 if len(names) <= 12 else 7,
        )  # fmt: skip


def color(index: int) -> str:
    """Returns the colour of a group."""
    return PALETTE[index % len(PALETTE)]


def dash(index: int) -> Dash:
    """Returns the line style of a group."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def labels(names: Sequence[str]) -> list[str]:
    """Shortens names of groups for a plot."""
    return [plain(name) for name in shortened(names, MAX_LABEL)]


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Shortens names of groups and keeps them distinct: long ones lose the nodes of their options, then their ends."""
    short_names = [name if len(name) <= longest else " ".join(map(_without_node, name.split(" "))) for name in names]
    short_names = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in short_names]
    counts = Counter(short_names)
    return [f"{i + 1}: {name}" if counts[name] > 1 else name for i, name in enumerate(short_names)]


def _without_node(setting: str) -> str:
    """Shortens agent.noise.sigma0=0.5 to sigma0=0.5."""
    name, equals_sign, value = setting.partition("=")
    return f"{name.rpartition('.')[2]}{equals_sign}{value}"


def plain(text: str) -> str:
    """Escapes a text so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")


def inline(svg: str) -> str:
    """Converts an SVG file for use inside a page: without header and size, and with classes instead of group ids."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    text = re.sub(r'\s+(width|height)="[^"]*"', "", head) + ">" + rest
    text = re.sub(rf'id="{_GROUP}(\d+)"', r'class="g\1"', text)
    return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)


def marker_of(index: int) -> Callable[..., None]:
    """Returns a function that marks artists as a group's, so that the page can hide them."""

    def mark(*artists: Artist) -> None:
        for artist in artists:
            artist.set_gid(f"{_GROUP}{index}")

    return mark


def round_to(value: float) -> float:
    """Rounds to six significant digits, which are enough for a plot."""
    return float(f"{value:.6g}")


def limit(axes: Axes, bounds: tuple[float | None, float | None], side: Literal["x", "y"] = "y") -> None:
    """Limits an axis to a little beyond the bounds."""
    low, high = axes.get_ylim() if side == "y" else axes.get_xlim()
    lower, upper = bounds
    margin = 0.03 * (high - low)
    low, high = low if lower is None else max(low, lower - margin), high if upper is None else min(high, upper + margin)
    if low < high:
        (axes.set_ylim if side == "y" else axes.set_xlim)(low, high)
