"""The gradient of the loss on a batch: by autograd for any network, by hand for small ones on a CPU."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agent import targets
from agent.config import AgentConfig
from agent.network import QNetwork
from agent.numpy_network import NumpyNetwork

if TYPE_CHECKING:
    from agent.replay import Batch


class AutogradGradient:
    """The loss of a batch; its gradient, clipped to the largest norm of the config, goes to the parameters' `grad`.

    Args:
        network: the online network.
        target: the target network.
        parameters: the online network's flat vector, whose gradient its parameters' gradients are views of.
        config: the algorithm.
    """

    def __init__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> None:
        self.network, self.target, self.config = network, target, config
        assert parameters.grad is not None
        self._leaves, self._flat = list(network.parameters()), parameters.grad

    def __call__(self, batch: Batch, draws: Tensor | None) -> tuple[Any, Any]:
        """The mean loss, and the norm of its gradient before clipping: scalars.

        Args:
            batch: B transitions.
            draws: [2 or 3, N, size], for prediction, target and (with double Q-learning) selection; N divides B.
        """
        batch = batch if draws is None else batch.grouped(draws.shape[1])
        prediction_noise, target_noise, *selection_noise = (None,) * 3 if draws is None else draws.unbind()
        with torch.no_grad():
            following = self.target(batch.next_observation, target_noise)
            chooser = following
            if self.config.double:
                chooser = self.network(batch.next_observation, selection_noise[0])
            next_action = targets.greedy(chooser.q_values)
            target = self.target.head.target(following, next_action, batch.reward, batch.discount)
            if self.config.target_range is not None:
                target = target.clamp(*self.config.target_range)
        prediction = self.network(batch.observation, prediction_noise)
        loss = self.network.head.loss(prediction, batch.action, target).mean()
        gradients = torch.autograd.grad(loss, self._leaves)
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._flat)
        norm = torch.linalg.vector_norm(self._flat)
        self._flat /= (norm / self.config.max_grad_norm).clamp_(min=1.0)
        return loss.detach(), norm


class NumpyGradient:
    """The same for networks of linear layers on a CPU, where NumpyNetwork.fits."""

    def __init__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = NumpyNetwork(network), NumpyNetwork(target), config
        self._flat = parameters.grad.numpy()
        self._rows = np.arange(config.batch_size)

    def __call__(self, batch: Batch, draws: Tensor | None) -> tuple[Any, Any]:
        """See AutogradGradient."""
        noise: Any = (None,) * 3 if draws is None else draws.numpy()
        observation, action, reward, discount, next_observation = (field.numpy() for field in batch)
        rows = self._rows if len(action) == len(self._rows) else np.arange(len(action))
        following = self.target(next_observation, noise[1])
        chooser = self.network(next_observation, noise[2]) if self.config.double else following
        target = reward + discount * following[rows, chooser.argmax(axis=1)]
        if self.config.target_range is not None:
            target = target.clip(*self.config.target_range)
        values, pullback = self.network.vjp(observation, noise[0])
        error = values[rows, action] - target
        slope = error if self.config.loss == "squared" else np.maximum(np.minimum(error, 1.0), -1.0)
        loss = np.dot(slope, error - 0.5 * slope) / len(action)  # ½·error² within ±1, |error| − ½ outside
        gradient = np.zeros_like(values)
        gradient[rows, action] = slope / np.float32(len(action))
        pullback(gradient)
        norm = sqrt(self._flat.dot(self._flat))
        if norm > self.config.max_grad_norm:
            self._flat *= np.float32(self.config.max_grad_norm / norm)
        return loss, norm
