"""The form of an observation: how a replay stores it, and how a network reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np


@dataclass(frozen=True)
class ObservationSpec:
    """Shape and storage of one observation; `envs.observations` makes everything that Gymnasium knows into one of two.

    A vector is [n], as float32, or as bool where all its components are 0 or 1. An image is [channels, height, width],
    as uint8 or bool where it came as such: a quarter of the memory, and no copy until a network reads it.

    Images beside other things are rows of bytes [stack·m], uint8: m bytes hold `parts` side by side, each in its own
    dtype, float32 first, and zeros up to a multiple of 4. See `packed`. So is whatever comes with a mask of actions,
    whose bits lie behind the parts: see `agent.common.masking`.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"  # float32 | uint8 | bool
    high: float = 1.0  # of an image: the stored value that a network is given as 1
    stack: int = 1  # of an image: its channels are this many frames, the newest last; each next one is moved on by one
    parts: tuple["ObservationSpec", ...] = ()  # that lie in a row of bytes, each of one frame
    mask: int = 0  # of rows of bytes: so many actions, each with a bit that is 1 where it is allowed

    @property
    def unmasked(self) -> "ObservationSpec":
        """The form of what a network takes as its input: of one part, that part itself."""
        if not self.mask:
            return self
        return self.stacked(self.parts[0]) if len(self.parts) == 1 else replace(self, mask=0)

    @property
    def is_image(self) -> bool:
        """Whether it is [channels, height, width]; otherwise it is [n]."""
        return len(self.shape) == 3

    @property
    def size(self) -> int:
        """How many numbers it is."""
        return prod(self.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that a replay stores: of a stack of frames, the newest frame."""
        return (self.shape[0] // self.stack, *self.shape[1:])

    @property
    def stored_bytes(self) -> int:
        """Bytes of one stored observation, with the age of its stack."""
        return prod(self.stored_shape) * np.dtype(self.dtype).itemsize + (self.stack > 1)

    @property
    def ends(self) -> list[int]:
        """Where the parts end in the bytes of a frame."""
        ends, end = [], 0
        for part in self.parts:
            end += part.stored_bytes
            ends.append(end)
        return ends

    @property
    def float_bytes(self) -> int:
        """How many bytes of a frame, its first ones, are the parts in float32."""
        return sum(part.stored_bytes for part in self.parts if part.dtype == "float32")

    def stacked(self, part: "ObservationSpec") -> "ObservationSpec":
        """A part, with the frames of a stack as its channels, or one vector after the other."""
        return ObservationSpec((self.stack * part.shape[0], *part.shape[1:]), part.dtype, part.high)

    def __str__(self) -> str:
        if self.parts:
            return " and ".join(str(self.stacked(part)) for part in self.parts)
        kind = "images" if self.is_image else "vectors"
        return f"{kind} {list(self.shape)} of {self.dtype}"


def packed(parts: Sequence[ObservationSpec], stack: int = 1, mask: int = 0) -> ObservationSpec:
    """Parts side by side in rows of bytes, `stack` frames of them; those of float32 must come first.

    Args:
        parts: each of one frame.
        stack: how many frames.
        mask: actions that have a bit each, behind the parts; 0 where there are no masks.

    Raises:
        ValueError: where they do not.
    """
    kinds = [part.dtype != "float32" for part in parts]
    if kinds != sorted(kinds):
        raise ValueError("parts of float32 must come first, where their bytes are aligned")
    length = sum(part.stored_bytes for part in parts) + -(-mask // 8)
    return ObservationSpec((stack * (length + -length % 4),), "uint8", 1.0, stack, tuple(parts), mask)


def as_spec(observation: "ObservationSpec | int") -> ObservationSpec:
    """A number n stands for float32 vectors of that length."""
    return observation if isinstance(observation, ObservationSpec) else ObservationSpec((observation,))
