"""The random draw, outside the network: ε ~ p(ε) and the reparameterisation trick's split of it per layer.

Kingma & Welling 2014 (arXiv 1312.6114) §2.4: a sample z = g(μ, σ, ε) is a deterministic, differentiable function
of its parameters once ε is an argument. Fortunato et al. 2018 (NoisyNet, arXiv 1706.10295) put the weights of a
network in the place of z. Here ε is always drawn by the caller: one flat tensor for the whole network per use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

Distribution = Literal["normal", "uniform", "laplace", "logistic"]
NoiseSizes = tuple[int, int]


class LayerNoise(NamedTuple):
    """The noise of one layer with p inputs and q outputs, for N draws.

    Factorised: input is f(ε) [N, p] and output is f(ε) [N, q]. Independent: input is ε [N, q·p], one number per
    weight, and output is ε [N, q], one per bias.
    """

    input: Tensor
    output: Tensor


def signed_sqrt(x: Tensor) -> Tensor:
    """f(x) = sgn(x)·√|x|, of the shape of x: makes f(ε_out)·f(ε_in) a noise of the weights' own scale (§3b)."""
    return x.abs().sqrt_().copysign_(x)


def _open_uniform(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """U(0, 1) without 0: torch draws multiples of 2⁻²⁴ in [0, 1), so both tails of a quantile function are finite."""
    return torch.rand(shape, generator=generator, device=device).clamp_(min=2.0**-25)


def _normal(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator, device=device)


def _uniform(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    return (torch.rand(shape, generator=generator, device=device) - 0.5).mul_(sqrt(12.0))


def _laplace(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    u = _open_uniform(shape, generator, device) - 0.5
    # |u| = ½ would need log 0; the open uniform reaches it on neither side.
    return (1.0 - 2.0 * u.abs()).clamp_(min=2.0**-25).log_().mul_(-1.0 / sqrt(2.0)).copysign_(u)


def _logistic(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.logit(_open_uniform(shape, generator, device)).mul_(sqrt(3.0) / pi)


_Draw = Callable[[Sequence[int], torch.Generator | None, torch.device], Tensor]

#: Base distributions of location-scale families: symmetric, mean 0, variance 1.
DISTRIBUTIONS: Final[dict[str, _Draw]] = {
    "normal": _normal,
    "uniform": _uniform,
    "laplace": _laplace,
    "logistic": _logistic,
}


def sample(
    shape: Sequence[int],
    distribution: Distribution = "normal",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws ε: float32 of the given shape, independent, mean 0, variance 1.

    Raises:
        ValueError: for a distribution that is not in DISTRIBUTIONS.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution {distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}")
    return DISTRIBUTIONS[distribution](shape, generator, torch.device(device))


def split(noise: Tensor, sizes: Sequence[NoiseSizes]) -> list[LayerNoise]:
    """Cuts a flat draw [N, Σ sizes] into the layers' own parts: views, nothing is copied."""
    parts = noise.split([size for pair in sizes for size in pair], dim=-1)
    return [LayerNoise(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]


@dataclass(frozen=True)
class NoiseModel:
    """How the noise of a whole network is drawn.

    Attributes:
        size: numbers in one draw, the sum of the layers' noise sizes; 0 for a network without noisy layers.
        factorised: whether f is applied to the draw (factorised Gaussian noise, §3b) or not (independent, §3a).
        distribution: the base distribution of ε.
    """

    size: int
    factorised: bool = True
    distribution: Distribution = "normal"

    def draw(
        self, *shape: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Draws [*shape, size] numbers at once; None (the mean network) where there is nothing to draw."""
        if self.size == 0:
            return None
        epsilon = sample((*shape, self.size), self.distribution, generator=generator, device=device)
        return signed_sqrt(epsilon) if self.factorised else epsilon
