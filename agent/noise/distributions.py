"""Draws ε ~ p(ε) outside the network, and splits a draw into the parts of the layers.

Kingma & Welling 2014 (arXiv 1312.6114) §2.4: a sample z = g(μ, σ, ε) is a deterministic, differentiable function
of its parameters once ε is an argument. Fortunato et al. 2018 (NoisyNet, arXiv 1706.10295) apply this to the weights
of a network; §3 below refers to their paper. The caller draws ε as one flat tensor for each use of the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Distribution = Literal["normal", "uniform", "laplace", "logistic"]


#: The lengths of the two parts of a layer's LayerNoise: (p, q) factorised, (q·p, q) independent, (0, 0) without noise.
NoiseSizes = tuple[int, int]


class LayerNoise(NamedTuple):
    """The noise of one layer with p inputs and q outputs, for N draws.

    Factorised: input is f(ε) [N, p] and output is f(ε) [N, q]. Independent: input is ε [N, q·p], one number per
    weight, and output is ε [N, q], one per bias. Index: both are ξ [N, d] or [N, M, d]; layers read only the input.
    """

    input: Tensor
    output: Tensor


def signed_sqrt(x: Tensor) -> Tensor:
    """f(x) = sgn(x)·√|x|, elementwise: the product f(ε_out)·f(ε_in) then has about the scale of ε (§3b)."""
    return x.abs().sqrt_().copysign_(x)


def _laplace(p: Tensor) -> Tensor:
    return -torch.sign(p - 0.5) * torch.log1p(-2.0 * (p - 0.5).abs()) / sqrt(2.0)


#: The quantile function of each base distribution of ε. Each distribution is symmetric, with mean 0 and variance 1.
QUANTILES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "normal": torch.special.ndtri,
    "uniform": lambda p: (p - 0.5) * sqrt(12.0),
    "laplace": _laplace,
    "logistic": lambda p: torch.logit(p) * (sqrt(3.0) / pi),
}


def quantile(p: Tensor, distribution: Distribution) -> Tensor:
    """The quantile of the distribution at each probability p in (0, 1), elementwise.

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
    # torch draws multiples of 2⁻²⁴ in [0, 1). Adding half a step keeps them away from 0 and 1.
    wide = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
    uniform = (
        torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
        .to(wide)
        .add_(2.0**-25)
        .clamp_(max=1.0 - torch.finfo(wide).eps / 2)
    )
    return quantile(uniform, distribution).float()


def split(noise: Tensor, sizes: Sequence[NoiseSizes]) -> list[LayerNoise]:
    """Splits a flat draw [N, Σ sizes] into the parts of the layers, as views."""
    parts = torch.split(noise, [size for pair in sizes for size in pair], dim=-1)
    return [LayerNoise(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]


def is_output_noise(sizes: Sequence[NoiseSizes]) -> np.ndarray:
    """Which numbers of a flat draw are output noise, bool [Σ sizes]: scaling only these scales factorised noise."""
    return np.concatenate([np.repeat([False, True], pair) for pair in sizes])


@dataclass(frozen=True)
class NoiseModel:
    """How the noise of a whole network is drawn.

    Attributes:
        size: how many numbers one draw has: the sum of the layers' noise sizes; 0 for a network without noisy layers.
        factorised: whether f is applied to the draw (factorised Gaussian noise, §3b) or not (independent, §3a).
        distribution: the base distribution of ε.
    """

    size: int
    factorised: bool = True
    distribution: Distribution = "normal"

    def draw(
        self, *shape: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Draws [*shape, size] numbers at once; None (the mean network) if size is 0."""
        if self.size == 0:
            return None
        return self._of(sample((*shape, self.size), self.distribution, generator=generator, device=device))

    def draw_each(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Draws [len(generators), size], each row from its own generator on the CPU, as `draw` would."""
        return self._of(torch.stack([sample((self.size,), self.distribution, generator=each) for each in generators]))

    def _of(self, epsilon: Tensor) -> Tensor:
        return signed_sqrt(epsilon) if self.factorised else epsilon
