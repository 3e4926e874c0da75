"""The gradient of the loss by hand, for small networks on a CPU."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import as_array
from agent.compute.numpy.losses import LOSSES
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.networks.q_network import QNetwork

if TYPE_CHECKING:
    from agent.replay.batch import Batch
from agent.learning.gradient import Result
from agent.learning.loss import Levels, batch_loss, learning_target


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
