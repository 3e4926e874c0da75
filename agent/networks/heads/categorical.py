"""The distribution of the return over evenly spaced atoms: C51 (Bellemare et al. 2017)."""

from typing import NamedTuple

import torch
from torch import Tensor

from agent.networks.heads.base import Head, HeadParts, Limits, Sizes, bellman_target, gather_actions


class CategoricalValues(NamedTuple):
    """The values of the categorical head: q_values [..., A] and logits [..., A, K]."""

    q_values: Tensor
    logits: Tensor

    @property
    def outcomes(self) -> Tensor:
        """The masses of the atoms [..., A, K]."""
        return torch.softmax(self.logits, dim=-1)


class CategoricalHead(Head[CategoricalValues]):
    """The distribution of the return over evenly spaced atoms: C51 (Bellemare et al. 2017).

    Args:
        sizes: the sizes and layers of the streams.
        atoms: K.
        v_min: the lowest atom.
        v_max: the highest atom.
    """

    takes_truth_values = True
    atoms: Tensor

    def __init__(self, sizes: Sizes, atoms: int, v_min: float, v_max: float) -> None:
        super().__init__(sizes, atoms)
        self.register_buffer("atoms", torch.linspace(v_min, v_max, atoms), persistent=False)

    def values(self, outputs: Tensor) -> CategoricalValues:
        """The values of outputs [..., A, K], the logits."""
        return CategoricalValues((torch.softmax(outputs, dim=-1) * self.atoms).sum(dim=-1), outputs)

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """The target masses [..., K] for an outcome [..., K]: atoms are moved, clipped and projected (algorithm 1)."""
        moved = bellman_target(reward.unsqueeze(-1), discount.unsqueeze(-1), self.atoms)
        return project(outcome, moved if limits is None else moved.clamp(*limits), self.atoms)

    def loss(self, prediction: CategoricalValues, action: Tensor, target: Tensor) -> Tensor:
        """KL(target ‖ prediction) [...] for target masses [..., K]."""
        logits = gather_actions(prediction.logits, action)
        return categorical_loss(torch.log_softmax(logits, dim=-1), target)


def project(probabilities: Tensor, positions: Tensor, atoms: Tensor) -> Tensor:
    """Moves masses to evenly spaced atoms: two neighbouring atoms share each mass (Bellemare et al. 2017, eq. 7).

    m_i = Σ_j [1 − |[x_j] − z_i| / Δz] p_j, with the inner bracket clipped to [z_1, z_K] and the outer to [0, 1]. The
    code evaluates this formula as a matrix product for each row, without scatter operations.

    Args:
        probabilities: p [..., K'].
        positions: x [..., K'], the positions of these masses.
        atoms: z [K], increasing.

    Returns:
        m [..., K], with the same sum as p.
    """
    last = len(atoms) - 1
    place = ((positions - atoms[0]) / ((atoms[-1] - atoms[0]) / last)).clamp(0.0, last)  # in units of Δz, from z_1
    distance = (place.unsqueeze(-2) - torch.arange(last + 1, device=atoms.device).unsqueeze(-1)).abs()
    return ((1.0 - distance).clamp(0.0, 1.0) @ probabilities.unsqueeze(-1)).squeeze(-1)


def categorical_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """KL(target ‖ prediction) [...] from log-probabilities and target masses, both [..., K].

    Its gradient is that of the cross-entropy (Bellemare et al. 2017, algorithm 1); the divergence itself is 0
    when nothing is left to learn, and is also Rainbow's priority (Hessel et al. 2018, "Integrated agent").
    """
    return (torch.xlogy(target, target) - target * log_probabilities).sum(dim=-1)


def build(parts: HeadParts) -> CategoricalHead:
    """Builds the head that `agent.categorical` describes."""
    options = parts.config.categorical
    return CategoricalHead(parts.sizes, options.atoms, options.v_min, options.v_max)
