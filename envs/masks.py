"""Which actions are allowed in a state, told by an environment's infos, as a part of what is observed.

So a mask goes wherever its observation goes: into replays, checkpoints, evaluations and processes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError
from envs.failure import RuleError, described
from envs.kinds import Env, Info, Wrapper
from envs.observations import Observer, observer_of
from envs.rules import are_truths

OFF = "off"


def key_of(action_mask: str) -> str | None:
    """The key of the info that holds the masks, by `env.action_mask`; None for `off`.

    Raises:
        UserError: it is neither `off` nor info.<key>.
    """
    if action_mask == OFF:
        return None
    place, _, key = action_mask.partition(".")
    if place != "info" or not key.isidentifier():
        raise UserError(
            f"env.action_mask is {action_mask!r:.80}: it must be off or info.<key>, such as info.action_mask"
        )
    return key


class MaskObserved(Wrapper):
    """Observes pairs of an observation and its mask, of 0 and 1 [actions].

    Where an episode has ended there is nothing to choose, and a mask may be missing or allow nothing: it allows all.

    Args:
        env: with Discrete actions.
        key: of the info that holds the masks.

    Raises:
        RuleError: from reset and step, where there is no mask, or one that is no mask or allows no action.
    """

    def __init__(self, env: Env, key: str) -> None:
        super().__init__(env)
        self._key = key
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

    def _mask(self, info: object, terminated: bool) -> np.ndarray:
        found = info.get(self._key) if isinstance(info, dict) else None
        rule = f"info[{self._key!r}] must be a mask of {self._actions} truth values"
        if found is None:
            if terminated:
                return np.ones(self._actions, np.int8)
            raise RuleError(rule, "it is missing")
        array = np.asarray(found)
        if array.shape != (self._actions,) or not are_truths(array):
            raise RuleError(rule, described(found))
        mask: np.ndarray = array.astype(np.int8)
        if not mask.any():
            if not terminated:
                raise RuleError(f"info[{self._key!r}] must allow an action where an episode goes on", "none is")
            mask[:] = 1
        return mask


def observing_masks(env: Env, action_mask: str) -> Env:
    """The environment, observed with its masks where `env.action_mask` names any; only Discrete actions have masks."""
    key = key_of(action_mask)
    return env if key is None or not isinstance(env.action_space, spaces.Discrete) else MaskObserved(env, key)


def with_masks(observe: Observer, actions: int) -> Observer:
    """The observer of such pairs, which knows that its vector ends with a mask.

    Raises:
        UserError: where images are observed, which would become vectors in such a pair.
    """
    assert isinstance(observe.space, spaces.Tuple)
    if observe.spec.parts or observer_of(observe.env_id, observe.space.spaces[0]).spec.is_image:
        raise UserError(f"env.action_mask goes with vectors, and {observe.env_id} observes images: leave it out")
    return replace(observe, spec=replace(observe.spec, mask=actions))
