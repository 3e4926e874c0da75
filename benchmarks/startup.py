"""Seconds from the command to the first environment step, and peak memory of a run: python benchmarks/startup.py"""

import os
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
    """Runs train.py with a clock on the first step; `began` is the time at which the parent started this process."""
    sys.path.insert(0, str(ROOT))
    from agent.running.trainer import Trainer

    step = Trainer.iterate

    def first(trainer: Trainer) -> None:
        step(trainer)
        Trainer.iterate = step  # type: ignore[method-assign]
        print(f"first step after {time.time() - began}", flush=True)

    Trainer.iterate = first  # type: ignore[method-assign]
    sys.argv = ["train.py", *OVERRIDES, *sys.argv[3:]]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def main() -> None:
    for mode in ("disabled", "offline"):
        seconds, peaks = zip(*(measure(mode) for _ in range(5)), strict=True)
        spread = f"{np.median(seconds):.2f} s ({min(seconds):.2f} … {max(seconds):.2f})"
        print(f"wandb.mode={mode}: first step after {spread}, peak memory {np.median(peaks):.0f} MiB")


def measure(mode: str) -> tuple[float, float]:
    """One run: seconds to the first step, and the largest memory of its process in MiB."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(time.time()), f"wandb.mode={mode}"]
        run = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(run.pid, 0)
        assert status == 0
        output.seek(0)
        (line,) = (line for line in output if line.startswith("first step after"))
    return float(line.split()[-1]), usage.ru_maxrss / 1024


if __name__ == "__main__":
    child(float(sys.argv[2])) if "--child" in sys.argv else main()
