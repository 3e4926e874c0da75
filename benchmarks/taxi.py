"""Taxi-v4 with and without its masks of invalid actions: how soon the greedy agent solves it, over seeds.

    python benchmarks/taxi.py                          # 5 seeds, 30 000 steps each, no masks and masks in alternation
    python benchmarks/taxi.py --seeds 0-1 --steps 5000

Runs are made by train.py as a person makes them, with one thread and the preset of the task. A run counts as solved
from its first evaluation (20 episodes, the mean network) at Gymnasium's threshold, a mean return of 8. With --publish
the table and the results go to docs/performance/taxi.md and .json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import reporting

from agent.records.statistics import mean_interval

THRESHOLD, EVERY = 8.0, 2_000
VARIANTS = {"without masks": "off", "with masks": "info.action_mask"}


def run(action_mask: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """One run: the mean return of each evaluation, where the threshold is reached first, and training's seconds."""
    options = [
        *("env=Taxi-v4", f"env.action_mask={action_mask}", f"seed={seed}", f"steps={steps}", f"eval.every={EVERY}"),
        *("eval.video=false", "eval.noisy=false", "log.progress=false", "wandb.mode=disabled", "device=cpu"),
    ]
    command = [sys.executable, "train.py", *options, f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=reporting.ROOT, check=True, capture_output=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [(row["global_step"], row["eval/return_mean"]) for row in rows if "eval/return_mean" in row]
    seconds = max(row.get("time/train_seconds", 0.0) for row in rows)
    return {"curve": curve, "solved_at": solved_at(curve), "last": curve[-1][1], "seconds": seconds}


def solved_at(curve: Sequence[tuple[int, float]], threshold: float = THRESHOLD) -> int | None:
    """The step of the first evaluation at the threshold; None where there is none."""
    return next((step for step, value in curve if value >= threshold), None)


def between(values: Sequence[float], digits: int) -> str:
    """The mean with its interval of 95 % by Student's t."""
    interval, mean = mean_interval(np.array(values, float)), f"{np.mean(values):,.{digits}f}"
    return mean if interval is None else f"{mean} [{interval[0]:,.{digits}f}, {interval[1]:,.{digits}f}]"


def table(results: Sequence[dict[str, Any]], steps: int) -> str:
    """A Markdown table: one line per variant. An unsolved run counts with all its steps, and is marked as "never"."""
    half = steps // 2
    head = ["Taxi-v4", f"steps to {THRESHOLD:g}, per seed", "mean [95 %]", f"return at {half:,}", f"at {steps:,}", "s"]
    rows = []
    for label in VARIANTS:
        mine = [result for result in results if result["label"] == label]
        hits = [result["solved_at"] for result in mine]
        middle = [next(value for step, value in result["curve"] if step >= half) for result in mine]
        rows.append(
            [
                label,
                " ".join("never" if hit is None else f"{hit:,}" for hit in hits),
                between([steps if hit is None else hit for hit in hits], 0),
                between(middle, 1),
                between([result["last"] for result in mine], 1),
                f"{np.median([result['seconds'] for result in mine]):.0f}",
            ]
        )
    return reporting.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="0-4", help="first-last")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--publish", action="store_true", help="write docs/performance/taxi.md and .json")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    about = {"command": reporting.command(), "machine": reporting.machine()}
    about["versions"] = reporting.versions("torch", "gymnasium", "numpy")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(int(first), int(last or first) + 1):
            for label, action_mask in VARIANTS.items():
                result = run(action_mask, seed, arguments.steps, Path(folder) / f"{label.split()[0]}_{seed}")
                results.append({"label": label, "seed": seed, **result})
                print(f"{label}, seed {seed}: {result['solved_at']}, last {result['last']:.1f}", flush=True)
    text = table(results, arguments.steps)
    if arguments.publish:
        reporting.save("taxi", {**about, "steps": arguments.steps, "results": results}, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
