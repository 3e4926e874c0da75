"""The gradient of the loss without autograd, for small networks on a CPU."""

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, as_array
from agent.compute.numpy.losses import LOSSES
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.learning.gradient import Result
from agent.learning.loss import NO_LEVELS, Levels, UpdateNoise, batch_loss, learning_target
from agent.networks.q_network import QNetwork, only_allowed
from agent.replay.batch import Batch


class Masks(NamedTuple):
    """The masks of actions [B, A] at s and at s', where there are masks."""

    current: np.ndarray | None
    next: np.ndarray | None


class NumpyGradient:
    """A Gradient for a network that NumpyNetwork.fits; for its arguments see AutogradGradient.

    losses.py has the derivatives of some losses. For the others autograd goes from the loss back to the streams'
    outputs; from there NumPy goes back to the parameters.
    """

    def __init__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = NumpyNetwork(network), NumpyNetwork(target), config
        self._flat, self._head = parameters.grad.numpy(), network.head
        self._munchausen = config.munchausen.enabled
        known = None if self._munchausen else LOSSES.get(type(network.head))
        self._by_hand = None if known is None else known(config, network.head)

    def __call__(
        self, batch: Batch[Array], noise: UpdateNoise[Array], levels: Levels = NO_LEVELS, weight: Array | None = None
    ) -> Result:
        """See Gradient; everything is on the CPU."""
        rows, weights = batch.arrays(), None if weight is None else as_array(weight)
        draws = UpdateNoise(*(None if draw is None else as_array(draw) for draw in noise))
        observation, next_observation = map(self.network.read, (rows.observation, rows.next_observation))
        masks = Masks(self.network.allowed(rows.observation), self.network.allowed(rows.next_observation))
        next_outputs = selector = self.target.outputs(next_observation, draws.target)
        if self.config.double:
            selector = self.network.outputs(next_observation, draws.selection)
        current = self.target.outputs(observation, draws.target) if self._munchausen else None
        outputs, pullback = self.network.vjp(observation, draws.prediction)
        if self._by_hand is not None:
            next_action = self.network.q_values(selector, masks.next).argmax(axis=1)
            loss, gradient, priority = self._by_hand(rows, outputs, next_outputs, next_action, weights)
        else:
            loss, gradient, priority = self._by_torch(rows, outputs, next_outputs, selector, current, weights, masks)
        pullback(gradient)
        norm = sqrt(self._flat.dot(self._flat))
        if norm > self.config.max_grad_norm:
            self._flat *= np.float32(self.config.max_grad_norm / norm)
        return Result(loss, norm, priority)

    def _by_torch(
        self,
        batch: Batch[np.ndarray],
        outputs: np.ndarray,
        next_outputs: np.ndarray,
        selector: np.ndarray,
        current: np.ndarray | None,
        weight: np.ndarray | None,
        masks: Masks,
    ) -> tuple[Tensor, np.ndarray, np.ndarray | None]:
        """Loss, its gradient with respect to the streams' outputs [B, A, …], and priorities: for any head."""
        rows, weights = batch.tensors(torch.device("cpu")), None if weight is None else torch.from_numpy(weight)
        leaf = torch.from_numpy(outputs).requires_grad_()
        with torch.no_grad():
            next_values = self._values(next_outputs, masks.next)
            chooser = next_values if selector is next_outputs else self._values(selector, masks.next)
            before = None if current is None else self._values(current, masks.current)
            goal = learning_target(self.config, self._head, rows, next_values, chooser, before)
        with torch.enable_grad():  # which an environment may have turned off
            loss, priority = batch_loss(self._head, self._head.values(leaf), rows.action, goal, weights)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient.numpy(), None if priority is None else priority.numpy()

    def _values(self, outputs: np.ndarray, allowed: np.ndarray | None) -> Any:
        values = self._head.values(torch.from_numpy(outputs))
        return values if allowed is None else only_allowed(values, torch.from_numpy(allowed))
