"""The observations of a ring replay, each frame stored once: stacks are put together when they are sampled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import as_array, take_round, write
from agent.common.observation import ObservationSpec


class Frames:
    """`rows` vector steps of `num_envs` environments, flat: row t of environment e is at t·num_envs + e.

    Of an observation that is a stack of k frames, the newest last, only the newest is stored, with its age: how many
    frames of the same episode came before it, up to k − 1. A stack at age a is made of the last a + 1 frames, the
    oldest of them repeated: what an environment shows that fills its first stack with its first frame.

    Args:
        spec: what an observation is.
        rows: of the ring.
        num_envs: E.
        device: where they lie.
        view: how they are worked on: as they are, or on the CPU as arrays.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        rows: int,
        num_envs: int,
        device: torch.device,
        view: Callable[[Tensor], Any] = as_array,
    ) -> None:
        self.stack, self.num_envs = spec.stack, num_envs
        self._channels = spec.stored_shape[0]
        size = rows * num_envs
        self.observations = torch.zeros((size, *spec.stored_shape), dtype=getattr(torch, spec.dtype), device=device)
        self.ages = torch.zeros(size if spec.stack > 1 else 0, dtype=torch.uint8, device=device)
        self._observations, self._ages = view(self.observations), view(self.ages)
        self._newest = np.zeros(num_envs, dtype=np.uint8)  # ages of the row that was written last
        self._back = view(torch.arange(spec.stack - 1, -1, -1, device=device))  # k − 1 … 0

    def put(self, row: int, observation: np.ndarray, begins: np.ndarray) -> None:
        """Writes a row: observations [E, *shape], and which of them [E] are the first of an episode."""
        where = slice(row * self.num_envs, (row + 1) * self.num_envs)
        if self.stack > 1:
            observation = observation[:, -self._channels :]
            self._newest = np.where(begins, 0, np.minimum(self._newest + 1, self.stack - 1)).astype(np.uint8)
            write(self._ages, where, self._newest)
        write(self._observations, where, observation)

    def take(self, index: Any) -> Any:
        """The observations [B, *shape] at the flat rows `index` [B], counted round the ring."""
        if self.stack == 1:
            return take_round(self._observations, index)
        age = take_round(self._ages, index)[:, None]
        back = self._back - (self._back - age).clip(0)  # the smaller of the two
        frames = index[:, None] - back * self.num_envs  # [B, k]
        taken = take_round(self._observations, frames.reshape(-1))
        return taken.reshape(len(index), -1, *taken.shape[2:])

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        return {"observations": self.observations, "ages": self.ages, "newest_ages": self._newest}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: where it is of another shape or dtype.
        """
        for name, target in (("observations", self.observations), ("ages", self.ages)):
            source = state[name]
            if (target.shape, target.dtype) != (source.shape, source.dtype):
                found, expected = (f"{tuple(x.shape)} of {x.dtype}" for x in (source, target))
                raise ValueError(f"replay {name} are {found}, expected {expected}")
            target.copy_(source)
        self._newest = np.array(state["newest_ages"], dtype=np.uint8)
