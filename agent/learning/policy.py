"""The greedy policy of a network, from NumPy arrays to NumPy arrays."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, as_tensor
from agent.learning import targets
from agent.networks.q_network import QNetwork


class Policy(Protocol):
    """Acts greedily with respect to a network's values."""

    def __call__(self, observation: np.ndarray, noise: Array | None) -> np.ndarray:
        """The greedy actions [E] at observations [E, *shape] under noise [E, size]; None is the mean network."""


MakePolicy = Callable[[QNetwork], Policy]


class TorchPolicy:
    """A Policy that computes on the network's device with torch."""

    def __init__(self, network: QNetwork) -> None:
        self._network, self._device = network, next(network.parameters()).device

    def __call__(self, observation: np.ndarray, noise: Array | None) -> np.ndarray:
        """See Policy."""
        x, draws = as_tensor(observation, self._device), None if noise is None else as_tensor(noise, self._device)
        action: np.ndarray = self.greedy(x, draws).cpu().numpy()
        return action

    @torch.inference_mode()
    def greedy(self, observation: Tensor, noise: Tensor | None) -> Tensor:
        """The greedy actions [E] as a tensor, for tensors on the device."""
        return targets.greedy(self._network(observation, noise).q_values)
