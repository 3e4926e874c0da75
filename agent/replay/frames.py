"""The observations of a ring replay: each frame is stored once, and sampling puts the stacks together."""

from typing import Any

import numpy as np

from agent.common.arrays import Array, Place, float_columns, restore_array, take_round, write
from agent.common.observation import ObservationSpec


class Frames:
    """`rows` vector steps of `num_envs` environments, flat: row t of environment e is at t·num_envs + e.

    An observation may be a stack of k frames, the newest last. Then only the newest is stored, with its age: how many
    frames of the same episode came before it, up to k − 1. A stack at age a holds the last a + 1 frames and repeats the
    oldest of them, as environments fill the first stack of an episode with its first frame.

    Args:
        spec: form of an observation.
        rows: of the ring.
        num_envs: E.
        place: of the arrays.
    """

    def __init__(self, spec: ObservationSpec, rows: int, num_envs: int, place: Place) -> None:
        self.stack, self.num_envs = spec.stack, num_envs
        self._channels = spec.stored_shape[0]
        self._float_bytes, self._packed = spec.float_bytes, bool(spec.parts)
        size = rows * num_envs
        self.observations = place.zeros((size, *spec.stored_shape), spec.dtype)
        self.ages = place.zeros(size if spec.stack > 1 else 0, "uint8")
        self._newest = np.zeros(num_envs, dtype=np.uint8)  # ages of the row that was written last
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
        """The observations [B, *shape] at the flat rows `index` [B], counted round the ring."""
        if self.stack == 1:
            return take_round(self.observations, index)
        age = take_round(self.ages, index)[:, None]
        back = self._back - (self._back - age).clip(0)  # the smaller of the two
        frames = index[:, None] - back * self.num_envs  # [B, k]
        stacks = take_round(self.observations, frames.reshape(-1))
        return stacks.reshape(len(index), -1, *stacks.shape[2:])

    def numbers(self) -> Array:
        """What is stored, as numbers of which some may not be finite: of rows of bytes, the parts in float32."""
        return float_columns(self.observations, self._float_bytes) if self._packed else self.observations

    def state(self) -> dict[str, object]:
        """Everything that a checkpoint has to hold."""
        return {"observations": self.observations, "ages": self.ages, "newest_ages": self._newest}

    def load_state(self, state: State) -> None:
        """Goes on from `state`.

        Raises:
            ValueError: where it is of another shape or dtype.
        """
        restore_array(self.observations, state["observations"], "observations")
        restore_array(self.ages, state["ages"], "ages")
        self._newest = np.array(state["newest_ages"], dtype=np.uint8)
