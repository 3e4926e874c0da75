"""Encoders: observation → features, for vectors, for images, and for both together.

`encoder_registry.py` chooses one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from agent.common.arrays import floats
from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.config.parts import NetworkConfig
from agent.noise.distributions import LayerNoise, NoiseSizes
from agent.noise.layers import LinearFactory


def normalisation(width: int, layer_norm: bool) -> nn.Module:
    """The module between a linear layer and its ReLU: layer normalisation (Ba et al. 2016) or the identity."""
    return nn.LayerNorm(width) if layer_norm else nn.Identity()


class Encoder(nn.Module):
    """The base class of encoders.

    Attributes:
        features: the length of the features.
        noise_sizes: the noise sizes of the linear layers, in their order.

    Shapes: observation [..., *spec.shape] and one noise per linear layer → features [..., self.features].
    """

    features: int
    noise_sizes: tuple[NoiseSizes, ...]


class MLPEncoder(Encoder):
    """A stack of linear layers, each followed by a ReLU. Without hidden layers the features are the observation.

    Shapes: observation [..., inputs] → features [..., self.features]. Truth values are features as they are, since a
    linear layer can look them up.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], linear: LinearFactory, layer_norm: bool = False) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        layers = [linear(p, q) for p, q in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(normalisation(layer.out_features, layer_norm) for layer in layers)
        self.features = sizes[-1]
        self.noise_sizes = tuple(layer.noise_sizes for layer in layers)

    def forward(self, observation: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps observations [..., inputs] to features [..., self.features]."""
        x = observation if observation.dtype == torch.bool or observation.is_floating_point() else floats(observation)
        for layer, norm, layer_noise in zip(self.layers, self.norms, noise, strict=True):
            x = torch.relu(norm(layer(x, layer_noise)))
        return x


@dataclass(frozen=True)
class EncoderParts:
    """Everything that an encoder is built from."""

    observation: ObservationSpec
    hidden: tuple[int, ...]  # widths of its linear layers: agent.network.hidden without the last, which is the head's
    linear: LinearFactory  # makes a linear layer of p inputs and q outputs, noisy if noise is on
    network: NetworkConfig
    generator: torch.Generator | None  # draws the initial parameters


class TrunkEncoder(Encoder):
    """A trunk without noise, followed by linear layers.

    The trunk is any module with an attribute `features` that maps floats [B, *shape] (images in [0, 1]) to
    [B, trunk.features].

    Shapes: observation [..., *shape] → features [..., self.features].
    """

    def __init__(self, trunk: nn.Module, parts: EncoderParts) -> None:
        super().__init__()
        self.trunk, self.shape, self.scale = trunk, parts.observation.shape, 1.0 / parts.observation.high
        self.mlp = MLPEncoder(int(trunk.features), parts.hidden, parts.linear, parts.network.layer_norm)  # type: ignore[arg-type]
        self.features, self.noise_sizes = self.mlp.features, self.mlp.noise_sizes
        self.register_buffer("_scale", torch.tensor(self.scale), persistent=False)

    def forward(self, observation: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps observations [..., *shape] to features [..., self.features]."""
        scale: Tensor = self._scale  # type: ignore[assignment]
        leading = observation.shape[: -len(self.shape)]
        x = floats(observation.reshape(-1, *self.shape), scale.dtype) * scale
        return self.mlp(self.trunk(x).view(*leading, -1), noise)  # type: ignore[no-any-return]


class Flatten(nn.Module):
    """Images as vectors: the trunk of an MLP on images."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.features = prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] → [B, features]."""
        return x.flatten(1)


class PartsEncoder(Encoder):
    """Observations of several parts: an encoder for each image, a linear layer for each other part, then linear layers.

    Shapes: rows of bytes [..., n], see `agent.common.observation.packed` → features [..., self.features].

    Args:
        parts: everything that the encoder is built from; its observation has parts.
        build: builds the encoder of one image.
    """

    def __init__(self, parts: EncoderParts, build: Callable[[EncoderParts], Encoder]) -> None:
        super().__init__()
        self.spec = spec = parts.observation
        self.encoders = nn.ModuleList()
        for part in map(spec.stacked, spec.parts):
            if part.is_image:
                self.encoders.append(build(replace(parts, observation=part, hidden=())))
            else:
                width = parts.network.hidden[:1]
                self.encoders.append(MLPEncoder(part.size, width, parts.linear, parts.network.layer_norm))
        features = sum(encoder.features for encoder in self.encoders)  # type: ignore[misc]
        self.mlp = MLPEncoder(features, parts.hidden, parts.linear, parts.network.layer_norm)
        self.features = self.mlp.features
        each: list[tuple[NoiseSizes, ...]] = [encoder.noise_sizes for encoder in self.encoders]  # type: ignore[misc]
        self._depths = [len(sizes) for sizes in each]
        self.noise_sizes = (*(size for sizes in each for size in sizes), *self.mlp.noise_sizes)
        self.register_buffer("_scales", torch.tensor([1.0 / part.high for part in spec.parts]), persistent=False)

    def forward(self, observation: Tensor | list[Tensor], noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps rows of bytes [..., n] to features [..., self.features]."""
        features, start = [], 0
        for encoder, depth, part in zip(self.encoders, self._depths, self.unpacked(observation), strict=True):
            features.append(encoder(part, noise[start : start + depth]))
            start += depth
        return self.mlp(torch.cat(features, dim=-1), noise[start:])  # type: ignore[no-any-return]

    def unpacked(self, observation: Tensor | list[Tensor]) -> list[Tensor]:
        """The parts [..., *shape] of rows of bytes: images as they are stored, vectors in the network's own dtype.

        A list of parts is returned unchanged: an exported network takes the parts instead of bytes.
        """
        if isinstance(observation, list):
            return observation
        scales: Tensor = self._scales  # type: ignore[assignment]
        leading, parts, start = observation.shape[:-1], [], 0
        rows = observation.to(torch.uint8).reshape(*leading, self.spec.stack, -1)  # floats hold every byte exactly
        for part, end in zip(self.spec.parts, self.spec.ends, strict=True):
            x = rows[..., start:end]
            if part.dtype == "float32":
                x = x.contiguous().view(torch.float32)
            x = x.reshape(*leading, *self.spec.stacked(part).shape)
            parts.append(x if part.is_image else x.to(scales.dtype))
            start = end
        return parts

    def flat(self, observation: Tensor | list[Tensor]) -> Tensor:
        """All numbers [..., m] in rows of bytes, as one vector; images are scaled to [0, 1]."""
        scales: Tensor = self._scales  # type: ignore[assignment]
        forms = map(self.spec.stacked, self.spec.parts)
        parts = zip(self.unpacked(observation), forms, scales, strict=True)
        flat = [part.flatten(-len(form.shape)).to(scales.dtype) * scale for part, form, scale in parts]
        return torch.cat(flat, dim=-1)


def image(parts: EncoderParts) -> tuple[int, ...]:
    """The shape [channels, height, width] of the observations, for an encoder that needs images.

    Raises:
        UserError: if the observations are not images.
    """
    if not parts.observation.is_image:
        name = parts.network.encoder
        raise UserError(f"agent.network.encoder={name} takes images, and the observations are {parts.observation}")
    return parts.observation.shape
