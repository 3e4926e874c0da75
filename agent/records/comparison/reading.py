"""Reads runs from their folders, which may be a stranger's: damaged parts are left out, and all sizes are bounded."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.common.files import read_plain
from agent.records.comparison.configs import read_config
from agent.records.metrics import MAX_STEP, number, read_rows
from agent.records.names import CONFIG, EVALUATION, METRICS

#: Limits of what is read of one run.
MAX_LINES, MAX_EVALUATION = 5_000_000, 1 << 24
MAX_NAMES, MAX_POINTS, MAX_VIDEOS, MAX_LOGGED = 80, 1_000, 6, 1_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./\[\]-]{0,99}")
#: The metrics that are shown in addition to the compared one.
DIAGNOSTICS = ("noise/action_change", "train/loss", "speed/env_steps_per_second")
SIGMA, SECONDS, STEP = "sigma/", "time/train_seconds", "global_step"

Array = NDArray[np.float64]
#: Modification times and sizes of the files that are read of a run.
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Series:
    """A metric at n environment steps, in order, with the training seconds at each (NaN where unknown): arrays [n]."""

    steps: Array
    values: Array
    seconds: Array

    def __len__(self) -> int:
        return len(self.steps)


EMPTY = Series(*(np.empty(0) for _ in range(3)))


@dataclass(frozen=True)
class Run:
    """The parts of a run that are compared.

    Attributes:
        folder: the run's folder.
        options: the options of its config as texts, by full name.
        commands: the command lines that made it, from the header of config.yaml.
        series: its series by the metric's name.
        logged: the names of all its metrics, also of those that never have a finite value.
        step: the last step with a logged value.
        evaluations: the results of evaluate.py for its `best` and `last` agents, if there are any.
        videos: its video files, newest first.
    """

    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    series: Mapping[str, Series] = field(default_factory=dict)
    logged: frozenset[str] = frozenset()
    step: int = 0
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    videos: tuple[Path, ...] = ()

    @property
    def seed(self) -> str:
        """The seed; an empty text if the config has none."""
        return self.options.get("seed", "")

    @property
    def steps(self) -> int | None:
        """The environment steps of the whole run; None if the config does not say."""
        text = self.options.get("steps", "")
        return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run: it then has a metrics.jsonl."""
    return (folder / METRICS).is_file()


def stamp(folder: Path) -> Stamp:
    """Returns a value that changes when the files of a run change."""
    names = (METRICS, CONFIG, f"best/{EVALUATION}", f"last/{EVALUATION}", "videos")
    return tuple(_stamp(folder / name) for name in names)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def read_run(folder: Path, metric: str) -> Run:
    """Reads a run, which may still be training.

    Raises:
        UserError: train.py cannot have written its config.
    """
    options, commands = read_config(folder / CONFIG)
    series, logged, step = read_metrics(folder / METRICS, metric)
    found = {which: read_evaluation(folder / which / EVALUATION) for which in ("best", "last")}
    evaluations = {which: result for which, result in found.items() if result}
    return Run(folder, options, commands, series, logged, step, evaluations, videos_of(folder))


def read_metrics(path: Path, metric: str) -> tuple[dict[str, Series], frozenset[str], int]:
    """Reads the series of a run that are shown, the names of all its metrics, and its last step."""
    points: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    clock: dict[float, float] = {}
    logged: set[str] = set()
    last = 0
    for step, row in islice(read_rows(path), MAX_LINES):
        last = max(last, step)
        if (seconds := number(row.get(SECONDS))) is not None:
            clock[step] = seconds
        if len(logged) < MAX_LOGGED:
            logged.update(row)
        for name, value in row.items():
            if name == metric or name in DIAGNOSTICS or (name.startswith(SIGMA) and _NAME.fullmatch(name)):
                finite = number(value)
                if finite is not None and (name in points or len(points) < MAX_NAMES):
                    points[name].append((float(step), finite, math.nan if seconds is None else seconds))
    times = np.array(sorted(clock.items()), dtype=np.float64).reshape(-1, 2)
    names = frozenset(name for name in logged if name == metric or _NAME.fullmatch(name))
    return {name: _series(table, times) for name, table in points.items()}, names, last


def _series(points: list[tuple[float, float, float]], clock: Array) -> Series:
    """Sorts a series by step and thins it, keeping its last point; missing times are interpolated from `clock`."""
    table = np.array(points, dtype=np.float64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    stride = -(-len(table) // MAX_POINTS)
    table = table[::-1][::stride][::-1]
    steps, values, seconds = table.T
    if len(clock):
        interpolated = np.interp(steps, clock[:, 0], clock[:, 1], left=math.nan, right=math.nan)
        seconds = np.where(np.isnan(seconds), interpolated, seconds)
    return Series(steps, values, seconds)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STEP


def read_evaluation(path: Path) -> dict[str, object] | None:
    """Reads the step, episodes, seed and mean return from a result of evaluate.py; None without a valid one."""
    try:
        found = json.loads(read_plain(path, MAX_EVALUATION))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("noise") is not False:
        return None
    result = {name: found.get(name) for name in (STEP, "episodes", "seed")}
    mean = number(found.get("return_mean"))
    if mean is None or not all(_is_count(value) for value in result.values()):
        return None
    return {**result, "return_mean": mean}


def videos_of(folder: Path) -> tuple[Path, ...]:
    """Lists the newest videos of a run, by the step in their names."""
    try:
        found = [path for path in (folder / "videos").iterdir() if path.suffix in (".mp4", ".gif") and path.is_file()]
    except OSError:
        return ()
    return tuple(sorted(found, key=lambda path: path.name, reverse=True)[:MAX_VIDEOS])
