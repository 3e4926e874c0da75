"""Runs around a path and below a folder: a path near a run is often meant to name it."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from agent.common.files import RUN_FOLDERS
from agent.records.names import CONFIG, METRICS


def place_in_a_run(folder: Path) -> Path | None:
    """The path directly below a run in which a folder lies, where compare.py would not find it; None: in no run."""
    path = Path(os.path.normpath(folder.absolute()))
    for inner, outer in pairwise((path, *path.parents)):
        if (outer / CONFIG).exists() and (inner.name in RUN_FOLDERS or (outer / METRICS).exists()):
            return inner
    return None


def run_around(path: Path) -> Path | None:
    """The run in whose folder a path lies, relative to the current folder if it is below that; None: in no run."""
    place = place_in_a_run(path)
    if place is None:
        return None
    run, here = place.parent, Path.cwd()
    return run.relative_to(here) if here in run.parents else run


def runs_below(folder: Path) -> Iterator[Path]:
    """Yields the runs up to three folders below a folder, as they are in runs/ and in the folders of sweeps."""
    for depth in ("*", "*/*", "*/*/*"):
        for config in folder.glob(f"{depth}/{CONFIG}"):
            if (config.parent / METRICS).exists():
                yield config.parent
