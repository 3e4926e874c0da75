"""Writes tensors to disk as a stream in the safetensors format, with a checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from agent.common.files import open_plain, sync_file

_CHUNK = 16 << 20
#: The most tensors of a saved agent.
MAX_TENSORS = 4_096
DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)},
}


def write_tensors(path: Path, arrays: Mapping[str, torch.Tensor | np.ndarray]) -> tuple[int, int]:
    """Writes a new safetensors file; returns its size and CRC-32.

    The file is streamed (8 bytes of header length, JSON header, raw data) because a replay may have several GB: no copy
    of a contiguous CPU tensor is made, and the checksum is computed at the same time. CRC-32 is enough, since it has to
    find damage and not forgery; at several GB/s it is faster than the disk.
    """
    # The widest items come first, so that every tensor starts at a multiple of its item size.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    header, end = {}, 0
    for name, array in ordered:
        offsets = [end, end + array.nbytes]
        header[name] = {
            "dtype": DTYPES[dtype_name(array)],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        end = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    checksum = 0
    with path.open("xb") as file:
        for chunk in _chunks(len(text).to_bytes(8, "little") + text, [array for _, array in ordered]):
            file.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
        sync_file(file)
    return 8 + len(text) + end, checksum


def _chunks(head: bytes, arrays: list[object]) -> Iterator[bytes | memoryview]:
    yield head
    for array in arrays:
        host = array.detach().cpu().contiguous().numpy() if isinstance(array, torch.Tensor) else array
        flat = np.ascontiguousarray(host).reshape(-1).view(np.uint8).data
        yield from (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))


def dtype_name(value: torch.Tensor | np.ndarray) -> str:
    """The name of a dtype in NumPy. `DTYPES` holds those that can be written."""
    return str(value.dtype).removeprefix("torch.")


def file_crc32(path: Path) -> int:
    """The CRC-32 of a regular file of any size; raises OSError."""
    checksum = 0
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
