"""The random draw, outside the network: ε ~ p(ε) and the reparameterisation trick's split of it per layer.

Kingma & Welling 2014 (arXiv 1312.6114) §2.4: a sample z = g(μ, σ, ε) is a deterministic, differentiable function
of its parameters once ε is an argument. Fortunato et al. 2018 (NoisyNet, arXiv 1706.10295) put the weights of a
network in the place of z. Here ε is always drawn by the caller: one flat tensor for the whole network per use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Distribution = Literal["normal", "uniform", "laplace", "logistic"]
NoiseSizes = tuple[int, int]


class LayerNoise(NamedTuple):
    """The noise of one layer with p inputs and q outputs, for N draws.

    Factorised: input is f(ε) [N, p] and output is f(ε) [N, q]. Independent: input is ε [N, q·p], one number per
    weight, and output is ε [N, q], one per bias. Index: input is ξ [N, d] or [N, M, d], and output is not used.
    """

    input: Tensor
    output: Tensor


def signed_sqrt(x: Tensor) -> Tensor:
    """f(x) = sgn(x)·√|x|, of the shape of x: makes f(ε_out)·f(ε_in) a noise of the weights' own scale (§3b)."""
    return x.abs().sqrt_().copysign_(x)


def _laplace(p: Tensor) -> Tensor:
    return -torch.sign(p - 0.5) * torch.log1p(-2.0 * (p - 0.5).abs()) / sqrt(2.0)


#: Base distributions of location-scale families by their quantile functions: symmetric, mean 0, variance 1.
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
        return torch.randn(shape, generator=generator, device=device)
    # torch draws multiples of 2⁻²⁴ in [0, 1); half a step up and none of them is 0 or 1.
    wide = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
    uniform = (
        torch.rand(shape, generator=generator, device=device)
        .to(wide)
        .add_(2.0**-25)
        .clamp_(max=1.0 - torch.finfo(wide).eps / 2)
    )
    return quantile(uniform, distribution).float()


def split(noise: Tensor, sizes: Sequence[NoiseSizes]) -> list[LayerNoise]:
    """Cuts a flat draw [N, Σ sizes] into the layers' own parts: views, nothing is copied."""
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


class DeviceNoise:
    """A stream of draws made on an accelerator, by its own generator."""

    def __init__(self, model: NoiseModel, seed: np.random.SeedSequence, device: torch.device | str) -> None:
        self.model, self._device = model, torch.device(device)
        self._generator = torch.Generator(device=self._device)
        self._generator.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    def draw(self, *shape: int) -> Tensor | None:
        """The next draw [*shape, model.size]; None where there is nothing to draw."""
        return self.model.draw(*shape, generator=self._generator, device=self._device)

    draw_array = draw  # there are arrays on the CPU alone

    def generators(self) -> list[torch.Generator]:
        """What it draws from on the device."""
        return [self._generator]

    def state(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"kind": self._device.type, "generator": self._generator.get_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where `state` stood; a state of another kind of device starts the stream anew from its seed."""
        if state["kind"] == self._device.type:
            self._generator.set_state(state["generator"])


class TableNoise:
    """A stream of draws on the CPU, several times as fast as torch's: 16 random bits pick one of 2¹⁶ quantiles.

    The values are the quantiles at (i + ½)/2¹⁶, scaled to variance 1, with f applied beforehand: no draw differs
    from the continuous distribution's by more than 2⁻¹⁵ in probability (Kolmogorov's distance).
    """

    SIZE = 2**16
    BLOCK = 2**14  # numbers that are drawn ahead: small draws are then slices

    def __init__(self, model: NoiseModel, seed: np.random.SeedSequence) -> None:
        self.model = model
        self._bits = np.random.SFC64(seed)
        self._before = self._bits.state  # of the block
        self._block, self._taken = np.empty(0, dtype=np.float32), 0
        middles = (torch.arange(self.SIZE, dtype=torch.float64) + 0.5) / self.SIZE
        values = quantile(middles, model.distribution)
        values /= values.square().mean().sqrt()
        self._table = (signed_sqrt(values) if model.factorised else values).float().numpy()

    def draw(self, *shape: int) -> Tensor | None:
        """The next draw [*shape, model.size]; None where there is nothing to draw."""
        drawn = self.draw_array(*shape)
        return None if drawn is None else torch.from_numpy(drawn)

    def draw_array(self, *shape: int) -> np.ndarray | None:
        """The same as an array."""
        count = prod(shape) * self.model.size
        if count == 0:
            return None
        if self._taken + count > len(self._block):
            self._draw_block(self.BLOCK if 4 * count < self.BLOCK else count)
        self._taken += count
        return self._block[self._taken - count : self._taken].reshape(*shape, self.model.size)

    def _draw_block(self, count: int) -> None:
        self._before = self._bits.state
        picks = self._bits.random_raw(-(-count // 4)).view(np.uint16)[:count]  # four to a 64-bit word
        self._block, self._taken = self._table.take(picks, mode="wrap"), 0  # no pick is outside; this mode is faster

    def generators(self) -> list[torch.Generator]:
        """None of torch's."""
        return []

    def state(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"kind": "table", "bits": self._before, "block": len(self._block), "taken": self._taken}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where `state` stood; a state of an accelerator's stream starts this one anew from its seed."""
        if state["kind"] == "table":
            self._bits.state = state["bits"]
            self._draw_block(state["block"])
            self._taken = state["taken"]


NoiseStream = DeviceNoise | TableNoise


def noise_stream(model: NoiseModel, seed: np.random.SeedSequence, device: torch.device | str) -> NoiseStream:
    """The fastest stream of draws for a device."""
    return TableNoise(model, seed) if torch.device(device).type == "cpu" else DeviceNoise(model, seed, device)
