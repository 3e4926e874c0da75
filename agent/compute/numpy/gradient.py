"""The gradient of the loss without autograd, for small networks on a CPU."""

from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, as_array
from agent.compute.numpy.losses import LOSSES
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.learning.gradient import UpdateMetrics, sigma_mask
from agent.learning.loss import NO_LEVELS, Levels, UpdateNoise, batch_loss, learning_target
from agent.networks.q_network import QNetwork, only_allowed
from agent.replay.batch import Batch


class NumpyGradient:
    """A Gradient for a network that NumpyNetwork.fits; for its arguments see AutogradGradient.

    losses.py has the derivatives of some losses. For the others autograd goes from the loss back to the streams'
    outputs; from there NumPy goes back to the parameters.
    """

    def __init__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = NumpyNetwork(network), NumpyNetwork(target), config
        self._head = network.head
        self._mean, self._sigma = _split(parameters.grad.numpy(), sigma_mask(network, config))
        self._munchausen = config.munchausen.enabled
        known = None if self._munchausen else LOSSES.get(type(network.head))
        self._by_hand = None if known is None else known(config, network.head)

    def __call__(
        self, batch: Batch[Array], noise: UpdateNoise[Array], levels: Levels = NO_LEVELS, weight: Array | None = None
    ) -> UpdateMetrics:
        """See Gradient; everything is on the CPU."""
        rows, weights = batch.arrays(), None if weight is None else as_array(weight)
        draws = UpdateNoise(*(None if draw is None else as_array(draw) for draw in noise))
        observation = self.network.read(rows.observation)
        goal = self._goal(rows, observation, draws)
        outputs, pullback = self.network.vjp(observation, draws.prediction)
        loss, gradient, priority = self._loss(outputs, rows.action, goal, weights)
        pullback(gradient)
        if draws.sigma is not None:
            last = slice(self.config.noise.count_mean_rows(len(observation)), None)
            outputs, pullback = self.network.vjp(observation[last], draws.sigma, sigma_alone=True)
            weights = None if weights is None else weights[last]
            pullback(self._loss(outputs, rows.action[last], goal[last], weights)[1])
        return UpdateMetrics(loss, self._clip(), priority)

    def _goal(self, rows: Batch[np.ndarray], observation: np.ndarray, draws: UpdateNoise[np.ndarray]) -> np.ndarray:
        """The goal of the predictions for the actions of a batch, [B, …]; `observation` is as the network reads it."""
        next_observation = self.network.read(rows.next_observation)
        next_outputs = selector_outputs = self.target.outputs(next_observation, draws.target)
        if self.config.double:
            selector_outputs = self.network.outputs(next_observation, draws.selection)
        allowed = self.network.allowed(rows.next_observation)
        if self._by_hand is not None:
            next_action = self.network.q_values(selector_outputs, allowed).argmax(axis=1)
            return self._by_hand.goal(rows, next_outputs, next_action)
        next_values = self._values(next_outputs, allowed)
        selector = next_values if selector_outputs is next_outputs else self._values(selector_outputs, allowed)
        current = None
        if self._munchausen:
            outputs = self.target.outputs(observation, draws.target)
            current = self._values(outputs, self.network.allowed(rows.observation))
        with torch.no_grad():
            tensors = rows.tensors(torch.device("cpu"))
            return as_array(learning_target(self.config, self._head, tensors, next_values, selector, current))

    def _loss(
        self, outputs: np.ndarray, action: np.ndarray, goal: np.ndarray, weight: np.ndarray | None
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Loss, its gradient for the streams' outputs [B, A, …], and priorities: by hand or, for any head, by torch."""
        if self._by_hand is not None:
            return self._by_hand.loss(outputs, action, goal, weight)
        weights = None if weight is None else torch.from_numpy(weight)
        leaf = torch.from_numpy(outputs).requires_grad_()
        with torch.enable_grad():  # which an environment may have turned off
            values = self._head.values(leaf)
            loss, priority = batch_loss(self._head, values, torch.from_numpy(action), torch.from_numpy(goal), weights)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient.numpy(), None if priority is None else priority.numpy()

    def _clip(self) -> float:
        """Clips as `clip_divisor` of agent/learning/gradient.py. Returns the norm of the mean network's gradient."""
        norm = _shorten(self._mean, self.config.max_grad_norm)
        if self._sigma:
            _shorten(self._sigma, self.config.max_grad_norm)
        return norm

    def _values(self, outputs: np.ndarray, allowed: np.ndarray | None) -> Any:
        with torch.no_grad():
            values = self._head.values(torch.from_numpy(outputs))
        return values if allowed is None else only_allowed(values, torch.from_numpy(allowed))


def _split(flat: np.ndarray, sigma: Tensor | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The views of a flat gradient [P] that belong to the mean network, and those to σ: bool [P], or None."""
    if sigma is None:
        return [flat], []
    is_sigma = sigma.numpy()
    edges = [0, *(np.flatnonzero(np.diff(is_sigma)) + 1), len(flat)]
    parts = [(bool(is_sigma[a]), flat[a:b]) for a, b in pairwise(edges)]
    return [part for other, part in parts if not other], [part for other, part in parts if other]


def _shorten(parts: list[np.ndarray], limit: float) -> float:
    """Multiplies the parts of a vector so that its norm is at most `limit`, and returns the norm before."""
    norm = sqrt(sum(part.dot(part) for part in parts))
    if norm > limit:
        for part in parts:
            part *= np.float32(limit / norm)
    return norm
