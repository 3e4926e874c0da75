"""One noisy layer: the effect of noise on its outputs, the effect of learning on σ, and ε as an argument.

    python examples/noisy.py [--out DIR] [--seed 0] [--quick]

The layer is that of the agent (`agent.noise.layers.NoisyLinear`). It learns a linear task with stochastic gradient
descent. The inputs differ in size: noise on the weight of a large input increases the loss strongly, noise on that of a
small input increases it little, and noise on the weight of an input that is always 0 has no effect. The decrease of σ
is known in closed form, see `sigma_in_theory`.
"""

from math import pi, sqrt
from typing import NamedTuple

import torch
from common import BLUE, GREEN, GREY, ORANGE, PALETTE, Options, figure, generator, run, save, style
from matplotlib.axes import Axes
from torch import Tensor

from agent.noise.distributions import LayerNoise
from agent.noise.layers import NoisyLinear

FACTOR = sqrt(2.0 / pi)  # E f(ε)² = E|ε| of normal ε, f(ε) = sgn(ε)·√|ε|
INPUT_SIZES = (1.0, 0.5, 0.25, 0.0)  # standard deviations of the inputs of the learning task


def output_std(layer: NoisyLinear, x: Tensor) -> Tensor:
    """Standard deviation [q] of the outputs of a factorised layer at one x [p], over normal draws, exactly.

    y = mean + e_out·(Σ σ·x·e_in + σ_b), so its variance is E e_out²·(E e_in²·Σ σ²x² + σ_b²) with E e² = √(2/π).
    """
    assert layer.sigma_bias is not None
    inner = FACTOR * (layer.sigma_weight.square() @ x.square()) + layer.sigma_bias.square()
    return (FACTOR * inner).sqrt().detach()


class Outputs(NamedTuple):
    """The outputs of one layer for a batch of equal rows, and the mean of each batch, over many draws."""

    single: Tensor  # [draws·rows], deviations from the mean layer
    batch_mean: Tensor  # [draws]


def outputs(layer: NoisyLinear, x: Tensor, rows: int, draws: int, shared: bool, generator: torch.Generator) -> Outputs:
    """Deviations of the first output at x [p], for batches of `rows` with shared or per-row noise."""
    batch = x.expand(rows, -1)
    with torch.no_grad():
        mean = layer(x)[0]
        y = [layer(batch, layer.draw(1 if shared else rows, generator=generator))[:, 0] - mean for _ in range(draws)]
    table = torch.stack(y)
    return Outputs(table.flatten(), table.mean(dim=1))


class Learned(NamedTuple):
    """σ of a layer with one output as it learns: weights [steps + 1, p] and bias [steps + 1]."""

    weights: Tensor
    bias: Tensor


def learn(steps: int, rate: float, generator: torch.Generator, batch: int = 256) -> Learned:
    """Fits y = Σ x by squared error with a new draw per row and step; the inputs have the sizes INPUT_SIZES."""
    layer = NoisyLinear(len(INPUT_SIZES), 1, sigma0=1.0, generator=generator)
    assert layer.sigma_bias is not None
    scale = torch.tensor(INPUT_SIZES)
    weights, bias = [layer.sigma_weight.detach().clone()], [layer.sigma_bias.detach().clone()]
    for _ in range(steps):
        x = scale * torch.randn(batch, len(INPUT_SIZES), generator=generator)
        loss = (layer(x, layer.draw(batch, generator=generator))[:, 0] - x.sum(dim=1)).square().mean()
        parameters = list(layer.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(rate * gradient)
        weights.append(layer.sigma_weight.detach().clone())
        bias.append(layer.sigma_bias.detach().clone())
    return Learned(torch.cat(weights), torch.cat(bias))


def sigma_in_theory(size: float | None, start: float, rate: float, steps: int) -> Tensor:
    """σ [steps + 1] of the weight of an input of standard deviation `size` (None: of the bias), in expectation.

    The loss holds σ² as √(2/π)·√(2/π)·size²·σ² (for the bias √(2/π)·σ²): each step of gradient descent multiplies σ by
    one minus twice the rate times that factor. Nothing else in the loss depends on σ.
    """
    slope = FACTOR if size is None else FACTOR**2 * size**2
    return start * (1.0 - 2.0 * rate * slope) ** torch.arange(steps + 1, dtype=torch.float64)


def _density(axes: Axes, values: Tensor, limit: float, color: str, label: str) -> None:
    count, edges = torch.histogram(values.double(), bins=41, range=(-limit, limit))
    axes.stairs(count / len(values) / edges.diff(), edges.numpy(), color=color, linewidth=1.6, label=label)


def _draw_outputs(axes: Axes, found: dict[str, Outputs], std: float, batch_mean: bool) -> None:
    for (label, result), color in zip(found.items(), (ORANGE, BLUE, GREEN), strict=False):
        _density(axes, result.batch_mean if batch_mean else result.single, 3.0 * std, color, label)
    axes.set_yscale("log")
    axes.set_ylim(0.02 / std, None)
    title = "Mean of a batch of 64 rows" if batch_mean else "One output"
    style(axes, f"{title}, over draws", "deviation from the mean layer", "density")


def _draw_learning(axes: Axes, learned: Learned, rate: float) -> None:
    steps = len(learned.bias) - 1
    start = float(learned.bias[0])
    curves = [(f"input of size {size:g}", size, learned.weights[:, i]) for i, size in enumerate(INPUT_SIZES)]
    for (label, size, curve), color in zip([*curves, ("bias", None, learned.bias)], PALETTE, strict=False):
        axes.plot(curve, color=color, linewidth=2, label=label)
        axes.plot(sigma_in_theory(size, start, rate, steps), color="black", linestyle=":", linewidth=1.2)
    axes.plot([], [], color="black", linestyle=":", linewidth=1.2, label="theory")
    style(axes, "σ shrinks where noise hurts, and only there", "gradient steps", "σ")


def _draw_same(axes: Axes, first: Tensor, again: Tensor, fresh: Tensor) -> None:
    axes.plot(first, fresh, ".", color=GREY, markersize=5, markeredgewidth=0, label="a new ε")
    axes.plot(first, again, ".", color=BLUE, markersize=5, markeredgewidth=0, label="the same ε")
    style(axes, "The same call twice", "output of the first call", "output of the second call")


def _same_twice(layer: NoisyLinear, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    noise = layer.draw(len(x), generator=generator)
    copy = LayerNoise(noise.input.clone(), noise.output.clone())
    with torch.no_grad():
        first, again, fresh = (layer(x, e) for e in (noise, copy, layer.draw(len(x), generator=generator)))
    return first.flatten(), again.flatten(), fresh.flatten()


def main(options: Options) -> None:
    """Draws outputs, learns σ, calls twice with one ε, prints the numbers, and writes noisy.png."""
    draws, steps, rate, rows = (100, 60, 0.05, 64) if options.quick else (4000, 400, 0.05, 64)
    layer = NoisyLinear(16, 4, generator=generator(options.seed))
    independent = NoisyLinear(16, 4, sigma0=0.125 * FACTOR, factorised=False, generator=generator(options.seed))
    x = torch.randn(16, generator=generator(options.seed, 1))
    found = {
        "one draw for the batch": outputs(layer, x, rows, draws, True, generator(options.seed, 2)),
        "one draw per row": outputs(layer, x, rows, draws, False, generator(options.seed, 3)),
        "per row, independent form": outputs(independent, x, rows, draws, False, generator(options.seed, 4)),
    }
    std = float(output_std(layer, x)[0])
    print(f"standard deviation of one output over draws, and of the mean of a batch of {rows} (exact: {std:.4f})")
    for label, result in found.items():
        kurtosis = float(result.single.pow(4).mean() / result.single.square().mean().square())
        spreads = f"{float(result.single.std()):.4f}  {float(result.batch_mean.std()):.4f}"
        print(f"  {label:26} {spreads}  kurtosis {kurtosis:.2f}")
    learned = learn(steps, rate, generator(options.seed, 5))
    start = float(learned.bias[0])
    print(f"σ after {steps} steps, from {start:g} (theory)")
    sizes = [*INPUT_SIZES, None]
    for size, value in zip(sizes, [*learned.weights[-1].tolist(), float(learned.bias[-1])], strict=True):
        theory = float(sigma_in_theory(size, start, rate, steps)[-1])
        print(f"  {'bias' if size is None else f'input of size {size:g}':20} {value:8.5f} ({theory:.5f})")
    inputs = torch.randn(200, 16, generator=generator(options.seed, 6))
    first, again, fresh = _same_twice(layer, inputs, generator(options.seed, 7))
    print(f"the same ε twice: equal bit for bit: {torch.equal(first, again)}; a new ε: {torch.equal(first, fresh)}")
    drawing, (single, means, learning, same) = figure(2, 2, 10.4, 7.4)
    _draw_outputs(single, found, std, batch_mean=False)
    _draw_outputs(means, found, std, batch_mean=True)
    _draw_learning(learning, learned, rate)
    _draw_same(same, first, again, fresh)
    save(drawing, options.out, "noisy")


if __name__ == "__main__":
    run(main, __doc__)
