"""z = μ + σ·ε turns a standard draw into a draw with any mean and spread; the change of variables explains why.

    python examples/standardise.py [--out DIR] [--seed 0] [--quick]

Panels: one ε under several (μ, σ); the four families of `agent.noise` at the same μ and σ; an increasing map that is
not linear, with equal shares of probability on both of its sides; and the density that the map gives.
"""

from typing import NamedTuple

import torch
from common import (
    BLUE,
    GREEN,
    GREY,
    LOG_DENSITIES,
    ORANGE,
    PALETTE,
    RED,
    Function,
    Options,
    figure,
    generator,
    run,
    save,
    style,
)
from matplotlib.axes import Axes
from torch import Tensor

from agent.noise.distributions import QUANTILES, sample

TARGETS = ((0.0, 1.0), (-6.0, 2.0), (3.0, 0.6), (10.0, 5.0))  # μ and σ

#: Increasing maps g: the location-scale map, and two that bend.
MAPS: dict[str, Function] = {
    "10 + 5·ε": lambda e: 10.0 + 5.0 * e,
    "exp(ε)": torch.exp,
    "ε + ε³/3": lambda e: e + e**3 / 3.0,
}


class Moments(NamedTuple):
    """The mean and standard deviation of n draws, each with its standard error."""

    mean: float
    mean_error: float
    std: float
    std_error: float

    def __str__(self) -> str:
        return f"mean {self.mean:8.4f} ± {self.mean_error:.4f},  std {self.std:.4f} ± {self.std_error:.4f}"


def moments(z: Tensor) -> Moments:
    """Mean and standard deviation of draws [n]; the error of the latter from the fourth moment."""
    deviation = z - z.mean()
    variance, fourth = deviation.square().mean(), deviation.pow(4).mean()
    error = ((fourth - variance.square()) / len(z)).sqrt() / (2.0 * variance.sqrt())
    return Moments(float(z.mean()), float((variance / len(z)).sqrt()), float(variance.sqrt()), float(error))


def density(e: Tensor, family: str = "normal") -> Tensor:
    """p(ε) of a family of mean 0 and variance 1, elementwise."""
    return LOG_DENSITIES[family](e).exp()


def inverse(g: Function, z: Tensor, low: float = -12.0, high: float = 12.0) -> Tensor:
    """ε [n] with g(ε) = z by bisection: no formula of the inverse is needed, only that g increases."""
    a, b = torch.full_like(z, low), torch.full_like(z, high)
    for _ in range(60):
        middle = 0.5 * (a + b)
        below = g(middle) < z
        a, b = torch.where(below, middle, a), torch.where(below, b, middle)
    return 0.5 * (a + b)


def pushed_density(g: Function, z: Tensor) -> Tensor:
    """Density of g(ε), ε ~ N(0, 1), at z [n]: p(g⁻¹(z)) / g′(g⁻¹(z)), with g′ by automatic differentiation."""
    e = inverse(g, z).requires_grad_()
    (slope,) = torch.autograd.grad(g(e).sum(), e)
    return density(e.detach()) / slope


def identity_gap(g: Function, points: int = 20_001) -> float:
    """Largest gap between ∫ pushed_density up to z and P(ε ≤ g⁻¹(z)), over z = g(−5) … g(5): 0 if the rule holds."""
    e = torch.linspace(-5.0, 5.0, points, dtype=torch.float64)
    z = g(e)
    area = torch.cumulative_trapezoid(pushed_density(g, z), z)
    exact = torch.special.ndtr(e) - torch.special.ndtr(e[0])
    return float((area - exact[1:]).abs().max())


def _dots(axes: Axes, z: Tensor, low: float, high: float, color: str, bins: int) -> None:
    """The density of draws [n], counted in bins."""
    count, edges = torch.histogram(z, bins=bins, range=(low, high))
    height = count / len(z) / edges.diff()
    axes.plot(edges[:-1] + 0.5 * edges.diff(), height, "o", color=color, markersize=3, markeredgewidth=0)


def _draw_scales(axes: Axes, epsilon: Tensor) -> None:
    for (mean, std), color in zip(TARGETS, PALETTE, strict=False):
        _dots(axes, mean + std * epsilon, mean - 4 * std, mean + 4 * std, color, 32)
        z = torch.linspace(mean - 4 * std, mean + 4 * std, 300, dtype=torch.float64)
        axes.plot(z, density((z - mean) / std) / std, color=color, alpha=0.6, label=f"{mean:g} + {std:g}·ε")
    style(axes, "One ε, four (μ, σ): exact (line), counted (dots)", "z", "density")


def _draw_families(axes: Axes, draws: dict[str, Tensor]) -> None:
    z = torch.linspace(-10.0, 30.0, 801, dtype=torch.float64)
    for (name, epsilon), color in zip(draws.items(), PALETTE, strict=False):
        _dots(axes, 10.0 + 5.0 * epsilon, -10.0, 30.0, color, 41)
        axes.plot(z, density((z - 10.0) / 5.0, name) / 5.0, color=color, alpha=0.6, label=name)
    style(axes, "10 + 5·ε with ε of four families", "z", "density")


def _draw_map(axes: Axes, g: Function) -> None:
    e = torch.linspace(-2.3, 2.3, 200, dtype=torch.float64)
    axes.plot(e, g(e), color=GREY, linewidth=2)
    for middle, color in ((-1.7, BLUE), (0.1, ORANGE), (1.2, GREEN)):
        side = torch.tensor([middle - 0.2, middle + 0.2], dtype=torch.float64)
        share = float(torch.special.ndtr(side).diff())
        axes.fill_between(side, -6.4, g(side), color=color, alpha=0.45, linewidth=0)
        axes.fill_betweenx(g(side), -2.3, side, color=color, alpha=0.45, linewidth=0)
        axes.plot([], [], color=color, linewidth=7, alpha=0.45, label=f"{share:.1%} on both axes")
    axes.set(xlim=(-2.3, 2.3), ylim=(-6.4, 6.4))
    style(axes, "z = ε + ε³/3: strips keep their share", "ε", "z")


def _draw_pushed(axes: Axes, g: Function, epsilon: Tensor) -> None:
    z = torch.linspace(-6.0, 6.0, 601, dtype=torch.float64)
    _dots(axes, g(epsilon), -6.0, 6.0, BLUE, 60)
    axes.plot(z, pushed_density(g, z), color=BLUE, alpha=0.6, label=r"$p(g^{-1}(z))\,/\,g'(g^{-1}(z))$")
    label = r"$p(g^{-1}(z))$ alone: not a density"
    axes.plot(z, density(inverse(g, z)), color=RED, linestyle="--", label=label)
    axes.set_ylim(0.0, 0.53)
    style(axes, "Its density: computed (line), counted (dots)", "z", "density")


def main(options: Options) -> None:
    """Draws, checks the moments and the change of variables, and writes standardise.png."""
    n = 20_000 if options.quick else 400_000
    epsilon = sample((n,), generator=generator(options.seed)).double()
    print(f"N(0, 1) → N(μ, σ²) by μ + σ·ε, {n} draws (± one standard error)")
    for mean, std in TARGETS:
        print(f"  μ {mean:5g}, σ {std:3g}: {moments(mean + std * epsilon)}")
    draws = {
        name: sample((n,), name, generator=generator(options.seed, 1 + i)).double()  # type: ignore[arg-type]
        for i, name in enumerate(QUANTILES)
    }
    print("10 + 5·ε with other families")
    for name, values in draws.items():
        print(f"  {name:10}: {moments(10.0 + 5.0 * values)}")
    print("change of variables: largest gap between the integrated density of g(ε) and P(ε ≤ g⁻¹(z))")
    for label, g in MAPS.items():
        print(f"  g(ε) = {label:9} {identity_gap(g, 2_001 if options.quick else 20_001):.1e}")
    drawing, (scales, families, strips, pushed) = figure(2, 2, 9.6, 6.8)
    _draw_scales(scales, epsilon)
    _draw_families(families, draws)
    _draw_map(strips, MAPS["ε + ε³/3"])
    _draw_pushed(pushed, MAPS["ε + ε³/3"], epsilon)
    save(drawing, options.out, "standardise")


if __name__ == "__main__":
    run(main, __doc__)
