"""Metrics of runs whose noise fails, beside those of runs that learn: docs/figures/failing_noise.svg.

    python benchmarks/failing_noise.py           # make the runs that are missing, draw the figure
    python benchmarks/failing_noise.py --report  # draw the figure from the existing runs

Each run is train.py with one seed and 100,000 or 120,000 steps. Its metrics are averaged over twenty intervals and kept
in docs/results/failing_noise.json; delete a line of that file to make its run again. The extra box2d is needed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reporting import FIGURES, ROOT

from agent.records.plots import BLUE, GREEN, ORANGE, RED

KEPT = ROOT / "docs" / "results" / "failing_noise.json"
INTERVALS = 20
#: Since these runs were made, the preset of LunarLander acts with the target network.
ONLINE = ("agent.act_with=online",)
#: Noise as in the paper, in learning as well.
JOINT = (*ONLINE, "agent.noise.learning=joint", "agent.noise.draws=1", "agent.noise.change.enabled=false")
EPSILON = (*JOINT, "agent.epsilon.start=1", "agent.epsilon.end=0.04")
UNSCALED = ("preset=none", "agent.noise.learning=joint", "agent.noise.change.enabled=false")


@dataclass(frozen=True)
class Run:
    """A run of the figure: its label, environment, steps, seed and overrides of train.py, and its colour."""

    label: str
    env: str
    steps: int
    seed: int
    overrides: Sequence[str]
    colour: str

    @property
    def name(self) -> str:
        """The name of the run in the file of the results."""
        return f"{self.env}: {self.label}"

    def command(self) -> list[str]:
        """The arguments of train.py."""
        return [f"env={self.env}", f"seed={self.seed}", f"steps={self.steps}", *self.overrides]


RUNS = (
    Run("noise and ε, seed 20 (hovers)", "LunarLander-v3", 100_000, 20, EPSILON, RED),
    Run("noise and ε, seed 24 (hovers)", "LunarLander-v3", 100_000, 24, EPSILON, ORANGE),
    Run("noise and ε, seed 23 (lands)", "LunarLander-v3", 100_000, 23, EPSILON, BLUE),
    Run("noise alone, seed 20 (lands)", "LunarLander-v3", 100_000, 20, JOINT, GREEN),
    Run("separate learning, seed 20", "LunarLander-v3", 100_000, 20, ONLINE, "black"),
    Run("noise, seed 20 (fails)", "MountainCar-v0", 120_000, 20, UNSCALED, RED),
    Run("noise, seed 21 (fails)", "MountainCar-v0", 120_000, 21, UNSCALED, ORANGE),
    Run("separate learning, seed 20", "MountainCar-v0", 120_000, 20, ("preset=none",), "black"),
    Run("ε-greedy, seed 20", "MountainCar-v0", 120_000, 20, ("preset=none", "agent=dqn"), BLUE),
    Run("ε-greedy, seed 21", "MountainCar-v0", 120_000, 21, ("preset=none", "agent=dqn"), GREEN),
)
#: The panels of a task: the metric, and the label of its axis.
PANELS = {
    "train/episode_return": "return of an episode in training",
    "train/episode_length": "steps of an episode",
    "noise/action_change": "fraction of actions that noise changes",
    "q/mean": "mean action value",
}


def averages(metrics: Path, steps: int) -> dict[str, list[float | None]]:
    """The means of each panel's metric over equal intervals of the run; None for an interval without a value."""
    values: dict[str, list[list[float]]] = {name: [[] for _ in range(INTERVALS)] for name in PANELS}
    for line in metrics.read_text().splitlines():
        row = json.loads(line)
        interval = min(row["global_step"] * INTERVALS // steps, INTERVALS - 1)
        for name in PANELS:
            if name in row:
                values[name][interval].append(row[name])
    return {
        name: [round(float(np.mean(each)), 3) if each else None for each in intervals]
        for name, intervals in values.items()
    }


def make(run: Run) -> dict[str, list[float | None]]:
    """Trains a run and returns its averages."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("eval.every=0", "eval.video=false", "wandb.mode=disabled", "log.progress=false", "checkpoint.every=0")
        command = [sys.executable, "train.py", *run.command(), *quiet, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        print(f"{run.name}: done", flush=True)
        return averages(Path(folder) / "run" / "metrics.jsonl", run.steps)


def draw(results: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
    """Draws the figure: a row for each task, a panel for each metric, a line for each run."""
    matplotlib.rcParams["svg.hashsalt"] = "failing_noise"  # the same file each time
    tasks = list(dict.fromkeys(run.env for run in RUNS))
    figure = Figure(figsize=(4.2 * len(PANELS), 4.0 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(PANELS), squeeze=False)
    for task, axes in zip(tasks, grid, strict=True):
        runs = [run for run in RUNS if run.env == task and run.name in results]
        for (metric, label), axis in zip(PANELS.items(), axes, strict=True):
            panel(axis, runs, results, metric)
            axis.set_ylabel(label)
        axes[0].set_title(task, loc="left")
        axes[0].legend(fontsize=8)
    figure.savefig(FIGURES / "failing_noise.svg", metadata={"Date": None})


def panel(
    axis: Axes, runs: Sequence[Run], results: Mapping[str, Mapping[str, Sequence[float | None]]], metric: str
) -> None:
    """Draws one metric of some runs against environment steps."""
    for run in runs:
        points = [
            ((i + 0.5) * run.steps / INTERVALS / 1000, value)
            for i, value in enumerate(results[run.name][metric])
            if value is not None
        ]
        axis.plot(*zip(*points, strict=True), color=run.colour, label=run.label)
    axis.set_xlabel("environment steps, thousands")
    axis.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="make no run, draw the figure")
    arguments = parser.parse_args()
    results = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for run in RUNS:
        if run.name not in results and not arguments.report:
            results[run.name] = make(run)
            lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in results.items())
            KEPT.write_text(f"{{\n{lines}\n}}\n")
    draw(results)


if __name__ == "__main__":
    main()
