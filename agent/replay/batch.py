"""Transitions, as a replay hands them out and an update learns from them."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, as_array, as_tensor

A = TypeVar("A", bound=Array, covariant=True)


class Batch(NamedTuple, Generic[A]):
    """B transitions s, a → R, discount, s'; `discount` is γ^k·(1 − terminated), R the discounted sum of k rewards.

    A replay on a CPU gives NumPy arrays, a replay on an accelerator gives tensors.
    """

    observation: A  # [B, *shape], in the dtype in which it is stored
    action: A  # [B], int64
    reward: A  # [B]
    discount: A  # [B]
    next_observation: A  # [B, *shape]

    def tensors(self, device: torch.device) -> Batch[Tensor]:
        """The same as tensors on a device."""
        return Batch(*(as_tensor(field, device) for field in self))

    def arrays(self) -> Batch[np.ndarray]:
        """The same as arrays, of a batch on the CPU."""
        return Batch(*map(as_array, self))


class Sample(NamedTuple):
    """A batch of B transitions. If priorities chose them, it has the weights [B] of their losses, and their rows [B].

    `rows` are their places in the replay, for `Replay.update_priorities`.
    """

    batch: Batch[Array]
    weight: Array | None = None
    rows: Array | None = None
