"""Plots of a study: the scores of its trials, and the importance of each option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agent.records.drawing import drawing_errors
from agent.records.plots import BLUE, GREY, ORANGE, new_figure, write_figure

#: The most options in the plot; less important ones are left out.
MAX_OPTIONS = 15


def plot_history(scores: Sequence[float | None], complete: Sequence[bool], out: Path, title: str) -> None:
    """Draws the score of each trial, in order, and the best score so far.

    Args:
        scores: the score of each trial; None if it has none.
        complete: whether each trial was trained to its end; the score of any other is its last one.
        out: the PNG file.
        title: the title above the plot.

    Raises:
        UserError: the plot cannot be drawn or written; an older file is intact.
    """
    with drawing_errors(out):
        figure, axes = new_figure(title, 4.6)
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
    """Draws the importance of each option for a place among the best trials, the greatest at the top.

    Args:
        importances: the importance of each option, by its name; the sum is 1.
        out: the PNG file.
        title: the title above the plot.

    Raises:
        UserError: the plot cannot be drawn or written; an older file is intact.
    """
    with drawing_errors(out):
        ranked = sorted(importances.items(), key=lambda item: -item[1])[:MAX_OPTIONS]
        figure, axes = new_figure(title, 1.6 + 0.32 * len(ranked))
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
