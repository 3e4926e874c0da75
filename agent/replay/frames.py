"""The observations of a ring replay: each frame is stored once, and sampling rebuilds the stacks."""

import numpy as np

from agent.common.arrays import Array, Place, float_columns, restore_array, take_round, write
from agent.common.observation import ObservationSpec
from agent.common.state import State


class Frames:
    """The observations of `rows` vector steps of `num_envs` environments; environment e in row t is at t·num_envs + e.

    An observation may be a stack of k frames, the newest last. Then only the newest frame is stored, with its age: the
    number of earlier frames of the same episode, at most k − 1. A stack of age a holds the last a + 1 frames; the
    oldest of them is repeated, because environments fill the first stack of an episode with its first frame.

    Args:
        spec: the form of an observation.
        rows: the number of rows of the ring.
        num_envs: E.
        place: the place of the arrays.
    """

    def __init__(self, spec: ObservationSpec, rows: int, num_envs: int, place: Place) -> None:
        self.stack, self.num_envs = spec.stack, num_envs
        self._channels = spec.stored_shape[0]
        self._float_bytes, self._packed = spec.float_bytes, bool(spec.parts)
        size = rows * num_envs
        self.observations = place.zeros((size, *spec.stored_shape), spec.dtype)
        self.ages = place.zeros(size if spec.stack > 1 else 0, "uint8")
        self._newest = np.zeros(num_envs, dtype=np.uint8)  # the ages of the frames in the newest row
        self._back = place.put(np.arange(spec.stack - 1, -1, -1))  # k − 1 … 0

    def put(self, row: int, observation: np.ndarray, begins: np.ndarray) -> None:
        """Writes a row of observations [E, *shape]; `begins` [E] marks the first one of an episode."""
        where = slice(row * self.num_envs, (row + 1) * self.num_envs)
        if self.stack > 1:
            observation = observation[:, -self._channels :]
            self._newest = np.where(begins, 0, np.minimum(self._newest + 1, self.stack - 1)).astype(np.uint8)
            write(self.ages, where, self._newest)
        write(self.observations, where, observation)

    def take(self, index: Array) -> Array:
        """The observations [B, *shape] at the flat rows `index` [B]; an index past the end wraps round."""
        if self.stack == 1:
            return take_round(self.observations, index)
        age = take_round(self.ages, index)[:, None]
        back = self._back - (self._back - age).clip(0)  # the minimum of both
        frames = index[:, None] - back * self.num_envs  # [B, k]
        stacks = take_round(self.observations, frames.reshape(-1))
        return stacks.reshape(len(index), self.stack * self._channels, *stacks.shape[2:])  # no −1: B may be 0

    def numbers(self) -> Array:
        """The stored numbers, for a check that they are finite; in rows of bytes only the float32 parts."""
        return float_columns(self.observations, self._float_bytes) if self._packed else self.observations

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds."""
        return {"observations": self.observations, "ages": self.ages, "newest_ages": self._newest}

    def load_state(self, state: State) -> None:
        """Restores `state`.

        Raises:
            ValueError: if an array has another shape or dtype.
        """
        restore_array(self.observations, state["observations"], "observations")
        restore_array(self.ages, state["ages"], "ages")
        self._newest = np.array(state["newest_ages"], dtype=np.uint8)
