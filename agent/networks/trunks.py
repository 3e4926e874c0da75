"""Convolutional trunks: images → features. They have no noise: only the linear layers of a noisy network are noisy.

A trunk is a module with `features`, the length of its output for one image.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.common.errors import UserError


class Convolution(nn.Module):
    """A 2-D convolution with parameters drawn from U[±1/√fan-in] by the caller's generator.

    Shapes: x [B, inputs, H, W] → [B, outputs, H', W'].

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the square window.
        stride: stride of the window.
        padding: width of the border of zeros.
        spectral_norm: whether to divide the weight by its largest singular value (Miyato et al. 2018). The value is
            computed from the weight alone: there is no running estimate to save.
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

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """Maps x [B, inputs, H, W] to [B, outputs, H', W']; `norm` is the spectral norm, if it is already known."""
        if self.spectral_norm and norm is None:
            (norm,) = spectral_norms([self])
        weight = self.weight if norm is None else self.weight / norm
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    def side(self, length: int) -> int:
        """The output side H' or W' for an input side H or W."""
        return (length + 2 * self.padding - self.kernel) // self.stride + 1

    def extra_repr(self) -> str:
        """The layer's part of `print(network)`."""
        spectral = ", spectral norm" if self.spectral_norm else ""
        sizes = f"{self.weight.shape[1]}, {self.outputs}, kernel={self.kernel}"
        return f"{sizes}, stride={self.stride}, padding={self.padding}{spectral}"


def spectral_norms(layers: Sequence[Convolution]) -> list[Tensor | None]:
    """The spectral norms of the layers' weights, computed together for each shape; None for layers without one."""
    norms: list[Tensor | None] = [None] * len(layers)
    of_shape: dict[torch.Size, list[int]] = {}
    for place, layer in enumerate(layers):
        if layer.spectral_norm:
            of_shape.setdefault(layer.weight.shape, []).append(place)
    for places in of_shape.values():
        values = largest_singular_values(torch.stack([layers[place].weight for place in places]))
        for place, value in zip(places, values.unbind(), strict=True):
            norms[place] = value
    return norms


def largest_singular_values(weights: Tensor) -> Tensor:
    """The largest singular values [n] of weights [n, q, …], each a matrix W [q, p]; the gradient of each is uvᵀ.

    Seven squarings give (W·Wᵀ)^128, which is u·uᵀ up to a factor. If the two largest singular values agree within about
    a per cent, the error is of the order of their difference squared; otherwise it is rounding error. Nothing is
    computed in bfloat16.
    """
    with torch.autocast(weights.device.type, enabled=False):
        matrices = weights.flatten(2)
        with torch.no_grad():
            power = matrices @ matrices.mT
            for squaring in range(7):
                if squaring % 3 == 0:  # between these, the largest of the q rows stays above q⁻⁴
                    power = power / power.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
                power = power @ power
            longest = power.diagonal(dim1=1, dim2=2).argmax(dim=1).view(-1, 1, 1).expand(-1, 1, power.shape[2])
            u = power.gather(1, longest)  # [n, 1, q]: rows serve as columns, since power is symmetric
            u = u / u.norm(dim=2, keepdim=True).clamp(min=1e-30)
        values: Tensor = (u @ matrices).norm(dim=(1, 2)).clamp(min=1e-12)
        return values


def channels_last(x: Tensor) -> Tensor:
    """Images [B, channels, H, W] in the memory layout that suits many convolutions: channels last on CUDA.

    In the other layout cuDNN rearranges its inputs and outputs, which takes an eighth of a residual trunk's update. For
    three convolutions the conversion does not pay. Values and indices stay equal.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x


class Convolutions(nn.Module):
    """Convolutions, each followed by a ReLU, then flattened: images [B, channels, H, W] → [B, features].

    Args:
        shape: [channels, H, W] of the images.
        layers: (outputs, kernel, stride) of each convolution.
        generator: draws the initial parameters.

    Raises:
        UserError: if the images are too small.
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


# The layers of three trunks, each (outputs, kernel, stride).

#: One convolution, for images of 10×10 (Young & Tian 2019).
MINATAR = ((16, 3, 1),)
#: Three convolutions, for images of 84×84 (Mnih et al. 2015).
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
#: Two convolutions, for few data (van Hasselt et al. 2019).
DATA_EFFICIENT = ((32, 5, 5), (64, 5, 5))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))). All terms have the shape of x."""

    def __init__(self, channels: int, spectral_norm: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.first, self.second = (
            Convolution(channels, channels, 3, 1, 1, spectral_norm=spectral_norm, generator=generator) for _ in range(2)
        )

    def forward(self, x: Tensor, norms: Iterator[Tensor | None]) -> Tensor:
        """Maps x [B, channels, H, W] to the same shape; `norms` yields the spectral norms of both convolutions next."""
        y = self.first(torch.relu(x), next(norms))
        y = self.second(torch.relu(y), next(norms))
        return torch.add(x, y)


class Impala(nn.Module):
    """The residual trunk of Espeholt et al. (2018), with the width and regularisation of Beyond the Rainbow (2024).

    Each of three stages is a 3×3 convolution, a 3×3 max-pool of stride 2 and two residual blocks. An adaptive max-pool
    then reduces the result to `pool`×`pool`, and it is flattened.

    Args:
        shape: [channels, H, W] of the images.
        width: multiplies the channels of the stages, which are 16, 32 and 32.
        pool: side after the adaptive max-pool; None for no adaptive max-pool.
        spectral_norm: whether the convolutions of the residual blocks have spectral normalisation.
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
        self.pool = nn.Identity() if pool is None else nn.AdaptiveMaxPool2d(pool)
        self.stages = nn.ModuleList()
        for outputs in (16 * width, 32 * width, 32 * width):
            entry = Convolution(channels, outputs, 3, 1, 1, generator=generator)
            blocks = [Residual(outputs, spectral_norm, generator) for _ in range(2)]
            self.stages.append(nn.Sequential(entry, nn.MaxPool2d(3, 2, 1), *blocks))
            channels, sides = outputs, [(side + 1) // 2 for side in sides]
        self.features = channels * (sides[0] * sides[1] if pool is None else pool * pool)
        blocks = [module for module in self.modules() if isinstance(module, Residual)]
        self._normed = [layer for block in blocks for layer in (block.first, block.second)]

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [B, channels, H, W] to features [B, features]."""
        norms = iter(spectral_norms(self._normed))
        x = channels_last(x)
        for stage in self.stages:
            for part in stage.children():
                x = part(x, norms) if isinstance(part, Residual) else part(x)
        return self.pool(torch.relu(x)).flatten(1)  # type: ignore[no-any-return]
