"""A comparison written to its folder: the page, its pictures and its numbers."""

import json
import re
from pathlib import Path
from typing import Any

from agent.common.files import atomic_write_bytes, atomic_write_text
from agent.records.comparison.canvas import Picture
from agent.records.comparison.comparing import Comparison
from agent.records.comparison.curves import is_robust
from agent.records.comparison.figures import curves, inside
from agent.records.comparison.numbers import plain_data
from agent.records.comparison.page import page
from agent.records.comparison.score_figures import improvements, over_tasks, profiles, scores

PAGE, NUMBERS = "comparison.html", "comparison.json"

Section = tuple[str, str, list[Picture]]


def write_comparison(found: Comparison, folder: Path, reload: float = 0.0) -> Path:
    """Writes everything, each file as a whole; returns the page.

    Args:
        found: the comparison.
        folder: is made where it is missing.
        reload: seconds after which an open page is loaded again; 0: never.

    Raises:
        UserError: the disk refuses.
    """
    sections, numbers = draw(found)
    for _, _, pictures in sections:
        for picture in pictures:
            atomic_write_bytes(folder / f"{picture.name}.png", picture.png)
    data = json.dumps(plain_data(found, numbers), indent=1, allow_nan=False)
    atomic_write_text(folder / NUMBERS, data)
    atomic_write_text(folder / PAGE, page(found, sections, folder, reload))
    return folder / PAGE


def settle(folder: Path) -> None:
    """Lets the page be loaded again by itself no more."""
    path = folder / PAGE
    if path.exists():
        text = path.read_text(encoding="utf-8")
        atomic_write_text(path, re.sub(r'"reload": [0-9.]+\}</script>', '"reload": 0}</script>', text))


def draw(found: Comparison) -> tuple[list[Section], dict[str, Any]]:
    """The page's sections with their pictures, and the curves' numbers by task."""
    numbers: dict[str, object] = {}
    learning, within = [], []
    for number, task in enumerate(found.tasks):
        robust = is_robust(found.groups, task.name, found.metric)
        picture, numbers[task.name] = curves(number, task, found.groups, found.metric, robust)
        learning.append(picture)
        if (picture_inside := inside(number, task, found.groups)) is not None:
            within.append(picture_inside)
    names = [group.name for group in found.groups]
    single = [scores(number, task, names) for number, task in enumerate(found.tasks)]
    beside = [picture for picture in (over_tasks(found), profiles(found), improvements(found)) if picture is not None]
    return [
        ("Learning curves", "Point at a curve for its numbers.", learning),
        ("Scores of every seed", "The best agent is chosen by the evaluations that it is scored with.", single),
        ("Groups beside each other", "After Agarwal et al. (2021).", beside),
        ("Inside", "Values that the runs logged of themselves.", within),
    ], numbers
