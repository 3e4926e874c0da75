"""Initial priorities of new transitions, which actors compute for a prioritised replay.

Horgan et al. 2018 (arXiv 1803.00933, §3): each actor computes the priorities of its new transitions with its own copy
of the network. Deviation: it uses the mean network, not the noisy values with which it acted.
"""

import numpy as np
import torch

from agent.common.arrays import Array, as_array
from agent.config.algorithm import AgentConfig
from agent.learning.dqn import DQN
from agent.learning.loss import NO_LEVELS, Networks, UpdateNoise, update_loss
from agent.networks.q_network import QNetwork
from agent.replay.batch import Batch
from agent.replay.ring import Replay


class FirstPriorities:
    """Holds the newest steps of an actor in a small replay, and computes the priorities of a chunk's transitions.

    Args:
        agent: the agent of the actor.
        replay: holds T + n vector steps of E environments; its n and γ are those of the learner's replay.
    """

    def __init__(self, agent: DQN, replay: Replay) -> None:
        self._agent, self._replay = agent, replay
        self._rows: list[tuple[int, np.ndarray, np.ndarray]] = []  # row of the ring, which are starts, which ended

    def begin(self, observation: np.ndarray) -> None:
        """Takes the first observations, as a replay does."""
        self._replay.begin(observation)

    def add(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        next_observation: np.ndarray,
        life_lost: np.ndarray | None = None,
    ) -> None:
        """Takes a vector step, as a replay does."""
        replay, ended = self._replay, terminated | truncated
        if life_lost is not None:
            ended = ended | life_lost
        self._rows.append((replay.head, replay.waiting(), ended))
        replay.add(action, reward, terminated, truncated, next_observation, life_lost)

    def of_chunk(self) -> np.ndarray:
        """The priorities [T, E] of the steps since the last call, under the current weights.

        NaN stands for rows that only reset, and for transitions whose n steps are incomplete.
        """
        ring_rows, starts, ended = (np.array(column) for column in zip(*self._rows, strict=True))
        self._rows.clear()
        count = len(starts)
        ends_in_time = np.logical_or.accumulate((ended & starts)[::-1])[::-1]
        complete = starts & (ends_in_time | (np.arange(count)[:, None] <= count - self._agent.config.n_step))
        result = np.full(starts.shape, np.nan, dtype=np.float32)
        if complete.any():
            row, env = complete.nonzero()
            batch = self._replay.gather(ring_rows[row] * self._replay.num_envs + env)
            result[complete] = priorities(self._agent.config, self._agent.network, batch)
        return result


def priorities(config: AgentConfig, network: QNetwork, batch: Batch[Array]) -> np.ndarray:
    """The priorities [B] that an update would give B transitions if the network were its own target network."""
    rows = batch.tensors(next(network.parameters()).device)
    weight = torch.ones(len(rows.action), device=rows.action.device, dtype=torch.float32)
    networks = Networks(network, network, network)
    with torch.inference_mode():
        _, priority = update_loss(config, networks, network.head, rows, UpdateNoise(), NO_LEVELS, weight)
    assert priority is not None
    return as_array(priority)
