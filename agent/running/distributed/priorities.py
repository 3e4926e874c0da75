"""First priorities, computed by actors: a new transition is not all of the same interest to a prioritised replay.

Horgan et al. 2018 (arXiv 1803.00933, §3): each actor computes the priorities of its new transitions by its own copy of
the network. Deviation: by the mean network, not by the noisy values by which it has acted.
"""

import numpy as np
import torch

from agent.common.arrays import Array, as_array
from agent.config.algorithm import AgentConfig
from agent.learning.dqn import DQN
from agent.learning.loss import NO_LEVELS, UpdateNoise, update_loss
from agent.networks.q_network import QNetwork
from agent.replay.batch import Batch
from agent.replay.ring import Replay


class FirstPriorities:
    """Holds the newest steps of an actor as a replay does, and computes the priorities of a chunk's transitions.

    Args:
        agent: of the actor.
        replay: for T vector steps and n more, of E environments; with the n and γ of the learner's.
    """

    def __init__(self, agent: DQN, replay: Replay) -> None:
        self._agent, self._replay = agent, replay
        self._rows: list[tuple[int, np.ndarray, np.ndarray]] = []  # place, which are starts, which ended

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
        """The priorities [T, E] of what was added since the last call, by the present weights.

        NaN stands for rows that only reset, and for transitions whose n steps are not complete yet.
        """
        places, starts, ended = (np.array(column) for column in zip(*self._rows, strict=True))
        self._rows.clear()
        count = len(starts)
        ends_in_time = np.logical_or.accumulate((ended & starts)[::-1])[::-1]
        known = starts & (ends_in_time | (np.arange(count)[:, None] <= count - self._agent.config.n_step))
        result = np.full(starts.shape, np.nan, dtype=np.float32)
        if known.any():
            row, env = known.nonzero()
            batch = self._replay.gather(places[row] * self._replay.num_envs + env)
            result[known] = priorities(self._agent.config, self._agent.network, batch)
        return result


def priorities(config: AgentConfig, network: QNetwork, batch: Batch[Array]) -> np.ndarray:
    """The priorities [B] that an update would give B transitions whose target network is the network itself."""
    rows = batch.tensors(next(network.parameters()).device)
    weight = torch.ones(len(rows.action), device=rows.action.device, dtype=torch.float32)
    with torch.inference_mode():
        _, found = update_loss(config, network, network, network.head, rows, UpdateNoise(), NO_LEVELS, weight)
    assert found is not None
    return as_array(found)
