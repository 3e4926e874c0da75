"""The time of an update over that of its matrix products alone, on the NumPy backend.

    python benchmarks/overhead.py                # about half a minute
    python benchmarks/overhead.py --turns 1000   # on a busy machine

For each network and kind of noise, the whole update (arrays in) and its matrix products alone (the same shapes, outputs
allocated before) take turns of a few milliseconds, on one core in one process. The ratio is that of the fastest turns,
in processor time, so that other work on the machine disturbs little. "Default" is the network of the default agent,
with double Q-learning; "120-84" is that of micro.py. The batch has 128 rows.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import parts
import reporting

from agent.running.resources import prepare_cpu

BATCH = 128
DEFAULT: dict[str, Any] = {"network": {"hidden": [128, 128], "layer_norm": True}, "double": True, "n_step": 3}
NETWORKS: dict[str, dict[str, Any]] = {"120-84": {}, "default": DEFAULT}
#: The shortest turn, in seconds.
TURN = 2e-3


def products(widths: Sequence[int], forwards: int, per_layer: int, sigma_rows: int = 0) -> Callable[[], object]:
    """The matrix products of an update, with `forwards` passes forwards and `per_layer` weights (μ, σ) in a layer.

    σ learns separately from `sigma_rows` further rows, if there are any: they pass both matrices, and give the gradient
    of one.
    """
    random = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    forward, backward = [], []
    for i, (p, q) in enumerate(pairwise(widths)):
        x, y, weight, slope = floats(BATCH, p), floats(BATCH, q), floats(q, p), floats(q, p)
        forward += per_layer * [(x, weight.T, y)]
        backward += per_layer * [(y.T, x, slope)]
        if i > 0:  # nothing needs the gradient of the observation
            backward += per_layer * [(floats(BATCH, q), weight, floats(BATCH, p))]
    every = forwards * forward + backward
    for i, (p, q) in enumerate(pairwise(widths)):
        if not sigma_rows:
            break
        x, slope, weight = floats(sigma_rows, p), floats(sigma_rows, q), floats(q, p)
        every += 2 * [(x, weight.T, floats(sigma_rows, q))] + [(slope.T, x, floats(q, p))]
        every += 2 * [(slope, weight, floats(sigma_rows, p))] if i else []

    def work() -> None:
        for a, b, out in every:
            np.dot(a, b, out=out)

    return work


def update(settings: dict[str, Any]) -> Callable[[], object]:
    """An update on a given batch, as a run makes it."""
    built = parts.build({"batch_size": BATCH, **settings})
    parts.fill(built.replay, built.task, 2_000)
    batch = built.replay.sample(BATCH)
    return lambda: built.agent.update(batch)


def fastest(works: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Microseconds of one call of each work in its fastest turn."""
    best = [float("inf")] * len(works)
    for _ in range(turns):
        for i, work in enumerate(works):
            calls, began = 0, time.process_time()
            while (spent := time.process_time() - began) < TURN:
                work()
                calls += 1
            best[i] = min(best[i], spent / calls * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--rows", default="", help="only rows whose names hold this text")
    arguments = parser.parse_args()
    prepare_cpu(1)
    rows = []
    for network, settings in NETWORKS.items():
        widths = [4, *parts.merged(parts.BASIC, settings)["network"]["hidden"], 2]
        for noise, values in parts.NOISES.items():
            if arguments.rows not in (name := f"{network}, {noise}"):
                continue
            forwards, several = 3 if settings.get("double") else 2, 2 if noise == "a draw per row" else 1
            alone = products(widths, forwards, several, BATCH // 2 if noise == "separate" else 0)
            whole = update({**settings, "noise": values})
            bound, taken = fastest([alone, whole], arguments.turns)
            rows.append([name, f"{bound:.0f}", f"{taken:.0f}", f"{taken / bound:.2f}"])
    print(reporting.table(["µs of an update", "products alone", "whole", "ratio"], rows))


if __name__ == "__main__":
    main()
