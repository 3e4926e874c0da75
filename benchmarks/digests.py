"""Digests of the parameters after short runs: they show whether two commits train the same agents, bit for bit.

    python benchmarks/digests.py                      # of this checkout
    python benchmarks/digests.py ../other >other.txt  # of another one, to compare

Digests depend on the machine and on the versions of torch and NumPy: compare two commits on one machine.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
PRESETS = (
    *("noisy_dqn", "noisy_dueling", "index_dqn", "dqn", "munchausen_dqn", "c51"),
    *("qr_dqn", "iqn", "rainbow", "der", "btr"),
)
RUNS = {
    **{f"{agent} on CartPole": (f"agent={agent}", "env=CartPole-v1") for agent in PRESETS},
    "independent noise on CartPole": ("noise=independent", "env=CartPole-v1"),
    "noisy_dqn on MinAtar": ("agent=noisy_dqn", "env=MinAtar/Breakout-v1"),
    "rainbow on MinAtar": ("agent=rainbow", "env=MinAtar/Breakout-v1"),
    "index_dqn on DeepSea": ("agent=index_dqn", "env=DeepSea-v0"),
}
COMMON = (
    *("steps=3000", "seed=7", "eval.every=0", "eval.episodes=1", "eval.video=false", "checkpoint.every=0"),
    *("log.progress=false", "wandb.mode=disabled", "device=cpu"),
)


def digest(checkout: Path, options: tuple[str, ...]) -> str:
    """The first half of the SHA-256 of the online and target parameters that a run ends with."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *COMMON, *options, f"hydra.run.dir={folder}/run"]
        ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
        if ended.returncode:
            return f"failed: {ended.stderr.strip().splitlines()[-1]}"
        (path,) = Path(folder).glob("run/checkpoints/step_*/tensors.safetensors")
        with safe_open(path, framework="numpy") as file:
            tensors = [file.get_tensor(f"agent/{name}") for name in ("parameters", "target_parameters")]
    return hashlib.sha256(b"".join(tensor.tobytes() for tensor in tensors)).hexdigest()[:32]


def main() -> None:
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT).resolve()
    for name, options in RUNS.items():
        print(f"{name:32}{digest(checkout, options)}", flush=True)


if __name__ == "__main__":
    main()
