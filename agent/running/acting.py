"""Saved agents for use from Python: NumPy observations in, NumPy actions out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from agent.common.errors import UserError, plain
from agent.config.which import Which
from agent.learning.targets import greedy
from agent.running.evaluation import EvaluationPolicy
from agent.running.fetching import agent_file
from agent.running.player import Player, load_player
from envs.batches import arrays_of, first_leaf, is_batch
from envs.masks import mask_part
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
            ValueError: the observation is not one of the environment's, or has no finite values; the mask is no such
                array, or allows no action.
        """
        observation, observed_mask = self._kept_parts(observation)
        values, is_batched = self._values(observation)
        if (mask := observed_mask if mask is None else mask) is not None:
            allowed = _checked_mask(mask, tuple(values.shape) if is_batched else tuple(values.shape[1:]))
            values = values.masked_fill(~torch.from_numpy(allowed).to(values.device), -torch.inf)
        actions = self._task.to_environment(greedy(values).cpu().numpy())
        return actions if is_batched else actions[0]

    def q_values(self, observation: object) -> np.ndarray:
        """The value of every action, float64 [actions], or [n, actions] for a batch of n observations.

        Raises:
            ValueError: the observation is not one of the environment's, or has no finite values.
        """
        values, is_batched = self._values(self._kept_parts(observation)[0])
        return values.cpu().numpy() if is_batched else values[0].cpu().numpy()

    def _kept_parts(self, observation: object) -> tuple[object, object]:
        """The parts of an observation that the task keeps, and the mask among them; None if there is none."""
        mask, wrapping = mask_part(self._task.action_mask), self._task.wrapping
        if wrapping.wraps or (mask is None and not wrapping.parts):
            return observation, None  # as the wrappers give it
        parts = wrapping.parts
        if isinstance(observation, Mapping):
            kept = [name for name in parts or observation if name != mask]
            if missing := [name for name in kept if name not in observation]:
                raise ValueError(f"the observation has no part {missing[0]!r}")
            rest = {name: observation[name] for name in kept}
            return rest[kept[0]] if len(kept) == 1 else rest, observation.get(mask)
        numbers = sorted(int(name) for name in parts if name.isdigit())
        if isinstance(observation, tuple) and numbers and not self._is_kept(observation, len(numbers)):
            if len(observation) <= numbers[-1]:
                raise ValueError(f"the observation has no part {numbers[-1]}")
            values = tuple(observation[number] for number in numbers)
            return values[0] if len(values) == 1 else values, None
        return observation, None

    def _is_kept(self, observation: tuple[Any, ...], parts: int) -> bool:
        """Whether a tuple has the form of what is kept, and is not the environment's whole observation."""
        if parts > 1:
            return len(observation) == parts
        try:
            return np.shape(observation) == self._task.observe.unmasked.space.shape
        except ValueError:  # its items have different shapes
            return False

    def _values(self, observation: object) -> tuple[torch.Tensor, bool]:
        """The values [n, actions], and whether the observation was a batch."""
        observe, space = self._task.observe, self._task.observe.unmasked.space
        observation = arrays_of(space, observation)
        is_batched = is_batch(space, observation)
        if self._masked:  # `act` applies the mask, if there is one
            one = (observation, np.ones(self._task.actions, np.int8))
            if is_batched:
                count = len(first_leaf(space, observation))
                observation = (observation, np.ones((count, self._task.actions), np.int8))
            array = observe(observation if is_batched else observe.stack([one]))
        else:
            array = observe(observation if is_batched else observe.stack([observation]))
        values = self._policy.q_values(array, [0] * len(array))
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                "the observation has no finite values: it holds NaN, infinity or numbers that are too large"
            )
        return values, is_batched

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
        UserError: there is no such agent, its file is damaged or foreign, or its task is not installed here; or
            an argument cannot be used.
    """
    if which not in get_args(Which):
        raise UserError(f"which is {which!r:.80}: it must be one of {', '.join(get_args(Which))}")
    if not isinstance(noise, bool | np.bool_):
        raise UserError(f"noise is {noise!r:.80}: it must be True or False")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed!r:.80}: it must be a whole number from 0 to 2^63 - 1")
    if not isinstance(path, str | Path):
        raise UserError(f"load_agent takes a folder, a file or hub:user/name as a text or a Path, not {path!r:.80}")
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise UserError(f"device={plain(device, 40)} cannot be used: {plain(error, 160)}") from error
    return LoadedAgent(load_player(agent_file(path, which), device), bool(noise), int(seed))
