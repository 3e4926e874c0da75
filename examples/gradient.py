"""Two unbiased gradients of E[f(z)] and their variances: along the path of the sample, and with the score function.

    python examples/gradient.py [--out DIR] [--seed 0] [--quick]

Pathwise: ∇θ f(g(θ, ε)). Score function: (f(z) − baseline)·∇θ log p(z; θ). Families of location and scale (mean μ,
standard deviation σ) and Gamma, whose samples torch.distributions differentiates implicitly: there is no ε to see.
See Mohamed et al. 2020, "Monte Carlo Gradient Estimation in Machine Learning" (arXiv 1906.10652).
"""

from collections.abc import Callable
from functools import partial
from math import cos, exp, log, pi, sqrt
from typing import NamedTuple

import torch
from common import BLUE, GREEN, GREY, LOG_DENSITIES, ORANGE, Function, Options, figure, generator, run, save, style
from matplotlib.axes import Axes
from torch import Tensor

from agent.noise.distributions import Distribution, sample

SCORE, BASELINE = "score function", "… with baseline E f"
EULER = 0.5772156649015329
LOC, SCALE, CONCENTRATION = 1.0, 1.0, 2.0


class Family(NamedTuple):
    """A base distribution of mean 0 and variance 1: how to draw ε [n], and log p(ε)."""

    draw: Callable[[int, torch.Generator], Tensor]
    log_density: Function


class Estimates(NamedTuple):
    """One gradient per draw [n] of the same quantity by the three estimators."""

    path: Tensor
    score: Tensor
    baseline: Tensor  # the score function with the exact mean of f taken off


def _gumbel(n: int, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(n, generator=generator, dtype=torch.float64).clamp_min(2.0**-60)
    return (-torch.log(-torch.log(uniform)) - EULER) * sqrt(6.0) / pi


def _log_gumbel(e: Tensor) -> Tensor:
    x = e * pi / sqrt(6.0) + EULER
    return -x - torch.exp(-x) + log(pi / sqrt(6.0))


def _agent_family(name: Distribution) -> Family:
    return Family(lambda n, g: sample((n,), name, generator=g).double(), LOG_DENSITIES[name])


AGENT: tuple[Distribution, ...] = ("normal", "laplace", "logistic", "uniform")
FAMILIES = {name: _agent_family(name) for name in AGENT} | {"gumbel": Family(_gumbel, _log_gumbel)}


def wave(omega: float, z: Tensor) -> Tensor:
    """f(z) = sin(ωz), steep where ω is large."""
    return torch.sin(omega * z)


def step(z: Tensor) -> Tensor:
    """f(z) = 1 if z > 0, else 0: its slope is 0 wherever it exists, so that no path leads across the jump."""
    return (z > 0).double() + 0.0 * z


def location_scale(family: Family, f: Function, epsilon: Tensor, loc: float, scale: float, mean: float) -> Estimates:
    """Gradients with respect to (μ, σ) for draws ε [n]: each estimate is [2, n]; `mean` is the baseline."""
    theta = torch.tensor([loc, scale], dtype=torch.float64).unsqueeze(1).repeat(1, len(epsilon)).requires_grad_()
    (path,) = torch.autograd.grad(f(theta[0] + theta[1] * epsilon).sum(), theta)
    z = (theta[0] + theta[1] * epsilon).detach()
    (score,) = torch.autograd.grad((family.log_density((z - theta[0]) / theta[1]) - theta[1].log()).sum(), theta)
    return Estimates(path, f(z) * score, (f(z) - mean) * score)


def gamma(f: Function, concentration: float, n: int, seed: int, mean: float) -> Estimates:
    """Gradients with respect to the concentration α of Gamma(α, 1): each estimate is [n].

    The sampler rejects, so no formula z = g(α, ε) exists; torch.distributions differentiates the distribution
    function instead, dz/dα = −∂F(z; α)/∂α / p(z; α) (Figurnov et al. 2018, arXiv 1805.08498).
    """
    alpha = torch.full((n,), concentration, dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng(devices=[]):  # torch.distributions takes no generator
        torch.manual_seed(generator(seed, 99).initial_seed())
        z = torch.distributions.Gamma(alpha, torch.ones_like(alpha)).rsample()
    (path,) = torch.autograd.grad(f(z).sum(), alpha)
    z = z.detach()
    (score,) = torch.autograd.grad(((alpha - 1.0) * z.log() - z - torch.lgamma(alpha)).sum(), alpha)
    return Estimates(path, f(z) * score, (f(z) - mean) * score)


def in_dimensions(count: int, n: int, generator: torch.Generator) -> Estimates:
    """Gradients [n] of E Σ zᵢ², z ~ N(μ, σ²) in `count` dimensions, with respect to the first μ."""
    epsilon = sample((n, count), generator=generator).double()
    total = (LOC + SCALE * epsilon).square().sum(dim=1)
    score = epsilon[:, 0] / SCALE
    mean = count * (LOC**2 + SCALE**2)
    return Estimates(2.0 * (LOC + SCALE * epsilon[:, 0]), total * score, (total - mean) * score)


def ratio_in_dimensions(count: int) -> tuple[float, float]:
    """The exact variance ratio of `in_dimensions` at μ = σ = 1: score ÷ pathwise, without and with baseline."""
    m = count - 1
    return (4.0 * m**2 + 22.0 * m + 30.0) / 4.0, (6.0 * m + 18.0) / 4.0


def ratio_of_sine(omega: float) -> float:
    """The exact variance ratio, score ÷ pathwise, for f(z) = sin(ωz), z ~ N(μ, σ²), with respect to μ."""
    w2 = (omega * SCALE) ** 2
    exact = omega * cos(omega * LOC) * exp(-0.5 * w2)  # ∂/∂μ E sin(ωz)
    fading = cos(2.0 * omega * LOC) * exp(-2.0 * w2)
    path = 0.5 * omega**2 * (1.0 + fading) - exact**2
    score = 0.5 * (1.0 - (1.0 - 4.0 * w2) * fading) / SCALE**2 - exact**2
    return score / path


def ratio(of: Tensor, to: Tensor) -> float:
    """Variance of estimates ÷ variance of others."""
    return float(of.var() / to.var())


class Row(NamedTuple):
    """A line of the table: the name of the gradient, its exact value, and the estimates [n]."""

    label: str
    exact: float
    estimates: Estimates


def rows(n: int, seed: int) -> list[Row]:
    """∂/∂μ = 2μ and ∂/∂σ = 2σ of E z² = μ² + σ² for every family; Gamma; and a step, which has no path.

    The score of the uniform is wrong: its density is flat inside the support, and so the score does not see the support
    move.
    """
    result = []
    mean = LOC**2 + SCALE**2
    for stream, (name, family) in enumerate(FAMILIES.items()):
        estimates = location_scale(family, torch.square, family.draw(n, generator(seed, stream)), LOC, SCALE, mean)
        for i, (symbol, exact) in enumerate((("μ", 2.0 * LOC), ("σ", 2.0 * SCALE))):
            result.append(Row(f"{name} {symbol}", exact, Estimates(*(part[i] for part in estimates))))
    mean = CONCENTRATION * (CONCENTRATION + 1.0)
    result.append(Row("gamma α", 2.0 * CONCENTRATION + 1.0, gamma(torch.square, CONCENTRATION, n, seed, mean)))
    normal, inside = FAMILIES["normal"], float(torch.special.ndtr(torch.tensor(LOC / SCALE)))
    jump = location_scale(normal, step, normal.draw(n, generator(seed, 50)), LOC, SCALE, inside)
    exact = exp(-0.5 * (LOC / SCALE) ** 2) / sqrt(2.0 * pi) / SCALE
    result.append(Row("step μ", exact, Estimates(*(part[0] for part in jump))))
    return result


def _summary(values: Tensor) -> str:
    return f"{float(values.mean()):7.4f} ± {float(values.std()) / sqrt(len(values)):.4f}"


def _draw_bias(axes: Axes, table: list[Row]) -> None:
    for offset, field, color, label in ((-0.15, "path", BLUE, "pathwise"), (0.15, "score", ORANGE, SCORE)):
        values = [getattr(row.estimates, field)[:10_000] for row in table]
        middle = torch.stack([v.mean() / row.exact for v, row in zip(values, table, strict=True)])
        error = torch.stack([v.std() / row.exact for v, row in zip(values, table, strict=True)]) / sqrt(len(values[0]))
        places = [i + offset for i in range(len(table))]
        axes.errorbar(places, middle, yerr=2 * error, fmt="o", color=color, markersize=4, capsize=3, label=label)
    axes.axhline(1.0, color=GREY, linewidth=1)
    axes.annotate("support moves:\nno score", (6.05, 0.02), (3.4, 0.3), fontsize=8.5, arrowprops={"arrowstyle": "->"})
    axes.annotate("f jumps:\nno path", (10.75, 0.02), (9.1, 0.3), fontsize=8.5, arrowprops={"arrowstyle": "->"})
    axes.set_xticks(range(len(table)), [row.label for row in table], rotation=40, ha="right")
    style(axes, "Estimate ÷ exact value, 10 000 draws, ± 2 errors")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")


def _draw_ratios(axes: Axes, table: list[Row]) -> None:
    valid = [row for row in table if not row.label.startswith(("uniform", "step"))]
    for offset, field, color, label in ((-0.2, "score", ORANGE, SCORE), (0.2, "baseline", GREEN, BASELINE)):
        heights = [ratio(getattr(row.estimates, field), row.estimates.path) for row in valid]
        axes.bar([i + offset for i in range(len(valid))], heights, 0.38, color=color, label=label)
    axes.axhline(1.0, color=BLUE, linewidth=1.5, label="pathwise")
    axes.set_ylim(0.0, 15.0)
    axes.set_xticks(range(len(valid)), [row.label for row in valid], rotation=40, ha="right")
    style(axes, "Variance ÷ pathwise variance, f(z) = z²")


def measure_dimensions(n: int, seed: int) -> list[tuple[int, float, float]]:
    """Dimensions, and the variance ratios found there without and with baseline."""
    counts = (1, 2, 4, 8, 16, 32, 64, 128)
    found = [in_dimensions(count, n, generator(seed, 60 + i)) for i, count in enumerate(counts)]
    return [(c, ratio(e.score, e.path), ratio(e.baseline, e.path)) for c, e in zip(counts, found, strict=True)]


def measure_sine(n: int, seed: int) -> list[tuple[float, float]]:
    """Frequencies ω, and the variance ratios found for sin(ωz)."""
    epsilon = FAMILIES["normal"].draw(n, generator(seed, 80))
    result = []
    for omega in torch.logspace(-1.5, 1.0, 11).tolist():
        found = location_scale(FAMILIES["normal"], partial(wave, omega), epsilon, LOC, SCALE, 0.0)
        result.append((omega, ratio(found.score[0], found.path[0])))
    return result


def _draw_dimensions(axes: Axes, found: list[tuple[int, float, float]]) -> None:
    counts = [count for count, _, _ in found]
    theory = [ratio_in_dimensions(count) for count in counts]
    for i, (color, label) in enumerate(((ORANGE, SCORE), (GREEN, BASELINE))):
        axes.plot(counts, [pair[i] for pair in theory], color=color, label=label)
        axes.plot(counts, [row[1 + i] for row in found], "o", color=color, markersize=5)
    axes.axhline(1.0, color=BLUE, linewidth=1.5, label="pathwise")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    style(axes, "Many noises, one gradient: f = Σ zᵢ² (normal)", "dimensions", "variance ÷ pathwise variance")


def _draw_sine(axes: Axes, found: list[tuple[float, float]]) -> None:
    grid = torch.logspace(-1.5, 1.0, 200).tolist()
    axes.plot(grid, [ratio_of_sine(omega) for omega in grid], color=ORANGE, label="score function, exact")
    axes.plot(*zip(*found, strict=True), "o", color=ORANGE, markersize=5, label="score function, measured")
    axes.axhline(1.0, color=BLUE, linewidth=1.5, label="pathwise")
    axes.set(xscale="log", yscale="log")
    style(axes, "The path can lose: f(z) = sin(ωz) (normal)", "ω", "variance ÷ pathwise variance")


def main(options: Options) -> None:
    """Estimates every gradient both ways, prints bias and variance, and writes gradient.png."""
    n = 10_000 if options.quick else 200_000
    table = rows(n, options.seed)
    print(f"gradient of E f(z), {n} draws (± one standard error); variance ÷ pathwise variance")
    print(f"  {'':11} {'exact':>7}  {'pathwise':>17}  {'score function':>17}  {'ratio':>6}  with baseline")
    for label, exact, (path, score, baseline) in table:
        ratios = f"{ratio(score, path):6.1f}  {ratio(baseline, path):6.1f}" if path.var() > 0 else "     –       –"
        print(f"  {label:11} {exact:7.4f}  {_summary(path)}  {_summary(score)}  {ratios}")
    dimensions, frequencies = measure_dimensions(n // 10, options.seed), measure_sine(n, options.seed)
    print("f = Σ zᵢ²: variance ratio, without and with baseline (exact)")
    for count, plain, based in dimensions[::3] + dimensions[-1:]:
        exact_plain, exact_based = ratio_in_dimensions(count)
        print(f"  {count:3d} dimensions: {plain:9.1f} ({exact_plain:9.1f})  {based:6.1f} ({exact_based:6.1f})")
    print("f = sin(ωz): variance ratio (exact)")
    for omega, found in frequencies[::2]:
        print(f"  ω {omega:6.3f}: {found:10.4g} ({ratio_of_sine(omega):10.4g})")
    drawing, (top_left, top_right, bottom_left, bottom_right) = figure(2, 2, 10.4, 7.4)
    _draw_bias(top_left, table)
    _draw_ratios(top_right, table)
    _draw_dimensions(bottom_left, dimensions)
    _draw_sine(bottom_right, frequencies)
    save(drawing, options.out, "gradient")


if __name__ == "__main__":
    run(main, __doc__)
