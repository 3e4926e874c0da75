"""The weights with which actors act: the learner publishes them, and the actors load them."""

from collections.abc import Mapping

import numpy as np
import torch

from agent.learning.dqn import DQN
from agent.networks.q_network import persistent_buffers
from agent.running.distributed.cluster import INLINE_BYTES, Cluster

#: Parameters [P] and the buffers of encoders by their names, as arrays.
Weights = Mapping[str, np.ndarray]

#: Bytes that a call may have beside its weights.
HEADER_BYTES = 2**14


def weights_of(agent: DQN) -> Weights:
    """A copy of the parameters and buffers, as arrays in main memory."""
    named = {"": agent.parameters, **persistent_buffers(agent.network)}
    return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}


class WeightsLoader:
    """Copies weights into the agent of an actor.

    Args:
        agent: the agent, on the CPU.
    """

    def __init__(self, agent: DQN) -> None:
        self._agent, self._has_buffers = agent, bool(persistent_buffers(agent.network))

    def replace(self, weights: Weights, version: int) -> None:
        """Replaces the agent's weights by these, which `version` updates made."""
        agent = self._agent
        tensors = {"": agent.parameters, **(persistent_buffers(agent.network) if self._has_buffers else {})}
        with torch.no_grad():
            for name, value in tensors.items():
                value.numpy(force=True)[...] = weights[name]
        agent.updates = version


class Publisher:
    """Publishes the weights of the learning agent.

    If all actors are on this machine, small weights are sent within the calls. Each call copies them, which costs less
    than Ray's store, where another process works for each version and for each call. On a cluster the store sends each
    version to each machine once.

    Args:
        cluster: the connection to Ray.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._weights: object = None  # Weights, or a reference to them in Ray's store
        self.version = -1  # number of updates that made the published weights

    def publish(self, agent: DQN, every: int) -> None:
        """Publishes the weights if there are none yet, or the agent has made `every` updates since the last time."""
        if self.version >= 0 and agent.updates - self.version < every:
            return
        weights = weights_of(agent)
        is_small = sum(value.nbytes for value in weights.values()) <= INLINE_BYTES - HEADER_BYTES
        self._weights = weights if self._cluster.local and is_small else self._cluster.ray.put(weights)
        self.version = agent.updates

    def newer_than(self, version: int) -> object:
        """The published weights, as an argument of an actor's call; None if they are of this version."""
        return None if version == self.version else self._weights
