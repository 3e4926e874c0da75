"""The gradient of the loss on a batch: by autograd for any network, by hand for small ones on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent import targets
from agent.arrays import as_array
from agent.config import AgentConfig
from agent.heads import Head, Values
from agent.network import QNetwork
from agent.numpy_losses import LOSSES
from agent.numpy_network import NumpyNetwork
from agent.speed import EAGER, Speed

if TYPE_CHECKING:
    from agent.batch import Batch


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


class Result(NamedTuple):
    """What a batch gave: the mean loss and the norm of its gradient before clipping, scalars; priorities [B].

    There are priorities where the rows had weights.
    """

    loss: Any
    norm: Any
    priority: Any


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


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Whether CUDA rounds what linear layers multiply to TF32's ten bits, as by torch's default in convolutions."""
    if not tf32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class AutogradGradient:
    """The loss of a batch; its gradient, clipped to the largest norm of the config, goes to the parameters' `grad`.

    Args:
        network: the online network.
        target: the target network.
        parameters: the online network's flat vector, whose gradient its parameters' gradients are views of.
        config: the algorithm.
        speed: whether the encoders compute in bfloat16, and linear layers in TF32.
    """

    def __init__(
        self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig, speed: Speed = EAGER
    ) -> None:
        self.network, self.target, self.config, self._tf32 = network, target, config, speed.tf32
        assert parameters.grad is not None
        self._flat, everything = parameters.grad, list(network.parameters())
        self._leaves = [parameter for parameter in everything if parameter.requires_grad]
        # What an encoder keeps fixed has a gradient of 0, which Adam leaves where it is.
        self._fixed = {i: torch.zeros_like(p).view(-1) for i, p in enumerate(everything) if not p.requires_grad}
        self._heads = network.head, target.head
        self._online, self._following = (partial(net, autocast=speed.autocast) for net in (network, target))

    def __call__(
        self, batch: Batch, draws: Tensor | None, levels: Levels | None = None, weight: Tensor | None = None
    ) -> Result:
        """The mean loss, its gradient's norm, and priorities where there are weights; see `loss_on`."""
        networks = self._online, self._following
        with products(self._tf32):
            loss, priority = loss_on(self.config, *networks, self._heads, batch, draws, levels, weight)
            gradients = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        parts = [gradient.reshape(-1) for gradient in gradients]
        for place, zeros in self._fixed.items():
            parts.insert(place, zeros)
        torch.cat(parts, out=self._flat)
        norm = torch.linalg.vector_norm(self._flat)
        self._flat /= (norm / self.config.max_grad_norm).clamp_(min=1.0)
        return Result(loss.detach(), norm, priority)


class NumpyGradient:
    """The same for networks of linear layers on a CPU, where NumpyNetwork.fits.

    The losses of agent/numpy_losses.py are differentiated by hand, others by autograd on the streams' outputs alone.
    """

    def __init__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = NumpyNetwork(network), NumpyNetwork(target), config
        self._flat, self._head = parameters.grad.numpy(), network.head
        self._soft = config.munchausen.enabled
        known = None if self._soft else LOSSES.get(type(network.head))
        self._by_hand = None if known is None else known(config, network.head)

    def __call__(self, batch: Batch, draws: Any, levels: Levels | None = None, weight: Any = None) -> Result:
        """See AutogradGradient; batch, draws and weights may be tensors or arrays."""
        batch, noise = batch.arrays(), (None,) * 3 if draws is None else as_array(draws)
        weight = None if weight is None else as_array(weight)
        observation, next_observation = map(self.network.read, (batch.observation, batch.next_observation))
        following = selection = self.target.outputs(next_observation, noise[1])
        if self.config.double:
            selection = self.network.outputs(next_observation, noise[2])
        here = self.target.outputs(observation, noise[1]) if self._soft else None
        outputs, pullback = self.network.vjp(observation, noise[0])
        if self._by_hand is not None:
            loss, gradient, priority = self._by_hand(batch, outputs, following, selection, weight)
        else:
            loss, gradient, priority = self._by_torch(batch, outputs, following, selection, here, weight)
        pullback(gradient)
        norm = sqrt(self._flat.dot(self._flat))
        if norm > self.config.max_grad_norm:
            self._flat *= np.float32(self.config.max_grad_norm / norm)
        return Result(loss, norm, priority)

    def _by_torch(
        self, batch: Batch, outputs: Any, following: Any, selection: Any, here: Any, weight: Any
    ) -> tuple[Any, Any, Any]:
        """Loss, its gradient by the streams' outputs [B, A, …], and priorities: for any head."""
        batch, weight = batch.tensors(), None if weight is None else torch.from_numpy(weight)
        leaf, values = torch.from_numpy(outputs).requires_grad_(), self._head.values
        with torch.no_grad():
            after, before = (
                values(torch.from_numpy(following)),
                None if here is None else values(torch.from_numpy(here)),
            )
            chooser = after if selection is following else values(torch.from_numpy(selection))
            target = learning_target(self.config, self._head, batch, after, chooser, before)
        loss, priority = batch_loss(self._head, values(leaf), batch.action, target, weight)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient.numpy(), priority
