"""A network that outputs a location and a scale, and samples from them, learns a noisy sine.

    python examples/sine.py [--out DIR] [--seed 0] [--quick]

Data: y = sin(x) + s(x)·η, x in [0, 4π], η normal, s(x) between 0.05 and 0.35. The loss sees only samples of the
network, z = μ(x) + σ(x)·ε. The energy score E|z − y| − ½·E|z − z′| is smallest if z has the distribution of y (Gneiting
& Raftery 2007, JASA 102(477), §4). The network is trained with and without batch normalisation, on x itself and on x
scaled to 0–1; and once with the squared error of the sample, for which the best spread is 0.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import pi

import torch
import torch.nn.functional as F
from common import BLUE, GREY, ORANGE, PALETTE, Options, figure, generator, run, save, style
from matplotlib.axes import Axes
from torch import Tensor, nn

from agent.noise.distributions import sample
from agent.noise.layers import Linear

END = 4.0 * pi
MEAN_SPREAD = 0.2  # of s(x) over [0, 4π]
SampleLoss = Callable[[Tensor, Tensor], Tensor]


class SampleNetwork(nn.Module):
    """x [n, 1] → z = μ(x) + σ(x)·ε: deterministic in its parameters and ε; the mean where ε is None."""

    def __init__(self, width: int, batch_norm: bool, scaled: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.divisor = END if scaled else 1.0
        sizes = (1, width, width)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers.append(Linear(inputs, outputs, generator=generator))
            layers.extend([nn.BatchNorm1d(outputs)] * batch_norm)
            layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers, Linear(width, 2, generator=generator))

    def location_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ [n] and σ [n] at x [n]."""
        out = self.body((x / self.divisor).unsqueeze(1))
        return out[:, 0], F.softplus(out[:, 1] - 1.0)

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Samples z [..., n] for x [n] by noise [..., n]."""
        loc, scale = self.location_scale(x)
        return loc if noise is None else loc + scale * noise


def spread(x: Tensor) -> Tensor:
    """s(x), the standard deviation of the data around sin(x)."""
    return 0.2 + 0.15 * torch.sin(0.5 * x)


def data(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [n], uniform in [0, 4π], and y [n] = sin(x) + s(x)·η."""
    x = END * torch.rand(n, generator=generator)
    return x, torch.sin(x) + spread(x) * sample((n,), generator=generator)


def energy_score(z: Tensor, y: Tensor) -> Tensor:
    """Energy score of two independent samples z [2, n] for y [n]; a scalar."""
    return ((z - y).abs().mean(dim=0) - 0.5 * (z[0] - z[1]).abs()).mean()


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of samples z [2, n] for y [n]: E(z − y)² = (μ − y)² + σ², smallest at σ = 0."""
    return (z - y).square().mean()


@dataclass(frozen=True)
class Fit:
    """A trained network, its learning curve and its errors.

    Attributes:
        network: in evaluation mode.
        curve: (gradient step, error of the mean) as it learned.
        mean_error: root mean square of μ(x) − sin(x) over [0, 4π].
        spread_error: root mean square of σ(x) − s(x).
        mean_spread: mean of σ(x).
    """

    network: SampleNetwork
    curve: list[tuple[int, float]]
    mean_error: float
    spread_error: float
    mean_spread: float


def _errors(network: SampleNetwork) -> tuple[float, float, float]:
    x = torch.linspace(0.0, END, 400)
    network.eval()  # batch normalisation by its running statistics; it is the one part here that has a mode
    with torch.no_grad():
        loc, scale = network.location_scale(x)
    network.train()
    mean_error = (loc - torch.sin(x)).square().mean().sqrt()
    return float(mean_error), float((scale - spread(x)).square().mean().sqrt()), float(scale.mean())


def train(batch_norm: bool, scaled: bool, loss: SampleLoss, seed: int, steps: int, batch: int = 128) -> Fit:
    """Trains a network of two hidden layers of 64 by Adam on fresh data; the learning rate falls linearly to 0."""
    network = SampleNetwork(64, batch_norm, scaled, generator(seed, 0))
    draws, points = generator(seed, 1), generator(seed, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    curve = []
    for step in range(steps):
        x, y = data(batch, points)
        value = loss(network(x, sample((2, batch), generator=draws)), y)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 25) == 0:
            curve.append((step, _errors(network)[0]))
    errors = _errors(network)
    network.eval()
    return Fit(network, [*curve, (steps, errors[0])], *errors)


def batch_jitter(network: SampleNetwork, batch: int, generator: torch.Generator) -> float:
    """The scatter of μ(x) in training when the other batch − 1 rows change: root mean square over 10 values of x."""
    network = copy.deepcopy(network).train()  # normalising by the batch also moves the running statistics
    scatter = []
    with torch.no_grad():
        for place in torch.linspace(0.0, END, 10):
            batches = [torch.cat([place[None], data(batch - 1, generator)[0]]) for _ in range(100)]
            scatter.append(torch.stack([network.location_scale(x)[0][0] for x in batches]).var())
    return float(torch.stack(scatter).mean().sqrt())


VARIANTS = {
    "x as it is": (False, False),
    "x as it is, batch norm": (True, False),
    "x in 0–1": (False, True),
    "x in 0–1, batch norm": (True, True),
}


def _draw_fit(axes: Axes, fit: Fit, title: str, seed: int) -> None:
    x, y = data(300, generator(seed, 3))
    grid = torch.linspace(0.0, END, 300)
    with torch.no_grad():
        loc, scale = fit.network.location_scale(grid)
    axes.plot(x, y, ".", color=GREY, markersize=4, markeredgewidth=0, label="data")
    axes.fill_between(grid, loc - 2 * scale, loc + 2 * scale, color=BLUE, alpha=0.25, linewidth=0, label="μ ± 2σ")
    axes.plot(grid, loc, color=BLUE, linewidth=1.8, label="μ(x)")
    truth, s = torch.sin(grid), spread(grid)
    axes.plot(grid, truth, color=ORANGE, linestyle="--", label="truth")
    for sign in (-2, 2):
        axes.plot(grid, truth + sign * s, color=ORANGE, linestyle="--", linewidth=0.9)
    axes.set(ylim=(-2.1, 2.1), xticks=[0, pi, 2 * pi, 3 * pi, 4 * pi], xticklabels=["0", "π", "2π", "3π", "4π"])
    style(axes, title)
    if "squared" not in title:
        axes.get_legend().remove()  # type: ignore[union-attr]


def _draw_curves(axes: Axes, fits: dict[str, list[Fit]]) -> None:
    for (name, mine), color in zip(fits.items(), PALETTE, strict=False):
        steps = [step for step, _ in mine[0].curve]
        errors = torch.tensor([[error for _, error in fit.curve] for fit in mine]).median(dim=0).values
        axes.plot(steps, errors, color=color, linewidth=1.6, label=name)
    axes.set_yscale("log")
    style(axes, "Error of μ (median of seeds)", "gradient steps", "root mean square error")


def main(options: Options) -> None:
    """Trains all variants with several seeds, prints their errors, and writes sine.png."""
    steps, seeds = (200, 1) if options.quick else (1000, 3)
    print(f"{steps} steps, {seeds} seeds: error of μ, error of σ, mean σ (data: {MEAN_SPREAD}), each seed")
    fits: dict[str, list[Fit]] = {}
    jobs = [(name, *variant, energy_score) for name, variant in VARIANTS.items()]
    for name, batch_norm, scaled, loss in [*jobs, ("x in 0–1, squared error", False, True, squared_error)]:
        mine = [train(batch_norm, scaled, loss, options.seed + k, steps) for k in range(seeds)]
        fits[name] = mine
        columns = [[f.mean_error for f in mine], [f.spread_error for f in mine], [f.mean_spread for f in mine]]
        print(f"  {name:26}", *(" ".join(f"{value:.3f}" for value in column) for column in columns), sep="  ")
    for batch in (32, 128, 512):
        fit = train(True, True, energy_score, options.seed, steps, batch)
        jitter = batch_jitter(fit.network, batch, generator(options.seed, 4))
        print(
            f"  batch norm, batches of {batch:3d}: mean σ {fit.mean_spread:.3f}, jitter of μ in training {jitter:.3f}"
        )
    drawing, panels = figure(2, 3, 12.6, 6.8)
    for axes, (name, mine) in zip([panels[i] for i in (0, 1, 3, 4, 5)], fits.items(), strict=True):
        _draw_fit(axes, mine[0], name, options.seed)
    _draw_curves(panels[2], {name: fits[name] for name in VARIANTS})
    save(drawing, options.out, "sine")


if __name__ == "__main__":
    run(main, __doc__)
