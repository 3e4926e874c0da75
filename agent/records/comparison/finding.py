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
        runs = [run for location in expand_pattern(path) for run in runs_at(location)]
        if not runs and not expand_pattern(path):
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


def expand_pattern(path: str) -> list[Path]:
    """What a path names: itself where it exists, otherwise what it matches as a pattern."""
    if Path(path).exists():
        return [Path(path)]
    return sorted(map(Path, glob.glob(path, recursive=True)), key=natural)  # noqa: PTH207


def runs_at(location: Path) -> Iterator[Path]:
    """The runs in a place: the run itself, those below, or those that a sweep put beside all others."""
    if location.is_file():
        location = location.parent
    if is_run(location):
        yield location
        return
    yield from _below(location)
    if (location / "multirun.yaml").is_file() and location.parent.name == "multirun":
        jobs = location.parent.parent.glob(f"**/{glob.escape(location.name)}_seed*_job*")
        yield from sorted(filter(is_run, jobs), key=natural)


def _below(location: Path) -> Iterator[Path]:
    """The runs below a folder; links to folders are not followed."""
    for path, names, _ in os.walk(location):
        folder = Path(path)
        if is_run(folder) and folder != location:
            names.clear()
            yield folder
        is_too_deep = len(folder.relative_to(location).parts) >= MAX_DEPTH
        names[:] = [] if is_too_deep else sorted(set(names) - INSIDE_A_RUN, key=natural)


def natural(path: Path | str) -> list[int | str]:
    """Sorts names by the numbers in them: job 10 after job 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d{1,18})", str(path))]
