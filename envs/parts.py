"""Puts on an environment what a task has around it; the parts of an observation that are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from agent.common.errors import UserError, plain
from envs.failure import RuleError, described
from envs.wrapping import Wrapping


def put_on(env: gym.Env[Any, Any], wrapping: Wrapping, env_id: str) -> gym.Env[Any, Any]:
    """The environment with everything around it.

    Raises:
        UserError: where something does not fit the environment.
    """
    return Parts(env, wrapping.parts, env_id) if wrapping.parts else env


def named_parts(space: gym.Space[Any]) -> dict[str, gym.Space[Any]]:
    """The parts of a Dict or Tuple by name, those of a Tuple by number; {} for every other space."""
    if isinstance(space, spaces.Dict):
        return {str(name): part for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(number): part for number, part in enumerate(space.spaces)}
    return {}


class Parts(gym.ObservationWrapper[Any, Any, Any]):
    """Keeps some parts of a Dict or Tuple observation, in their own order; of one part, that part itself.

    Args:
        env: observes a Dict or a Tuple.
        parts: names of those that are kept.
        env_id: for the errors.

    Raises:
        UserError: where there is no such part.
    """

    def __init__(self, env: gym.Env[Any, Any], parts: Sequence[str], env_id: str) -> None:
        super().__init__(env)
        space = env.observation_space
        there = named_parts(space)
        if not there:
            raise UserError(f"env.observation names parts, and {env_id} observes {plain(space, 80)}: leave it out")
        if missing := [name for name in parts if name not in there]:
            raise UserError(f"env.observation names {missing[0]!r}: the parts of {env_id} are {', '.join(there)}")
        self._is_dict = isinstance(space, spaces.Dict)
        keys: list[Any] = list(space.spaces) if isinstance(space, spaces.Dict) else list(range(len(there)))
        self._keys = [key for key in keys if str(key) in parts]
        self._all = keys
        kept = [there[str(key)] for key in self._keys]
        self._alone = len(kept) == 1
        if self._alone:
            self.observation_space = kept[0]
        elif self._is_dict:
            self.observation_space = spaces.Dict(dict(zip(self._keys, kept, strict=True)))
        else:
            self.observation_space = spaces.Tuple(kept)

    def observation(self, observation: Any) -> Any:
        """The parts of one observation that are kept.

        Raises:
            RuleError: where one of them is missing.
        """
        self._check(observation)
        if self._alone:
            return observation[self._keys[0]]
        values = (observation[key] for key in self._keys)
        return dict(zip(self._keys, values, strict=True)) if self._is_dict else tuple(values)

    def _check(self, observation: Any) -> None:
        if self._is_dict:
            if not isinstance(observation, Mapping) or any(key not in observation for key in self._keys):
                raise RuleError(f"an observation must be a dict of {self._all}", described(observation))
        elif not isinstance(observation, tuple | list) or len(observation) != len(self._all):
            raise RuleError(f"an observation must be a tuple of {len(self._all)} parts", described(observation))
