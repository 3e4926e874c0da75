"""What a replay hands out and an update learns from."""

from typing import Any, NamedTuple

import numpy as np
import torch


class Batch(NamedTuple):
    """B transitions s, a → R, discount, s'; `discount` is γ^k·(1 − terminated), R the discounted sum of k rewards.

    All tensors, or all arrays: on a CPU, an agent by NumPy learns from arrays, and saves a dozen conversions an update.
    """

    observation: Any  # [B, *shape], in the dtype in which it is stored
    action: Any  # [B], int64
    reward: Any  # [B]
    discount: Any  # [B]
    next_observation: Any  # [B, *shape]

    def tensors(self) -> "Batch":
        """The same as tensors."""
        return Batch(*map(torch.from_numpy, self)) if isinstance(self.reward, np.ndarray) else self

    def arrays(self) -> "Batch":
        """The same as arrays, of a batch on the CPU."""
        return self if isinstance(self.reward, np.ndarray) else Batch(*(field.numpy() for field in self))

    def grouped(self, groups: int) -> "Batch":
        """Tensors as views [groups, B / groups, …], one group for each draw of noise; as they are for 1 and B."""
        if groups in (1, len(self.action)):
            return self
        return Batch(*(field.view(groups, -1, *field.shape[1:]) for field in self))

    def repeated(self, times: int) -> "Batch":
        """Tensors for `times` predictions of each row: action, reward and discount [..., times]."""
        action, reward, discount = (x.unsqueeze(-1).expand(*x.shape, times) for x in self[1:4])
        return Batch(self.observation, action, reward, discount, self.next_observation)
