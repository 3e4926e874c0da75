"""The loss of one update, computed from a batch and noise, on one screen.

Autograd and the compiler use `update_loss`. The NumPy backend takes `learning_target` and `batch_loss` from here, or
for some heads its own version (agent/compute/numpy/losses.py).

Every function of this file is pure: its result depends only on the parameters of the networks, the batch, the noise and
the quantile levels. The learning target is called `goal`, because `target` is the target network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple

import torch
from torch import Tensor

from agent.common.arrays import as_tensor
from agent.common.errors import plain
from agent.common.foreign import OwnCodeError
from agent.config.algorithm import AgentConfig
from agent.config.parts import NoiseConfig
from agent.learning import targets
from agent.networks.heads.base import AnyHead, Values, bellman_target, gather_actions
from agent.replay.batch import A, Batch

#: A QNetwork as a function: observation [B, *shape], noise and quantile levels → values.
Network = Callable[[Tensor, Tensor | None, Tensor | None], Values]


class Networks(NamedTuple):
    """The networks of an update. In `noisy`, the online network, only σ learns: the other parameters are constants."""

    online: Network
    target: Network
    noisy: Network


class UpdateNoise(NamedTuple, Generic[A]):
    """Draws of the network's noise, one for each use in an update (Fortunato et al. 2018, §3).

    The draws are independent unless `agent.noise.share` is set. Each is [N, size], with one draw for every B / N rows,
    or [N, M, size] if each row is learned under M indices. None stands for the mean network. Only double Q-learning
    uses `selection`.

    With `agent.noise.learning=separate` only `sigma` is not None: σ learns from the last rows of the batch under it.
    """

    prediction: A | None = None
    target: A | None = None
    selection: A | None = None
    sigma: A | None = None

    def tensors(self, device: torch.device) -> UpdateNoise[Tensor]:
        """The same draws as tensors: arrays go to the device, and tensors stay where they are."""
        return UpdateNoise(*(None if draw is None else as_tensor(draw, device) for draw in self))


class Levels(NamedTuple):
    """Quantile levels in (0, 1) for a batch of B rows: prediction [B, K], target [B, K']. None: those of the head."""

    prediction: Tensor | None = None
    target: Tensor | None = None


NO_LEVELS = Levels()


def update_loss(
    config: AgentConfig,
    networks: Networks,
    head: AnyHead,
    batch: Batch[Tensor],
    noise: UpdateNoise[Tensor],
    levels: Levels,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The mean loss on a batch, a scalar, and the new priorities [B] if the rows have weights (otherwise None).

    Args:
        config: the algorithm.
        networks: the online network, which learns, and the target network.
        head: makes the learning target and the loss from the values of both networks.
        batch: B transitions.
        noise: one draw for each use of a network.
        levels: the quantile levels for a head of implicit quantiles.
        weight: importance-sampling weights [B].
    """
    online, target, noisy = networks
    batch, levels = match_noise(batch, levels, noise.prediction)
    with torch.no_grad():
        next_values = target(batch.next_observation, noise.target, levels.target)
        selector = online(batch.next_observation, noise.selection, None) if config.double else next_values
        current = target(batch.observation, noise.target, None) if config.munchausen.enabled else None
        goal = learning_target(config, head, batch, next_values, selector, current)
    prediction = online(batch.observation, noise.prediction, levels.prediction)
    loss, priority = batch_loss(head, prediction, batch.action, goal, weight)
    if noise.sigma is not None:
        of_sigma = sigma_loss(config.noise, noisy, head, batch, goal, noise.sigma, levels, weight)
        loss = loss + (of_sigma - of_sigma.detach())  # the value of the first, the gradients of both
    return loss, priority


def sigma_loss(
    config: NoiseConfig,
    noisy: Network,
    head: AnyHead,
    batch: Batch[Tensor],
    goal: Tensor,
    noise: Tensor,
    levels: Levels,
    weight: Tensor | None,
) -> Tensor:
    """The mean loss of noisy predictions for the last rows of a batch, from which σ learns: a scalar.

    The goals [B, …] are those of the mean network. Noise then costs as much as it changes the predictions, so that σ
    falls where the replay holds many transitions, and stays large elsewhere.
    """
    last = slice(config.count_mean_rows(len(batch.action)), None)
    batch = Batch(*(field[last] for field in batch))
    levels = Levels(*(None if tau is None else tau[last] for tau in levels))
    goal, weight = goal[last], None if weight is None else weight[last]
    batch, levels = match_noise(batch, levels, noise)
    prediction = noisy(batch.observation, noise, levels.prediction)
    return batch_loss(head, prediction, batch.action, goal.view(*batch.action.shape, *goal.shape[1:]), weight)[0]


def learning_target(
    config: AgentConfig,
    head: AnyHead,
    batch: Batch[Tensor],
    next_values: Values,
    selector: Values,
    current: Values | None,
) -> Tensor:
    """The goal of the predictions for (s, a); for its shape see Head.target.

    Args:
        config: the algorithm.
        head: the head of the networks.
        batch: B transitions.
        next_values: the values of the target network at s'.
        selector: the values at s' that select the next action: with double Q-learning those of the online network.
        current: the values of the target network at s, for Munchausen targets; None for a greedy target.
    """
    reward, soft = batch.reward, config.munchausen
    if current is None:
        outcome = gather_actions(next_values.outcomes, targets.greedy(selector.q_values))
    else:
        # Vieillard et al. 2020, eq. 1: the entropy of π(·|s') is part of the value of s'.
        options = soft.alpha, soft.temperature, soft.clip
        reward = targets.munchausen_reward(reward, current.q_values, batch.action, *options)
        policy, entropy = targets.soft_policy(next_values.q_values, soft.temperature)
        reward = bellman_target(reward, batch.discount, entropy)
        outcome = targets.mix_actions(next_values.outcomes, policy)
    return head.target(outcome, reward, batch.discount, config.target_range)


def batch_loss(
    head: AnyHead, prediction: Values, action: Tensor, goal: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The mean loss of the rows, and None; with weights [B] the weighted mean, and the priorities [B]."""
    losses = _for_each_row(head, "loss", head.loss(prediction, action, goal), action)
    if weight is None:
        return losses.mean(), None
    rows = losses.reshape(len(weight), -1).mean(dim=1)  # over the predictions of a row under several indices
    priority = _for_each_row(head, "priority", head.priority(prediction, action, goal, losses), action)
    return (rows * weight).mean(), priority.detach().reshape(len(weight), -1).mean(dim=1)


def _for_each_row(head: AnyHead, name: str, result: object, action: Tensor) -> Tensor:
    """The result [...] of a head for actions [...]. A wrong shape would be broadcast, and learned from."""
    if torch.is_tensor(result) and result.shape == action.shape:
        return result
    found = f"has the shape {list(result.shape)}" if torch.is_tensor(result) else f"is {plain(result, 80)}"
    raise OwnCodeError(
        f"agent.head: the {name} of {type(head).__name__} must be a tensor of the shape {list(action.shape)}, a number "
        f"for each row, and {found}"
    )


def match_noise(batch: Batch[Tensor], levels: Levels, noise: Tensor | None) -> tuple[Batch[Tensor], Levels]:
    """Reshapes batch and levels to match the noise.

    N draws [N, size] split the rows into N groups [N, B / N, …]; one draw, or one draw per row, changes nothing. With M
    indices for each row, noise [N, M, size], action, reward and discount become [..., M].
    """
    if noise is None:
        return batch, levels
    groups = len(noise)
    if groups not in (1, len(batch.action)):
        batch = Batch(*(field.view(groups, -1, *field.shape[1:]) for field in batch))
        levels = Levels(*(None if x is None else x.view(groups, -1, x.shape[-1]) for x in levels))
    if noise.dim() == 2:
        return batch, levels
    action, reward, discount = (x.unsqueeze(-1).expand(*x.shape, noise.shape[1]) for x in batch[1:4])
    return Batch(batch.observation, action, reward, discount, batch.next_observation), levels
