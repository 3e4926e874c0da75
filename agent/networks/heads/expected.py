"""One number per action: the expected return (Mnih et al. 2015)."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from agent.config.algorithm import Loss
from agent.networks.heads.base import Head, HeadParts, Limits, Sizes, bellman_target, gather_actions


class ExpectedValues(NamedTuple):
    """The values of the expected head: q_values [..., A]."""

    q_values: Tensor

    @property
    def outcomes(self) -> Tensor:
        """The q_values [..., A]."""
        return self.q_values


class ExpectedHead(Head[ExpectedValues]):
    """q(s, a) as one number per action (Mnih et al. 2015). `loss` is Huber's loss with `threshold`, or squared."""

    takes_truth_values = True

    def __init__(self, sizes: Sizes, loss: Loss = "huber", threshold: float = 1.0) -> None:
        super().__init__(sizes)
        self.loss_name: Loss = loss
        self.threshold = threshold

    def values(self, outputs: Tensor) -> ExpectedValues:
        """The outputs [..., A] as values, unchanged."""
        return ExpectedValues(outputs)

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """The target [...] for an outcome [...], the value of the next state."""
        target = bellman_target(reward, discount, outcome)
        return target if limits is None else target.clamp(*limits)

    def loss(self, prediction: ExpectedValues, action: Tensor, target: Tensor) -> Tensor:
        """The unreduced loss [...] of q(s, a) against target [...]."""
        value = gather_actions(prediction.q_values, action)
        return td_loss(value, target, self.loss_name, self.threshold)

    def priority(self, prediction: ExpectedValues, action: Tensor, target: Tensor, loss: Tensor) -> Tensor:
        """|δ| [...], the absolute TD error (Schaul et al. 2016, §3.3)."""
        return (gather_actions(prediction.q_values.detach(), action) - target).abs()


def td_loss(value: Tensor, target: Tensor, loss: Loss, threshold: float = 1.0) -> Tensor:
    """The unreduced loss [...] of values [...] against targets [...].

    Huber's loss is ½·error² up to `threshold` and linear beyond it. With threshold 1 its gradient is the error clipped
    to ±1, as in Mnih et al. 2015. The squared loss is ½·error² everywhere.
    """
    if loss == "huber":
        return F.huber_loss(value, target, reduction="none", delta=threshold)
    return 0.5 * F.mse_loss(value, target, reduction="none")


def build(parts: HeadParts) -> ExpectedHead:
    """Builds the head that `agent.loss` and `agent.huber_threshold` describe."""
    return ExpectedHead(parts.sizes, parts.config.loss, parts.config.huber_threshold)
