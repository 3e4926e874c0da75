"""Convolutional trunks: images → features. Plain, without noise: a noisy network's noise is in its linear layers.

A trunk is a module with `features`, the length of what it gives for one image.
"""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.errors import UserError


class Convolution(nn.Module):
    """A 2-D convolution drawn from U[±1/√fan-in] by a generator of the caller's.

    Shapes: x [B, inputs, H, W] → [B, outputs, H', W'].

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the square window.
        stride: step of the window.
        padding: zeros around the image.
        spectral_norm: divide the weight by its largest singular value (Miyato et al. 2018), here the exact one: it is
            a function of the weight alone, with no estimate to carry along, save and keep in step.
        generator: draws the initial parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        spectral_norm: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.outputs, self.kernel, self.stride, self.padding = outputs, kernel, stride, padding
        self.spectral_norm = spectral_norm
        bound = 1.0 / sqrt(inputs * kernel * kernel)
        with torch.no_grad():
            self.weight = nn.Parameter(
                torch.empty(outputs, inputs, kernel, kernel).uniform_(-bound, bound, generator=generator)
            )
            self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [B, inputs, H, W] to [B, outputs, H', W']."""
        weight = self.weight / largest_singular_value(self.weight) if self.spectral_norm else self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    def side(self, length: int) -> int:
        """H' of H, or W' of W."""
        return (length + 2 * self.padding - self.kernel) // self.stride + 1

    def extra_repr(self) -> str:
        """What `print(network)` shows of this layer."""
        spectral = ", spectral norm" if self.spectral_norm else ""
        sizes = f"{self.weight.shape[1]}, {self.outputs}, kernel={self.kernel}"
        return f"{sizes}, stride={self.stride}, padding={self.padding}{spectral}"


def largest_singular_value(weight: Tensor) -> Tensor:
    """Of weight [q, …] as a matrix W [q, p]: a scalar, exact up to rounding, with its gradient uvᵀ.

    (W·Wᵀ)^128 by seven squarings is u·uᵀ but for a factor, unless two singular values agree within a per cent or so,
    when the error is of the order of their difference squared.
    """
    matrix = weight.flatten(1)
    with torch.no_grad():
        power = matrix @ matrix.mT
        for _ in range(7):
            power = power / power.norm().clamp(min=1e-30)
            power = power @ power
        u = power.index_select(1, power.diagonal().argmax().unsqueeze(0)).squeeze(1)
        u = u / u.norm().clamp(min=1e-30)
    value: Tensor = (u @ matrix).norm().clamp(min=1e-12)
    return value


class Convolutions(nn.Module):
    """Convolutions, each followed by a ReLU, then flattened: images [B, channels, H, W] → [B, features].

    Args:
        shape: [channels, H, W] of the images.
        layers: (outputs, kernel, stride) of each.
        generator: draws the initial parameters.

    Raises:
        UserError: where the images are too small.
    """

    def __init__(
        self, shape: Sequence[int], layers: Sequence[tuple[int, int, int]], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.layers = nn.ModuleList()
        for outputs, kernel, stride in layers:
            if min(sides) < kernel:
                raise UserError(
                    f"images of {list(shape)} are too small for this encoder: choose another agent.network.encoder"
                )
            layer = Convolution(channels, outputs, kernel, stride, generator=generator)
            channels, sides = outputs, [layer.side(side) for side in sides]
            self.layers.append(layer)
        self.features = channels * sides[0] * sides[1]

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [B, channels, H, W] to features [B, features]."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.flatten(1)


#: (outputs, kernel, stride): the one convolution of Young & Tian (2019) for images of 10×10, …
MINATAR = ((16, 3, 1),)
#: … and the three of Mnih et al. (2015) for images of 84×84.
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), of one shape all along."""

    def __init__(self, channels: int, spectral_norm: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.first, self.second = (
            Convolution(channels, channels, 3, 1, 1, spectral_norm=spectral_norm, generator=generator) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [B, channels, H, W] to the same shape."""
        y: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + y


class Impala(nn.Module):
    """The residual trunk of Espeholt et al. (2018), as wide and regularised as in Beyond the Rainbow (2024).

    Three stages: a 3×3 convolution, a 3×3 max-pool of stride 2, two residual blocks. At the end an adaptive max-pool
    to `pool`×`pool`, whatever the size of the images; then they are flattened.

    Args:
        shape: [channels, H, W] of the images.
        width: multiplies the channels, 16, 32, 32.
        pool: side after the adaptive max-pool; None leaves it out.
        spectral_norm: of the convolutions in the residual blocks.
        generator: draws the initial parameters.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 1,
        pool: int | None = None,
        spectral_norm: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.pool = pool
        self.stages = nn.ModuleList()
        for outputs in (16 * width, 32 * width, 32 * width):
            entry = Convolution(channels, outputs, 3, 1, 1, generator=generator)
            blocks = [Residual(outputs, spectral_norm, generator) for _ in range(2)]
            self.stages.append(nn.Sequential(entry, nn.MaxPool2d(3, 2, 1), *blocks))
            channels, sides = outputs, [(side + 1) // 2 for side in sides]
        self.features = channels * (sides[0] * sides[1] if pool is None else pool * pool)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [B, channels, H, W] to features [B, features]."""
        for stage in self.stages:
            x = stage(x)
        x = torch.relu(x)
        return (x if self.pool is None else F.adaptive_max_pool2d(x, self.pool)).flatten(1)
