"""What a replay hands out and an update learns from."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """B transitions s, a → R, discount, s'; `discount` is γ^k·(1 − terminated), R the discounted sum of k rewards."""

    observation: Tensor  # [B, *shape], in the dtype in which it is stored
    action: Tensor  # [B], int64
    reward: Tensor  # [B]
    discount: Tensor  # [B]
    next_observation: Tensor  # [B, *shape]

    def grouped(self, groups: int) -> "Batch":
        """The same rows as views [groups, B / groups, …], one group for each draw of noise; as they are for 1 and B."""
        if groups in (1, len(self.action)):
            return self
        return Batch(*(field.view(groups, -1, *field.shape[1:]) for field in self))

    def repeated(self, times: int) -> "Batch":
        """The same rows for `times` predictions of each: action, reward and discount [..., times]."""
        action, reward, discount = (x.unsqueeze(-1).expand(*x.shape, times) for x in self[1:4])
        return Batch(self.observation, action, reward, discount, self.next_observation)
