"""The time of an update of index_dqn on DeepSea, whose observations are one-hot: looked up, multiplied, and compiled.

    python benchmarks/looking_up.py                     # three minutes; needs a C++ compiler
    python benchmarks/looking_up.py --sizes 20,60

A size N gives N² truth values. The three take turns in one process, and update their own agents on the same batch.
Times are those of the fastest turns, in processor time. `COMPILE_UP_TO_TRUTH_VALUES` in agent/compute/plan.py follows
from them.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import reporting
import torch
from deep_sea import configure, options
from overhead import fastest

from agent.noise import layers
from agent.replay.batch import Batch
from agent.running.build import build_agent
from agent.running.resources import prepare_cpu
from envs.make import load_task

SIZES = (20, 30, 40, 60, 100)
WAYS = {"looked up": "torch", "multiplied": "torch", "compiled": "compiled"}


def batch_of(size: int, rows: int) -> Batch[np.ndarray]:
    """Random transitions whose observations are one-hot."""
    random = np.random.default_rng(0)
    cells = np.eye(size**2, dtype=bool)
    observation, next_observation = (cells[random.integers(size**2, size=rows)] for _ in range(2))
    floats = random.random((2, rows), dtype=np.float32)
    return Batch(observation, random.integers(2, size=rows), floats[0], floats[1], next_observation)


def update(size: int, way: str) -> Callable[[], object]:
    """An update in one of the ways."""
    config = configure([*options("index", size, 0), f"backend={WAYS[way]}"])
    agent, _ = build_agent(config, load_task(config.env.id, config.env.kwargs, None), torch.device("cpu"))
    batch, look_up_from = batch_of(size, config.agent.batch_size), layers.LOOK_UP_FROM

    def multiplied() -> None:
        layers.LOOK_UP_FROM = size**2 + 1
        agent.update(batch)
        layers.LOOK_UP_FROM = look_up_from

    work = multiplied if way == "multiplied" else partial(agent.update, batch)
    for _ in range(3):
        work()  # compiles
    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="sizes of DeepSea")
    parser.add_argument("--turns", type=int, default=200, help="turns of each")
    arguments = parser.parse_args()
    prepare_cpu(1)
    rows = []
    for size in map(int, arguments.sizes.split(",")):
        times = fastest([update(size, way) for way in WAYS], arguments.turns)
        rows.append([str(size), *(f"{each / 1e3:.1f}" for each in times), f"{times[0] / times[2]:.2f}"])
    print(reporting.table(["size", *(f"{way}, ms" for way in WAYS), "looked up / compiled"], rows))


if __name__ == "__main__":
    main()
