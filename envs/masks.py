"""Which actions are allowed in a state, told by an environment's infos, as a part of what is observed.

So a mask goes wherever its observation goes: into replays, checkpoints, evaluations and processes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError
from agent.common.masking import Masking, masked_spec
from envs.channels import Channels
from envs.failure import RuleError, described
from envs.kinds import Env, Info, Space, Wrapper
from envs.observations import Observer
from envs.parts import TAKEN, WithoutMask
from envs.rules import are_truths
from envs.wrapping import LONGEST_NAME

OFF, AUTO = "off", "auto"
#: Where `auto` looks for masks, in infos and in observations.
KEY = "action_mask"


def source_of(action_mask: str) -> tuple[str, str] | None:
    """The place, info or observation, and the key in it that hold the masks; None for `off`.

    Raises:
        UserError: it is neither `off` nor info.<key> nor observation.<key>.
    """
    if action_mask == OFF:
        return None
    place, _, key = action_mask.partition(".")
    if place not in ("info", "observation") or not key.isidentifier() or len(key) > LONGEST_NAME:
        raise UserError(
            f"env.action_mask is {action_mask!r:.80}: it must be auto, off, info.<key> or observation.<key>, "
            f"such as info.{KEY}"
        )
    return place, key


def in_observation(env: Env) -> str:
    """What `auto` stands for before the first reset: masks where the observations have a part for them, else `off`."""
    space = env.observation_space
    return f"observation.{KEY}" if isinstance(space, spaces.Dict) and KEY in space.spaces else OFF


def found_masks(env: Env) -> str | None:
    """What `auto` stands for in an environment that was made with it, as far as that is known before its first reset.

    Returns:
        None where the info of a reset decides, see `in_info`.
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, WithoutMask):
            return f"observation.{KEY}"
        env = env.env
    return None


def in_info(info: Any) -> str:
    """What `auto` stands for where a reset gave this info."""
    return f"info.{KEY}" if isinstance(info, dict) and dict.get(info, KEY) is not None else OFF


class MaskObserved(Wrapper):
    """Observes pairs of an observation and its mask, of 0 and 1 [actions].

    Where an episode has ended there is nothing to choose, and a mask may be missing or allow nothing: it allows all.

    Args:
        env: with Discrete actions.
        key: of the info that holds the masks.
        name: of that place, for the errors.

    Raises:
        RuleError: from reset and step, where there is no mask, or one that is no mask or allows no action.
    """

    def __init__(self, env: Env, key: str, name: str) -> None:
        super().__init__(env)
        self._key, self._name = key, f"{name}, where env.action_mask finds masks,"
        self._actions = int(env.action_space.n)  # type: ignore[attr-defined]
        self.observation_space = spaces.Tuple((env.observation_space, spaces.MultiBinary(self._actions)))

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Any, Info]:
        """Begins an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return (observation, self._mask(info, False)), info

    def step(self, action: object) -> tuple[Any, Any, bool, bool, Info]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return (observation, self._mask(info, bool(terminated))), reward, terminated, truncated, info

    def _mask(self, info: Any, terminated: bool) -> np.ndarray:
        found = dict.get(info, self._key) if isinstance(info, dict) else None
        rule = f"{self._name} must be a mask of {self._actions} truth values"
        if found is None:
            if terminated:
                return np.ones(self._actions, np.int8)
            raise RuleError(rule, "nothing at all")
        array = np.asarray(found)
        if array.shape != (self._actions,) or not are_truths(array):
            raise RuleError(rule, described(found))
        mask: np.ndarray = array.astype(np.int8)
        if not mask.any():
            if not terminated:
                raise RuleError(f"{self._name} must allow an action while an episode goes on", "none")
            mask[:] = 1
        return mask


def observing_masks(env: Env, action_mask: str) -> Env:
    """The environment, observed with its masks where `env.action_mask` names any; only Discrete actions have masks.

    Masks that are a part of the observations must have been taken out of them by `WithoutMask`.
    """
    source = source_of(action_mask)
    if source is None or not isinstance(env.action_space, spaces.Discrete):
        return env
    place, key = source
    return MaskObserved(env, key if place == "info" else TAKEN, f"{place}[{key!r}]")


@dataclass(frozen=True, eq=False)
class MaskedObserver(Observer):
    """Turns pairs of an observation and a mask into rows of bytes; see `agent.common.masking`."""

    inner: Observer | None = None  # of the observation

    @property
    def plain(self) -> Observer:
        """The observer of the observation without its mask."""
        assert self.inner is not None
        return self.inner

    @property
    def channels(self) -> Channels | None:
        """Where images have their channels."""
        return self.plain.channels

    def __call__(self, batch: Any) -> np.ndarray:
        """What E environments observe side by side, as rows of bytes [E, n]."""
        observation, masks = batch
        return self._masking.pack(self.plain(observation), np.asarray(masks))

    @cached_property
    def _masking(self) -> Masking:
        return Masking(self.spec)

    def description(self) -> dict[str, Any]:
        """What a saved agent says of its observations: also of how many actions they have masks."""
        return {**self.plain.description(), "mask": self.spec.mask}


def with_masks(observe: Observer, space: Space, actions: int) -> MaskedObserver:
    """The observer of pairs of what `observe` takes and a mask, which lie in `space`."""
    return MaskedObserver(space, masked_spec(observe.spec, actions), None, None, (), observe.env_id, observe)
