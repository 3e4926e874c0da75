"""Action masks as a part of observations: they say which actions are allowed in a state.

A mask thus goes wherever its observation goes: into replays, checkpoints, evaluations and processes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError
from agent.common.kinds import PlainData
from agent.common.masking import Masking, masked_spec
from envs.channels import Channels
from envs.failure import RuleError, described
from envs.kinds import Env, Info, Observation, Space, Wrapper
from envs.observations import Observer
from envs.parts import MASK_KEY, WithoutMask
from envs.rules import are_booleans
from envs.wrapping import MAX_NAME_LENGTH

OFF, AUTO = "off", "auto"
#: The key under which `auto` looks for masks, in infos and in observations.
KEY = "action_mask"


def source_of(action_mask: str) -> tuple[str, str] | None:
    """The place of the masks (info or observation) and their key in it; None for `off`.

    Raises:
        UserError: the option is none of `off`, info.<key> and observation.<key>.
    """
    if action_mask == OFF:
        return None
    place, _, key = action_mask.partition(".")
    if place not in ("info", "observation") or not key.isidentifier() or len(key) > MAX_NAME_LENGTH:
        raise UserError(
            f"env.action_mask is {action_mask!r:.80}: it must be auto, off, info.<key> or observation.<key>, "
            f"such as info.{KEY}"
        )
    return place, key


def mask_part(action_mask: str) -> str | None:
    """The part of an environment's observations that holds its masks; None if there is none."""
    source = source_of(action_mask)
    return source[1] if source is not None and source[0] == "observation" else None


def mask_source_in_observation(env: Env) -> str:
    """The meaning of `auto` before the first reset: the part of the observations that holds masks, otherwise `off`."""
    space = env.observation_space
    return f"observation.{KEY}" if isinstance(space, spaces.Dict) and KEY in space.spaces else OFF


def known_mask_source(env: Env) -> str | None:
    """The meaning of `auto` in an environment that was made with it, if it is known before the first reset.

    Returns:
        None if the info of a reset decides, see `mask_source_in_info`.
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, WithoutMask):
            return f"observation.{KEY}"
        env = env.env
    return None


def mask_source_in_info(info: object) -> str:
    """The meaning of `auto`, given the info of a reset."""
    return f"info.{KEY}" if isinstance(info, dict) and dict.get(info, KEY) is not None else OFF


class MaskObserved(Wrapper):
    """Observes pairs of an observation and its mask, of 0 and 1 [actions].

    After a termination there is nothing to choose. A mask that is missing or allows nothing then becomes all ones.

    Args:
        env: an environment with Discrete actions.
        key: the key of the masks in infos.
        name: the source of the masks, for error messages.

    Raises:
        RuleError: from reset and step, if a mask is missing, has another form, or allows no action.
    """

    def __init__(self, env: Env, key: str, name: str) -> None:
        super().__init__(env)
        self._key, self._name = key, f"{name}, where env.action_mask finds masks,"
        self._actions = int(env.action_space.n)  # type: ignore[attr-defined]
        self.observation_space = spaces.Tuple((env.observation_space, spaces.MultiBinary(self._actions)))

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return (observation, self._mask(info, False)), info

    def step(self, action: object) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return (observation, self._mask(info, bool(terminated))), reward, terminated, truncated, info

    def _mask(self, info: object, terminated: bool) -> np.ndarray:
        value = dict.get(info, self._key) if isinstance(info, dict) else None
        rule = f"{self._name} must be a mask of {self._actions} truth values"
        if value is None:
            if terminated:
                return np.ones(self._actions, np.int8)
            raise RuleError(rule, "nothing at all")
        array = np.asarray(value)
        if array.shape != (self._actions,) or not are_booleans(array):
            raise RuleError(rule, described(value))
        mask: np.ndarray = array.astype(np.int8)
        if not mask.any():
            if not terminated:
                raise RuleError(f"{self._name} must allow an action while an episode goes on", "none")
            mask[:] = 1
        return mask


def with_observed_masks(env: Env, action_mask: str) -> Env:
    """The environment with masks in its observations, if `env.action_mask` names a source and its actions are Discrete.

    `WithoutMask` must have moved masks out of the observations before.
    """
    source = source_of(action_mask)
    if source is None or not isinstance(env.action_space, spaces.Discrete):
        return env
    place, key = source
    return MaskObserved(env, key if place == "info" else MASK_KEY, f"{place}[{key!r}]")


@dataclass(frozen=True, eq=False)
class MaskedObserver(Observer):
    """Turns pairs of an observation and a mask into rows of bytes; see `agent.common.masking`."""

    inner: Observer | None = None  # for the observation

    @property
    def unmasked(self) -> Observer:
        """The observer of the observation without its mask."""
        assert self.inner is not None
        return self.inner

    @property
    def channels(self) -> Channels | None:
        """The dimension of images that holds the channels."""
        return self.unmasked.channels

    def __call__(self, batch: Observation) -> np.ndarray:
        """The observations and masks of E environments as rows of bytes [E, n]."""
        observation, masks = batch
        return self._masking.pack(self.unmasked(observation), np.asarray(masks))

    @cached_property
    def _masking(self) -> Masking:
        return Masking(self.spec)

    def description(self) -> PlainData:
        """The observations in a saved agent's description, with the number of actions in a mask."""
        return {**self.unmasked.description(), "mask": self.spec.mask}


def with_masks(observe: Observer, space: Space, actions: int) -> MaskedObserver:
    """The observer for pairs of an observation, which `observe` takes, and a mask; the pairs are in `space`."""
    return MaskedObserver(space, masked_spec(observe.spec, actions), None, None, (), observe.env_id, observe)
