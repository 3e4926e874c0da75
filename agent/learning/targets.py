"""Pure tensor maths of value learning: bootstrap policies, targets, losses. No module, no state.

Names carry the time index of their transition s, a → R, discount, s': a bare name belongs to s and a `next_` to s'.
`discount` is γ^k·(1 − terminated), so nothing here knows of endings, n or γ.

Shapes: [...] are the rows of a batch, in one dimension or in groups of rows; A actions, K atoms or quantiles.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.config.algorithm import Loss

#: Pairs of quantiles that a CPU goes through at once: their numbers stay in its cache, twice as fast.
PAIRS = 2**18


# ---- which action, or which mixture of actions


def greedy(q_values: Tensor) -> Tensor:
    """The greedy action [...] of q_values [..., A]; the first of equals."""
    return q_values.argmax(dim=-1)


def gather_actions(values: Tensor, action: Tensor) -> Tensor:
    """What values [..., A] or [..., A, K] say of action [...]: [...] or [..., K]."""
    rows = action.dim()
    index = action.reshape(*action.shape, *(1,) * (values.dim() - rows))
    return torch.take_along_dim(values, index, dim=rows).squeeze(rows)


def mix_actions(values: Tensor, policy: Tensor) -> Tensor:
    """Σ_a π(a)·values(a) of values [..., A] or [..., A, K] and π [..., A]: [...] or [..., K]."""
    rows = policy.dim() - 1
    weights = policy.reshape(*policy.shape, *(1,) * (values.dim() - policy.dim()))
    return (weights * values).sum(dim=rows)


def soft_policy(q_values: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """π = softmax(q/τ) [..., A] and its scaled entropy −τ·Σ_a π(a)·ln π(a) [...] (Vieillard et al. 2020, §2)."""
    log_policy = torch.log_softmax(q_values / temperature, dim=-1)
    policy = log_policy.exp()
    return policy, -temperature * (policy * log_policy).sum(dim=-1)


# ---- targets


def bellman_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """R + γ^k·(1 − terminated)·v(s'), each [...] (Sutton & Barto 2018, eq. 7.1 for k steps).

    For quantiles or atoms at s', reward and discount are [..., 1] and next_value is [..., K].
    """
    return reward + discount * next_value


def munchausen_reward(
    reward: Tensor, q_values: Tensor, action: Tensor, alpha: float, temperature: float, clip: float
) -> Tensor:
    """R + α·[τ·ln π(a|s)] clipped to [clip, 0], π = softmax(q/τ) (Vieillard et al. 2020, eq. 1 and §3).

    Args:
        reward: [...].
        q_values: [..., A], of the target network at s.
        action: [...], the action that was taken at s.
        alpha: α.
        temperature: τ.
        clip: l₀, the least that a nearly impossible action can cost.
    """
    log_policy = temperature * torch.log_softmax(q_values / temperature, dim=-1)
    return reward + alpha * gather_actions(log_policy, action).clamp(clip, 0.0)


def project(probabilities: Tensor, positions: Tensor, atoms: Tensor) -> Tensor:
    """Moves masses to evenly spaced atoms: each is shared by its two neighbours (Bellemare et al. 2017, eq. 7).

    m_i = Σ_j [1 − |[x_j] − z_i| / Δz] p_j, the inner brackets clipped to [z_1, z_K], the outer to [0, 1]. Written out
    as it stands: a matrix for each row, and no scatter.

    Args:
        probabilities: p [..., K'].
        positions: x [..., K'], where these masses lie.
        atoms: z [K], rising.

    Returns:
        m [..., K], of the same total.
    """
    width = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    distance = (positions.clamp(atoms[0], atoms[-1]).unsqueeze(-2) - atoms.unsqueeze(-1)).abs()
    return ((1.0 - distance / width).clamp(0.0, 1.0) @ probabilities.unsqueeze(-1)).squeeze(-1)


# ---- losses, unreduced


def td_loss(value: Tensor, target: Tensor, loss: Loss, threshold: float = 1.0) -> Tensor:
    """The unreduced loss [...] of values [...] and targets [...].

    Huber: ½·error² up to `threshold`, a line from there (1: Mnih et al. 2015 clip the error to ±1, the same
    gradient); or ½·error² everywhere.
    """
    if loss == "huber":
        return F.huber_loss(value, target, reduction="none", delta=threshold)
    return 0.5 * F.mse_loss(value, target, reduction="none")


def categorical_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """KL(target ‖ prediction) [...] of log-probabilities and target masses, [..., K].

    Its gradient is that of the cross-entropy (Bellemare et al. 2017, algorithm 1); the divergence itself, which is 0
    where nothing is left to learn, is also Rainbow's priority (Hessel et al. 2018, "Integrated agent").
    """
    return (torch.xlogy(target, target) - target * log_probabilities).sum(dim=-1)


def quantile_loss(quantiles: Tensor, tau: Tensor, target: Tensor, kappa: float) -> Tensor:
    """The quantile Huber loss [...]: Σ_i E_j ρ_τi(target_j − quantile_i) (Dabney et al. 2018a, algorithm 1).

    ρ_τ(u) = |τ − 1{u < 0}|·L_κ(u)/κ (Dabney et al. 2018b, eq. 3), and |τ − 1{u < 0}|·|u| for κ = 0. The K·K' pairs
    are gone through once, for values and slopes together, which autograd would do several times over.

    Args:
        quantiles: [..., K], predicted.
        tau: [..., K], their levels in (0, 1).
        target: [..., K'], samples of the target distribution; no gradient flows to them.
        kappa: κ, where the loss goes over from a parabola to a line.
    """
    with torch.no_grad():
        value, slope = _quantile_terms(quantiles, tau.expand_as(quantiles), target, kappa)
    return (value + slope * (quantiles.detach() - quantiles)).sum(dim=-1)  # the bracket is 0, with the slope −1


def _quantile_terms(quantiles: Tensor, tau: Tensor, target: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """E_j ρ_τi(target_j − quantile_i) and E_j ρ'_τi, each [..., K]."""
    if quantiles.device.type == "cpu" and len(quantiles) > 1 and quantiles.numel() * target.shape[-1] > PAIRS:
        halves = zip(quantiles.chunk(2), tau.chunk(2), target.chunk(2), strict=True)
        (value, slope), (other_value, other_slope) = (_quantile_terms(q, t, y, kappa) for q, t, y in halves)
        return torch.cat((value, other_value)), torch.cat((slope, other_slope))
    error = target.unsqueeze(-2) - quantiles.unsqueeze(-1)  # u [..., K, K']
    bounded, level = error.clamp(-kappa, kappa), tau.unsqueeze(-1)
    slope = error.sign() if kappa == 0.0 else bounded / kappa  # L'_κ(u)/κ
    slope *= torch.where(error < 0.0, 1.0 - level, level)
    value = slope * error.sub_(bounded, alpha=0.5)  # L_κ(u) = [u]·(u − ½[u]), u clipped to ±κ
    return value.mean(dim=-1), slope.mean(dim=-1)
