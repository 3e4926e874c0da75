"""Pure tensor maths of value learning: bootstrap policies, targets, losses. No module, no state.

Names carry the time index of their transition s, a → R, discount, s': a bare name belongs to s and a `next_` to s'.
`discount` is γ^k·(1 − terminated), so nothing here knows of endings, n or γ.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Loss = Literal["huber", "squared"]


def greedy(q_values: Tensor) -> Tensor:
    """The greedy action [B] of q_values [B, A]; the first of equals."""
    return q_values.argmax(dim=-1)


def gather_actions(q_values: Tensor, action: Tensor) -> Tensor:
    """q(s, a) [B] of q_values [B, A] and action [B]."""
    return q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def bellman_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """R + γ^k·(1 − terminated)·v(s'), each [B] (Sutton & Barto 2018, eq. 7.1 for k steps)."""
    return reward + discount * next_value


def td_loss(value: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The unreduced loss [B] of values [B] and targets [B].

    Huber with threshold 1 (Mnih et al. 2015 clip the error to ±1, the same gradient), or ½·error².
    """
    if loss == "huber":
        return F.smooth_l1_loss(value, target, reduction="none")
    return 0.5 * F.mse_loss(value, target, reduction="none")
