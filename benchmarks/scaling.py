"""The costs of an update and of a step by batch, width, environments and replay, and the gain of each trick alone.

    python benchmarks/scaling.py            # about two minutes
    python benchmarks/scaling.py --quick

One thread, CartPole-v1, MLP 120-84, batch 128, where a table does not say otherwise. To measure a trick, plain code
replaces the part with the trick, and everything else stays as it is. Both run in turns, and ratios are taken within a
round. Results: docs/performance/scaling.json and .md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import torch
from parts import PER_ROW, PLAIN, SHARED, Parts, build, by_autograd, fill, losses_by_torch

from agent.common.seeding import numpy_generator, seed_sequence, torch_generator
from agent.compute.numpy.layers import product
from agent.learning.adam import Adam
from agent.learning.learner import Learner
from agent.noise.distributions import NoiseModel
from agent.noise.layers import NoisyLinear
from agent.noise.streams import noise_stream
from agent.replay.ring import Replay
from agent.running.resources import prepare_cpu
from envs.make import load_task
from envs.vector import make_vector

Works = dict[str, Callable[[], object]]
Pair = tuple[Callable[[], object], Callable[[], object]]


# ---- growth: the works of a table, by size


def batches() -> Works:
    """an update, by batch"""
    return {
        f"{size}, {name}": updates({"noise": noise, "batch_size": size})
        for size in (32, 64, 128, 256, 512)
        for name, noise in (("plain", PLAIN), ("noisy, one draw", SHARED), ("noisy, a draw per row", PER_ROW))
    }


def widths() -> Works:
    """an update, by the width of both hidden layers"""
    return {
        f"{width}, {name}": updates({"noise": noise, "network": {"hidden": [width, width]}})
        for width in (64, 128, 256, 512)
        for name, noise in (("plain", PLAIN), ("noisy, one draw", SHARED), ("noisy, a draw per row", PER_ROW))
    }


def environments() -> Works:
    """one environment step without updates (acting, environment and replay), by number of environments"""
    return {f"{count}": collecting(count) for count in (1, 4, 8, 32, 128)}


def replays() -> Works:
    """sampling 128 transitions of three steps, by the size of the replay"""
    works: Works = {}
    task, generator = load_task("CartPole-v1", {}), numpy_generator(0, "replay")
    for size in (10**3, 10**4, 10**5, 10**6):
        replay = Replay(size, 8, 4, n_step=3)
        fill(replay, task, size + 100)
        works[f"{size}"] = lambda r=replay: r.sample(128, generator)
    return works


def updates(settings: dict[str, Any]) -> Callable[[], object]:
    """One gradient step on a batch at hand."""
    made = build(settings)
    fill(made.replay, made.task, 2_000)
    batch = made.replay.sample(made.config.agent.batch_size, numpy_generator(0, "replay"))
    return lambda: made.agent.update(batch)


def collecting(count: int, how: str = "auto", made: Parts | None = None) -> Callable[[], object]:
    """Vector steps without updates; the caller divides by `count`."""
    made = made or build({"noise": SHARED}, count)
    envs = make_vector(made.task, count, how)  # type: ignore[arg-type]
    state = {"observation": made.task.observe(envs.reset(seed=0)[0])}
    made.replay.begin(state["observation"])
    begins = np.zeros(count, dtype=bool)

    def step() -> None:
        action = made.agent.act(state["observation"], begins)
        next_observation, reward, terminated, truncated, _ = envs.step(action)
        state["observation"] = made.task.observe(next_observation)
        made.replay.add(action, reward, terminated, truncated, state["observation"])

    return step


# ---- tricks: (as it is, as a straightforward program does it)


def hand_written_gradients(noise: dict[str, Any]) -> Pair:
    with by_autograd():
        straightforward = updates({"noise": noise})
    return updates({"noise": noise}), straightforward


def hand_written_loss() -> Pair:
    """C51's: the projection by counting and its gradient by hand, or K·K' pairs and autograd."""
    settings = {"noise": SHARED, "head": "categorical"}
    with losses_by_torch():
        straightforward = updates(settings)
    return updates(settings), straightforward


def no_denormals() -> Pair:
    """Adam's step, half of whose averages have faded below 1e-38; rounding keeps them from reaching 0."""

    def faded(flush: bool) -> Callable[[], object]:
        torch.set_flush_denormal(False)
        flat = torch.zeros(22_000)
        flat.grad = torch.zeros(22_000)
        adam = Adam(flat, 1e-8)
        adam.state["exp_avg"][::2] = 1e-40

        def step() -> None:
            torch.set_flush_denormal(flush)
            adam.step()
            torch.set_flush_denormal(True)

        return step

    return faded(True), faded(False)


def table_of_quantiles() -> Pair:
    """256 draws for the network of the workloads: an update with a draw per row needs so many."""
    model = NoiseModel(4 + 120 + 120 + 84 + 84 + 2)
    stream, generator = noise_stream(model, seed_sequence(0, "update"), "cpu"), torch_generator(0, "update")
    return lambda: stream.draw(2, 128), lambda: model.draw(2, 128, generator=generator)


def flat_adam(fused: bool) -> Pair:
    flat = torch.zeros(22_000)
    flat.grad = torch.randn(22_000, generator=torch.Generator().manual_seed(0))
    ours = Adam(flat, 1e-8)
    # The twelve tensors of a noisy network of three layers, and torch's own optimiser.
    tensors = [torch.zeros(120, 4), torch.zeros(120), torch.zeros(84, 120), torch.zeros(84), torch.zeros(2, 84)]
    tensors = [torch.nn.Parameter(tensor.clone()) for tensor in [*tensors, torch.zeros(2)] * 2]
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    theirs = torch.optim.Adam(tensors, lr=1e-3, fused=fused, foreach=None if fused else False)
    ours.set_rate(1e-3)
    return ours.step, theirs.step


def no_matrix_per_row() -> Pair:
    """A layer of 128 to 128 and 128 draws, forwards: two products, or 128 noisy matrices."""
    generator = torch.Generator().manual_seed(0)
    layer = NoisyLinear(128, 128)
    x = torch.randn(128, 128, generator=generator)
    noise = layer.draw(128, generator=generator)

    def formed() -> torch.Tensor:
        matrices = layer.weight + layer.sigma_weight * (noise.output.unsqueeze(2) * noise.input.unsqueeze(1))
        product = torch.bmm(matrices, x.unsqueeze(2)).squeeze(2)
        return product + layer.bias + layer.sigma_bias * noise.output

    return no_gradient(lambda: layer(x, noise)), no_gradient(formed)


def no_gradient(work: Callable[[], object]) -> Callable[[], object]:
    def quiet() -> None:
        with torch.no_grad():
            work()

    return quiet


def no_torch_between() -> Pair:
    """A step of one environment and an update. NumPy draws the batch and passes it on, or torch does, as tensors."""

    def training(by_numpy: bool) -> Callable[[], object]:
        made = build({"noise": SHARED, "replay_size": 10_000}, 1)
        collect, learner = collecting(1, made=made), Learner(made.agent, made.replay, 0)
        for _ in range(10_000):
            collect()
        if not by_numpy:
            learner.generator = torch_generator(0, "replay")
            gradient, cpu = made.agent._gradient, torch.device("cpu")
            made.agent._gradient = lambda batch, noise, *rest: gradient(batch.tensors(cpu), noise.tensors(cpu), *rest)

        def step() -> None:
            collect()
            for _ in learner._updates(1, 0.0):
                pass

        return step

    return training(True), training(False)


def batches_at_once() -> Pair:
    """Eight batches of 128 with three-step windows, gathered at once or one by one."""
    replay, generator = Replay(10**5, 8, 4, n_step=3), numpy_generator(0, "replay")
    fill(replay, load_task("CartPole-v1", {}), 10**5)
    return (
        lambda: replay.sample_many(8, 128, generator),
        lambda: [replay.sample(128, generator) for _ in range(8)],
    )


def matrix_on_the_left() -> Pair:
    """32 rows through eight layers of 1024 to 128, as in MinAtar's network. Together they exceed the cache."""
    random = np.random.default_rng(0)
    x = random.random((32, 1024), np.float32)
    weights = [random.random((128, 1024), np.float32) for _ in range(8)]
    return lambda: [product(x, weight) for weight in weights], lambda: [x.dot(weight.T) for weight in weights]


TRICKS: dict[str, Callable[[], Pair]] = {
    "hand-written NumPy gradients instead of autograd: a plain update": lambda: hand_written_gradients(PLAIN),
    "… a noisy update, one draw": lambda: hand_written_gradients(SHARED),
    "… a noisy update, a draw per row": lambda: hand_written_gradients(PER_ROW),
    "C51's loss, hand-written in NumPy instead of torch's, on the same network": hand_written_loss,
    "numbers below 1e-38 flushed to 0: Adam's step with half of its averages that small": no_denormals,
    "noise from a table instead of torch.randn: 256 draws for a network": table_of_quantiles,
    "no noisy matrix instead of one per row: a layer from 128 to 128, forward": no_matrix_per_row,
    "a large matrix on the left, not the right, of a product with few rows: 8 layers, 1024 to 128": matrix_on_the_left,
    "Adam on one flat vector instead of torch's fused Adam on 12 tensors": lambda: flat_adam(True),
    "… instead of torch's Adam in a loop over 12 tensors": lambda: flat_adam(False),
    "batches in NumPy from the draw to the loss instead of in torch: a whole step": no_torch_between,
    "eight batches of 128 gathered at once instead of one by one": batches_at_once,
    "the environment's own vector class instead of one environment after the other: a step of 8": lambda: (
        collecting(8, "native"),
        collecting(8, "sync"),
    ),
}

GROWTH = {"batch": batches, "width": widths, "environments": environments, "replay": replays}


def grow(name: str, blocks: int) -> tuple[dict[str, list[float]], str]:
    """Microseconds, and their table."""
    make = GROWTH[name]
    times = reporting.alternate(make(), blocks)
    if name == "environments":
        times = {count: [value / int(count) for value in values] for count, values in times.items()}
    rows = [[label, reporting.spread(values, 2 if name == "environments" else 1)] for label, values in times.items()]
    return times, reporting.table([f"{make.__doc__}", "µs"], rows)


def tricks(blocks: int) -> tuple[dict[str, Any], str]:
    """Microseconds with and without each trick, and their table."""
    found = {
        name: reporting.alternate(dict(zip(("with", "without"), make(), strict=True)), blocks)
        for name, make in TRICKS.items()
    }
    rows = []
    for name, times in found.items():
        ratio = np.array(times["without"]) / np.array(times["with"])
        rows.append(
            [name, *(reporting.spread(times[key], 1) for key in ("with", "without")), reporting.spread(ratio, 2)]
        )
    return found, reporting.table(["the trick, and the alternative", "µs with", "µs without", "times faster"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="3 blocks")
    reporting.add_clock(parser)
    parser.add_argument("--out", type=Path, help="folder of the results instead of docs/performance")
    arguments = parser.parse_args()
    blocks = 3 if arguments.quick else arguments.blocks
    reporting.use_clock(arguments)
    prepare_cpu(1)
    result: dict[str, Any] = {"command": reporting.command(), "machine": reporting.machine()}
    result["versions"] = reporting.versions("torch", "numpy", "gymnasium")
    result["tricks"], text = tricks(blocks)
    texts = [text]
    for name in GROWTH:
        result[name], text = grow(name, blocks)
        texts.append(text)
    if arguments.out:
        reporting.RESULTS = arguments.out
    reporting.save("scaling", result, "\n\n".join(texts))


if __name__ == "__main__":
    main()
