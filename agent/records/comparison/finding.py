"""Finds the runs that paths name: run folders, patterns, and folders of sweeps."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.common.errors import UserError
from agent.common.files import check_readable
from agent.common.folders import walk
from agent.common.texts import natural_order
from agent.records.comparison.reading import is_run
from agent.records.names import CONFIG, METRICS
from agent.records.places import run_around

#: The most runs of one page.
MAX_RUNS = 1_000


def find_runs(paths: Sequence[str]) -> list[Path]:
    """Finds the folders of all runs that the paths name, each once; those of one path are sorted by name.

    Args:
        paths: run folders, files in them, folders of runs, folders of sweeps, and patterns of these.

    Raises:
        UserError: there is no run, one that cannot be read, or more than a page can show.
    """
    if not paths:
        raise UserError("no runs are named: write python compare.py runs/CartPole-v1/*, or runs=<folder>")
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [run for location in expand_pattern(path) for run in runs_at(location)]
        if not runs and not expand_pattern(path):
            raise UserError(f"{path} does not exist: name run folders, or a folder of runs")
        for run in runs:
            check_readable(run / METRICS)
            check_readable(run / CONFIG)
            found.setdefault(run.resolve(), run)
        if len(found) > MAX_RUNS:
            raise UserError(f"there are more than {MAX_RUNS} runs in {path}: name fewer")
    if not found:
        raise UserError(
            f"there is no run in {', '.join(paths[:3])}: a run's folder holds config.yaml and metrics.jsonl"
        )
    return list(found.values())


def expand_pattern(path: str) -> list[Path]:
    """Expands a path: returns the path itself if it exists, otherwise its matches as a pattern."""
    if Path(path).exists():
        return [Path(path)]
    return sorted(map(Path, glob.glob(path, recursive=True)), key=natural_order)  # noqa: PTH207


def runs_at(location: Path) -> Iterator[Path]:
    """Yields the runs at a location: the run that it is or lies in, those below it, or those of a sweep's folder."""
    if location.is_file():
        location = location.parent
    check_readable(location)
    if is_run(location):
        yield location
        return
    if (run := run_around(location)) is not None and is_run(run):
        yield run
        return
    yield from _below(location)
    if (location / "multirun.yaml").is_file() and location.parent.name == "multirun":
        jobs = location.parent.parent.glob(f"**/{glob.escape(location.name)}_seed*_job*")
        yield from sorted(filter(is_run, jobs), key=natural_order)


def _below(location: Path) -> Iterator[Path]:
    """Yields the runs below a folder."""
    for folder, names in walk(location):
        if is_run(folder) and folder != location:
            names.clear()
            yield folder
