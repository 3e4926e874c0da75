"""The costs of saving and resuming a run, beside the training between two checkpoints.

    python benchmarks/resume.py                     # in this checkout
    python benchmarks/resume.py --before ../other   # also in another one, in turns
    python benchmarks/resume.py --cpu-time          # processor time, which is steadier on a shared machine

Each task is trained with its preset (Pong with a smaller replay and fewer steps), saved on the way, and resumed in a
process of its own. The extras atari and minatar are needed.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import reporting

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    *("eval.every=0", "eval.episodes=1", "eval.video=false", "log.progress=false", "wandb.mode=disabled"),
    "device=cpu",
)
PONG = ("agent.replay_size=50000", "agent.learning_starts=19000")
#: (name, options, steps, steps between two of its checkpoints, the same number in its preset)
TASKS = (
    ("CartPole-v1, 8 environments in NumPy", ("env=CartPole-v1",), 20_000, 5_000, 10_000),
    ("CartPole-v1, one by one", ("env=CartPole-v1", "env.vectorization=sync"), 20_000, 5_000, 10_000),
    ("MinAtar/Breakout-v1", ("env=MinAtar/Breakout-v1",), 20_000, 5_000, 100_000),
    ("ALE/Pong-v5, 8 games in C++", ("env=ALE/Pong-v5", *PONG), 20_000, 5_000, 200_000),
)


def child(clock: str, checkout: str, report: str, options: list[str]) -> None:
    """Runs train.py of a checkout, with a clock around training, saving and loading."""
    sys.path.insert(0, checkout)
    now = time.process_time if clock == "cpu" else time.perf_counter
    from agent.running import collector, trainer

    seconds: dict[str, list[float]] = {}
    learning = [0.0, 0]  # seconds, steps

    def around(owner: Any, name: str) -> None:
        work: Callable[..., Any] | None = getattr(owner, name, None)
        if work is None:
            return

        def timed(*arguments: Any, **named: Any) -> Any:
            began = now()
            try:
                return work(*arguments, **named)
            finally:
                seconds.setdefault(f"{owner.__name__}.{name}", []).append(now() - began)

        setattr(owner, name, timed)

    iterate = trainer.Trainer.iterate

    def noted(self: Any) -> None:
        step, began = self.step, now()
        iterate(self)
        if step > self.config.agent.learning_starts:
            learning[:] = learning[0] + now() - began, learning[1] + self.step - step

    trainer.Trainer.iterate = noted  # type: ignore[method-assign]
    for name in ("_checkpoint", "load_state", "begin"):
        around(trainer.Trainer, name)
    around(collector.Collector, "load_state")
    sys.argv = ["train.py", *options]
    runpy.run_path(str(Path(checkout) / "train.py"), run_name="__main__")
    Path(report).write_text(json.dumps({"seconds": seconds, "per_step": learning[0] / max(learning[1], 1)}))


def run(clock: str, checkout: Path, *options: str) -> dict[str, Any]:
    """The measurements of the child in one run."""
    with tempfile.NamedTemporaryFile("r") as report:
        command = [sys.executable, __file__, "--child", clock, str(checkout), report.name, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        measured: dict[str, Any] = json.loads(report.read())
    return measured


def measure(clock: str, checkout: Path, options: tuple[str, ...], steps: int, every: int) -> dict[str, float]:
    """Seconds of a training step, of a checkpoint, of a resume, and of replaying episodes in this resume."""
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/run"
        more = f"steps={steps}", f"checkpoint.every={every}", f"hydra.run.dir={where}"
        made = run(clock, checkout, *options, *COMMON, *more)
        resumed = run(clock, checkout, f"resume={where}", f"steps={steps + 100}")["seconds"]
    again = resumed.get("Collector.load_state", [0.0])[0]
    return {
        "step": made["per_step"],
        "checkpoint": float(np.median(made["seconds"]["Trainer._checkpoint"])),
        "resume": resumed["Trainer.load_state"][0] + resumed["Trainer.begin"][0],
        "again": again,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", action="store_true", help="write docs/performance/resume.md")
    reporting.add_clock(parser)
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve()} if arguments.before else {}
    checkouts["now"] = ROOT
    about, rows, results = reporting.machine(), [], {}
    for what, options, steps, every, preset in TASKS:
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(arguments.rounds):
            for name, checkout in checkouts.items():
                rounds[name].append(measure("cpu" if arguments.cpu_time else "wall", checkout, options, steps, every))
        results[what] = rounds
        for name, measured in rounds.items():
            middle = {key: float(np.median([one[key] for one in measured])) for key in measured[0]}
            between = middle["step"] * preset
            shares = [f"{middle[key]:.3f} ({100 * middle[key] / between:.2f} %)" for key in ("checkpoint", "resume")]
            rows.append([what, name, f"{preset:,}", f"{between:.1f}", *shares, f"{middle['again']:.3f}"])
            print(rows[-1], file=sys.stderr, flush=True)
    head = ["task", "", "steps between checkpoints", "seconds of training", "a checkpoint", "a resume", "of it played"]
    if len(checkouts) == 1:  # no column of checkouts
        head, rows = [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]
    text = reporting.table(head, rows)
    if arguments.publish:
        result = {"command": reporting.command(), "machine": about, "results": results}
        result["versions"] = reporting.versions("torch", "numpy", "gymnasium", "ale-py")
        reporting.save("resume", result, text)
    else:
        print(text)


if __name__ == "__main__":
    child(*sys.argv[2:5], sys.argv[5:]) if sys.argv[1:2] == ["--child"] else main()
