"""A comparison of runs that are killed at random instants and resumed with runs that are never stopped.

    python benchmarks/kills.py              # 30 runs, some twenty minutes
    python benchmarks/kills.py --runs 3 --seed 5

Each run is of a random task, vectorisation, number of environments and agent. It is killed (SIGKILL) or asked to stop
(SIGTERM) at random instants, saved now and then with another `checkpoint.every`, until it has 1 000 steps. Its last
checkpoint and its episodes must then be those of a run of the same options that was never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent.records.checkpoint import latest_checkpoint, load_checkpoint  # noqa: E402

STEPS = 1_000
COMMON = (
    *(
        "eval.every=170",
        "eval.episodes=1",
        "eval.noisy=false",
        "eval.video=false",
        "log.every=90",
        "log.progress=false",
    ),
    *("wandb.mode=disabled", "device=cpu", "agent.learning_starts=64", "agent.batch_size=32"),
    *("agent.replay_size=500", "agent.network.hidden=[16]", "env.kwargs={}", f"steps={STEPS}"),
)
CHOICES: tuple[tuple[str, ...], ...] = (
    ("env=CartPole-v1", "env=Acrobot-v1", "env=FrozenLake-v1"),
    ("env.vectorization=sync", "env.vectorization=async"),
    ("num_envs=1", "num_envs=3", "num_envs=8"),
    ("agent.noise.hold=step", "agent.noise.hold=episode", "agent.noise.hold=update"),
    ("agent.n_step=1", "agent.n_step=4"),
    ("agent.priority.enabled=false", "agent.priority.enabled=true"),
    ("env.time_limit=null", "env.time_limit=30"),
)


def start(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "train.py"), *options, f"hydra.run.dir={folder}"]
    with (folder.parent / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder.parent, stdout=log, stderr=log)


def killed(pick: random.Random, folder: Path, options: list[str]) -> tuple[int, int]:
    """Trains with kills until there are enough steps. Returns the number of signals, and that of processes."""
    stops = legs = 0
    while True:
        legs += 1
        process = start(folder, [*options, "resume=auto", f"checkpoint.every={pick.choice((1, 20, 50, 110, 300))}"])
        number = pick.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        mark, deadline = newest(folder) + pick.choice((0, 1, 2, 4)) * 60, time.monotonic() + 120
        while process.poll() is None and newest(folder) < mark and time.monotonic() < deadline:
            time.sleep(0.002)
        if legs <= 12:  # the later processes get no signal
            time.sleep(pick.uniform(0.0, 0.1) if mark else pick.uniform(0.0, 3.0))
            if process.poll() is None:
                os.kill(process.pid, number)
                stops += 1
        code = process.wait()
        if code == 0 or newest(folder) >= STEPS:
            return stops, legs
        if code not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            raise SystemExit(f"it ended with {code}:\n{(folder.parent / 'log').read_text()}")


def newest(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    try:
        return int((folder / "checkpoints" / "latest").read_text().removeprefix("step_"))
    except (OSError, ValueError):
        return 0


def difference(one: Any, two: Any, path: str = "") -> str | None:
    """The first leaf in which two states differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return path
        pairs = [(f"{path}.{key}", one[key], two[key]) for key in one]
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            return path
        pairs = [(f"{path}.{i}", *pair) for i, pair in enumerate(zip(one, two, strict=True))]
    else:
        return None if np.array_equal(one, two) else path
    return next((found for name, *pair in pairs if (found := difference(*pair, name))), None)


def learned(folder: Path) -> dict[str, Any]:
    """The parts of the last checkpoint that belong to learning, and the logged episodes."""
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    step, state = load_checkpoint(checkpoint)
    parts = ("agent", "replay", "collector", "sampling_generator")
    rows = map(json.loads, (folder / "metrics.jsonl").open())
    episodes = [[row["global_step"], row["train/episode_return"]] for row in rows if "train/episode_return" in row]
    return {"step": step, "episodes": episodes, **{name: state[name] for name in parts}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    for number in range(arguments.runs):
        pick = random.Random(f"{arguments.seed}/{number}")
        options = [*COMMON, *(pick.choice(choice) for choice in CHOICES), f"seed={pick.randrange(1000)}"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stops, legs = killed(pick, folder / "killed", options)
            assert start(folder / "whole", options).wait() == 0, (folder / "log").read_text()
            found = difference(learned(folder / "whole"), learned(folder / "killed"))
            if found or b"bit-equal" in (folder / "log").read_bytes():
                found, wrong = found or "a line says so", wrong + 1
        shown = " ".join(options[len(COMMON) :])
        print(
            f"{number}: {'differs in ' + found if found else 'equal'}, {stops} stops in {legs} legs: {shown}",
            flush=True,
        )
    print(f"{arguments.runs - wrong} of {arguments.runs} are equal")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
