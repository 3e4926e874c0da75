"""Pictures of a search for settings: the scores of its trials, and how much each option matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agent.records.plots import BLUE, GREY, ORANGE, drawing_errors, new_figure, write_figure

#: Options of the picture; those that matter less are left out.
MAX_OPTIONS = 15


def plot_history(scores: Sequence[float | None], complete: Sequence[bool], out: Path, title: str) -> None:
    """Draws the score of each trial in the order of trials, and the best so far.

    Args:
        scores: of each trial; None where it has none.
        complete: whether each trial was trained to its end; of others the score is the last that they had.
        out: the PNG to write.
        title: shown above.

    Raises:
        UserError: the disk refuses, or it cannot be drawn; an old picture is intact.
    """
    with drawing_errors(out):
        figure, axes = new_figure(title, 8.0, 4.6)
        values = np.array([np.nan if score is None else score for score in scores])
        numbers, is_complete = np.arange(len(values)), np.array(complete, dtype=bool)
        ended = np.where(is_complete, values, -np.inf)
        best = np.maximum.accumulate(ended)
        has_best = np.isfinite(best)
        axes.step(numbers[has_best], best[has_best], where="post", color=ORANGE, linewidth=1.4, label="best so far")
        pruned = ~is_complete & np.isfinite(values)
        if pruned.any():
            axes.plot(numbers[pruned], values[pruned], "o", mfc="white", mec=GREY, ms=6, label="pruned, its last score")
        axes.plot(numbers[is_complete], values[is_complete], "o", color=BLUE, ms=6, label="trained to its end")
        axes.set(xlabel="trial", ylabel="score")
        axes.locator_params(axis="x", integer=True)
        write_figure(figure, axes, out)


def plot_importances(importances: Mapping[str, float], out: Path, title: str) -> None:
    """Draws how much each option matters for a place among the best trials, the most on top.

    Args:
        importances: of options, by their names; their sum is 1.
        out: the PNG to write.
        title: shown above.

    Raises:
        UserError: the disk refuses, or it cannot be drawn; an old picture is intact.
    """
    with drawing_errors(out):
        ranked = sorted(importances.items(), key=lambda item: -item[1])[:MAX_OPTIONS]
        figure, axes = new_figure(title, 8.0, 1.6 + 0.32 * len(ranked))
        names, values = [name for name, _ in ranked], [value for _, value in ranked]
        axes.barh(range(len(ranked)), values, color=BLUE, height=0.62)
        for row, value in enumerate(values):
            axes.annotate(f"{value:.2f}", (value, row), xytext=(4, 0), textcoords="offset points", va="center", size=9)
        axes.set_yticks(range(len(ranked)), names, parse_math=False)
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.margins(x=0.1)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("importance (PED-ANOVA)")
        write_figure(figure, axes, out)
