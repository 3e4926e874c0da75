"""Quantiles of the return at levels that the caller passes: IQN (Dabney et al. 2018b)."""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from agent.networks.heads.base import HeadParts, Sizes
from agent.networks.heads.quantile import QuantileValues, SampledHead, midpoints
from agent.noise.distributions import LayerNoise


class ImplicitQuantileHead(SampledHead):
    """The quantile function of the return at levels τ, an argument: IQN (Dabney et al. 2018b, arXiv 1806.06923).

    Features ψ(x) [..., p] are multiplied by an embedding of each level, φ(τ) = ReLU(W·cos(πiτ) + b), i = 0 … n − 1
    (eq. 4); the input of the streams is then [..., K, p]. Acting and evaluation pass no levels: the head then uses
    fixed, evenly spaced levels, so that its values are a function of the observation.

    Deviation: the paper draws separate levels to choose the next action. Here the mean of the target network's
    quantiles chooses it; with double Q-learning the online network chooses it, at the fixed levels.

    Args:
        sizes: the sizes and layers of the streams; the embedding uses the same kind of layer.
        acting: number of fixed levels.
        samples: numbers of levels that are drawn for the prediction and for the target of a row.
        cosines: n.
        kappa: κ, the threshold of the quantile Huber loss.
    """

    levels: Tensor
    frequencies: Tensor
    level_counts: tuple[int, int]

    def __init__(self, sizes: Sizes, acting: int, samples: tuple[int, int], cosines: int, kappa: float) -> None:
        super().__init__(sizes)
        self.level_counts, self.kappa = samples, kappa
        self.embedding = sizes.linear(cosines, sizes.features)
        self.register_buffer("levels", midpoints(acting), persistent=False)
        self.register_buffer("frequencies", pi * torch.arange(cosines), persistent=False)
        self.noise_sizes = (*self.noise_sizes, self.embedding.noise_sizes)

    def forward(
        self, features: Tensor, noise: Sequence[LayerNoise | None], levels: Tensor | None = None
    ) -> QuantileValues:
        """Maps features [..., p] to the values of every action, at levels [..., K] or at the fixed levels."""
        *stream_noise, embedding_noise = noise
        if levels is None:
            rows = 1 if embedding_noise is None else embedding_noise.output.shape[0]
            # All rows have the same levels, so each draw of noise needs one embedding only.
            levels = self.levels.expand(rows, *(1,) * (features.dim() - 2), -1)
        embedded = torch.relu(self.embedding(torch.cos(levels.unsqueeze(-1) * self.frequencies), embedding_noise))
        quantiles = self.outputs(features.unsqueeze(-2) * embedded, stream_noise).mT  # [..., A, K]
        return QuantileValues(quantiles.mean(dim=-1), quantiles, levels)


def build(parts: HeadParts) -> ImplicitQuantileHead:
    """Builds the head that `agent.implicit_quantile` describes."""
    options = parts.config.implicit_quantile
    samples = options.samples, options.target_samples
    return ImplicitQuantileHead(parts.sizes, options.acting, samples, options.cosines, options.kappa)
