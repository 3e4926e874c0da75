"""Wraps an environment: selects parts of its observations, and applies Gymnasium's wrappers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium import spaces

from agent.common.errors import UserError, one_line, plain
from agent.common.foreign import is_stop
from envs.failure import RuleError, described
from envs.kinds import Action, Env, Info, Observation, ObservationWrapper, Space, Wrapper
from envs.rules import checked_observation
from envs.wrappers import Copies, MaxAndSkip, RepeatAction, Resize
from envs.wrapping import Wrap, Wrapping

#: The key under which `WithoutMask` puts a mask into an info.
MASK_KEY = "the mask that was a part of the observation"


def wrap(env: Env, wrapping: Wrapping, env_id: str, mask: str | None = None) -> Env:
    """The environment with all its wrappers; `mask` names the part of its observations that holds masks, if any.

    Raises:
        UserError: if a part or wrapper does not fit the environment.
    """
    if mask is not None:
        env = WithoutMask(env, mask, wrapping.parts, env_id)
    else:
        env = Parts(env, wrapping.parts, env_id) if wrapping.parts else env
    for wrapper in wrapping.wraps:
        try:
            env = _wrapped(env, wrapper)
        except BaseException as error:
            if is_stop(error):
                raise
            reason = one_line(error)
            raise UserError(f"env.wrappers: {wrapper.name} cannot be put on {env_id}: {reason}") from error
    return env


#: Own wrappers in place of Gymnasium's.
REPLACED: dict[str, Callable[..., Env]] = {
    "MaxAndSkipObservation": MaxAndSkip,
    "RepeatAction": RepeatAction,
    "ResizeObservation": Resize,
}
#: Wrappers that keep the observations of earlier steps.
KEEPING = ("DelayObservation", "FrameStackObservation")


def _wrapped(env: Env, wrapper: Wrap) -> Env:
    make: Callable[..., Any] = REPLACED.get(wrapper.name) or getattr(gym.wrappers, wrapper.name)
    if wrapper.part is not None:
        return OnPart(env, wrapper.part, lambda stub: make(stub, **dict(wrapper.arguments)))
    made: Env = make(Copies(env) if wrapper.name in KEEPING else env, **dict(wrapper.arguments))
    return made


class OnPart(ObservationWrapper):
    """Applies a wrapper, which must be a function of one observation, to one part of a Dict or Tuple.

    Args:
        env: an environment that observes a Dict or a Tuple.
        part: the name or number of the part.
        make: wraps an environment that observes this part alone.

    Attributes:
        function: the wrapper that `make` made.

    Raises:
        UserError: if there is no such part.
    """

    def __init__(self, env: Env, part: str, make: Callable[[Env], ObservationWrapper]) -> None:
        super().__init__(env)
        available = named_parts(env.observation_space)
        if part not in available:
            raise UserError(f"there is no part {part!r}; the parts are {', '.join(available) or 'none'}")
        single: Env = gym.Env()
        single.observation_space, single.action_space = available[part], env.action_space
        self.function = make(single)
        space = env.observation_space
        changed = {**available, part: self.function.observation_space}
        self._is_dict = isinstance(space, spaces.Dict)
        self._key: str | int = part if self._is_dict else int(part)
        self.observation_space = spaces.Dict(changed) if self._is_dict else spaces.Tuple(changed.values())

    def observation(self, observation: Observation) -> object:
        """The same parts, with one of them changed."""
        space: Space = self.env.observation_space
        observation = checked_observation(space, observation)
        part = self.function.observation(observation[self._key])
        if self._is_dict:
            return {**observation, self._key: part}
        return tuple(part if key == self._key else value for key, value in enumerate(observation))


def named_parts(space: Space) -> dict[str, Space]:
    """The parts of a Dict by name or of a Tuple by number; {} for every other space."""
    if isinstance(space, spaces.Dict):
        return {str(name): part for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(number): part for number, part in enumerate(space.spaces)}
    return {}


class Parts(ObservationWrapper):
    """Keeps some parts of a Dict or Tuple observation, in their order; a single part replaces the Dict or Tuple.

    Args:
        env: an environment that observes a Dict or a Tuple.
        parts: the names of the parts to keep.
        env_id: the environment's id, for error messages.

    Raises:
        UserError: if there is no such part.
    """

    def __init__(self, env: Env, parts: Sequence[str], env_id: str) -> None:
        super().__init__(env)
        space = env.observation_space
        available = named_parts(space)
        if not available:
            raise UserError(f"env.observation names parts, and {env_id} observes {plain(space, 80)}: leave it out")
        if missing := [name for name in parts if name not in available]:
            raise UserError(f"env.observation names {missing[0]!r}: the parts of {env_id} are {', '.join(available)}")
        self._is_dict = isinstance(space, spaces.Dict)
        keys: list[Any] = list(space.spaces) if isinstance(space, spaces.Dict) else list(range(len(available)))
        self._keys = [key for key in keys if str(key) in parts]
        self._all_keys = keys
        kept = [available[str(key)] for key in self._keys]
        self._is_single = len(kept) == 1
        if self._is_single:
            self.observation_space = kept[0]
        elif self._is_dict:
            self.observation_space = spaces.Dict(dict(zip(self._keys, kept, strict=True)))
        else:
            self.observation_space = spaces.Tuple(kept)

    def observation(self, observation: Observation) -> object:
        """The kept parts of one observation.

        Raises:
            RuleError: if one of them is missing.
        """
        self._check(observation)
        if self._is_single:
            return observation[self._keys[0]]
        values = (observation[key] for key in self._keys)
        return dict(zip(self._keys, values, strict=True)) if self._is_dict else tuple(values)

    def _check(self, observation: object) -> None:
        if self._is_dict:
            if not isinstance(observation, Mapping) or any(key not in observation for key in self._keys):
                raise RuleError(f"an observation must be a dict of {self._all_keys}", described(observation))
        elif not isinstance(observation, tuple | list) or len(observation) != len(self._all_keys):
            raise RuleError(f"an observation must be a tuple of {len(self._all_keys)} parts", described(observation))


class WithoutMask(Wrapper):
    """Moves the part that holds masks from observations to infos, under the key `MASK_KEY`.

    Args:
        env: an environment that observes a Dict.
        mask: the name of the part.
        kept: the names of the other parts to keep; () for all.
        env_id: the environment's id, for error messages.

    Raises:
        UserError: if there is no such part, or no other part.
    """

    def __init__(self, env: Env, mask: str, kept: Sequence[str], env_id: str) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict) or mask not in space.spaces:
            raise UserError(f"env.action_mask=observation.{mask}: {env_id} observes {plain(space, 80)}, without {mask}")
        kept_parts = [name for name in kept or named_parts(space) if name != mask]
        if not kept_parts:
            raise UserError(f"env.action_mask=observation.{mask}: {env_id} observes nothing else that would be kept")
        self._mask, self._parts = mask, Parts(env, kept_parts, env_id)
        self.observation_space = self._parts.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode."""
        return self._split(*self.env.reset(seed=seed, options=options))

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._split(observation, info)
        return observation, reward, terminated, truncated, info

    def _split(self, observation: Observation, info: object) -> tuple[Observation, Info]:
        remaining = self._parts.observation(observation)  # raises an error unless it is a dict
        return remaining, {**(info if isinstance(info, dict) else {}), MASK_KEY: observation.get(self._mask)}
