"""Training checkpoints: nested state in a folder, saved atomically and read back without executing anything.

`<run>/checkpoints/step_000000050000/` holds `tensors.safetensors` (every tensor and array) and `state.json`
(everything else, with references to the tensors). A folder is written under a temporary name, flushed to disk and
renamed, so that a folder `step_…` is never half written. Saves are numbered, and a run resumes from the undamaged one
with the highest number: a kill may have kept it from the text file `latest`, and an abandoned step may be greater.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import safe_open

from agent.common.disk import advice
from agent.common.errors import UserError
from agent.common.files import (
    TEMPORARY,
    check_inner_folder,
    open_plain,
    read_plain,
    replace_file,
    sync_folder,
    why,
    write_synced,
)
from agent.common.state import Checkpoint
from agent.common.tensor_file import file_crc32, write_tensors
from agent.common.texts import printable
from agent.records.encoding import decode, encode

FORMAT = "noisy-dqn-checkpoint"
VERSION = 4
#: Versions that can be resumed. Version 2 ended all episodes at a checkpoint and stores none; version 3 has no number.
READABLE = (2, 3, VERSION)
MAX_STATE = 64 << 20  # bytes of state.json
MAX_STEP = 2**53
#: The fields of state.json and their types, without the number of the save, which versions before 4 lack.
MANIFEST = {"format": str, "version": int, "step": int, "state": dict, "bytes": int, "crc32": int, "state_crc32": int}
_TENSORS, _STATE, _LATEST = "tensors.safetensors", "state.json", "latest"
_REPLACED = ".old"
_STEP_FOLDER = re.compile(r"step_([0-9]{12,})")


def save_checkpoint(run_dir: Path, step: int, state: Mapping[str, object], keep: int) -> Path:
    """Saves `state` as the checkpoint of `step`; a kill at any instant leaves either the earlier one or this one.

    Args:
        run_dir: the run folder; the checkpoint becomes `run_dir/checkpoints/step_<12 digits>`.
        step: environment steps so far.
        state: nested dicts (str or int keys), lists and tuples of tensors, NumPy arrays and JSON scalars.
        keep: the number of checkpoints that are kept, including this one, which always is.

    Raises:
        TypeError: a leaf has another type; nothing has been written.
        UserError: the disk is full or fails, or the run's folder is gone; the earlier checkpoint is intact.
    """
    folder = run_dir / "checkpoints"
    check_inner_folder(folder)
    final, temporary = folder / f"step_{step:012d}", folder / f"{TEMPORARY}{os.getpid()}"
    arrays: dict[str, torch.Tensor | np.ndarray] = {}
    skeleton = encode(dict(state), "", arrays)
    try:
        folder.mkdir(exist_ok=True)
        for stale in folder.glob(f"{TEMPORARY}*"):
            _remove(stale)
        temporary.mkdir()
        size, checksum = write_tensors(temporary / _TENSORS, arrays)
        manifest = {"format": FORMAT, "version": VERSION, "step": step, "number": _next_number(folder)}
        manifest |= {"state": skeleton, "bytes": size, "crc32": checksum}
        manifest["state_crc32"] = _json_crc32([step, skeleton, manifest["number"]])
        write_synced(temporary / _STATE, json.dumps(manifest).encode())
        sync_folder(temporary)
        _publish(temporary, final)
        sync_folder(run_dir)
        replace_file(folder / _LATEST, final.name.encode())
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        earlier = latest_checkpoint(run_dir)
        left = f"{earlier.name} is intact, resume from it" if earlier else "there is no earlier checkpoint"
        reason = f"could not save the checkpoint of step {step} in {folder} ({why(error)})"
        hint = advice(error) if run_dir.exists() else f"{run_dir} has been deleted"
        raise UserError(f"{reason}: {hint}; {left}.") from error
    with suppress(OSError):  # the checkpoint is saved, and the next one removes older ones again
        _prune(folder, step, keep)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint folder, with every leaf of its original type and tensors on the CPU.

    Raises:
        UserError: the checkpoint is missing, truncated, altered, of another program or version, or its tensors are not
            those that its state refers to.
    """
    manifest = _read_manifest(path)
    try:
        if file_crc32(path / _TENSORS) != manifest["crc32"]:
            raise _damaged(path, f"the content of {_TENSORS} has changed")
        with safe_open(path / _TENSORS, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = dict(decode(manifest["state"], arrays))  # an error for any other kind
    except KeyError as error:
        raise _damaged(path, f"{_TENSORS} lacks {error!s:.80}") from error
    except UserError:
        raise
    except Exception as error:  # a stranger's file may make the library fail in any way
        raise _damaged(path, f"{printable(why(error)):.200}") from error
    if arrays:
        raise _damaged(path, f"{_TENSORS} has {min(arrays)!r:.80}, which {_STATE} does not know")
    return Checkpoint(manifest["step"], state)


def latest_checkpoint(run_dir: Path) -> Path | None:
    """Returns the undamaged checkpoint that was saved last, or None.

    Undamaged means a valid `state.json` and a tensor file of the right size; only `load_checkpoint` reads every byte.
    Checkpoints of versions without numbers come after all others; among them the one that `latest` names comes first.
    """
    folder = run_dir / "checkpoints"
    try:
        name = read_plain(folder / _LATEST, 100).decode()
    except (OSError, ValueError):
        name = ""
    # A kill while a step is replaced leaves its earlier version under the name with ".old".
    latest_names, best = (name, f"{name}{_REPLACED}"), None
    for path in _newest_first(folder):
        with suppress(UserError):
            rank = _read_manifest(path).get("number", 0), path.name in latest_names
            if best is None or rank > best[0]:
                best = rank, path
    return None if best is None else best[1]


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the run can be resumed."""
    return latest_checkpoint(run_dir) is not None


def damaged_checkpoints(run_dir: Path) -> list[Path]:
    """Lists the damaged checkpoints of later steps than the one to resume from, newest first."""
    latest = latest_checkpoint(run_dir)
    newer = itertools.takewhile(lambda path: path != latest, _newest_first(run_dir / "checkpoints"))
    return [path for path in newer if not _is_whole(path)]


def _json_crc32(value: object) -> int:
    """Computes the CRC-32 of data as `json.dumps` writes it, whatever the whitespace in the file."""
    return zlib.crc32(json.dumps(value).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    """Reads and checks `state.json`; refuses a tensor file that is missing, has another size, or exceeds the memory."""
    try:
        manifest: dict[str, Any] = json.loads(read_plain(path / _STATE, MAX_STATE))
        with open_plain(path / _TENSORS) as file:
            size = os.fstat(file.fileno()).st_size
        _check_manifest(manifest, path)
        content = [manifest["step"], manifest["state"], *([manifest["number"]] if manifest["version"] > 3 else [])]
        changed = _json_crc32(content) != manifest["state_crc32"]
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise _damaged(path, why(error)) from error
    if changed:
        raise _damaged(path, f"the content of {_STATE} has changed")
    if size != manifest["bytes"]:
        raise _damaged(path, f"{_TENSORS} has {size} bytes instead of {manifest['bytes']}")
    if size > (memory := psutil.virtual_memory().total):
        raise _damaged(path, f"{_TENSORS} has {size:,} bytes, more than the {memory:,} of this machine's memory")
    return manifest


def _check_manifest(manifest: object, path: Path) -> None:
    """Refuses a manifest that `save_checkpoint` cannot have written."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(path, f"{_STATE} was written by another program")
    if manifest.get("version") not in READABLE:
        versions = f"version {manifest.get('version')!r:.20}, this program reads versions {READABLE[0]} to {VERSION}"
        raise UserError(f"the checkpoint {path} has {versions}: resume it with the release that wrote it.")
    for name, kind in (MANIFEST | ({"number": int} if manifest["version"] > 3 else {})).items():
        if type(value := manifest.get(name)) is not kind:
            raise _damaged(path, f"its {name} is {value!r:.40}, not of type {kind.__name__}")
        if isinstance(value, int) and not 0 <= value <= MAX_STEP:
            raise _damaged(path, f"its {name} is {value!r:.40}, which is out of range")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a whole checkpoint ({reason}): resume from another one, or start a new run.")


def _is_whole(path: Path) -> bool:
    try:
        _read_manifest(path)
    except UserError:
        return False
    return True


def _newest_first(folder: Path) -> list[Path]:
    """Lists every checkpoint folder, including one that was set aside while its step was being replaced."""
    names = [path.name for path in folder.glob("step_*") if not path.is_symlink()]  # a link may lead anywhere
    steps = {name: _STEP_FOLDER.fullmatch(name.removesuffix(_REPLACED)) for name in names}
    found = [(int(match[1]), -len(name), name) for name, match in steps.items() if match]
    return [folder / name for _, _, name in sorted(found, reverse=True)]


def _publish(temporary: Path, final: Path) -> None:
    """Gives the finished folder its name; an older checkpoint of the same step is set aside, not deleted first."""
    if final.exists():
        aside = final.with_name(final.name + _REPLACED)
        _remove(aside)
        final.rename(aside)
    temporary.rename(final)
    sync_folder(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep`; those of later steps than `step` are of an abandoned attempt and go first."""
    paths = [path for path in _newest_first(folder) if not path.name.endswith(_REPLACED)]
    paths.sort(key=lambda path: int(path.name.removeprefix("step_")) <= step, reverse=True)  # stable
    for path in [*paths[max(keep, 1) :], *folder.glob(f"*{_REPLACED}")]:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _next_number(folder: Path) -> int:
    """Returns one more than the highest number of the saves in the folder, including damaged ones."""
    numbers = [0]
    for path in _newest_first(folder):
        with suppress(OSError, ValueError, RecursionError, AttributeError):
            number = json.loads(read_plain(path / _STATE, MAX_STATE)).get("number")
            numbers += [number] if type(number) is int and 0 <= number <= MAX_STEP else []
    return min(max(numbers) + 1, MAX_STEP)
