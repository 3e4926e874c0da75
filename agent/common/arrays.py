"""NumPy arrays on the CPU and tensors elsewhere, by one spelling: a NumPy operation costs a third of torch's there.

What goes to an accelerator goes through pinned memory, and nobody waits for it to arrive.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_array(values: Any) -> Any:
    """A tensor on the CPU as a NumPy view of it; an array, and a tensor on another device, as it is."""
    return values.numpy() if isinstance(values, Tensor) and values.device.type == "cpu" else values


def upload(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of values on an accelerator (on the CPU a view), in the order of its stream: nothing waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    if device.type != "cuda" or not values.size:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # the pinned block stays until the copy is done


def take(array: Any, index: Any) -> Any:
    """Rows `index` of a tensor or an array."""
    return array.take(index, axis=0) if isinstance(array, np.ndarray) else array.index_select(0, index)


def take_round(ring: Any, index: Any) -> Any:
    """Rows `index` of a tensor or an array, where counting goes on at its beginning: row len(ring) is row 0."""
    if isinstance(ring, np.ndarray):
        return ring.take(index, axis=0, mode="wrap")
    return ring.index_select(0, index % len(ring))


def choose(mask: np.ndarray, yes: Any, no: Any) -> Any:
    """Rows of `yes` where the mask [N] holds, and of `no` elsewhere: two tensors or two arrays [N, ...] of a kind."""
    if isinstance(yes, np.ndarray):
        return np.where(mask[:, None], yes, no)
    return torch.where(upload(mask, yes.device).unsqueeze(1), yes, no)


def expand(array: Any, count: int) -> Any:
    """`array` [1, ...] as [count, ...]: a view of a tensor or an array."""
    shape = (count, *array.shape[1:])
    return np.broadcast_to(array, shape) if isinstance(array, np.ndarray) else array.expand(shape)


def integer(array: Any) -> Any:
    """The same numbers as int64."""
    return array.astype(np.int64) if isinstance(array, np.ndarray) else array.long()


def write(array: Any, where: slice, values: np.ndarray) -> None:
    """array[where] = values, for a tensor or an array."""
    array[where] = values if isinstance(array, np.ndarray) else upload(values, array.device, array.dtype)
