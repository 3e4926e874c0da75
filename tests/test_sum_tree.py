"""Sum trees against plain lists: any size, any order of changes, no drift, and never a leaf of 0."""

from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from agent.replay.sum_tree import FAN, DeviceSumTree, SumTree, level_sizes

SIZES = [1, 2, 15, 16, 17, 255, 256, 257, 4096, 4097]
sizes = pytest.mark.parametrize("size", SIZES)


class OnCpu:
    """A torch tree on the CPU with the interface of the NumPy tree, to test the code for a device without one."""

    def __init__(self, size: int) -> None:
        self.tree = DeviceSumTree(size, torch.device("cpu"))
        self._levels = [level.numpy() for level in self.tree._levels]

    @property
    def leaves(self) -> np.ndarray:
        return self.tree.leaves.numpy()

    def total(self) -> float:
        return float(self.tree.total())

    def fill(self, begin: int, values: np.ndarray) -> None:
        self.tree.fill(begin, torch.from_numpy(values))

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        self.tree.put(torch.from_numpy(index), torch.from_numpy(values))

    def rebuild(self) -> None:
        self.tree.rebuild()

    def find(self, share: np.ndarray) -> np.ndarray:
        return self.tree.find(torch.from_numpy(share)).numpy()


kinds = {"numpy": SumTree, "numpy, all levels": partial(SumTree, top=FAN), "torch": OnCpu}
trees = pytest.mark.parametrize("kind", kinds.values(), ids=kinds)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@sizes
def test_levels_are_whole_families(size: int) -> None:
    levels = level_sizes(size)
    assert size <= levels[0] < size + FAN
    assert all(level % FAN == 0 for level in levels)
    assert levels[-1] == FAN
    assert all(above * FAN >= below for below, above in pairwise(levels))


@trees
@sizes
def test_find_is_the_running_sum(kind: Any, size: int) -> None:
    """Small whole numbers add up exactly, so that every share belongs to a known leaf. Many leaves are 0."""
    tree, weights = kind(size), rng().integers(0, 4, size).astype(float)
    weights[size // 2] = 3.0
    tree.fill(0, weights)
    sums, total = [*accumulate(weights.tolist())], weights.sum()
    assert tree.total() == total
    share = np.concatenate([np.arange(total) / total, [np.nextafter(1.0, 0.0)], rng(1).random(200)])
    expected = [next(i for i, s in enumerate(sums) if s > u * total) for u in share.tolist()]
    assert tree.find(share).tolist() == expected


@trees
@sizes
def test_random_changes_leave_the_tree_of_its_leaves(kind: Any, size: int) -> None:
    tree, leaves, g = kind(size), np.zeros(size), rng()
    for _ in range(60):
        if g.random() < 0.5:
            begin = int(g.integers(size))
            values = g.random(int(g.integers(1, min(40, size - begin) + 1))) * (g.random() < 0.8)
            tree.fill(begin, values)
            leaves[begin : begin + len(values)] = values
        else:
            index = g.integers(size, size=20)
            values = g.random(20) ** 4
            tree.put(index, values)
            for i in set(index.tolist()):
                leaves[i] = values[index == i].max()  # of several values for one leaf the greatest counts
    assert np.array_equal(tree.leaves, leaves)
    before = [level.copy() for level in tree._levels]
    tree.rebuild()
    assert all(np.array_equal(a, b) for a, b in zip(before, tree._levels, strict=True))  # bit for bit: no drift
    assert tree.total() == pytest.approx(leaves.sum(), rel=1e-12)


@trees
def test_a_leaf_of_zero_is_never_found(kind: Any) -> None:
    """Priorities differ so much that rounding shows, and shares are at the very ends of every leaf."""
    for seed in range(20):
        g = rng(seed)
        weights = 10.0 ** g.uniform(-12, 6, 3000) * (g.random(3000) < 0.3)
        tree = kind(3000)
        tree.fill(0, weights)
        edges = np.cumsum(weights) / weights.sum()
        share = np.concatenate([edges, np.nextafter(edges, 0.0), g.random(2000), [0.0]])
        found = tree.find(np.clip(share, 0.0, np.nextafter(1.0, 0.0)))
        assert found.min() >= 0
        assert found.max() < 3000
        assert (weights[found] > 0).all()


@trees
def test_one_leaf_alone_is_always_found(kind: Any) -> None:
    for at in (0, 1, 255, 256, 4999):
        tree = kind(5000)
        tree.fill(at, np.array([1e-30]))
        assert set(tree.find(rng().random(100)).tolist()) == {at}


@pytest.mark.parametrize("size", [10, 5000, 100_000])
def test_the_running_sum_adds_one_node_after_the_other(size: int) -> None:
    """Sums of blocks are rounded differently: they could decrease at a node of 0, which could then be found."""
    tree = SumTree(size)
    tree.fill(0, rng().random(size) ** 8 * (rng(1).random(size) < 0.5))
    tree.find(np.zeros(1))
    assert tree._running.tolist() == [0.0, *accumulate(tree._levels[-1].tolist())]


def test_numpy_and_torch_find_the_same() -> None:
    g = rng()
    weights, share = g.random(5000), g.random(1000)
    one, other = SumTree(5000), OnCpu(5000)
    one.fill(0, weights)
    other.fill(0, weights)
    assert (one.find(share) == other.find(share)).mean() > 0.999  # at an edge rounding decides
