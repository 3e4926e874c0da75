"""Observations with masks of actions, as rows of bytes: the observation first, then a bit for each action.

So a mask goes wherever its observation goes: into replays, checkpoints, evaluations and processes. Of a stack of frames
the mask is that of the newest.
"""

import numpy as np

from agent.common.observation import ObservationSpec, packed


def masked_spec(spec: ObservationSpec, actions: int) -> ObservationSpec:
    """The form of the observations of `spec` with masks of so many actions."""
    if spec.parts:
        return packed(spec.parts, spec.stack, actions)
    frame = ObservationSpec(spec.stored_shape, spec.dtype, spec.high)
    return packed([frame], spec.stack, actions)


class Masking:
    """Puts observations and masks into rows of bytes, and takes them out again.

    Shapes: rows [..., n]; masks [..., A], bools; observations [..., *shape], those of several parts as rows of bytes.

    Args:
        spec: of the rows; it has a mask.
    """

    def __init__(self, spec: ObservationSpec) -> None:
        self.actions, self.inner = spec.mask, spec.unmasked
        self.alone = len(spec.parts) == 1  # whether an observation is one part
        self.frames = spec.stack, spec.stored_shape[0]  # of a row: how many there are, and their bytes
        self.end = spec.ends[-1]  # of the parts in the bytes of a frame
        self.bits = slice(self.end, self.end + -(-spec.mask // 8))  # of the mask, in those of the newest

    def pack(self, observation: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Rows [E, n] of observations [E, *shape], contiguous, and masks [E, A]."""
        rows = np.zeros((len(masks), *self.frames), np.uint8)
        frames = observation.reshape(len(masks), self.frames[0], -1).view(np.uint8)
        rows[:, :, : self.end] = frames[:, :, : self.end]
        rows[:, -1, self.bits] = np.packbits(masks != 0, axis=1)
        return rows.reshape(len(masks), -1)

    def allowed(self, rows: np.ndarray) -> np.ndarray:
        """The masks [E, A] in rows [E, n]."""
        bits = rows.reshape(len(rows), *self.frames)[:, -1, self.bits]
        return np.unpackbits(bits, axis=1, count=self.actions).view(np.bool_)

    def observed(self, rows: np.ndarray) -> np.ndarray:
        """The observations [E, *shape] in rows [E, n]."""
        if not self.alone:
            return rows
        frames = rows.reshape(len(rows), *self.frames)[:, :, : self.end]
        return np.ascontiguousarray(frames).view(self.inner.dtype).reshape(len(rows), *self.inner.shape)
