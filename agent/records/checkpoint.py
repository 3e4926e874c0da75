"""Training checkpoints: nested state in a folder, saved atomically and read back without executing anything.

`<run>/checkpoints/step_000000050000/` holds `tensors.safetensors` (every tensor and array) and `state.json`
(everything else, with references to the tensors); the text file `<run>/checkpoints/latest` names the newest.
A folder is written under a temporary name, forced to disk and renamed: a name `step_…` is never half written.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from agent.common.errors import UserError
from agent.common.files import (
    DTYPES,
    TEMPORARY,
    dtype_name,
    file_crc32,
    replace_file,
    sync_folder,
    why,
    write_synced,
    write_tensors,
)

FORMAT = "noisy-dqn-checkpoint"
VERSION = 3
#: Versions that can be gone on from. 2 has no episodes under way: they were ended at every checkpoint.
READABLE = (2, VERSION)
_TENSORS, _STATE, _LATEST = "tensors.safetensors", "state.json", "latest"
_REPLACED = ".old"
_STEP_FOLDER = re.compile(r"step_([0-9]{12,})")


def save_checkpoint(run_dir: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Saves `state` as the checkpoint of `step`; a kill at any instant leaves the earlier one or this one.

    Args:
        run_dir: the run folder; the checkpoint becomes `run_dir/checkpoints/step_<12 digits>`.
        step: environment steps so far.
        state: nested dicts (str or int keys), lists and tuples of tensors, NumPy arrays and JSON scalars.
        keep: how many checkpoints stay, this one included (at least this one).

    Raises:
        TypeError: a leaf of another type (nothing has been written).
        UserError: the disk is full or refuses; the earlier checkpoint is intact.
    """
    folder = run_dir / "checkpoints"
    final, temporary = folder / f"step_{step:012d}", folder / f"{TEMPORARY}{os.getpid()}"
    arrays: dict[str, torch.Tensor | np.ndarray[Any, Any]] = {}
    skeleton = _encode(dict(state), "", arrays)
    try:
        for stale in folder.glob(f"{TEMPORARY}*"):
            _remove(stale)
        temporary.mkdir(parents=True)
        size, checksum = write_tensors(temporary / _TENSORS, arrays)
        manifest = {"format": FORMAT, "version": VERSION, "step": step, "state": skeleton}
        manifest |= {"bytes": size, "crc32": checksum, "state_crc32": _json_crc32([step, skeleton])}
        write_synced(temporary / _STATE, json.dumps(manifest).encode())
        sync_folder(temporary)
        _publish(temporary, final)
        sync_folder(run_dir)
        replace_file(folder / _LATEST, final.name.encode())
        _prune(folder, step, keep)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        earlier = latest_checkpoint(run_dir)
        intact = f"{earlier.name} is intact, resume from it" if earlier else "there is no earlier checkpoint"
        reason = f"could not save the checkpoint of step {step} in {folder} ({why(error)})"
        raise UserError(f"{reason}: free some space or repair the folder; {intact}.") from error
    return final


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Reads a checkpoint folder: (step, state), every leaf of the type it was saved as, tensors on the CPU.

    Raises:
        UserError: missing, cut short, altered, of another program or version, or tensors other than listed.
    """
    manifest = _read_manifest(path)
    try:
        if file_crc32(path / _TENSORS) != manifest["crc32"]:
            raise _damaged(path, f"the content of {_TENSORS} has changed")
        with safe_open(path / _TENSORS, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = _decode(manifest["state"], arrays)
    except KeyError as error:
        raise _damaged(path, f"{_TENSORS} lacks {error}") from error
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path, why(error)) from error
    if arrays:
        raise _damaged(path, f"{_TENSORS} has {min(arrays)!r}, which {_STATE} does not know")
    return manifest["step"], state


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint that `latest` names, or the newest whole one if that is missing or damaged, or None.

    Whole means a valid `state.json` and a tensor file of the right size; `load_checkpoint` reads every byte.
    """
    folder = run_dir / "checkpoints"
    try:
        name = (folder / _LATEST).read_text()
    except (OSError, UnicodeDecodeError):
        name = ""
    # A kill while a step is replaced leaves its earlier version under the name with ".old".
    named = [folder / name, folder / f"{name}{_REPLACED}"] if _STEP_FOLDER.fullmatch(name) else []
    return next((path for path in [*named, *_newest_first(folder)] if _is_whole(path)), None)


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the run can be resumed."""
    return latest_checkpoint(run_dir) is not None


def damaged_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints newer than the newest whole one, newest first: something has happened to them."""
    return list(itertools.takewhile(lambda path: not _is_whole(path), _newest_first(run_dir / "checkpoints")))


def _encode(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """The JSON of `value`; tensors and arrays go to `arrays` under their path and leave a reference."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray):
        if dtype_name(value) not in DTYPES:
            raise TypeError(f"a checkpoint cannot hold {path!r}: dtype {value.dtype}")
        while path in arrays or path == "__metadata__":  # {"a/b": x, "a": {"b": y}}; safetensors' own key
            path += "#"
        arrays[path] = value
        return {"$tensor" if isinstance(value, torch.Tensor) else "$array": path}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    if not isinstance(value, dict) or any(type(key) not in (str, int) for key in value):
        raise TypeError(f"a checkpoint cannot hold {path!r}: {type(value).__name__}")
    pairs = [(key, _encode(item, f"{path}/{key}".lstrip("/"), arrays)) for key, item in value.items()]
    plain = all(type(key) is str and not key.startswith("$") for key in value)
    return dict(pairs) if plain else {"$items": [list(pair) for pair in pairs]}


def _decode(node: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """The inverse of `_encode`; takes what it uses out of `arrays`, so that what is left is unknown."""
    match node:
        case list():
            return [_decode(item, arrays) for item in node]
        case {"$tensor": str(name)}:
            return torch.from_numpy(arrays.pop(name))
        case {"$array": str(name)}:
            return arrays.pop(name)
        case {"$tuple": list(items)}:
            return tuple(_decode(item, arrays) for item in items)
        case {"$items": list(pairs)}:
            return {key: _decode(item, arrays) for key, item in pairs}
        case dict():
            return {key: _decode(item, arrays) for key, item in node.items()}
    return node


def _json_crc32(value: Any) -> int:
    """Of JSON data, whatever its spelling: what json reads back it writes again in the same way."""
    return zlib.crc32(json.dumps(value).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    """`state.json`, checked; refuses a folder whose tensor file is missing or has another size."""
    try:
        manifest = json.loads((path / _STATE).read_bytes())
        size = (path / _TENSORS).stat().st_size
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, why(error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(path, f"{_STATE} was written by another program")
    if manifest.get("version") not in READABLE:
        read = f"version {manifest.get('version')!r}, this program reads versions {READABLE[0]} to {VERSION}"
        raise UserError(f"the checkpoint {path} has {read}: resume it with the release that wrote it.")
    if _json_crc32([manifest.get("step"), manifest.get("state")]) != manifest.get("state_crc32"):
        raise _damaged(path, f"the content of {_STATE} has changed")
    if size != manifest.get("bytes") or "crc32" not in manifest:
        raise _damaged(path, f"{_TENSORS} has {size} bytes instead of {manifest.get('bytes')}")
    return manifest


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is not a whole checkpoint ({what}): resume from another one, or start a new run.")


def _is_whole(path: Path) -> bool:
    try:
        _read_manifest(path)
    except UserError:
        return False
    return True


def _newest_first(folder: Path) -> list[Path]:
    """Every checkpoint folder, also one set aside while its step was being replaced."""
    names = [path.name for path in folder.glob("step_*")]
    steps = {name: _STEP_FOLDER.fullmatch(name.removesuffix(_REPLACED)) for name in names}
    found = [(int(match[1]), -len(name), name) for name, match in steps.items() if match]
    return [folder / name for _, _, name in sorted(found, reverse=True)]


def _publish(temporary: Path, final: Path) -> None:
    """Gives the finished folder its name; a checkpoint of the same step is set aside, not deleted first."""
    if final.exists():
        aside = final.with_name(final.name + _REPLACED)
        _remove(aside)
        final.rename(aside)
    temporary.rename(final)
    sync_folder(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep`; steps after `step` are of an abandoned future and go first."""
    paths = [path for path in _newest_first(folder) if not path.name.endswith(_REPLACED)]
    paths.sort(key=lambda path: int(path.name.removeprefix("step_")) <= step, reverse=True)  # stable
    for path in [*paths[max(keep, 1) :], *folder.glob(f"*{_REPLACED}")]:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
