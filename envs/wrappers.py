"""Wrappers in place of Gymnasium's, where those need another package, lose a value or return an older observation."""

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError, plain
from envs.atari import area_weights
from envs.channels import channels_of
from envs.failure import RuleError, described
from envs.kinds import Action, Env, Info, Observation, ObservationWrapper, Wrapper
from envs.rules import as_number, life_lost


class Resize(ObservationWrapper):
    """Images [H, W], [H, W, channels] or [channels, H, W] of another size: pixels are averaged over areas.

    Atari's frames are made in the same way. It replaces Gymnasium's ResizeObservation, which needs OpenCV, also
    averages over areas to shrink an image, and takes the last dimension for channels in every image.

    Args:
        env: an environment that observes images of uint8.
        shape: height and width.

    Attributes:
        first: the dimension of the height: 1 if the channels come first, otherwise 0.

    Raises:
        UserError: if it observes no such images, or their channels cannot be found.
    """

    def __init__(self, env: Env, shape: tuple[int, int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3) or space.dtype != np.uint8:
            raise UserError(f"it takes images of uint8, and observations are {plain(space, 80)}")
        self.first = int(len(space.shape) == 3 and _channels_are_first(space.shape))
        height, width = space.shape[self.first : self.first + 2]
        self._rows, self._columns = area_weights(height, shape[0]), area_weights(width, shape[1])
        low, high = int(space.low.min()), int(space.high.max())
        resized = (*space.shape[: self.first], *shape, *space.shape[self.first + 2 :])
        self.observation_space = spaces.Box(low, high, resized, np.uint8)
        self._shape = space.shape

    def observation(self, observation: object) -> np.ndarray:
        """[H, W, …] → [*shape, …], or [channels, H, W] → [channels, *shape]."""
        if getattr(observation, "shape", None) != self._shape:
            raise RuleError(f"an observation must have shape {self._shape}", described(observation))
        image = np.asarray(observation, np.float32)
        image = np.moveaxis(image, 0, -1) if self.first else image
        rows = np.tensordot(self._rows, image, 1)  # [height, W] or [height, W, channels]
        resized: np.ndarray = np.rint(np.einsum("hw...,vw->hv...", rows, self._columns, optimize=True)).astype(np.uint8)
        return np.moveaxis(resized, -1, 0) if self.first else resized


def _channels_are_first(shape: tuple[int, ...]) -> bool:
    """Whether the channels of an image of three dimensions come first.

    Raises:
        UserError: if its shape does not tell.
    """
    try:
        return channels_of("", shape) == "first"
    except UserError:
        raise UserError(f"the shape {shape} does not tell which dimension holds the channels") from None


class Copies(ObservationWrapper):
    """Copies observations for a wrapper that keeps them, as environments may write into the arrays that they return."""

    def observation(self, observation: Observation) -> Observation:
        """The same observation in arrays of its own."""
        return copied(observation)


def copied(observation: Observation) -> Observation:
    """An observation in which every array or tensor, also inside of a dict, tuple or list, is an array of its own."""
    if isinstance(observation, Mapping):
        return {key: copied(part) for key, part in observation.items()}
    if isinstance(observation, tuple | list):
        return tuple(map(copied, observation))
    return np.asarray(observation).copy() if hasattr(observation, "__array__") else observation


class RepeatAction(Wrapper):
    """Repeats each action until the episode ends, `num_repeats` times at most; rewards are summed.

    Gymnasium's RepeatAction loses a `life_lost` of an info before the last.

    Args:
        env: any environment.
        num_repeats: the number of inner steps.
    """

    def __init__(self, env: Env, num_repeats: int) -> None:
        super().__init__(env)
        self._repeats = num_repeats

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Up to `num_repeats` steps; observation, endings and info are those of the last."""
        total, lost = 0.0, False
        for _ in range(self._repeats):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total, lost = total + as_number(reward), lost or bool(life_lost(info))
            self.see(observation)
            if terminated or truncated:
                break
        if lost:
            info = {**(info if isinstance(info, dict) else {}), "life_lost": True}
        return self.seen(observation), total, terminated, truncated, info

    def see(self, observation: Observation) -> None:
        """Takes the observation of an inner step."""

    def seen(self, observation: Observation) -> Observation:
        """The observation of the whole step, of which the given one is the last."""
        return observation


class MaxAndSkip(RepeatAction):
    """Repeats each action, and observes the maximum of the last two observations.

    In an episode that ends before the last repetition, Gymnasium's MaxAndSkipObservation returns an observation of the
    step before. This class returns the maximum of the last two here, too; of a single one it is that one.

    Args:
        env: an environment that observes arrays.
        skip: the number of inner steps.

    Raises:
        UserError: if it observes something else.
    """

    def __init__(self, env: Env, skip: int = 4) -> None:
        super().__init__(env, skip)
        if env.observation_space.shape is None:
            raise UserError(f"it takes arrays, and observations are {plain(env.observation_space, 80)}")
        self._last: list[np.ndarray] = []

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        """Up to `skip` steps."""
        self._last = []
        return super().step(action)

    def see(self, observation: Observation) -> None:
        """Keeps a copy of the last two."""
        self._last = [*self._last[-1:], np.asarray(observation).copy()]

    def seen(self, observation: Observation) -> np.ndarray:
        """The maximum of the last two."""
        maximum: np.ndarray = np.maximum(self._last[0], self._last[-1])
        return maximum
