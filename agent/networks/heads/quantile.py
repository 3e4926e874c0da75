"""Quantiles of the return at fixed levels: QR-DQN (Dabney et al. 2018a)."""

from typing import NamedTuple

import torch
from torch import Tensor

from agent.learning import targets
from agent.networks.heads.base import Head, Limits, Sizes


class QuantileValues(NamedTuple):
    """What a quantile head says of a batch: q_values [..., A], quantiles [..., A, K], and their levels.

    `tau` are the levels [..., K], with dimensions of size 1, or none, where they are the same for all rows.
    """

    q_values: Tensor
    quantiles: Tensor
    tau: Tensor

    @property
    def outcomes(self) -> Tensor:
        """The quantiles [..., A, K]."""
        return self.quantiles


def midpoints(count: int) -> Tensor:
    """The middles [count] of equal parts of (0, 1): (2i + 1)/(2K) for i from 0 (Dabney et al. 2018a, lemma 2)."""
    return (torch.arange(count) + 0.5) / count


class SampledHead(Head):
    """What both quantile heads learn: quantiles, by samples of the target distribution. `kappa` is set by each."""

    kappa: float

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """Samples of the target distribution [..., K], of an outcome [..., K]."""
        target = targets.bellman_target(reward.unsqueeze(-1), discount.unsqueeze(-1), outcome)
        return target if limits is None else target.clamp(*limits)

    def loss(self, prediction: QuantileValues, action: Tensor, target: Tensor) -> Tensor:
        """The quantile Huber loss [...] against samples [..., K'] of the target distribution."""
        quantiles = targets.gather_actions(prediction.quantiles, action)
        return targets.quantile_loss(quantiles, prediction.tau, target, self.kappa)


class QuantileHead(SampledHead):
    """Quantiles of the return at fixed levels: QR-DQN (Dabney et al. 2018a, arXiv 1710.10044).

    Args:
        sizes: of the streams.
        count: K.
        kappa: threshold of the quantile Huber loss.
    """

    tau: Tensor

    def __init__(self, sizes: Sizes, count: int, kappa: float) -> None:
        super().__init__(sizes, count)
        self.kappa = kappa
        self.register_buffer("tau", midpoints(count), persistent=False)

    def values(self, outputs: Tensor) -> QuantileValues:
        """The values of outputs [..., A, K], the quantiles."""
        return QuantileValues(outputs.mean(dim=-1), outputs, self.tau)
