"""Operations on NumPy arrays or tensors: the CPU uses NumPy, where an operation takes a third of the time of torch.

Only this module, agent/compute and the modules that write and check checkpoints distinguish arrays from tensors. An
upload to an accelerator goes through pinned memory, and nothing waits for it.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from agent.common.seeding import Generator, numpy_generator, torch_generator

Array = np.ndarray | Tensor
T = TypeVar("T")

#: The range of random numbers whose remainder modulo a count is used; it deviates from uniform by count / 2⁶².
WIDE = 2**62


class Place:
    """A device and its array library: NumPy on the CPU, torch on any other device.

    Args:
        device: the device of the arrays.
        tensors: True for torch on the CPU as well.
    """

    def __init__(self, device: torch.device | str, tensors: bool | None = None) -> None:
        self.device = torch.device(device)
        self._numpy = self.device.type == "cpu" and not tensors

    def pick(self, on_numpy: T, on_torch: T) -> T:
        """Returns `on_numpy` if the arrays of this place are NumPy arrays, and `on_torch` otherwise."""
        return on_numpy if self._numpy else on_torch

    def zeros(self, shape: Sequence[int] | int, dtype: str = "float32") -> Array:
        """Zeros of a shape."""
        return np.zeros(shape, dtype) if self._numpy else torch.zeros(shape, dtype=dtype_of(dtype), device=self.device)

    def put(self, values: Array) -> Array:
        """The values at this place; a view if they are already there."""
        if self._numpy:
            return values if isinstance(values, np.ndarray) else values.cpu().numpy()
        return values.to(self.device) if isinstance(values, Tensor) else as_tensor(values, self.device)

    def generator(self, seed: int, stream: str) -> Generator:
        """A generator for one stream of a run. NumPy's draws a batch on the CPU in a third of the time of torch's."""
        return numpy_generator(seed, stream) if self._numpy else torch_generator(seed, stream, device=self.device)

    def uniform(self, size: int, generator: Generator | None) -> Array:
        """Uniform numbers [size] in [0, 1), float64. None stands for torch's default generator."""
        if isinstance(generator, np.random.Generator):
            return generator.random(size)
        drawn = torch.rand(size, dtype=torch.float64, generator=generator, device=self.device)
        return drawn.numpy() if self._numpy else drawn

    def below(self, count: Array, size: int, generator: Generator | None) -> Array:
        """Uniform integers [size] from 0 to count − 1, int64; `count` is a scalar at this place."""
        if self._numpy:  # a number below 1 times the count is below the count, even after rounding
            shares = self.uniform(size, generator)
            shares *= count
            return integer(shares)
        assert not isinstance(generator, np.random.Generator)
        wide = WIDE if self.device.type != "mps" else 2**31 - 1  # Apple's GPU draws 31 bits only
        return torch.randint(wide, (size,), generator=generator, device=self.device) % count


def dtype_of(name: str) -> torch.dtype:
    """torch's dtype for a name that NumPy and torch share, such as float32."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def as_array(values: Array) -> np.ndarray:
    """Returns an array unchanged, and a tensor on the CPU as a NumPy view."""
    return values if isinstance(values, np.ndarray) else values.numpy()


def as_tensor(values: Array, device: torch.device) -> Tensor:
    """Returns a tensor unchanged, and an array as a tensor on `device`: a view on the CPU, a copy elsewhere."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(values) if device.type == "cpu" else upload(values, device)


def upload(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of values on an accelerator (on the CPU a view), in the order of its stream. Nothing waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    if device.type != "cuda" or not values.size:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # the pinned block stays until the copy is done


def take(array: Array, index: Array) -> Array:
    """Rows `index` of an array."""
    return array.take(index, axis=0) if isinstance(array, np.ndarray) else array.index_select(0, index)  # type: ignore[arg-type]


def take_round(ring: Array, index: Array) -> Array:
    """Rows `index` of an array; indices wrap round, so that row len(ring) is row 0."""
    if isinstance(ring, np.ndarray):
        return ring.take(index, axis=0, mode="wrap")
    return ring.index_select(0, index % len(ring))  # type: ignore[arg-type]


def choose(mask: np.ndarray, yes: Array, no: Array) -> Array:
    """Rows of `yes` where the mask [N] is true, and rows of `no` elsewhere; both are [N, ...] and of one kind."""
    if isinstance(yes, np.ndarray):
        return np.where(mask[:, None], yes, no)
    return torch.where(upload(mask, yes.device).unsqueeze(1), yes, no)  # type: ignore[arg-type]


def integer(array: Array) -> Array:
    """The numbers as int64."""
    return array.astype(np.int64) if isinstance(array, np.ndarray) else array.long()


#: The dtypes of buffers that are not float32 and that a saved agent can hold.
WHOLE_NUMBERS = (torch.int64, torch.int32, torch.uint8, torch.bool)


def floats(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers or truth values of x as floats.

    Torch converts bytes three times as fast as truth values. Compiled code does the reverse: an update on 3,600 truth
    values takes 13 ms, and 29 ms by way of bytes.
    """
    as_bytes = x.dtype == torch.bool and not torch.compiler.is_compiling()
    return (x.view(torch.uint8) if as_bytes else x).to(dtype)


def single(array: Array) -> Array:
    """The numbers as float32."""
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()


def double(array: Array) -> Array:
    """The numbers as float64."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def finite_or(array: Array, other: Array) -> Array:
    """`array` with `other` in place of the numbers that are not finite."""
    if isinstance(array, np.ndarray):
        return np.where(np.isfinite(array), array, other)
    return torch.where(torch.isfinite(array), array, other)  # type: ignore[arg-type]


def keep_largest(largest: Array, array: Array) -> None:
    """Raises `largest` [1], in place, to the largest number of `array` if that is larger."""
    if isinstance(largest, np.ndarray):
        np.maximum(largest, array.max(), out=largest)
    else:
        largest.copy_(torch.maximum(largest, array.amax()))  # type: ignore[union-attr]


def all_finite(array: Array) -> bool:
    """Whether no number is NaN or infinite. Waits for the device."""
    return bool((np.isfinite(array) if isinstance(array, np.ndarray) else torch.isfinite(array)).all())


def largest(array: Array) -> float:
    """The largest absolute value of finite numbers; 0 for bytes, which are all small. Copies nothing of their size."""
    if 0 in array.shape or "float" not in str(array.dtype):
        return 0.0
    return max(float(array.max()), -float(array.min()))


def float_columns(rows: Array, count: int) -> Array:
    """The first `count` bytes of each row [n, m] of bytes, as float32 [n, count / 4]."""
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows[:, :count]).view(np.float32)
    return rows[:, :count].contiguous().view(torch.float32)


def write(array: Array, where: slice, values: np.ndarray) -> None:
    """array[where] = values."""
    if isinstance(array, np.ndarray):
        array[where] = values
    else:
        array[where] = upload(values, array.device, array.dtype)


def restore_array(target: Array, source: Array, name: str) -> None:
    """Copies a saved array or tensor over `target`.

    Raises:
        ValueError: if it has another shape or dtype.
    """
    kinds = [(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in (source, target)]
    if kinds[0] != kinds[1]:
        found, expected = (f"{shape} of {dtype}" for shape, dtype in kinds)
        raise ValueError(f"replay {name} are {found}, expected {expected}")
    if isinstance(target, np.ndarray):
        target[...] = as_array(source)
    else:
        target.copy_(torch.as_tensor(source))
