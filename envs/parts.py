"""Puts on an environment what a task has around it; the parts of an observation that are kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError, plain, words_of
from envs.atari import area_weights
from envs.failure import RuleError, described, is_stop
from envs.kinds import Env, ObservationWrapper, Space
from envs.rules import admitted
from envs.wrapping import Wrap, Wrapping


def put_on(env: Env, wrapping: Wrapping, env_id: str) -> Env:
    """The environment with everything around it.

    Raises:
        UserError: where something does not fit the environment.
    """
    env = Parts(env, wrapping.parts, env_id) if wrapping.parts else env
    for wrap in wrapping.wraps:
        try:
            env = _wrapped(env, wrap)
        except BaseException as error:
            if is_stop(error):
                raise
            reason = words_of(error)
            raise UserError(f"env.wrappers: {wrap.name} cannot be put on {env_id}: {reason}") from error
    return env


def _wrapped(env: Env, wrap: Wrap) -> Env:
    make = Resize if wrap.name == "ResizeObservation" else getattr(gym.wrappers, wrap.name)
    if wrap.part is not None:
        return OnPart(env, wrap.part, lambda stub: make(stub, **dict(wrap.arguments)))
    made: Env = make(env, **dict(wrap.arguments))
    return made


class Resize(ObservationWrapper):
    """Images [H, W] or [H, W, channels] of another size: averages over areas, as of Atari's frames.

    It is Gymnasium's ResizeObservation without OpenCV, which averages over areas too where an image becomes smaller.

    Args:
        env: observes images of whole numbers from 0 to 255.
        shape: height and width.

    Raises:
        UserError: where it observes no such images.
    """

    def __init__(self, env: Env, shape: tuple[int, int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3) or space.dtype != np.uint8:
            raise UserError(f"it takes images of uint8, and observations are {plain(space, 80)}")
        self._rows, self._columns = area_weights(space.shape[0], shape[0]), area_weights(space.shape[1], shape[1])
        low, high = int(space.low.min()), int(space.high.max())
        self.observation_space = spaces.Box(low, high, (*shape, *space.shape[2:]), np.uint8)
        self._shape = space.shape

    def observation(self, observation: object) -> np.ndarray:
        """[H, W] or [H, W, channels] → [*shape] or [*shape, channels]."""
        if getattr(observation, "shape", None) != self._shape:
            raise RuleError(f"an observation must have shape {self._shape}", described(observation))
        rows = np.tensordot(self._rows, np.asarray(observation, np.float32), 1)  # [height, W] or [height, W, channels]
        resized: np.ndarray = np.rint(np.einsum("hw...,vw->hv...", rows, self._columns, optimize=True)).astype(np.uint8)
        return resized


class OnPart(ObservationWrapper):
    """Puts a wrapper that is a function of one observation on one part of a Dict or Tuple.

    Args:
        env: observes a Dict or a Tuple.
        part: its name or number.
        make: puts the wrapper on an environment that observes this part alone.

    Raises:
        UserError: where there is no such part.
    """

    def __init__(
        self,
        env: Env,
        part: str,
        make: Callable[[Env], ObservationWrapper],
    ) -> None:
        super().__init__(env)
        there = named_parts(env.observation_space)
        if part not in there:
            raise UserError(f"there is no part {part!r}; the parts are {', '.join(there) or 'none'}")
        alone: Env = gym.Env()
        alone.observation_space, alone.action_space = there[part], env.action_space
        self._function = make(alone)
        space = env.observation_space
        changed = {**there, part: self._function.observation_space}
        self._is_dict = isinstance(space, spaces.Dict)
        self._key: Any = part if self._is_dict else int(part)
        self.observation_space = spaces.Dict(changed) if self._is_dict else spaces.Tuple(changed.values())

    def observation(self, observation: Any) -> object:
        """The same parts, one of them changed."""
        space: Any = self.env.observation_space
        observation = admitted(space, observation)
        part = self._function.observation(observation[self._key])
        if self._is_dict:
            return {**observation, self._key: part}
        return (*observation[: self._key], part, *observation[self._key + 1 :])


def named_parts(space: Space) -> dict[str, Space]:
    """The parts of a Dict or Tuple by name, those of a Tuple by number; {} for every other space."""
    if isinstance(space, spaces.Dict):
        return {str(name): part for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(number): part for number, part in enumerate(space.spaces)}
    return {}


class Parts(ObservationWrapper):
    """Keeps some parts of a Dict or Tuple observation, in their own order; of one part, that part itself.

    Args:
        env: observes a Dict or a Tuple.
        parts: names of those that are kept.
        env_id: for the errors.

    Raises:
        UserError: where there is no such part.
    """

    def __init__(self, env: Env, parts: Sequence[str], env_id: str) -> None:
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

    def observation(self, observation: Any) -> object:
        """The parts of one observation that are kept.

        Raises:
            RuleError: where one of them is missing.
        """
        self._check(observation)
        if self._alone:
            return observation[self._keys[0]]
        values = (observation[key] for key in self._keys)
        return dict(zip(self._keys, values, strict=True)) if self._is_dict else tuple(values)

    def _check(self, observation: object) -> None:
        if self._is_dict:
            if not isinstance(observation, Mapping) or any(key not in observation for key in self._keys):
                raise RuleError(f"an observation must be a dict of {self._all}", described(observation))
        elif not isinstance(observation, tuple | list) or len(observation) != len(self._all):
            raise RuleError(f"an observation must be a tuple of {len(self._all)} parts", described(observation))
