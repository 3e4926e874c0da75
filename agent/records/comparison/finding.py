"""Which runs are meant: folders, patterns, and folders of sweeps."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.common.errors import UserError
from agent.records.comparison.reading import is_run

#: Runs of one page; how deep they are looked for; folders below a run, in which there is none.
MAX_RUNS, MAX_DEPTH = 1_000, 8
INSIDE_A_RUN = {"wandb", "checkpoints", "videos", "best", "last"}


def find_runs(paths: Sequence[str]) -> list[Path]:
    """The folders of all runs that are named, each once, in the order of their names within a path.

    Args:
        paths: run folders, files in them, folders of runs, folders of sweeps, and patterns of them.

    Raises:
        UserError: where there is no run, or more than a page can show.
    """
    if not paths:
        raise UserError("no runs are named: write python compare.py runs/CartPole-v1/*, or runs=<folder>")
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [run for place in expanded(path) for run in runs_at(place)]
        if not runs and not expanded(path):
            raise UserError(f"{path} does not exist: name run folders, or a folder of runs")
        for run in runs:
            found.setdefault(run.resolve(), run)
        if len(found) > MAX_RUNS:
            raise UserError(f"there are more than {MAX_RUNS} runs in {path}: name fewer")
    if not found:
        raise UserError(
            f"there is no run in {', '.join(paths[:3])}: a run's folder holds config.yaml and metrics.jsonl"
        )
    return list(found.values())


def expanded(path: str) -> list[Path]:
    """What a path names: itself where it exists, otherwise what it matches as a pattern."""
    if Path(path).exists():
        return [Path(path)]
    return sorted(map(Path, glob.glob(path, recursive=True)), key=natural)  # noqa: PTH207


def runs_at(place: Path) -> Iterator[Path]:
    """The runs in a place: the run itself, those below, or those that a sweep put beside all others."""
    if place.is_file():
        place = place.parent
    if is_run(place):
        yield place
        return
    yield from _below(place)
    if (place / "multirun.yaml").is_file() and place.parent.name == "multirun":
        jobs = place.parent.parent.glob(f"**/{glob.escape(place.name)}_seed*_job*")
        yield from sorted(filter(is_run, jobs), key=natural)


def _below(place: Path) -> Iterator[Path]:
    """The runs below a folder; links to folders are not followed."""
    for folder, names, _ in os.walk(place):
        here = Path(folder)
        if is_run(here) and here != place:
            names.clear()
            yield here
        deep = len(here.relative_to(place).parts) >= MAX_DEPTH
        names[:] = [] if deep else sorted(set(names) - INSIDE_A_RUN, key=natural)


def natural(path: Path | str) -> list[int | str]:
    """Sorts names by the numbers in them: job 10 after job 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d{1,18})", str(path))]
