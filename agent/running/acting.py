"""Saved agents for use from Python: NumPy observations in, NumPy actions out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from agent.learning.targets import greedy
from agent.records.saved_agent import Which
from agent.running.evaluation import EvaluationPolicy
from agent.running.fetching import agent_file
from agent.running.player import Player, load_player
from envs.batches import first_leaf, is_batch
from envs.masks import source_of
from envs.rules import are_booleans


class LoadedAgent:
    """A saved agent that acts as in an evaluation: with its mean network, or with a fresh draw for every action.

    Args:
        player: the agent.
        noise: True for fresh draws, False for the mean network.
        seed: the seed of the draws.

    Attributes:
        env_id: the Gymnasium id of its task.
        description: the description in its file: its task, its algorithm, its last evaluation.
        path: its file.
    """

    def __init__(self, player: Player, noise: bool = False, seed: int = 0) -> None:
        self._task, self._masked = player.task, bool(player.task.observation.mask)
        self._policy = EvaluationPolicy(player.network, player.noise if noise else None, [seed])
        self.env_id, self.description, self.path = player.task.id, player.description, player.path

    def act(self, observation: object, mask: object = None) -> np.int64 | np.ndarray:
        """The greedy action in the environment's form: one for an observation, [n] for a batch of n.

        Args:
            observation: an observation of the environment, or a batch from a vector environment with n copies.
            mask: [actions] for an observation, [n, actions] for a batch, of bools or of 0 and 1: which actions are
                allowed, in the order of `q_values`, as in Gymnasium's `info["action_mask"]`. None allows all, or the
                actions that a mask in the observation allows.

        Raises:
            ValueError: the observation has a wrong shape; or the mask has one, holds other values, or allows no action.
        """
        observation, observed_mask = self._without_mask(observation)
        values, is_batched = self._values(observation)
        if (mask := observed_mask if mask is None else mask) is not None:
            allowed = _checked_mask(mask, tuple(values.shape) if is_batched else tuple(values.shape[1:]))
            values = values.masked_fill(~torch.from_numpy(allowed).to(values.device), -torch.inf)
        actions = self._task.to_environment(greedy(values).cpu().numpy())
        return actions if is_batched else actions[0]

    def q_values(self, observation: object) -> np.ndarray:
        """The value of every action, float64 [actions], or [n, actions] for a batch of n observations.

        Raises:
            ValueError: the observation's shape is not the environment's.
        """
        values, is_batched = self._values(self._without_mask(observation)[0])
        return values.cpu().numpy() if is_batched else values[0].cpu().numpy()

    def _without_mask(self, observation: object) -> tuple[object, object]:
        """An observation without the part that holds its mask, and this mask; None if there is no such part."""
        source, wrapping = source_of(self._task.action_mask), self._task.wrapping
        if source is None or source[0] == "info" or wrapping.wraps or not isinstance(observation, Mapping):
            return observation, None
        mask = source[1]
        names = [name for name in wrapping.parts or observation if name != mask]
        parts = {name: observation[name] for name in names}
        return parts[names[0]] if len(names) == 1 else parts, observation.get(mask)

    def _values(self, observation: object) -> tuple[torch.Tensor, bool]:
        """The values [n, actions], and whether the observation was a batch."""
        observe = self._task.observe
        if self._masked:  # `act` applies the mask, if there is one
            one = (observation, np.ones(self._task.actions, np.int8))
            is_batched = is_batch(observe.unmasked.space, observation)
            if is_batched:
                count = len(first_leaf(observe.unmasked.space, observation))
                observation = (observation, np.ones((count, self._task.actions), np.int8))
            array = observe(observation if is_batched else observe.stack([one]))
        else:
            is_batched = is_batch(observe.space, observation)
            array = observe(observation if is_batched else observe.stack([observation]))
        return self._policy.q_values(array, [0] * len(array)), is_batched

    def __repr__(self) -> str:
        return f"LoadedAgent({self.env_id!r}, {str(self.path)!r})"


def _checked_mask(mask: object, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as bools of this shape.

    Raises:
        ValueError: it has another shape or other values, or a row allows no action.
    """
    array = np.asarray(mask)
    if array.shape != shape:
        raise ValueError(f"the mask has shape {array.shape}: it needs {shape}, one truth value for each action")
    if not are_booleans(array):
        raise ValueError("the mask holds other values than True and False, or 1 and 0")
    allowed: np.ndarray = array.astype(bool)
    if not allowed.any(axis=-1).all():
        raise ValueError("the mask allows no action: at least one must be True in every row")
    return allowed


def load_agent(
    path: str | Path, which: Which = "best", device: str | torch.device = "cpu", noise: bool = False, seed: int = 0
) -> LoadedAgent:
    """Loads a saved agent; nothing in its file is executed.

    Args:
        path: a run folder, an agent folder, an agent.safetensors, or hub:user/name of the Hugging Face Hub.
        which: the best or the last agent of a run folder.
        device: the device of its network.
        noise: whether it acts with a fresh draw of its noise for every action.
        seed: the seed of these draws.

    Raises:
        UserError: there is no such agent, its file is damaged or foreign, or its task is not installed here.
    """
    return LoadedAgent(load_player(agent_file(path, which), device), noise, seed)
