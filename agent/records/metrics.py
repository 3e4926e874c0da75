"""metrics.jsonl: what a run logs, a JSON object per line, for programs to read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes, why


class JsonlSink:
    """The file metrics.jsonl: a JSON object per line, {"global_step": 1000, "loss": 0.5}, readable at any time.

    NaN and infinities are null, since JSON has no word for them. Lines are added to a file that is there.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab+", buffering=0)
            self._repair()
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}.") from error

    def _repair(self) -> None:
        """End the half line of a run that was killed while it wrote, so that it does not swallow the next."""
        if self._file.tell() > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append {"global_step": step, **metrics}."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        try:
            self._file.write(json.dumps({"global_step": step, **finite}).encode() + b"\n")
        except OSError as error:
            raise UserError(f"Cannot write {self._path}: {error.strerror}; free some disk space.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def truncate_jsonl(path: Path, step: int) -> None:
    """Keeps the lines of a metrics file with `global_step` <= step, atomically; torn and foreign lines go.

    Raises:
        UserError: the file cannot be read or written.
    """
    if not path.exists():
        return
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({why(error)}): check its permissions.") from error
    atomic_write_bytes(path, b"".join(line + b"\n" for line in lines if _logged_step(line) <= step))


def _logged_step(line: bytes) -> float:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return math.inf
    step = entry.get("global_step") if isinstance(entry, dict) else None
    return step if isinstance(step, int | float) else math.inf
