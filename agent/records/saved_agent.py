"""A saved agent: one file `agent.safetensors` that people share. It is data, never code.

The file holds float32 tensors and, in the header's string metadata, a JSON description (environment, network, origin)
with a SHA-256 of both. Reading a file executes no code, imports no module that it names, and allocates no more than
its size; a file that does not have exactly the format written here is refused. `read_header` reads no tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes, open_plain, why
from agent.common.tensor_file import MAX_TENSORS
from agent.common.texts import printable
from agent.config.which import Which
from agent.records.names import AGENT
from agent.records.places import run_around, runs_below
from agent.records.saved_env import check_env, refusal, short

FORMAT = "noisy-dqn-agent"
VERSION = 1

_METADATA_KEY = "noisy-dqn"
MAX_BYTES = 4 << 30  # of the file
_MAX_HEADER = 8 << 20  # bytes: the description, escaped, and some ten thousand tensor names
_MAX_DESCRIPTION = 1 << 20  # bytes
_MAX_NESTING = 20


@dataclass(frozen=True)
class Header:
    """A file's header: the description, the shape of every tensor, and the digest that both must have."""

    description: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    digest: str | None  # None in files of earlier releases


@dataclass(frozen=True)
class SavedAgent:
    """A file's content: float32 tensors on the CPU by name, and the description."""

    tensors: dict[str, torch.Tensor]
    description: dict[str, Any]


def save_agent(path: Path, tensors: Mapping[str, torch.Tensor], description: Mapping[str, object]) -> None:
    """Writes the agent's file atomically, creating its folder.

    Args:
        path: the file, by convention `<run>/<best|last>/agent.safetensors`.
        tensors: finite float32 tensors by name, on any device.
        description: JSON with at least `env`: {"id": "CartPole-v1", "kwargs": {}}.

    Raises:
        UserError: the file cannot be written, or `read_agent` would refuse it.
    """
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    for name, tensor in copies.items():
        _check_values(name, tensor, path)
    plain = json.loads(json.dumps(dict(description)))  # as `read_agent` will read it
    digest = digest_of(plain, copies)
    text = json.dumps({"format": FORMAT, "version": VERSION, "agent": plain, "sha256": digest})
    _read_description(text, path)
    atomic_write_bytes(path, safetensors.torch.save(copies, {_METADATA_KEY: text}))


def read_header(path: Path) -> Header:
    """Reads the header of a file that may come from a stranger, and none of its tensors.

    Raises:
        UserError: the file is not a saved agent of this program and version, is damaged, or is not safe to play.
    """
    _check_frame(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return _header_of(file, path)
    except UserError:
        raise
    except Exception as error:  # a stranger's file may make the library fail in any way
        raise _unreadable(path, error) from error


def read_agent(path: Path) -> SavedAgent:
    """Reads a file that may come from a stranger.

    Raises:
        UserError: the file is not a saved agent of this program and version, is damaged, or is not safe to play.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: torch.from_numpy(file.get_tensor(name)) for name in header.shapes}
    except Exception as error:
        raise _unreadable(path, error) from error
    for name, tensor in tensors.items():
        _check_values(name, tensor, path)
    if header.digest is not None and header.digest != digest_of(header.description, tensors):
        raise refusal(path, "it is damaged: its content is not what was saved")
    return SavedAgent(tensors, header.description)


def digest_of(description: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> str:
    """Computes the SHA-256 of the description and all tensors, in hexadecimal; it detects damage, not forgery."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name!r} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _header_of(file: Any, path: Path) -> Header:
    metadata = file.metadata() or {}
    if _METADATA_KEY not in metadata:
        raise refusal(path, "it is a safetensors file of another program")
    content = _read_description(metadata[_METADATA_KEY], path)
    if len(names := sorted(file.keys())) > MAX_TENSORS:
        raise refusal(path, f"it has {len(names):,} tensors, more than the {MAX_TENSORS:,} that an agent may have")
    shapes = {}
    for name in names:
        if (dtype := (tensor := file.get_slice(name)).get_dtype()) != "F32":
            raise refusal(path, f"its tensor {short(name)} is {dtype}, not float32")
        shapes[name] = tuple(tensor.get_shape())
    return Header(content["agent"], shapes, content.get("sha256"))


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuses an agent whose tensors are not exactly the network's.

    Args:
        shapes: the shape of every tensor in the file, by name.
        expected: the shape of every parameter of the described network, by name.
        path: the file, for the message.

    Raises:
        UserError: a tensor is missing, has another shape, or is not part of the network; the message names the first.
    """
    for name, shape in expected.items():
        if name not in shapes:
            raise refusal(path, f"its network needs a tensor {name!r}, which is missing")
        if shapes[name] != shape:
            raise refusal(path, f"its tensor {short(name)} has shape {shapes[name]}, its network needs {shape}")
    if extra := sorted(shapes.keys() - expected.keys()):
        raise refusal(path, f"its tensor {short(extra[0])} is not part of its network")


def find_agent(path: Path, which: Which) -> Path:
    """Finds the agent's file, given a run folder, an agent folder or the file itself.

    Raises:
        UserError: there is no such agent; the message names the paths that were tried, or the run's other agent.
    """
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # nothing there, or no name that a file can have
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = (
            "does not exist" if missing else f"cannot be read ({why(error) if isinstance(error, OSError) else error})"
        )
        raise UserError(
            f"{printable(str(path))[:200]} {reason}: give a run folder, an agent folder or an {AGENT}."
        ) from None
    run = None if path.suffix == ".safetensors" or path.name in ("best", "last") else run_around(path)
    if run is not None and not (path / AGENT).is_file():
        raise UserError(f"{path} is no agent, but a part of the run {run}: give the run's folder.")
    if stat.S_ISREG(kind):
        return path
    if not stat.S_ISDIR(kind):
        raise UserError(f"{path} is neither a file nor a folder: give a run folder, an agent folder or an {AGENT}.")
    places = [path / AGENT, path / which / AGENT]
    for place in places:
        if place.is_file():
            return place
    other = "last" if which == "best" else "best"
    if (path / other / AGENT).is_file():
        raise UserError(f"{path} has no {which} agent yet, but a {other} one: use which={other}.")
    if (run := next(runs_below(path), None)) is not None:
        raise UserError(f"{path} holds no saved agent, but runs: name one of them, such as {run}.")
    raise UserError(f"{path} holds no saved agent: neither {places[0]} nor {places[1]} exists.")


def _check_frame(path: Path) -> None:
    """Refuses a file that does not start like a safetensors file: with the length of a JSON header, then the header."""
    try:
        with open_plain(path) as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise refusal(path, why(error)) from error
    if size > MAX_BYTES:
        raise refusal(path, f"it has {size:,} bytes, more than the {MAX_BYTES:,} that an agent may have")
    length = int.from_bytes(start[:8], "little")
    if len(start) == 9 and start[8:] == b"{" and length <= min(_MAX_HEADER, size - 8):
        return
    if start.startswith((b"PK\x03\x04", b"\x80")):
        raise refusal(path, "it is a pickle (a .pt file?), which could run code when loaded")
    raise refusal(path, "it is not a safetensors file, or is damaged or cut short")


def _read_description(text: str, path: Path) -> dict[str, Any]:
    """Parses and checks the metadata: the description under "agent", and the digest if there is one."""
    if len(text.encode()) > _MAX_DESCRIPTION:
        raise refusal(path, f"its description is longer than {_MAX_DESCRIPTION} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"its description is not JSON: {error!s:.80}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise refusal(path, "its description was written by another program")
    if content.get("version") != VERSION:
        version = short(content.get("version"))
        raise refusal(path, f"it has version {version}, this program reads version {VERSION}")
    description = content.get("agent")
    if not isinstance(description, dict) or not _is_shallow(description):
        raise refusal(path, f"its description is not a dict of at most {_MAX_NESTING} levels")
    check_env(description.get("env"), path)
    if not isinstance(content.get("sha256"), str | None):
        raise refusal(path, f"its digest is {short(content['sha256'])}, not a text")
    return content


def _check_values(name: str, tensor: torch.Tensor, path: Path) -> None:
    if tensor.dtype != torch.float32:
        raise refusal(path, f"its tensor {short(name)} is {tensor.dtype}, not float32")
    if not bool(torch.isfinite(tensor).all()):
        raise refusal(path, f"its tensor {short(name)} holds values that are not finite")


def _is_shallow(value: dict[str, object]) -> bool:
    containers: list[Any] = [value]
    for _ in range(_MAX_NESTING):
        nodes = [node.values() if isinstance(node, dict) else node for node in containers]
        containers = [child for node in nodes for child in node if isinstance(child, dict | list)]
    return not containers


def _unreadable(path: Path, error: Exception) -> UserError:
    return refusal(path, f"it is damaged or cut short ({short(str(error))})")
