"""How well and how fast agents learn: many seeds, this project and Stable-Baselines3 in alternation.

    python benchmarks/learning.py cartpole              # the studies are at the end of this file
    python benchmarks/learning.py cartpole --seeds 0-1  # a smaller one

Agents of this project are trained with train.py and evaluated with evaluate.py, in processes of their own. Training
seconds exclude evaluation for both. Results go to benchmarks/results/<study>.json, .md and .png; with --publish table
and figure go below docs. Stable-Baselines3 needs the extra `bench`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import reporting
from drawing import Picture, learning_curves

from agent.records.comparison.scoring import within_bounds
from agent.records.statistics import interquartile_mean, mean_interval
from envs.returns import return_bounds

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Study:
    env: str
    steps: int
    threshold: float
    seeds: str
    variants: dict[str, list[str]] = field(default_factory=dict)  # label → overrides of train.py; sb3 → its zoo
    eval_every: int = 2_500
    names: dict[str, str] = field(default_factory=dict)  # label → its name in tables and pictures, if it differs

    def name(self, label: str) -> str:
        """The name of a variant in tables and pictures."""
        return self.names.get(label, label)

    def of(self, labels: Sequence[str]) -> "Study":
        """The study with some of its variants only."""
        return replace(self, variants={label: self.variants[label] for label in labels})


def run_ours(study: Study, label: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains with train.py, evaluates the last agent with evaluate.py, and reads the results."""
    run = folder / f"{re.sub('[^A-Za-z0-9]+', '_', label)}_seed{seed}"
    train = [
        *("train.py", f"env={study.env}", f"seed={seed}", f"steps={study.steps}", f"eval.every={study.eval_every}"),
        *("wandb.mode=disabled", "eval.video=false", "eval.noisy=false", "log.progress=false"),
        *(f"hydra.run.dir={run}", *study.variants[label]),
    ]
    imports = [word for word in study.variants[label] if word.startswith("imports=")]
    evaluate = ("evaluate.py", f"checkpoint={run}", "which=last", "episodes=100", *imports)
    for command in (train, evaluate):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [
        (row["global_step"], row["eval/return_mean"], row["time/train_seconds"])
        for row in rows
        if "eval/return_mean" in row
    ]
    last = json.loads((run / "last" / "evaluation.json").read_text())
    return {"curve": curve, "final": last["return_mean"]}


def run_sb3(study: Study, label: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains Stable-Baselines3's DQN with its zoo's settings in a process of its own."""
    command = [sys.executable, "benchmarks/sb3.py", study.env, str(seed), str(study.steps), str(study.eval_every)]
    output = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run_study(name: str, study: Study, seeds: Sequence[int], jobs: int) -> list[dict[str, Any]]:
    """All runs of a study: the variants in alternation, seed by seed."""
    folder = RESULTS / "runs" / f"{name}-{os.getpid()}"

    def run(job: tuple[int, str]) -> dict[str, Any]:
        seed, label = job
        result = (run_sb3 if label == "sb3" else run_ours)(study, label, seed, folder)
        hit = next(((s, t) for s, value, t in result["curve"] if value >= study.threshold), (None, None))
        result |= {"label": label, "seed": seed, "hit_steps": hit[0], "hit_seconds": hit[1]}
        print(f"{label:12} seed {seed}: last {result['final']:.1f}, first ≥ {study.threshold:g} at {hit}", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, [(seed, label) for seed in seeds for label in study.variants]))


def table(study: Study, results: list[dict[str, Any]]) -> str:
    """A Markdown table: one line per variant."""
    lines = [
        f"| {study.env}, {study.steps} steps | last agent, 100 episodes, per seed | mean [95 %] | IQM "
        f"| first ≥ {study.threshold:g}: median steps | median training s | training s of the whole run |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in study.variants:
        mine = [result for result in results if result["label"] == label]
        finals = np.array([result["final"] for result in mine])
        # A run that never reached the threshold counts as later than all others, so that the median is not too small.
        steps = np.median([result["hit_steps"] or np.inf for result in mine])
        seconds = np.median([result["hit_seconds"] or np.inf for result in mine])
        total = np.median([result["curve"][-1][2] for result in mine])
        each = " ".join(f"{final:.1f}" for final in finals)
        never = sum(result["hit_steps"] is None for result in mine)
        failed = f" ({never} of {len(mine)} never)" if never else ""
        lines.append(
            f"| {study.name(label)} | {each} | {spread(finals, return_bounds(study.env))} "
            f"| {interquartile_mean(finals):.1f} | {steps:.0f}{failed} | {seconds:.1f} | {total:.1f} |"
        )
    return "\n".join(lines)


def spread(values: np.ndarray, bounds: tuple[float | None, float | None] = (None, None)) -> str:
    """The mean with its 95 % interval (Student's t), clipped to possible returns; for one seed only the mean."""
    interval = within_bounds(mean_interval(values), bounds)
    return f"{values.mean():.1f} (one seed)" if interval is None else f"{values.mean():.1f} {bracketed(*interval)}"


def bracketed(low: float, high: float) -> str:
    return f"[{low:.1f}, {high:.1f}]"


def plot(study: Study, results: list[dict[str, Any]], path: Path) -> None:
    """Mean evaluation return over the seeds with a 95 % interval, against environment steps."""
    names = {label: study.name(label) for label in study.variants}
    curves = {name: [r["curve"] for r in results if r["label"] == label] for label, name in names.items()}
    finals = {name: [r["final"] for r in results if r["label"] == label] for label, name in names.items()}
    title = f"{study.env}, {study.steps:,} steps"
    picture = Picture(title, study.eval_every, return_bounds(study.env), study.threshold)
    learning_curves(picture, curves, finals, path)


STUDIES = {
    # The default, the algorithm of Fortunato et al. 2018 and plain DQN with ε-greedy, all else equal.
    # SB3 has the settings of its zoo.
    "cartpole": Study(
        "CartPole-v1",
        50_000,
        475.0,
        "200-209",
        {"noisy_dqn": [], "paper": ["noise=paper"], "dqn": ["agent=dqn"], "sb3": []},
        names={"paper": "noisy_dqn, noise=paper", "sb3": "SB3 DQN"},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", help="first-last; default: the study's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; 1 for timings")
    parser.add_argument("--only", help="variants, separated by commas")
    parser.add_argument(
        "--publish", action="store_true", help="write the table to docs/performance, the picture to docs/figures"
    )
    parser.add_argument("--report", action="store_true", help="make no run: table and picture of the published results")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    if arguments.report:
        report(arguments.study, study)
        return
    if arguments.only:
        if unknown := set(arguments.only.split(",")) - set(study.variants):
            parser.error(f"unknown variants {sorted(unknown)}: choose of {', '.join(study.variants)}")
        study = study.of(arguments.only.split(","))
    first, _, last = (arguments.seeds or study.seeds).partition("-")
    seeds = range(int(first), int(last or first) + 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = {"command": reporting.command(), "machine": reporting.machine()}
    about["versions"] = reporting.versions("torch", "gymnasium", "numpy")
    results = run_study(arguments.study, study, seeds, arguments.jobs)
    (RESULTS / f"{arguments.study}.json").write_text(json.dumps(results, indent=1))
    picture = reporting.FIGURES if arguments.publish else RESULTS
    plot(study, results, picture / f"{arguments.study}.png")
    (RESULTS / f"{arguments.study}.md").write_text(table(study, results) + "\n")
    if arguments.publish:
        reporting.save(f"learning_{arguments.study}", {**about, "results": results}, table(study, results))
    else:
        print(table(study, results))


def report(name: str, study: Study) -> None:
    """Writes the published table and picture again, from the results that were published with them."""
    published = json.loads((reporting.RESULTS / f"learning_{name}.json").read_text())
    results = published["results"]
    study = study.of(list(dict.fromkeys(result["label"] for result in results)))
    plot(study, results, reporting.FIGURES / f"{name}.png")
    reporting.save(f"learning_{name}", published, table(study, results))


if __name__ == "__main__":
    main()
