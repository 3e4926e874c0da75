"""metrics.jsonl: a run's logged metrics for other programs, one JSON object per line."""

from __future__ import annotations

import errno
import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.common.disk import advice
from agent.common.errors import UserError
from agent.common.files import could_not_write, new_file, open_log, open_plain, why

MAX_BYTES = 4 << 30  # a larger file is not read
MAX_LINE = 1 << 20  # bytes; a longer line was not written by this program, and is skipped
MAX_STEP, MAX_VALUE = 2**53, 1e30  # no run has larger numbers, and they cannot be drawn: they are skipped as damage

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


class JsonlSink:
    """The file metrics.jsonl: a JSON object per line, {"global_step": 1000, "loss": 0.5}, readable at any time.

    NaN and infinities become null, since JSON cannot express them. New lines are appended to an existing file.

    Raises:
        UserError: the file cannot be written, is not a plain file, or has been deleted while the run went on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_log(path)
        try:
            self._repair()
        except OSError as error:
            raise could_not_write(path, error) from error

    def _repair(self) -> None:
        """Ends an incomplete last line, which a kill has left, so that the next line does not become a part of it."""
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends {"global_step": step, **metrics}."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json.dumps({"global_step": step, **finite}).encode() + b"\n"
        try:
            while line:  # the system may take a part of it, as from a disk that is nearly full
                line = line[self._file.write(line) :]
            deleted = os.fstat(self._file.fileno()).st_nlink == 0
        except OSError as error:
            raise could_not_write(self._path, error) from error
        if deleted:
            raise UserError(f"{self._path} has been deleted while the run went on: go on with resume=<run folder>")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def truncate_jsonl(path: Path, step: int, rewritten: str | None = None, since: int | None = None) -> None:
    """Keeps the lines of a metrics file with `global_step` <= step, atomically; incomplete and other lines are removed.

    Args:
        path: the metrics file; a missing file stays missing.
        step: the step from which the run resumes.
        rewritten: a prefix of names; lines with such a name at steps >= `since` are removed too, since the run will
            write them again.
        since: see `rewritten`; None: the same as `step`.

    Raises:
        UserError: the file cannot be read or written.
    """
    if not os.path.lexists(path):
        return
    try:
        with new_file(path) as file:
            for line in _lines(path):
                row = _parse(line)
                if (row_step := _step_of(row)) is None or row_step > step:
                    continue
                if (
                    row_step < (step if since is None else since)
                    or rewritten is None
                    or not any(name.startswith(rewritten) for name in row)
                ):
                    file.write(line.rstrip(b"\r\n") + b"\n")
    except OSError as error:
        raise UserError(f"cannot cut {path} back to step {step} ({why(error)}): {_advice(error, path)}") from error


def _advice(error: OSError, path: Path) -> str:
    """Advice for a metrics file that cannot be cut; the disk is not full if the file is too large to be read."""
    is_too_large = error.errno == errno.EFBIG and path.stat().st_size > MAX_BYTES
    return "move it to another place, and the resumed run begins a new one" if is_too_large else advice(error)


def read_series(path: Path, names: Sequence[str]) -> dict[str, Series]:
    """Reads the steps [n] and values [n] of some metrics, ordered by step.

    A missing file counts as empty. Incomplete lines, other lines and numbers that are not finite are skipped; reading
    ends at the first place where the disk fails.
    """
    columns = {name: (array("d"), array("d")) for name in names}
    for step, row in read_rows(path):
        for name, (steps, values) in columns.items():
            if (value := number(row.get(name))) is not None:
                steps.append(step)
                values.append(value)
    return {name: _sorted(*column) for name, column in columns.items()}


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields the step and the object of each line of a metrics file; skips the same lines as `read_series`."""
    with suppress(OSError):
        for line in _lines(path):
            row = _parse(line)
            if (step := _step_of(row)) is not None:
                yield step, row


def read_new_rows(path: Path, position: int) -> tuple[list[tuple[int, dict[str, object]]], int]:
    """The rows of a metrics file behind a position in bytes, and the position of the end of its last complete line.

    A file that is shorter than the position is read from its beginning, since a resumed run has cut it.
    """
    rows = []
    with suppress(OSError), open_plain(path) as file:
        if os.fstat(file.fileno()).st_size < position:
            position = 0
        file.seek(position)
        while line := file.readline(MAX_LINE):
            if not line.endswith(b"\n") and len(line) < MAX_LINE:
                break  # the run is writing it
            position = file.tell()
            row = _parse(line)
            if (step := _step_of(row)) is not None:
                rows.append((step, row))
    return rows, position


def _sorted(steps: array[float], values: array[float]) -> Series:
    order = np.lexsort((np.array(values), np.array(steps)))
    return np.array(steps)[order], np.array(values)[order]


def _lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, without those that are too long; raises OSError."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES:,} bytes")
        while line := file.readline(MAX_LINE):
            whole = len(line) < MAX_LINE or line.endswith(b"\n")
            if whole:
                yield line
            while not whole:
                rest = file.readline(MAX_LINE)
                whole = len(rest) < MAX_LINE or rest.endswith(b"\n")


def _parse(line: bytes) -> dict[str, object]:
    """Parses a line that holds a JSON object; returns an empty dict for any other line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _step_of(row: Mapping[str, object]) -> int | None:
    step = row.get("global_step")
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= MAX_STEP else None


def number(value: object) -> float | None:
    """Returns `value` as a float if it is a number that can be drawn; otherwise None."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MAX_VALUE:
        return None
    return float(value)
