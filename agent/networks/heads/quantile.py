"""Quantiles of the return at fixed levels: QR-DQN (Dabney et al. 2018a)."""

from typing import NamedTuple

import torch
from torch import Tensor

from agent.networks.heads.base import Head, HeadParts, Limits, Sizes, bellman_target, gather_actions


class QuantileValues(NamedTuple):
    """The values of a quantile head: q_values [..., A], quantiles [..., A, K], and their levels [..., K].

    If all rows have the same levels, the leading dimensions of `levels` have size 1 or are missing.
    """

    q_values: Tensor
    quantiles: Tensor
    levels: Tensor

    @property
    def outcomes(self) -> Tensor:
        """The quantiles [..., A, K]."""
        return self.quantiles


def midpoints(count: int) -> Tensor:
    """The midpoints [count] of equal parts of (0, 1): (2i + 1)/(2K) for i from 0 (Dabney et al. 2018a, lemma 2)."""
    return (torch.arange(count) + 0.5) / count


class SampledHead(Head[QuantileValues]):
    """A head that learns quantiles from samples of the target distribution. Each subclass sets `kappa`."""

    kappa: float

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """Samples [..., K] of the target distribution, for an outcome [..., K]."""
        target = bellman_target(reward.unsqueeze(-1), discount.unsqueeze(-1), outcome)
        return target if limits is None else target.clamp(*limits)

    def loss(self, prediction: QuantileValues, action: Tensor, target: Tensor) -> Tensor:
        """The quantile Huber loss [...] against samples [..., K'] of the target distribution."""
        quantiles = gather_actions(prediction.quantiles, action)
        return quantile_loss(quantiles, prediction.levels, target, self.kappa)


class QuantileHead(SampledHead):
    """Quantiles of the return at fixed levels: QR-DQN (Dabney et al. 2018a, arXiv 1710.10044).

    Args:
        sizes: the sizes and layers of the streams.
        count: K.
        kappa: κ, the threshold of the quantile Huber loss.
    """

    takes_truth_values = True
    levels: Tensor

    def __init__(self, sizes: Sizes, count: int, kappa: float) -> None:
        super().__init__(sizes, count)
        self.kappa = kappa
        self.register_buffer("levels", midpoints(count), persistent=False)

    def values(self, outputs: Tensor) -> QuantileValues:
        """The values for outputs [..., A, K], which are the quantiles."""
        return QuantileValues(outputs.mean(dim=-1), outputs, self.levels)


#: The most pairs of quantiles that a CPU computes at once: they then stay in its cache, which is twice as fast.
PAIRS = 2**18


def quantile_loss(quantiles: Tensor, levels: Tensor, target: Tensor, kappa: float) -> Tensor:
    """The quantile Huber loss [...]: Σ_i E_j ρ_τi(target_j − quantile_i) (Dabney et al. 2018a, algorithm 1).

    ρ_τ(u) = |τ − 1{u < 0}|·L_κ(u)/κ (Dabney et al. 2018b, eq. 3), and |τ − 1{u < 0}|·|u| for κ = 0. One pass over the
    K·K' pairs computes values and slopes together; autograd would need several passes.

    Args:
        quantiles: [..., K], the predicted quantiles.
        levels: [..., K], their levels in (0, 1).
        target: [..., K'], samples of the target distribution; they receive no gradient.
        kappa: κ, the error at which the loss turns from a parabola into a line.
    """
    with torch.no_grad():
        value, slope = _quantile_terms(quantiles, levels.expand_as(quantiles), target, kappa)
    return (value + slope * (quantiles.detach() - quantiles)).sum(dim=-1)  # the bracket is 0 and has the slope −1


def _quantile_terms(quantiles: Tensor, levels: Tensor, target: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """E_j ρ_τi(target_j − quantile_i) and E_j ρ'_τi, each [..., K]."""
    if quantiles.device.type == "cpu" and len(quantiles) > 1 and quantiles.numel() * target.shape[-1] > PAIRS:
        halves = zip(quantiles.chunk(2), levels.chunk(2), target.chunk(2), strict=True)
        (value, slope), (other_value, other_slope) = (_quantile_terms(q, t, y, kappa) for q, t, y in halves)
        return torch.cat((value, other_value)), torch.cat((slope, other_slope))
    error = target.unsqueeze(-2) - quantiles.unsqueeze(-1)  # u [..., K, K']
    bounded, level = error.clamp(-kappa, kappa), levels.unsqueeze(-1)
    slope = error.sign() if kappa == 0.0 else bounded / kappa  # L'_κ(u)/κ
    slope *= torch.where(error < 0.0, 1.0 - level, level)
    value = slope * error.sub_(bounded, alpha=0.5)  # L_κ(u) = [u]·(u − ½[u]), u clipped to ±κ
    return value.mean(dim=-1), slope.mean(dim=-1)


def build(parts: HeadParts) -> QuantileHead:
    """Builds the head that `agent.quantile` describes."""
    return QuantileHead(parts.sizes, parts.config.quantile.count, parts.config.quantile.kappa)
