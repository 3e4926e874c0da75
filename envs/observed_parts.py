"""Observations that combine images with other values: each image is one part, and everything else is one vector.

The parts lie side by side in rows of bytes, each in its own dtype, so that a replay stores and samples one array.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from agent.common.errors import UserError
from agent.common.kinds import PlainData
from agent.common.observation import ObservationSpec, packed
from envs.channels import BoxChannels, Channels
from envs.kinds import Space
from envs.leaves import is_flat, leaves_of, length_of, values_of
from envs.observations import Observer, frame_of, is_image, observer_of, refusal
from envs.parts import named_parts


@dataclass(frozen=True, eq=False)
class PartsObserver(Observer):
    """Turns a Dict or a Tuple with images into rows of bytes; see `agent.common.observation.packed`."""

    observers: tuple[Observer, ...] = ()  # of the parts, for one frame; float32 parts come first
    leaves: tuple[tuple[int, ...], ...] = ()  # for each part, the indices of its leaves
    frames: int = 1
    requested_channels: Channels | None = None  # the user's choice of the channels' dimension

    @property
    def channels(self) -> Channels | None:
        """The dimension of images that holds the channels, if the user chose it."""
        return self.requested_channels

    def __call__(self, batch: object) -> np.ndarray:
        """The observations of E environments as rows of bytes [E, n]."""
        values = [np.asarray(value) for value in values_of(self.space, batch)]
        rows = len(values[0]) * self.frames
        if self.frames > 1:
            values = [value.reshape(rows, *value.shape[2:]) for value in values]
        encoded = np.zeros((rows, self.spec.stored_shape[0]), np.uint8)
        start = 0
        for observe, leaves, end in zip(self.observers, self.leaves, self.spec.ends, strict=True):
            values_of_part = tuple(values[leaf] for leaf in leaves)
            part = observe(values_of_part if isinstance(observe.space, spaces.Tuple) else values_of_part[0])
            encoded[:, start:end] = part.reshape(rows, -1).view(np.uint8)
            start = end
        return encoded.reshape(-1, self.spec.shape[0])

    def description(self) -> PlainData:
        """The observations in a saved agent's description, with their parts."""
        parts = [observe.description() for observe in self.observers]
        return {"shape": list(self.spec.shape), "stack": self.frames, "parts": parts}


def observer_for(
    env_id: str, space: Space, stack: int = 1, channels: BoxChannels = "auto", frames: int = 1
) -> Observer:
    """How to observe an environment; see `observer_of`.

    Raises:
        UserError: if no network can take its observations.
    """
    if channels in ("flat", "older") or not isinstance(space, spaces.Dict | spaces.Tuple):
        return observer_of(env_id, space, stack, channels, frames)
    leaves = [_one_frame(leaf, frames) for leaf in leaves_of(space)]
    images = [i for i, leaf in enumerate(leaves) if isinstance(leaf, spaces.Box) and is_image(env_id, leaf, channels)]
    if not images:
        return observer_of(env_id, space, stack, channels, frames)
    if not all(map(is_flat, leaves_of(space))):
        raise UserError(refusal(env_id, space))
    if any(leaf is None for leaf in leaves):
        raise UserError(
            f"{env_id} has parts that FrameStackObservation cannot stack: choose others with env.observation"
        )
    rest = [i for i, leaf in enumerate(leaves) if i not in images and leaf is not None and length_of(leaf) > 0]
    return _observer(env_id, space, leaves, images, rest, channels, frames)


def images_of_bytes(observe: Observer) -> dict[str | None, ObservationSpec]:
    """The forms of images of bytes: of the parts of a Dict or Tuple by name, or under None of the one image."""
    if not isinstance(observe, PartsObserver):
        return {None: observe.spec} if _is_of_bytes(observe) else {}
    pairs = zip(observe.observers, observe.leaves, strict=True)
    images = {leaves[0]: observer.spec for observer, leaves in pairs if _is_of_bytes(observer)}
    found: dict[str | None, ObservationSpec] = {}
    leaf = 0
    for name, part in named_parts(observe.space).items():
        if isinstance(part, spaces.Box) and leaf in images:
            found[name] = images[leaf]
        leaf += sum(1 for _ in leaves_of(part))
    return found


def _is_of_bytes(observe: Observer) -> bool:
    return observe.spec.is_image and observe.spec.dtype == "uint8"


def without_part(observe: Observer) -> tuple[str, ...]:
    """The names of the parts without the one that takes the most memory; () if none can be left out."""
    available = named_parts(observe.space)
    if not isinstance(observe, PartsObserver) or len(available) < 2 or observe.frames > 1:
        return ()
    kept = [tuple(name for name in available if name != removed) for removed in available]
    forms = []
    for names in kept:
        parts = [available[name] for name in names]
        forms.append(observer_for(observe.env_id, parts[0] if len(parts) == 1 else spaces.Tuple(parts)).spec)
    smallest = min(range(len(forms)), key=lambda i: forms[i].stored_bytes)
    return kept[smallest]


def _observer(
    env_id: str,
    space: Space,
    leaves: Sequence[Space | None],
    images: Sequence[int],
    rest: Sequence[int],
    channels: BoxChannels,
    frames: int,
) -> PartsObserver:
    observers_and_leaves: list[tuple[Observer, tuple[int, ...]]] = []
    for i in images:
        leaf = leaves[i]
        assert leaf is not None
        leaf_channels: BoxChannels = channels if len(leaf.shape or ()) == 3 else "auto"
        observers_and_leaves.append((observer_of(env_id, leaf, channels=leaf_channels), (i,)))
    if rest:
        vector = spaces.Tuple([leaf for i in rest if (leaf := leaves[i]) is not None])
        observers_and_leaves.append((observer_of(env_id, vector), tuple(rest)))
    observers_and_leaves.sort(key=lambda pair: pair[0].spec.dtype != "float32")  # a stable sort
    observers, parts = zip(*observers_and_leaves, strict=True)
    spec = packed([observe.spec for observe in observers], frames)
    requested_channels = channels if channels in ("first", "last") else None
    return PartsObserver(space, spec, None, None, (), env_id, observers, parts, frames, requested_channels)


def _one_frame(leaf: Space, frames: int) -> Space | None:
    """The space of one frame of a leaf; None if it has no such space."""
    if frames == 1:
        return leaf
    match leaf:
        case spaces.Box():
            return frame_of(leaf, frames)
        case spaces.MultiDiscrete() if leaf.nvec.ndim == 1:
            return spaces.Discrete(int(leaf.nvec[0]), start=int(leaf.start[0]))
        case spaces.MultiDiscrete():
            return spaces.MultiDiscrete(leaf.nvec[0], start=leaf.start[0])
        case spaces.MultiBinary() if len(leaf.shape) > 1:
            return spaces.MultiBinary(leaf.shape[1:])
    return None
