"""Turns observations of every Gymnasium space into vectors [E, n] or images [E, channels, height, width].

Dict, Tuple, Discrete, MultiDiscrete and MultiBinary are flattened to vectors as Gymnasium does it, for all environments
at once. A Box is an image if it has two or three dimensions, a height and width of 3 or more, and bounds; any other Box
is a vector. `envs.channels` finds the dimension that holds the channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from agent.common.errors import UserError, plain
from agent.common.kinds import PlainData
from agent.common.observation import ObservationSpec
from envs.channels import SMALLEST_SIDE, BoxChannels, Channels, channels_of
from envs.failure import RuleError, broken
from envs.kinds import Observation, Space
from envs.leaves import ONE_HOT, bounds_of, flat_values, is_flat, is_integral, leaves_of, length_of, values_of
from envs.parts import named_parts

#: Images and integers with a range below this are rescaled; a wider range is hardly meant as a bound.
WIDEST_RANGE = 2.0**16

#: The longest list of numbers in a saved agent's description; of more numbers it holds a checksum.
MAX_LISTED = 10_000
#: The largest length of a vector: ten million weights for each neuron of the first layer.
MAX_LENGTH = 10_000_000


@dataclass(frozen=True, eq=False)
class Observer:
    """Turns environments' observations into the arrays that the agent stores.

    Vectors are float32 with narrow components rescaled to [−1, 1], or bool if all of their parts are Discrete,
    MultiDiscrete, MultiBinary or Boxes of bool. Images have their channels first; uint8 and bool keep their dtype,
    others become float32 in [0, 1].
    """

    space: Space
    spec: ObservationSpec
    shift: np.ndarray | None  # [n], or [1] for an image: (observation − shift)·scale
    scale: np.ndarray | None
    axes: tuple[int, ...] = ()  # how a batch of images with channels is transposed
    env_id: str = ""  # for error messages

    @property
    def unmasked(self) -> "Observer":
        """The observer without action masks: this one."""
        return self

    @property
    def channels(self) -> Channels | None:
        """The dimension of an image [a, b, c] that holds the channels; None for every other observation."""
        return None if not self.axes else "first" if self.axes == tuple(range(len(self.axes))) else "last"

    @np.errstate(over="ignore")  # the monitor checks that values are finite
    def __call__(self, batch: object) -> np.ndarray:
        """The observations of E environments, batched as Gymnasium does, as a new array [E, *spec.shape].

        Raises:
            UserError: if an observation is not in its finite space.
        """
        try:
            values = self._image(batch) if self.spec.is_image else self._vector(batch)
        except RuleError as error:
            raise broken(self.env_id, error) from error
        if self.shift is None:
            return np.array(values, dtype=self.spec.dtype, order="C")  # a copy: environments overwrite their own
        return np.asarray((values - self.shift) * self.scale, dtype=self.spec.dtype, order="C")

    @np.errstate(over="ignore")
    def stack(self, observations: Sequence[Observation]) -> Observation:
        """Observations of single environments, batched as Gymnasium does."""
        if isinstance(self.space, (spaces.Box, *ONE_HOT)):
            return np.stack(observations)
        empty: Any = create_empty_array(self.space, len(observations))
        return concatenate(self.space, observations, empty)

    def description(self) -> PlainData:
        """The observations in a saved agent's description; long vectors of constants become checksums."""
        plain = [
            None if x is None else x.tolist() if x.size <= MAX_LISTED else sha256(x.tobytes()).hexdigest()
            for x in (self.shift, self.scale)
        ]
        spec = self.spec
        return {"shape": list(spec.shape), "dtype": spec.dtype, "high": spec.high, "shift": plain[0], "scale": plain[1]}

    def _image(self, batch: object) -> np.ndarray:
        values: np.ndarray = np.asarray(batch)
        if self.spec.dtype == "uint8" and values.dtype != np.uint8:  # wider integers, which must not wrap round
            low, high = values.min(), values.max()
            if low < 0 or high > 255:
                raise RuleError(f"an image must lie in {plain(self.space, 80)}", f"an image of {low} to {high}")
        return values.transpose(self.axes).reshape(len(values), *self.spec.shape) if self.axes else values[:, None]

    def _vector(self, batch: Observation) -> np.ndarray:
        if isinstance(self.space, spaces.Box):
            return batch.reshape(len(batch), -1)  # type: ignore[no-any-return]
        pairs = zip(leaves_of(self.space), values_of(self.space, batch), strict=True)
        parts = [flat_values(leaf, values) for leaf, values in pairs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def observer_of(
    env_id: str,
    space: Space,
    stack: int = 1,
    channels: BoxChannels = "auto",
    frames: int = 1,
) -> Observer:
    """How to observe an environment.

    Args:
        env_id: the environment's id, for error messages.
        space: its observation space.
        stack: the number of frames in an image, the newest last.
        channels: the dimension of an image that holds them; `auto` finds it, `older` as the first version did, `flat`
            makes a vector of it.
        frames: 2 or more if the first dimension of a Box, or of each part, is one of frames, the newest last.

    Raises:
        UserError: if its observations have no fixed length or are empty, or its channels cannot be found.
    """
    if isinstance(space, spaces.Box) and is_image(env_id, frame := frame_of(space, frames), channels):
        side = channels_of(env_id, frame.shape, channels) if len(frame.shape) == 3 else None
        observer = _image_observer(env_id, frame, stack, side)
        return observer if frames == 1 else _stacked(observer, space, frames)
    leaves = list(leaves_of(space))
    if channels in ("first", "last") and not any(_has_three_sides(leaf, frames) for leaf in leaves):
        raise UserError(f"env.channels={channels} does nothing: {env_id} observes no images of three sides")
    if not all(is_flat(leaf) for leaf in leaves):
        raise UserError(refusal(env_id, space))
    if (length := sum(length_of(leaf) for leaf in leaves)) > MAX_LENGTH:
        raise UserError(
            f"{env_id} has observations of {length:,} numbers: the most that are supported are {MAX_LENGTH:,}"
        )
    bounds = [bounds_of(leaf) for leaf in leaves]
    low, high = (np.concatenate([pair[i] for pair in bounds]) if bounds else np.empty(0) for i in (0, 1))
    if not len(low):
        raise UserError(f"{env_id} has observations {plain(space, 200)}: there is nothing in them")
    binary = all(isinstance(leaf, ONE_HOT) or leaf.dtype == np.bool_ for leaf in leaves)
    integral = np.concatenate(
        [np.full(len(pair[0]), is_integral(leaf)) for leaf, pair in zip(leaves, bounds, strict=True)]
    )
    shift, scale = _rescaling(low, high, integral)
    spec = ObservationSpec((len(low),), "bool" if binary else "float32")
    stretched = bool(shift.any() or (scale != 1.0).any())
    rescaled = stretched and not binary
    return Observer(space, spec, shift if rescaled else None, scale if rescaled else None, env_id=env_id)


def refusal(env_id: str, space: Space) -> str:
    """The sentence for observations that no network can take: the part at fault, and the option that drops it."""
    is_supported = {name: all(map(is_flat, leaves_of(part))) for name, part in named_parts(space).items()}
    supported, unsupported = (
        [name for name in is_supported if is_supported[name] is wanted] for wanted in (True, False)
    )
    if not supported:
        return f"{env_id} has observations {plain(space, 200)}: their length is not fixed, so no network can take them"
    names = " and ".join(f"{name!r} ({plain(named_parts(space)[name], 80)})" for name in unsupported)
    return (
        f"{env_id} observes {names}, which no network can take: env.observation=[{','.join(supported)}] leaves it out"
    )


def frame_of(space: spaces.Box, frames: int) -> spaces.Box:
    """The space of one frame."""
    if frames == 1:
        return space
    return spaces.Box(space.low[0], space.high[0], space.shape[1:], space.dtype)


def _stacked(observer: Observer, space: Space, frames: int) -> Observer:
    """The observer of one image, for stacks of `frames` images whose channels are joined."""
    channels, *sides = observer.spec.shape
    spec = replace(observer.spec, shape=(frames * channels, *sides), stack=frames)
    axes = (0, 1, *(axis + 1 for axis in observer.axes[1:])) if observer.axes else (0, 1, 2, 3)
    return replace(observer, space=space, spec=spec, axes=axes)


def has_bounds(space: spaces.Box) -> bool:
    """Whether a Box has two or three dimensions and bounds, as an image has: their range is below WIDEST_RANGE."""
    if len(space.shape) not in (2, 3) or not space.low.size:
        return False
    return 0.0 < float(space.high.max()) - float(space.low.min()) < WIDEST_RANGE


def is_image(env_id: str, frame: spaces.Box, channels: BoxChannels) -> bool:
    """Whether a Box is an image that can be convolved.

    Raises:
        UserError: if its channels cannot be found.
    """
    if not has_bounds(frame):
        return False
    if len(frame.shape) == 2:
        return min(frame.shape) >= SMALLEST_SIDE
    return channels_of(env_id, frame.shape, channels) is not None


def _has_three_sides(leaf: Space, frames: int) -> bool:
    return isinstance(leaf, spaces.Box) and has_bounds(frame := frame_of(leaf, frames)) and len(frame.shape) == 3


def _image_observer(env_id: str, space: spaces.Box, stack: int, channels: Channels | None) -> Observer:
    order: tuple[int, ...] = () if channels is None else (0, 1, 2) if channels == "first" else (2, 0, 1)
    shape = tuple(space.shape[i] for i in order) or (1, *space.shape)
    axes = (0, *(i + 1 for i in order)) if order else ()
    low, high = float(space.low.min()), float(space.high.max())
    if space.dtype == np.bool_:
        return Observer(space, ObservationSpec(shape, "bool"), None, None, axes, env_id)
    if np.issubdtype(space.dtype, np.integer) and low >= 0 and high <= 255:
        return Observer(space, ObservationSpec(shape, "uint8", high, stack), None, None, axes, env_id)
    shift, scale = (None, None) if (low, high) == (0.0, 1.0) else (np.array([low]), np.array([1.0 / (high - low)]))
    return Observer(space, ObservationSpec(shape), shift, scale, axes, env_id)


def _rescaling(low: np.ndarray, high: np.ndarray, integral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale [n] that rescale components narrower than [−1, 1] to it, and leave the others unchanged.

    MountainCar's velocity stays within ±0.07: without rescaling, a network with weights of unit scale would hardly
    notice it. Integers, such as the bytes of a memory, are rescaled to [−1, 1] from wider ranges, too.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # some bounds are the largest float, or infinite
        width = high - low
    narrow = (width > 0) & (width < np.where(integral, WIDEST_RANGE, 2.0))
    low, width = np.where(narrow, low, 0.0), np.where(narrow, width, 2.0)
    return np.where(narrow, low + width / 2, 0.0), 2.0 / width
