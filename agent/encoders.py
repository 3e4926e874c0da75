"""Observation → features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from agent.layers import LinearFactory
from agent.noise import LayerNoise, NoiseSizes


def normalisation(width: int, layer_norm: bool) -> nn.Module:
    """What stands between a linear layer and its ReLU: layer normalisation (Ba et al. 2016) or nothing."""
    return nn.LayerNorm(width) if layer_norm else nn.Identity()


class MLPEncoder(nn.Module):
    """A stack of linear layers, each followed by a ReLU; without hidden layers, the observation itself.

    Shapes: observation [B, inputs] → features [B, self.features].
    """

    def __init__(self, inputs: int, hidden: Sequence[int], linear: LinearFactory, layer_norm: bool = False) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        layers = [linear(p, q) for p, q in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(normalisation(layer.out_features, layer_norm) for layer in layers)
        self.features = sizes[-1]
        self.noise_sizes: tuple[NoiseSizes, ...] = tuple(layer.noise_sizes for layer in layers)

    def forward(self, observation: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps observations [B, inputs] to features [B, self.features]."""
        x = observation
        for layer, norm, layer_noise in zip(self.layers, self.norms, noise, strict=True):
            x = torch.relu(norm(layer(x, layer_noise)))
        return x
