"""Files that are whole or not there: atomic replacement, forced to disk, and tensors streamed in safetensors form."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from agent.common.errors import UserError

TEMPORARY = ".tmp-"
_CHUNK = 16 << 20
DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)},
}


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that its name always holds the old content or the new one; creates its folder.

    Raises:
        UserError: the disk is full or refuses; the old content is intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        hint = "free some space or check the folder's permissions"
        raise UserError(f"could not write {path} ({why(error)}): {hint}.") from error


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of the text in UTF-8."""
    atomic_write_bytes(path, text.encode())


def truncate_jsonl(path: Path, step: int, again: str | None = None) -> None:
    """Keeps the lines of a metrics file with `global_step` <= step, atomically; torn and foreign lines go.

    Args:
        path: of the file; where there is none, there is nothing to do.
        step: at which the run goes on.
        again: of this very step, lines with names that begin so go as well: they will be written again.

    Raises:
        UserError: the file cannot be read or written.
    """
    if not path.exists():
        return
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({why(error)}): check its permissions.") from error
    kept = [line for line in lines if _is_kept(line, step, again)]
    atomic_write_bytes(path, b"".join(line + b"\n" for line in kept))


def write_tensors(path: Path, arrays: Mapping[str, torch.Tensor | np.ndarray[Any, Any]]) -> tuple[int, int]:
    """Writes a safetensors file; returns its size and CRC-32.

    Streamed by hand (8 bytes of header length, JSON header, raw data) because a replay may be several GB: no
    copy of a contiguous CPU tensor is made, and the checksum is taken on the way. CRC-32, not SHA-256: it has
    to find damage, not forgery, and runs at several GB/s, well above the disk.
    """
    # Widest items first: every tensor then starts at a multiple of its item size.
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
    with path.open("wb") as file:
        for chunk in _chunks(len(text).to_bytes(8, "little") + text, [array for _, array in ordered]):
            file.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
        _sync_file(file)
    return 8 + len(text) + end, checksum


def _chunks(head: bytes, arrays: list[Any]) -> Iterator[bytes | memoryview]:
    yield head
    for array in arrays:
        host = array.detach().cpu().contiguous().numpy() if isinstance(array, torch.Tensor) else array
        flat = np.ascontiguousarray(host).reshape(-1).view(np.uint8).data
        yield from (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))


def dtype_name(value: torch.Tensor | np.ndarray[Any, Any]) -> str:
    """The dtype as NumPy spells it; `DTYPES` says which can be written."""
    return str(value.dtype).removeprefix("torch.")


def file_crc32(path: Path) -> int:
    """CRC-32 of a file of any size."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write_bytes` into an existing folder; raises OSError."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and forces it to disk; not atomic, raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        _sync_file(file)


def _sync_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Forces renames in the folder to disk, where the system lets a folder be synced."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network folders that know no such thing
            raise
    finally:
        os.close(descriptor)


def _is_kept(line: bytes, step: int, again: str | None) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    logged = entry.get("global_step") if isinstance(entry, dict) else None
    if not isinstance(logged, int | float) or not logged <= step:
        return False
    return logged < step or again is None or not any(name.startswith(again) for name in entry)


def why(error: BaseException) -> str:
    """The reason an error gives, without the path and number that OSError adds."""
    return getattr(error, "strerror", None) or str(error)
