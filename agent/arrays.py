"""NumPy arrays on the CPU and tensors elsewhere, by one spelling: a NumPy operation costs a third of torch's there."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_array(tensor: Tensor) -> Any:
    """A tensor on the CPU as a NumPy view of it; one on another device as it is."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def take(array: Any, index: Any) -> Any:
    """Rows `index` of a tensor or an array."""
    return array.take(index, axis=0) if isinstance(array, np.ndarray) else array.index_select(0, index)


def take_round(ring: Any, index: Any) -> Any:
    """Rows `index` of a tensor or an array, where counting goes on at its beginning: row len(ring) is row 0."""
    if isinstance(ring, np.ndarray):
        return ring.take(index, axis=0, mode="wrap")
    return ring.index_select(0, index % len(ring))


def integer(array: Any) -> Any:
    """The same numbers as int64."""
    return array.astype(np.int64) if isinstance(array, np.ndarray) else array.long()


def write(array: Any, where: slice, values: np.ndarray) -> None:
    """array[where] = values, for a tensor or an array."""
    array[where] = values if isinstance(array, np.ndarray) else torch.from_numpy(np.ascontiguousarray(values)).to(array)
