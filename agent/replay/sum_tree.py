"""Sum trees, which draw a leaf with a probability proportional to its value: one in NumPy, one in torch for a device.

A node of level k + 1 is the sum of FAN nodes of level k. It is computed again whenever one of them changes, so that no
rounding error accumulates and the tree is a function of its leaves. Wide nodes make the tree shallow, since each level
costs a few calls, however many leaves are drawn. On a CPU the last level has at most TOP nodes, and bisection searches
its running sum: a million leaves need three levels there, and five on a device.
"""

import numpy as np
import torch
from torch import Tensor

FAN = 16
#: With more nodes on the last level, its running sum would take longer than another level.
TOP = 8192


def level_sizes(size: int, top: int = FAN) -> list[int]:
    """The number of nodes on each level, leaves first, in whole families; the last level has at most `top` nodes."""
    sizes = [-(-size // FAN) * FAN]
    while sizes[-1] > top:
        sizes.append(-(-(sizes[-1] // FAN) // FAN) * FAN)
    return sizes


class SumTree:
    """A sum tree on the CPU. `leaves` [size] is float64, at least 0; a caller that writes it calls `rebuild` next."""

    def __init__(self, size: int, device: torch.device | str = "cpu", *, top: int = TOP) -> None:
        self._levels = [np.zeros(nodes) for nodes in level_sizes(size, top)]
        self._families = [level.reshape(-1, FAN) for level in self._levels[:-1]]
        self._running = np.zeros(len(self._levels[-1]) + 1)  # the running sum of the last level, from 0
        self._last, self._sums = torch.from_numpy(self._levels[-1]), torch.from_numpy(self._running)[1:]
        self.leaves = self._levels[0][:size]

    def total(self) -> float:
        """The sum of all leaves."""
        return float(self._levels[-1].sum())

    def fill(self, begin: int, values: np.ndarray) -> None:
        """Sets the leaves [begin, begin + n) to values [n]."""
        end = begin + len(values)
        self.leaves[begin:end] = values
        for families, parents in zip(self._families, self._levels[1:], strict=True):
            begin, end = begin // FAN, (end - 1) // FAN + 1
            np.add.reduce(families[begin:end], axis=1, out=parents[begin:end])

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        """Sets the leaves index [n] to values [n]; of several values for one leaf the largest is stored."""
        self.leaves[index] = 0.0
        np.maximum.at(self.leaves, index, values)
        for families, parents in zip(self._families, self._levels[1:], strict=True):
            index = index // FAN
            parents[index] = np.add.reduce(families.take(index, axis=0), axis=1)

    def rebuild(self) -> None:
        """Computes all sums again, after a caller has written the leaves."""
        for families, parents in zip(self._families, self._levels[1:], strict=True):
            parents[: len(families)] = np.add.reduce(families, axis=1)

    def find(self, share: np.ndarray) -> np.ndarray:
        """The leaves [n] where the running sum exceeds share [n], in [0, 1), of the total; no such leaf is 0."""
        torch.cumsum(self._last, 0, out=self._sums)  # one after the other, in a third of NumPy's time
        value = share * self._running[-1]  # below the total, since share is below 1, even after rounding
        node: np.ndarray = self._running[1:].searchsorted(value, side="right")
        value -= self._running.take(node)
        running = np.zeros((len(share), FAN + 1))  # the running sum in each family, from 0
        begins = np.arange(len(share)) * (FAN + 1)
        for families in reversed(self._families):
            np.add.accumulate(families.take(node, axis=0), axis=1, out=running[:, 1:])
            # A sum of sums is rounded: the remaining value may lie at the end of the family, or beyond it. Limited to
            # just below the end, it always selects a child that is not 0.
            value = np.minimum(value, np.nextafter(running[:, FAN], 0.0))
            child = (running[:, 1:] > value[:, None]).argmax(axis=1)
            value -= running.take(begins + child)
            node = node * FAN + child
        return node


class DeviceSumTree:
    """A sum tree on an accelerator that never waits for it. `leaves` [size] is float64, at least 0."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._levels = [torch.zeros(nodes, dtype=torch.float64, device=device) for nodes in level_sizes(size)]
        self._families = [level.view(-1, FAN) for level in self._levels]
        self.leaves = self._levels[0][:size]

    def total(self) -> Tensor:
        """The sum of all leaves, a scalar."""
        return self._levels[-1].sum()

    def fill(self, begin: int, values: Tensor) -> None:
        """Sets the leaves [begin, begin + n) to values [n]."""
        end = begin + len(values)
        self.leaves[begin:end] = values
        for families, parents in zip(self._families, self._levels[1:], strict=False):
            begin, end = begin // FAN, (end - 1) // FAN + 1
            parents[begin:end] = families[begin:end].sum(dim=1)

    def put(self, index: Tensor, values: Tensor) -> None:
        """Sets the leaves index [n] to values [n]; of several values for one leaf the largest is stored."""
        self.leaves.index_fill_(0, index, 0.0)
        self.leaves.scatter_reduce_(0, index, values, "amax")
        for families, parents in zip(self._families, self._levels[1:], strict=False):
            index = index // FAN
            parents[index] = families[index].sum(dim=1)  # equal indices get equal sums

    def rebuild(self) -> None:
        """Computes all sums again, after a caller has written the leaves."""
        for families, parents in zip(self._families, self._levels[1:], strict=False):
            parents[: len(families)] = families.sum(dim=1)

    def find(self, share: Tensor) -> Tensor:
        """The leaves [n] where the running sum exceeds share [n], in [0, 1), of the total; no such leaf is 0."""
        node = torch.zeros(len(share), dtype=torch.int64, device=share.device)
        value = share * self.total()
        for families in reversed(self._families):
            children = families[node]  # [n, FAN]
            # A parallel cumsum rounds each sum differently, and the sums may even decrease. Only children that are not
            # 0 may be chosen, and the value is limited to just below their largest sum.
            running = children.cumsum(dim=1).masked_fill_(children == 0.0, -1.0)
            value = torch.minimum(value, torch.nextafter(running.amax(dim=1), torch.zeros_like(value)))
            child = (running > value.unsqueeze(1)).to(torch.uint8).argmax(dim=1, keepdim=True)
            before = running.gather(1, child) - children.gather(1, child)
            value = (value - before.squeeze(1)).clamp_(min=0.0)
            node = node * FAN + child.squeeze(1)
        return node
