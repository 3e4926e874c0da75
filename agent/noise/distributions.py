"""The random draw ε ~ p(ε), which happens outside the network, and its split into the parts of the layers.

Kingma & Welling 2014 (arXiv 1312.6114) §2.4: a sample z = g(μ, σ, ε) is a deterministic, differentiable function
of its parameters once ε is an argument. Fortunato et al. 2018 (NoisyNet, arXiv 1706.10295) put the weights of a
network in the place of z; §3 below is theirs. Here the caller draws ε: one flat tensor for each use of the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

Distribution = Literal["normal", "uniform", "laplace", "logistic"]


#: How many numbers of noise a layer takes, as the two parts of its LayerNoise: (p, q), (q·p, q), or (0, 0) for none.
NoiseSizes = tuple[int, int]


class LayerNoise(NamedTuple):
    """The noise of one layer with p inputs and q outputs, for N draws.

    Factorised: input is f(ε) [N, p] and output is f(ε) [N, q]. Independent: input is ε [N, q·p], one number per
    weight, and output is ε [N, q], one per bias. Index: input is ξ [N, d] or [N, M, d], and output is not used.
    """

    input: Tensor
    output: Tensor


def signed_sqrt(x: Tensor) -> Tensor:
    """f(x) = sgn(x)·√|x|, elementwise: it keeps the scale of the product f(ε_out)·f(ε_in) near that of ε (§3b)."""
    return x.abs().sqrt_().copysign_(x)


def _laplace(p: Tensor) -> Tensor:
    return -torch.sign(p - 0.5) * torch.log1p(-2.0 * (p - 0.5).abs()) / sqrt(2.0)


#: The quantile functions of the base distributions of ε: each is symmetric, of mean 0 and variance 1.
QUANTILES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "normal": torch.special.ndtri,
    "uniform": lambda p: (p - 0.5) * sqrt(12.0),
    "laplace": _laplace,
    "logistic": lambda p: torch.logit(p) * (sqrt(3.0) / pi),
}


def quantile(p: Tensor, distribution: Distribution) -> Tensor:
    """The value below which a share p of the distribution lies, elementwise; p in (0, 1).

    Raises:
        ValueError: for a distribution that is not in QUANTILES.
    """
    if distribution not in QUANTILES:
        raise ValueError(f"unknown distribution {distribution!r}: choose one of {', '.join(QUANTILES)}")
    return QUANTILES[distribution](p)


def sample(
    shape: Sequence[int],
    distribution: Distribution = "normal",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws ε: float32 of the given shape, independent, mean 0, variance 1.

    Raises:
        ValueError: for a distribution that is not in QUANTILES.
    """
    if distribution == "normal":
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    # torch draws multiples of 2⁻²⁴ in [0, 1); half a step is added, so that none of them is 0 or 1.
    wide = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
    uniform = (
        torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
        .to(wide)
        .add_(2.0**-25)
        .clamp_(max=1.0 - torch.finfo(wide).eps / 2)
    )
    return quantile(uniform, distribution).float()


def split(noise: Tensor, sizes: Sequence[NoiseSizes]) -> list[LayerNoise]:
    """Cuts a flat draw [N, Σ sizes] into the parts of the layers, which are views of it."""
    parts = torch.split(noise, [size for pair in sizes for size in pair], dim=-1)
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
