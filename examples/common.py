"""The parts that all examples share: the command line, generators of one seed, densities, and the style of pictures.

Importing this first makes `agent` importable from a checkout that is not installed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, pi, sqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # matplotlib's own dependency
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from agent.common.errors import UserError
from agent.records.plots import BLUE, GREEN, GREY, ORANGE, PALETTE, RED

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PALETTE", "RED"]


Function = Callable[[Tensor], Tensor]


def _log_logistic(e: Tensor) -> Tensor:
    x = e * pi / sqrt(3.0)
    return -x - 2.0 * F.softplus(-x) + log(pi / sqrt(3.0))


#: Log-densities of the families of agent.noise, of mean 0 and variance 1. (0·ε gives the flat one its slope, 0.)
LOG_DENSITIES: dict[str, Function] = {
    "normal": lambda e: -0.5 * e.square() - 0.5 * log(2.0 * pi),
    "uniform": lambda e: torch.where(e.abs() <= sqrt(3.0), -0.5 * log(12.0), -inf) + 0.0 * e,
    "laplace": lambda e: -sqrt(2.0) * e.abs() - 0.5 * log(2.0),
    "logistic": _log_logistic,
}


@dataclass(frozen=True)
class Options:
    """The command line of every example.

    Attributes:
        out: the folder of the picture.
        seed: the seed of all random numbers.
        quick: whether to run a short form with fewer steps.
    """

    out: Path
    seed: int = 0
    quick: bool = False


def run(main: Callable[[Options], None], description: str | None, argv: Sequence[str] | None = None) -> None:
    """Reads the command line and runs an example; a UserError is shown as one sentence."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of the picture (outputs)")
    parser.add_argument("--seed", type=int, default=0, help="of every random number (0)")
    parser.add_argument("--quick", action="store_true", help="the short form: the same steps, fewer of them")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # these sizes gain nothing from more
    try:
        main(Options(arguments.out, arguments.seed, arguments.quick))
    except UserError as error:
        sys.exit(f"error: {error}")


def generator(seed: int, stream: int = 0) -> torch.Generator:
    """A torch generator of its own: streams of one seed are independent of one another.

    Raises:
        UserError: for a negative seed.
    """
    if seed < 0:
        raise UserError(f"the seed is {seed}: give 0 or a positive whole number")
    state = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def figure(
    rows: int, columns: int, width: float, height: float, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty grid of panels, row by row, without pyplot's global state; sizes in inches, `heights` of the rows."""
    drawing = Figure(figsize=(width, height), dpi=120, layout="constrained")
    grid = drawing.subplots(rows, columns, squeeze=False, height_ratios=heights)
    return drawing, list(grid.flat)


def style(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """The look of all pictures of the project, and a panel's legend where it has labels."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=7)
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(y, fontsize=9.5)
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=GREY, labelsize=8.5)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5)


def save(drawing: Figure, folder: Path, name: str) -> Path:
    """Writes folder/name.png, says so, and returns its path.

    Raises:
        UserError: where the folder cannot be written.
    """
    path = folder / f"{name}.png"
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()  # type: ignore[no-untyped-call]
    # 256 colours lose nothing that the eye sees and make the file less than half as large.
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        image.save(path, optimize=True)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another folder by --out") from None
    print(f"picture: {path}")
    return path
