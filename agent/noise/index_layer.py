"""Index noise: one index ξ ∈ R^d for the whole network selects a member of a family of value functions.

An ensemble has K members. Here the members form a continuum, μ + Σ_k ξ_k·σ_k, and ξ selects one of them (HyperAgent:
Li et al. 2024, arXiv 2402.10228; index sampling: Osband et al. 2023, arXiv 2107.08924). This is the reparameterisation
trick with d random numbers, instead of one for each row and column of a layer. Prediction and target of a transition
can use the same ξ; both are then values of the same member, and its uncertainty propagates through the Bellman
equation. Independent draws would average this uncertainty away.
"""

from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.common.observation import ObservationSpec
from agent.noise.distributions import LayerNoise
from agent.noise.layers import Linear, product

#: The default σ0 of the index form: each σ_k starts at the scale of μ.
INDEX_SIGMA0 = 1.0


def along(spread: Tensor, index: Tensor) -> Tensor:
    """Σ_k ξ_k·spread_k: the sum of the d directions of each row, weighted with an index.

    Args:
        spread: [B, ..., d, q].
        index: ξ [N, d], or M indices for each row [N, M, d]; N is 1 or B.

    Returns:
        [B, ..., q], or [B, ..., M, q].
    """
    several = index if index.dim() == 3 else index.unsqueeze(1)
    inner = (1,) * (spread.dim() - 3)  # dimensions between the row and the directions share the row's index
    result = several.reshape(several.shape[0], *inner, *several.shape[1:]) @ spread
    return result if index.dim() == 3 else result.squeeze(-2)


class IndexLinear(Linear):
    """y = μx + b_μ + Σ_k ξ_k·(σ_k x + b_k), k = 1 … d. The caller passes ξ.

    μ ~ U[±1/√p] as in any linear layer, and σ_k ~ U[±σ0/√p]. The directions must differ at the start, because equal
    directions would stay equal. The state_dict holds μ as `weight` and `bias`, and σ as `sigma_weight` [d·q, p] and
    `sigma_bias` [d·q].

    Args:
        in_features: p.
        out_features: q.
        index: d.
        sigma0: σ0 (None: 1.0).
        generator: draws the initial parameters (None: torch's default generator).

    Raises:
        ValueError: for sizes below 1 or a negative sigma0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        index: int,
        *,
        sigma0: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, out_features, generator=generator)
        if index < 1:
            raise ValueError(f"index is {index}: it needs at least one dimension")
        if sigma0 is not None and sigma0 < 0:
            raise ValueError(f"sigma0 is {sigma0}: it must be at least 0")
        self.index = index
        bound = (INDEX_SIGMA0 if sigma0 is None else sigma0) / sqrt(in_features)
        sigma = torch.empty(index * out_features, in_features + 1).uniform_(-bound, bound, generator=generator)
        self.sigma_weight = nn.Parameter(sigma[:, :-1].clone())
        self.sigma_bias = nn.Parameter(sigma[:, -1].clone())

    def forward(self, x: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """Maps x [B, ..., p] to [B, ..., q]; with M indices for each row, to [B, ..., M, q]."""
        mean = product(x, self.weight, self.bias)
        if noise is None:
            return mean
        index = noise.input
        if index.shape[0] not in (1, x.shape[0]) or x.dim() < 2:
            raise ValueError(f"an index of shape {tuple(index.shape)} does not fit an input of {tuple(x.shape)}")
        spread = product(x, self.sigma_weight, self.sigma_bias)
        spread = spread.view(*x.shape[:-1], self.index, self.out_features)
        return (mean if index.dim() == 2 else mean.unsqueeze(-2)) + along(spread, index)

    def mean_sigma(self) -> Tensor:
        """Mean |σ|·√p, a scalar without gradient; it starts at σ0/2."""
        return self.sigma_weight.detach().abs().mean() * sqrt(self.in_features)

    def extra_repr(self) -> str:
        """The layer's part of `print(network)`."""
        return f"{super().extra_repr()}, index={self.index}"


class Prior(nn.Module):
    """A fixed random function of observation and index, added to the action values (Osband et al. 2018, 1806.03335).

    It is scale·Σ_k ξ_k·v_k(s), where v is a hidden layer of normalised features with a random linear output. The
    members differ in states without data; in states with data, the trained network learns to cancel the prior. The
    prior is linear in ξ and therefore 0 for the mean network, ξ = 0. Its tensors are buffers: they are saved with the
    agent and never trained.

    Args:
        observation: the form of the observations.
        hidden: the width of the hidden layer.
        actions: A.
        index: d.
        scale: about the standard deviation of each scale·v_k; the sum has √d times it if ξ has variance 1.
        generator: draws the tensors (None: torch's default generator).
    """

    weight: Tensor
    directions: Tensor

    def __init__(
        self,
        observation: ObservationSpec,
        hidden: int,
        actions: int,
        index: int,
        scale: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self._shape, self._high, self.index, self.scale = observation.shape, observation.high, index, scale
        inputs = prod(observation.shape)
        self.register_buffer("weight", torch.randn(hidden, inputs, generator=generator) / sqrt(inputs))
        # After the ReLU half of the normalised features are 0, and the mean square of the others is 1.
        scaled = torch.randn(index * actions, hidden, generator=generator) * sqrt(2.0 / hidden)
        self.register_buffer("directions", scaled)

    def forward(self, observation: Tensor, index: Tensor) -> Tensor:
        """Maps observations [B, ..., *shape] and ξ [N, d] or [N, M, d] to [B, ..., A] or [B, ..., M, A]."""
        leading = observation.shape[: observation.dim() - len(self._shape)]
        x = observation.reshape(*leading, -1)
        if x.dtype != torch.bool:
            x = x.to(self.weight.dtype)
        if self._high != 1.0:
            x = x / self._high
        features = torch.relu(F.layer_norm(product(x, self.weight), self.weight.shape[:1]))
        spread = F.linear(features, self.directions)
        return self.scale * along(spread.view(*leading, self.index, -1), index)
