"""The distribution of the return over evenly spaced atoms: C51 (Bellemare et al. 2017)."""

from typing import NamedTuple

import torch
from torch import Tensor

from agent.learning import targets
from agent.networks.heads.base import Head, Limits, Sizes


class CategoricalValues(NamedTuple):
    """What the categorical head says of a batch: q_values [..., A] and logits [..., A, K]."""

    q_values: Tensor
    logits: Tensor

    @property
    def outcomes(self) -> Tensor:
        """The masses of the atoms [..., A, K]."""
        return torch.softmax(self.logits, dim=-1)


class CategoricalHead(Head):
    """The return's distribution over evenly spaced atoms: C51 (Bellemare et al. 2017).

    Args:
        sizes: of the streams.
        atoms: K.
        v_min: the lowest atom.
        v_max: the highest atom.
    """

    atoms: Tensor

    def __init__(self, sizes: Sizes, atoms: int, v_min: float, v_max: float) -> None:
        super().__init__(sizes, atoms)
        self.register_buffer("atoms", torch.linspace(v_min, v_max, atoms), persistent=False)

    def values(self, outputs: Tensor) -> CategoricalValues:
        """The values of outputs [..., A, K], the logits."""
        return CategoricalValues((torch.softmax(outputs, dim=-1) * self.atoms).sum(dim=-1), outputs)

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """The target masses [..., K] of an outcome [..., K]: its atoms, moved, clipped and projected (algorithm 1)."""
        moved = targets.bellman_target(reward.unsqueeze(-1), discount.unsqueeze(-1), self.atoms)
        return targets.project(outcome, moved if limits is None else moved.clamp(*limits), self.atoms)

    def loss(self, prediction: CategoricalValues, action: Tensor, target: Tensor) -> Tensor:
        """KL(target ‖ prediction) [...] of target masses [..., K]."""
        logits = targets.gather_actions(prediction.logits, action)
        return targets.categorical_loss(torch.log_softmax(logits, dim=-1), target)
