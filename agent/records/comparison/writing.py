"""A comparison written to its folder: the page, its pictures and its numbers."""

import json
from pathlib import Path
from typing import Any

from agent.common.files import atomic_write_bytes, atomic_write_text
from agent.records.comparison.comparing import Comparison
from agent.records.comparison.figures import Picture, curves, inside
from agent.records.comparison.numbers import plain_data
from agent.records.comparison.page import page
from agent.records.comparison.scoring import is_robust

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


def draw(found: Comparison) -> tuple[list[Section], dict[str, Any]]:
    """The page's sections with their pictures, and the curves' numbers by task."""
    numbers: dict[str, Any] = {}
    learning, within = [], []
    for number, task in enumerate(found.tasks):
        robust = is_robust(found.groups, task.name, found.metric)
        picture, numbers[task.name] = curves(number, task, found.groups, found.metric, robust)
        learning.append(picture)
        if (picture_inside := inside(number, task, found.groups)) is not None:
            within.append(picture_inside)
    return [
        ("Learning curves", "Point at a curve for its numbers.", learning),
        ("Inside", "What the runs logged of themselves.", within),
    ], numbers
