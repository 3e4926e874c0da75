"""Sum trees: numbers of which one is drawn in proportion to its size. In NumPy, and the same in torch for a device.

A node of level k + 1 is the sum of FAN nodes of level k, computed anew from them whenever one changes: nothing drifts,
and the tree is a function of its leaves. Wide nodes make it shallow, since each level costs a few calls whatever the
number of draws. On a CPU the levels end at one of at most TOP nodes, whose running sum is searched by bisection: a
million leaves are three levels there, and five on a device.
"""

import numpy as np
import torch
from torch import Tensor

FAN = 16
#: A running sum of so many numbers takes as long as one level less saves.
TOP = 8192


def level_sizes(size: int, top: int = FAN) -> list[int]:
    """Nodes on each level, leaves first, whole families all; the last level has at most `top` nodes and no parents."""
    sizes = [-(-size // FAN) * FAN]
    while sizes[-1] > top:
        sizes.append(-(-(sizes[-1] // FAN) // FAN) * FAN)
    return sizes


class SumTree:
    """On the CPU. `leaves` [size] is float64, at least 0, and changed by the methods alone."""

    def __init__(self, size: int, device: torch.device | str = "cpu", *, top: int = TOP) -> None:
        self._levels = [np.zeros(nodes) for nodes in level_sizes(size, top)]
        self._families = [level.reshape(-1, FAN) for level in self._levels[:-1]]
        self._running = np.zeros(len(self._levels[-1]) + 1)  # sums of the last level's nodes before each, and of all
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
        """Sets the leaves index [n] to values [n]; the greatest wins where one is named several times."""
        self.leaves[index] = 0.0
        np.maximum.at(self.leaves, index, values)
        for families, parents in zip(self._families, self._levels[1:], strict=True):
            index = index // FAN
            parents[index] = np.add.reduce(families.take(index, axis=0), axis=1)

    def rebuild(self) -> None:
        """Computes all sums anew, after the leaves have been written from outside."""
        for families, parents in zip(self._families, self._levels[1:], strict=True):
            parents[: len(families)] = np.add.reduce(families, axis=1)

    def find(self, share: np.ndarray) -> np.ndarray:
        """The leaves [n] at which the running sum passes share [n] of the total, in [0, 1); none of them is 0."""
        np.add.accumulate(self._levels[-1], out=self._running[1:])
        value = share * self._running[-1]  # a share below 1 of a number, rounded, is below that number
        node = self._running[1:].searchsorted(value, side="right")
        value -= self._running.take(node)
        running = np.zeros((len(share), FAN + 1))  # the same of each draw's family
        begins = np.arange(len(share)) * (FAN + 1)
        for families in reversed(self._families):
            np.add.accumulate(families.take(node, axis=0), axis=1, out=running[:, 1:])
            # A sum of sums is rounded: the remaining value may be at the family's end, or beyond. Just below it, the
            # first child whose running sum passes it is one that adds something.
            value = np.minimum(value, np.nextafter(running[:, FAN], 0.0))
            child = (running[:, 1:] > value[:, None]).argmax(axis=1)
            value -= running.take(begins + child)
            node = node * FAN + child
        return node


class DeviceSumTree:
    """The same on an accelerator, without ever waiting for it. `leaves` [size] is float64, at least 0."""

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
        """Sets the leaves index [n] to values [n]; the greatest wins where one is named several times."""
        self.leaves.index_fill_(0, index, 0.0)
        self.leaves.scatter_reduce_(0, index, values, "amax")
        for families, parents in zip(self._families, self._levels[1:], strict=False):
            index = index // FAN
            parents[index] = families[index].sum(dim=1)  # the same sum for the same index

    def rebuild(self) -> None:
        """Computes all sums anew, after the leaves have been written from outside."""
        for families, parents in zip(self._families, self._levels[1:], strict=False):
            parents[: len(families)] = families.sum(dim=1)

    def find(self, share: Tensor) -> Tensor:
        """The leaves [n] at which the running sum passes share [n] of the total, in [0, 1); none of them is 0."""
        node = torch.zeros(len(share), dtype=torch.int64, device=share.device)
        value = share * self.total()
        for families in reversed(self._families):
            children = families[node]  # [n, FAN]
            # Added up in parallel, running sums are rounded each in its own way and may even fall: only children that
            # are not 0 stand for choice, and the value is brought below the greatest sum of theirs.
            running = children.cumsum(dim=1).masked_fill_(children == 0.0, -1.0)
            value = torch.minimum(value, torch.nextafter(running.amax(dim=1), torch.zeros_like(value)))
            child = (running > value.unsqueeze(1)).to(torch.uint8).argmax(dim=1, keepdim=True)
            before = running.gather(1, child) - children.gather(1, child)
            value = (value - before.squeeze(1)).clamp_(min=0.0)
            node = node * FAN + child.squeeze(1)
        return node
