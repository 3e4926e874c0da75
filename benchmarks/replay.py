"""Speed of the replay at a million transitions: uniform and prioritised sampling, with the priorities written back.

    python benchmarks/replay.py                      # on the CPU
    python benchmarks/replay.py --device cuda        # on an accelerator
    python benchmarks/replay.py --rows 10000         # a small one

CartPole's four numbers a row, 3-step windows, one thread. Microseconds per batch, the median of several blocks; on a
device a block is timed from its first call to the end of its last. `update` is what prioritised replay adds to each
gradient step besides sampling, `add` what one vector step of 8 environments costs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agent.priorities import PrioritisedReplay  # noqa: E402
from agent.replay import Replay  # noqa: E402
from agent.resources import use_threads  # noqa: E402

ENVS, INPUTS, BETA = 8, 4, 0.4


def filled(replay: Replay) -> Replay:
    """The replay, with a whole ring of transitions; every hundredth step of an environment ends its episode."""
    rng = np.random.Generator(np.random.PCG64(0))
    observation = rng.random((ENVS, INPUTS), dtype=np.float32)
    replay.begin(observation)
    for t in range(replay.rows + 10):
        step(replay, observation, np.arange(ENVS) == t % 100)
    return replay


def step(replay: Replay, observation: np.ndarray, ended: np.ndarray) -> None:
    nothing = np.zeros(ENVS, dtype=bool)
    replay.add(np.ones(ENVS, dtype=np.int64), np.ones(ENVS), ended, nothing, observation)


def microseconds(work: Callable[[], object], device: torch.device, calls: int = 200, blocks: int = 9) -> float:
    """Of one call: the median over blocks."""

    def block() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / calls * 1e6

    block()
    return median(block() for _ in range(blocks))


def measure(rows: int, batch: int, device: torch.device) -> dict[str, tuple[float, ...]]:
    """(sample, update, add) of both kinds of replay, in microseconds."""
    generator = torch.Generator(device=device).manual_seed(0)
    uniform = filled(Replay(rows, ENVS, INPUTS, n_step=3, device=device))
    prioritised = PrioritisedReplay(rows, ENVS, INPUTS, exponent=0.6, n_step=3, device=device)
    filled(prioritised)
    errors = torch.rand(batch, generator=generator, device=device)
    given = errors.numpy() if device.type == "cpu" else errors
    for _ in range(-(-rows // batch)):  # priorities of all sizes
        prioritised.reprioritise(prioritised.sample_prioritised(batch, BETA, generator).rows, given)
    sampled = prioritised.sample_prioritised(batch, BETA, generator)
    observation, nothing = np.zeros((ENVS, INPUTS), dtype=np.float32), np.zeros(ENVS, dtype=bool)
    return {
        "uniform": (
            microseconds(lambda: uniform.sample(batch, generator), device),
            0.0,
            microseconds(lambda: step(uniform, observation, nothing), device),
        ),
        "prioritised": (
            microseconds(lambda: prioritised.sample_prioritised(batch, BETA, generator), device),
            microseconds(lambda: prioritised.reprioritise(sampled.rows, given), device),
            microseconds(lambda: step(prioritised, observation, nothing), device),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10**6, help="transitions")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 256], help="transitions per batch")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    use_threads(1)
    print(f"{arguments.rows} transitions on {arguments.device}, µs per call")
    print(f"{'batch':>6} {'replay':<12} {'sample':>8} {'update':>8} {'add':>8}")
    for batch in arguments.batch:
        for name, (sample, update, add) in measure(arguments.rows, batch, arguments.device).items():
            print(f"{batch:>6} {name:<12} {sample:8.1f} {update:8.1f} {add:8.1f}")


if __name__ == "__main__":
    main()
