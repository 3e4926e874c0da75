"""Seconds from the command to the first environment step, and peak memory of a run: python benchmarks/startup.py"""

import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
OVERRIDES = ["env=CartPole-v1", "steps=10000", "eval.video=false", "log.progress=false"]


def child(began: float) -> None:
    """train.py as it is, with a clock on the first step; `began` is when the parent started this process."""
    sys.path.insert(0, str(ROOT))
    from agent.training import Trainer

    step = Trainer.iterate

    def first(trainer: Trainer) -> None:
        step(trainer)
        Trainer.iterate = step  # type: ignore[method-assign]
        print(f"first step after {time.time() - began}", flush=True)

    Trainer.iterate = first  # type: ignore[method-assign]
    sys.argv = ["train.py", *OVERRIDES, *sys.argv[3:]]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def main() -> None:
    for mode in ("offline", "disabled"):
        seconds = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    str(Path(__file__).resolve()),
                    "--child",
                    str(time.time()),
                    f"wandb.mode={mode}",
                ]
                run = subprocess.run(command, cwd=folder, env=os.environ, check=True, capture_output=True, text=True)
            (line,) = (line for line in run.stdout.splitlines() if line.startswith("first step after"))
            seconds.append(float(line.split()[-1]))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"wandb.mode={mode}: first step after {np.median(seconds):.2f} s "
            f"({min(seconds):.2f} … {max(seconds):.2f}), peak memory so far {peak:.0f} MiB"
        )


if __name__ == "__main__":
    child(float(sys.argv[2])) if "--child" in sys.argv else main()
