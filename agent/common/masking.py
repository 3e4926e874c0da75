"""Observations with masks of actions, as rows of bytes: first the observation, then one bit for each action.

A mask is therefore stored and sent together with its observation: in replays, checkpoints, evaluations and processes.
A stack of frames has the mask of its newest frame.
"""

import numpy as np

from agent.common.observation import ObservationSpec, packed


def masked_spec(spec: ObservationSpec, actions: int) -> ObservationSpec:
    """The form of observations `spec` with masks of the given number of actions."""
    if spec.parts:
        return packed(spec.parts, spec.stack, actions)
    frame = ObservationSpec(spec.stored_shape, spec.dtype, spec.high)
    return packed([frame], spec.stack, actions)


class Masking:
    """Packs observations and masks into rows of bytes, and unpacks them.

    Shapes: rows [..., n]; masks [..., A], bool; observations [..., *shape]. Observations of several parts are rows of
    bytes themselves.

    Args:
        spec: the form of the rows; it has a mask.
    """

    def __init__(self, spec: ObservationSpec) -> None:
        self.actions, self.inner = spec.mask, spec.unmasked
        self.has_one_part = len(spec.parts) == 1  # whether an observation has one part
        self.frame_shape = spec.stack, spec.stored_shape[0]  # of a row: their number, and the bytes of each
        self.end = spec.ends[-1]  # where the parts end in the bytes of a frame
        self.bits = slice(self.end, self.end + -(-spec.mask // 8))  # the bytes of the mask in the newest frame

    def pack(self, observation: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Packs contiguous observations [E, *shape] and masks [E, A] into rows [E, n]."""
        rows = np.zeros((len(masks), *self.frame_shape), np.uint8)
        frames = observation.reshape(len(masks), self.frame_shape[0], -1).view(np.uint8)
        rows[:, :, : self.end] = frames[:, :, : self.end]
        rows[:, -1, self.bits] = np.packbits(masks != 0, axis=1)
        return rows.reshape(len(masks), -1)

    def allowed(self, rows: np.ndarray) -> np.ndarray:
        """The masks [E, A] in rows [E, n]."""
        bits = rows.reshape(len(rows), *self.frame_shape)[:, -1, self.bits]
        return np.unpackbits(bits, axis=1, count=self.actions).view(np.bool_)

    def observed(self, rows: np.ndarray) -> np.ndarray:
        """The observations [E, *shape] in rows [E, n]."""
        if not self.has_one_part:
            return rows
        frames = rows.reshape(len(rows), *self.frame_shape)[:, :, : self.end]
        return np.ascontiguousarray(frames).view(self.inner.dtype).reshape(len(rows), *self.inner.shape)
