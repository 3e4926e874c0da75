"""The loss of a batch: a pure function of networks, batch and draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from agent.config.algorithm import AgentConfig
from agent.learning import targets
from agent.networks.heads.base import Head, Values

if TYPE_CHECKING:
    from agent.replay.batch import Batch


#: Observation, noise and levels → values, as QNetwork's call.
Network = Callable[[Tensor, Tensor | None, Tensor | None], Values]


class Levels(NamedTuple):
    """Levels τ that were drawn for a batch of B rows: prediction [B, K] and target [B, K']."""

    prediction: Tensor
    target: Tensor

    def grouped(self, groups: int) -> Levels:
        """The same, in as many groups as Batch.grouped makes of the batch."""
        if groups in (1, len(self.prediction)):
            return self
        return Levels(*(tau.view(groups, -1, tau.shape[-1]) for tau in self))


def learning_target(
    config: AgentConfig, head: Head, batch: Batch, following: Values, selection: Values, here: Values | None
) -> Tensor:
    """What the predictions at s, a shall become: see Head.target for its shape.

    Args:
        config: the algorithm.
        head: of the target network.
        batch: B transitions.
        following: the target network at s'.
        selection: what chooses the next action: the online network at s' for double Q-learning, else `following`.
        here: the target network at s, for Munchausen targets.
    """
    reward, soft = batch.reward, config.munchausen
    if here is None:
        outcome = targets.gather_actions(following.outcomes, targets.greedy(selection.q_values))
    else:
        # Vieillard et al. 2020, eq. 1: the entropy of π(·|s') is part of the value of s'.
        reward = targets.munchausen_reward(reward, here.q_values, batch.action, soft.alpha, soft.temperature, soft.clip)
        policy, entropy = targets.soft_policy(following.q_values, soft.temperature)
        reward = targets.bellman_target(reward, batch.discount, entropy)
        outcome = targets.mix_actions(following.outcomes, policy)
    return head.target(outcome, reward, batch.discount, config.target_range)


def batch_loss(
    head: Head, prediction: Values, action: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The mean of the rows' losses, weighted where there are weights [B], and then also priorities [B]."""
    losses = head.loss(prediction, action, target)
    if weight is None:
        return losses.mean(), None
    rows = losses.reshape(len(weight), -1).mean(dim=1)  # of several predictions for each row, the mean
    priority = head.priority(prediction, action, target, losses).detach().reshape(len(weight), -1).mean(dim=1)
    return (rows * weight).mean(), priority


def loss_on(
    config: AgentConfig,
    online: Network,
    target: Network,
    heads: tuple[Head, Head],
    batch: Batch,
    draws: Tensor | None,
    levels: Levels | None,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The mean loss on a batch, a function of its arguments alone, and priorities [B] where there are weights.

    Args:
        config: the algorithm.
        online: the network that learns; called as QNetwork is.
        target: the target network.
        heads: of both.
        batch: B transitions.
        draws: [2 or 3, N, size], for prediction, target and (with double Q-learning) selection; N divides B. Of
            indices also [2 or 3, N, M, size], M for each row.
        levels: for a head of implicit quantiles.
        weight: [B], of the rows' losses in the mean.
    """
    if draws is not None:
        batch = batch.grouped(draws.shape[1])
        levels = None if levels is None else levels.grouped(draws.shape[1])
        batch = batch.repeated(draws.shape[2]) if draws.dim() == 4 else batch
    tau, next_tau = (None, None) if levels is None else levels
    prediction_noise, target_noise, *selection_noise = (None,) * 3 if draws is None else draws.unbind()
    with torch.no_grad():
        following = selection = target(batch.next_observation, target_noise, next_tau)
        if config.double:
            selection = online(batch.next_observation, selection_noise[0], None)
        here = target(batch.observation, target_noise, None) if config.munchausen.enabled else None
        learned = learning_target(config, heads[1], batch, following, selection, here)
    prediction = online(batch.observation, prediction_noise, tau)
    return batch_loss(heads[0], prediction, batch.action, learned, weight)
