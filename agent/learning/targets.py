"""Greedy action selection and Munchausen targets: pure functions of tensors.

The targets and losses of the heads are in agent/networks/heads/.

For a transition s, a → R, discount, s', a plain name refers to s and a name with `next_` refers to s'.
`discount` is γ^k·(1 − terminated), so no function of this file needs to know endings, n or γ.

Shapes: [...] are the rows of a batch, in one dimension or in groups; A actions, K atoms or quantiles.
"""

import torch
from torch import Tensor

from agent.networks.heads.base import gather_actions


def greedy(q_values: Tensor) -> Tensor:
    """The greedy action [...] for q_values [..., A]; among equal values the first."""
    return q_values.argmax(dim=-1)


def mix_actions(values: Tensor, policy: Tensor) -> Tensor:
    """Σ_a π(a)·values(a), [...] or [..., K], for values [..., A] or [..., A, K] and a policy π [..., A]."""
    rows = policy.dim() - 1
    weights = policy.reshape(*policy.shape, *(1,) * (values.dim() - policy.dim()))
    return (weights * values).sum(dim=rows)


def soft_policy(q_values: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """π = softmax(q/τ) [..., A] and its scaled entropy −τ·Σ_a π(a)·ln π(a) [...] (Vieillard et al. 2020, §2)."""
    log_policy = torch.log_softmax(q_values / temperature, dim=-1)
    policy = log_policy.exp()
    return policy, -temperature * (policy * log_policy).sum(dim=-1)


def munchausen_reward(
    reward: Tensor, q_values: Tensor, action: Tensor, alpha: float, temperature: float, clip: float
) -> Tensor:
    """R + α·[τ·ln π(a|s)], the bracket clipped to [clip, 0], π = softmax(q/τ) (Vieillard et al. 2020, eq. 1 and §3).

    Args:
        reward: [...].
        q_values: [..., A], the values of the target network at s.
        action: [...], the action at s.
        alpha: α.
        temperature: τ.
        clip: l₀, the lower bound of the bracket.
    """
    log_policy = temperature * torch.log_softmax(q_values / temperature, dim=-1)
    return reward + alpha * gather_actions(log_policy, action).clamp(clip, 0.0)
