"""The form of an observation: its shape, how a replay stores it, and how a network reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np


@dataclass(frozen=True)
class ObservationSpec:
    """Shape and storage of one observation. `envs.observations` converts the observations of Gymnasium to this form.

    A vector is [n], in float32, or in bool if its space says that all its components are 0 or 1 (Discrete,
    MultiDiscrete, MultiBinary, or a Box of bool). An image is [channels, height, width]. It keeps the dtype uint8 or
    bool, which takes a quarter of the memory, and is not copied until a network reads it.

    An observation of several parts is a row of bytes [stack·m], uint8: m bytes hold the `parts` one after the other,
    each in its own dtype, float32 first, and zeros up to a multiple of 4 (see `packed`). An observation with a mask of
    actions is such a row as well, with the bits of the mask behind the parts (see `agent.common.masking`).
    """

    shape: tuple[int, ...]
    dtype: str = "float32"  # float32 | uint8 | bool
    high: float = 1.0  # of an image: the stored value that a network reads as 1
    stack: int = 1  # of an image: the number of frames in its channels, the newest last; each observation shifts by one
    parts: tuple["ObservationSpec", ...] = ()  # the parts in a row of bytes, each of one frame
    mask: int = 0  # of a row of bytes: the number of actions with a bit, which is 1 if the action is allowed

    @property
    def unmasked(self) -> "ObservationSpec":
        """The form of the observation without its mask; a single part is no longer a row of bytes."""
        if not self.mask:
            return self
        return self.stacked(self.parts[0]) if len(self.parts) == 1 else replace(self, mask=0)

    @property
    def is_image(self) -> bool:
        """Whether the shape is [channels, height, width]; otherwise it is [n]."""
        return len(self.shape) == 3

    @property
    def size(self) -> int:
        """The number of components."""
        return prod(self.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that a replay stores; for a stack of frames, that of the newest frame."""
        return (self.shape[0] // self.stack, *self.shape[1:])

    @property
    def stored_bytes(self) -> int:
        """The bytes of one stored observation, including the age of its stack."""
        return prod(self.stored_shape) * np.dtype(self.dtype).itemsize + (self.stack > 1)

    @property
    def ends(self) -> list[int]:
        """The ends of the parts in the bytes of a frame."""
        ends, end = [], 0
        for part in self.parts:
            end += part.stored_bytes
            ends.append(end)
        return ends

    @property
    def float_bytes(self) -> int:
        """The number of bytes at the start of a frame that hold the float32 parts."""
        return sum(part.stored_bytes for part in self.parts if part.dtype == "float32")

    def stacked(self, part: "ObservationSpec") -> "ObservationSpec":
        """The form of a part in a stack: frames become channels, and vectors are one after the other."""
        return ObservationSpec((self.stack * part.shape[0], *part.shape[1:]), part.dtype, part.high)

    def __str__(self) -> str:
        if self.parts:
            return " and ".join(str(self.stacked(part)) for part in self.parts)
        kind = "images" if self.is_image else "vectors"
        return f"{kind} {list(self.shape)} of {self.dtype}"


def packed(parts: Sequence[ObservationSpec], stack: int = 1, mask: int = 0) -> ObservationSpec:
    """The form of rows of bytes that hold several parts for each of `stack` frames.

    Args:
        parts: the form of each part in one frame; float32 parts come first.
        stack: the number of frames.
        mask: the number of actions that have a bit behind the parts; 0 without masks.

    Raises:
        ValueError: if a float32 part does not come first.
    """
    kinds = [part.dtype != "float32" for part in parts]
    if kinds != sorted(kinds):
        raise ValueError("parts of float32 must come first, where their bytes are aligned")
    length = sum(part.stored_bytes for part in parts) + -(-mask // 8)
    return ObservationSpec((stack * (length + -length % 4),), "uint8", 1.0, stack, tuple(parts), mask)


def as_spec(observation: "ObservationSpec | int") -> ObservationSpec:
    """Returns a form unchanged; a number n stands for float32 vectors of that length."""
    return observation if isinstance(observation, ObservationSpec) else ObservationSpec((observation,))
