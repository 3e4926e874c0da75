"""Microseconds of the pieces: act, sample, update per head, environment step.

    python benchmarks/micro.py                      # about two minutes
    python benchmarks/micro.py --quick
    python benchmarks/micro.py --only replay --device cuda   # the replay on an accelerator

One thread; the pieces of a table in turns, median and spread over blocks. CartPole-v1, MLP 120-84, batch 128, no double
Q-learning, one-step returns, where a table does not say otherwise. Results: docs/performance/micro.json and .md.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import parts
import reporting
import torch
from parts import NOISES, build, by_autograd, fill

from agent.common.errors import UserError
from agent.common.seeding import numpy_generator, torch_generator
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.ring import Replay
from agent.running.resources import prepare_cpu
from envs.make import load_task
from envs.vector import make_vector

Works = dict[str, Callable[[], object]]
HEADS: dict[str, dict[str, Any]] = {
    "expected": {},
    "expected, double, 3 steps, layer normalisation": {
        "double": True,
        "n_step": 3,
        "network": {"layer_norm": True},
    },
    "categorical, 51": {"head": "categorical"},
    "quantile, 50": {"head": "quantile", "quantile": {"count": 50}},
    "implicit quantile, 8 and 8": {
        "head": "implicit_quantile",
        "implicit_quantile": {"samples": 8, "target_samples": 8},
    },
}


def act(_: argparse.Namespace) -> Works:
    """Arrays in, arrays out."""
    works: Works = {}
    for how, context in (("", None), (", torch's modules", by_autograd)):
        for noise in ("plain", "one draw"):
            for rows in (1, 8, 128):
                if context is None:
                    agent = build({"noise": NOISES[noise]}, rows).agent
                else:
                    with context():
                        agent = build({"noise": NOISES[noise]}, rows).agent
                observation, begins = np.zeros((rows, 4), dtype=np.float32), np.zeros(rows, dtype=bool)
                label = "noisy, a draw per row" if noise != "plain" else noise
                works[f"{label}, {rows} rows{how}"] = lambda a=agent, x=observation, b=begins: a.act(x, b)
    return works


def replay(arguments: argparse.Namespace) -> Works:
    """A full ring of vectors of four numbers from 8 environments, three-step windows."""
    task, rows, device = load_task("CartPole-v1", {}), arguments.rows, arguments.device
    on_cpu = device.type == "cpu"
    generator = numpy_generator(0, "replay") if on_cpu else torch_generator(0, "replay", device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    uniform = Replay(rows, 8, 4, n_step=3, device=device)
    prioritised = PrioritisedReplay(rows, 8, 4, exponent=0.6, n_step=3, device=device)
    for ring in (uniform, prioritised):
        fill(ring, task, rows + 100)
    works: Works = {}
    row = (np.ones(8, dtype=np.int64), np.ones(8), np.zeros(8, dtype=bool), np.zeros(8, dtype=bool))
    next_observation = np.zeros((8, 4), dtype=np.float32)
    for name, ring in (("uniform", uniform), ("prioritised", prioritised)):
        works[f"{name}, add a vector step of 8"] = lambda r=ring: (r.add(*row, next_observation), wait())
    for batch in (32, 128, 256):
        errors = torch.rand(batch, generator=torch.Generator(device).manual_seed(0), device=device)
        given = errors.numpy() if on_cpu else errors
        for _ in range(min(rows, 10**5) // batch):  # priorities of all sizes
            prioritised.update_priorities(prioritised.sample_to_learn(batch, 0.4, generator).rows, given)
        drawn = prioritised.sample_to_learn(batch, 0.4, generator)
        works |= {
            f"uniform, sample {batch}": lambda b=batch: (uniform.sample(b, generator), wait()),
            f"prioritised, sample {batch}": lambda b=batch: (
                prioritised.sample_to_learn(b, 0.4, generator),
                wait(),
            ),
            f"prioritised, write {batch} priorities": lambda d=drawn, g=given: (
                prioritised.update_priorities(d.rows, g),
                wait(),
            ),
        }
    return works


def products() -> Callable[[], object]:
    """The matrix products of an update without noise, which every program needs: two passes forwards, one backwards."""
    random, batch, widths = np.random.default_rng(0), 128, [4, *parts.BASIC["network"]["hidden"], 2]

    def floats(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    layers = [(floats(batch, p), floats(q, p), floats(batch, q)) for p, q in pairwise(widths)]

    def work() -> None:
        for i, (x, weight, g) in enumerate(layers):
            for _ in range(2):
                x.dot(weight.T)
            g.T.dot(x)
            if i > 0:
                g.dot(weight)

    return work


def update(_: argparse.Namespace) -> Works:
    """One gradient step on a given batch: target, loss, gradient, Adam."""
    works: Works = {"expected, plain, its matrix products alone": products()}
    for head, settings in HEADS.items():
        for noise, values in NOISES.items():
            both = parts.merged(settings, {"noise": values})
            by_hand = build(both)
            with by_autograd():
                eager = build(both)
            same = type(by_hand.agent._gradient) is type(eager.agent._gradient)
            fill(by_hand.replay, by_hand.task, 2_000)
            batch = by_hand.replay.sample(128)
            tensors = batch.tensors(torch.device("cpu"))  # each agent gets the kind that it takes
            works[f"{head}, {noise}, autograd"] = lambda a=eager.agent, b=tensors: a.update(b)
            if not same:
                works[f"{head}, {noise}, NumPy"] = lambda a=by_hand.agent, b=batch: a.update(b)
    return works


def environment(_: argparse.Namespace) -> Works:
    """One vector step of all environments, with random actions."""
    cases = [("CartPole-v1", "sync", 1), ("CartPole-v1", "sync", 8), ("CartPole-v1", "native", 8)]
    cases += [("CartPole-v1", "native", 32), ("MinAtar/Breakout-v1", "sync", 1), ("ALE/Pong-v5", "sync", 1)]
    works: Works = {}
    for env_id, how, count in cases:
        try:
            task = load_task(env_id, {})
        except UserError as error:  # an extra that is not installed
            print(error, file=sys.stderr)
            continue
        envs = make_vector(task, count, how)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(1_000)]
        turn = iter(range(10**9))
        works[f"{env_id}, {count} {how}"] = lambda e=envs, a=actions, i=turn: e.step(a[next(i) % 1_000])
    return works


SECTIONS = {"act": act, "replay": replay, "update": update, "environment": environment}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--rows", type=int, default=10**6, help="transitions in the replay")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="of the replay")
    parser.add_argument("--quick", action="store_true", help="3 blocks, a replay of 10 000")
    reporting.add_clock(parser)
    parser.add_argument("--out", type=Path, help="folder of the results instead of docs/performance")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.blocks, arguments.rows = 3, 10_000
    if unknown := set(arguments.only) - set(SECTIONS):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(SECTIONS)}")
    reporting.use_clock(arguments)
    prepare_cpu(1)
    result = {"command": reporting.command(), "machine": reporting.machine()}
    result["versions"] = reporting.versions("torch", "numpy", "gymnasium")
    sections: dict[str, dict[str, list[float]]] = {}
    for name in arguments.only:
        sections[name] = reporting.alternate(SECTIONS[name](arguments), arguments.blocks)
    titles = {name: f"{name}: {(SECTIONS[name].__doc__ or '').strip().rstrip('.')}" for name in sections}
    if "replay" in titles:
        titles["replay"] += f", {arguments.rows} transitions on {arguments.device}"
    text = "\n\n".join(
        reporting.table([titles[name], "µs"], [[row, reporting.spread(times, 1)] for row, times in section.items()])
        for name, section in sections.items()
    )
    if arguments.out:
        reporting.RESULTS = arguments.out
    reporting.save("micro", {**result, "microseconds": sections}, text)


if __name__ == "__main__":
    main()
