"""Writes a comparison to its folder: the page, its pictures and its numbers."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from agent.common.files import atomic_write_bytes, atomic_write_text, not_written_by, open_plain
from agent.records.comparison.canvas import Picture
from agent.records.comparison.comparing import Comparison
from agent.records.comparison.curves import is_robust
from agent.records.comparison.figures import curves, diagnostics
from agent.records.comparison.numbers import FORMAT, plain_data
from agent.records.comparison.page import page
from agent.records.comparison.score_figures import improvements, over_tasks, profiles, scores
from agent.records.drawing import default_settings

PAGE, NUMBERS = "comparison.html", "comparison.json"

Section = tuple[str, str, list[Picture]]


def write_comparison(comparison: Comparison, folder: Path, reload: float = 0.0) -> Path:
    """Writes all files, each atomically; returns the path of the page.

    Args:
        comparison: the comparison.
        folder: the folder, which is made if it is missing.
        reload: seconds after which an open page is loaded again; 0: never.

    Raises:
        UserError: a file cannot be written, or would replace one of another program.
    """
    with default_settings():
        sections, numbers = draw(comparison)
    pictures = {f"{picture.name}.png": picture.png for _, _, drawn in sections for picture in drawn}
    _check_replaced(folder, (NUMBERS, PAGE, *pictures))
    data = json.dumps(plain_data(comparison, numbers), indent=1, allow_nan=False)
    atomic_write_text(folder / NUMBERS, data)  # first, since it marks the folder as this program's
    for name, png in pictures.items():
        atomic_write_bytes(folder / name, png)
    atomic_write_text(folder / PAGE, page(comparison, sections, folder, reload))
    return folder / PAGE


def _check_replaced(folder: Path, names: Iterable[str]) -> None:
    """Refuses a folder with files of these names that an earlier comparison has not written."""
    present = [name for name in names if (folder / name).exists()]
    try:
        with open_plain(folder / NUMBERS) as file:
            is_ours = f'"format": "{FORMAT}"'.encode() in file.read(200)
    except OSError:
        is_ours = False
    if present and not is_ours:
        raise not_written_by("compare.py", folder / present[0])


def stop_reloading(folder: Path) -> None:
    """Makes the page stop reloading itself."""
    path = folder / PAGE
    if path.exists():
        text = path.read_text(encoding="utf-8")
        atomic_write_text(path, re.sub(r'"reload": [0-9.]+\}</script>', '"reload": 0}</script>', text))


def draw(comparison: Comparison) -> tuple[list[Section], dict[str, dict[str, dict[str, object]]]]:
    """Draws the page's sections with their pictures; also returns the curves' numbers by task."""
    numbers: dict[str, dict[str, dict[str, object]]] = {}
    learning_curves, diagnostic_pictures = [], []
    for number, task in enumerate(comparison.tasks):
        robust = is_robust(comparison.groups, task.name, comparison.metric)
        picture, numbers[task.name] = curves(number, task, comparison.groups, comparison.metric, robust)
        learning_curves.append(picture)
        if (diagnostic := diagnostics(number, task, comparison.groups)) is not None:
            diagnostic_pictures.append(diagnostic)
    names = [group.name for group in comparison.groups]
    per_task = [scores(number, task, names) for number, task in enumerate(comparison.tasks)]
    across_groups = [
        picture
        for picture in (over_tasks(comparison), profiles(comparison), improvements(comparison))
        if picture is not None
    ]
    return [
        ("Learning curves", "Point at a curve for its numbers.", learning_curves),
        ("Scores of every seed", "The best agent is chosen by the evaluations that it is scored with.", per_task),
        ("Groups beside each other", "After Agarwal et al. (2021).", across_groups),
        ("Inside", "Values that the runs logged of themselves.", diagnostic_pictures),
    ], numbers
