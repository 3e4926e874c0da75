"""Batches of transitions: a replay returns them, and an update learns from them."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, as_array, as_tensor

A = TypeVar("A", bound=Array, covariant=True)


class Batch(NamedTuple, Generic[A]):
    """B transitions s, a → R, discount, s'. R is the discounted sum of k rewards, `discount` is γ^k·(1 − terminated).

    A replay on the CPU returns NumPy arrays, and a replay on an accelerator returns tensors.
    """

    observation: A  # [B, *shape], in the dtype of the replay
    action: A  # [B], int64
    reward: A  # [B]
    discount: A  # [B]
    next_observation: A  # [B, *shape]

    def tensors(self, device: torch.device) -> Batch[Tensor]:
        """The batch as tensors: arrays go to the device, and tensors stay where they are."""
        return Batch(*(as_tensor(field, device) for field in self))

    def arrays(self) -> Batch[np.ndarray]:
        """The batch as NumPy arrays; it must be on the CPU."""
        return Batch(*map(as_array, self))


class Sample(NamedTuple):
    """A batch of B transitions. A prioritised sample also has the weights [B] of their losses, and their rows [B].

    `rows` are positions in the replay, for `Replay.update_priorities`.
    """

    batch: Batch[Array]
    weight: Array | None = None
    rows: Array | None = None
