"""A saved agent: one file `agent.safetensors` that people share. It is data, never code.

The file holds float32 tensors and, in the header's string metadata, a JSON description (environment, network,
where it comes from). Reading one executes nothing, imports nothing it names and allocates the file's size;
whatever does not look exactly like a file written here is refused.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes

FILE_NAME = "agent.safetensors"
FORMAT = "noisy-dqn-agent"
VERSION = 1
Which = Literal["best", "last"]

_METADATA_KEY = "noisy-dqn"
_MAX_HEADER = 8 << 20  # bytes: the description, escaped, and some ten thousand tensor names
_MAX_DESCRIPTION = 1 << 20  # bytes
_MAX_NESTING = 20
# Gymnasium imports `module` for an id "module:Id": no colon gets through, nor anything else that is odd.
_ENV_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_WRAPPING_IDS = ("GymV21Environment", "GymV26Environment")  # they make any other id, given as an argument
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEYWORD_TEXT = re.compile(r"(?:[A-Za-z0-9_+-][A-Za-z0-9_ .,+-]{0,99})?")  # no path, no module
_MAKE_PARAMETERS = {  # of gymnasium.make, make_vec and EnvSpec: not the environment's own keywords
    *{"id", "env_id", "env_fn", "env_fns", "env_spec", "kwargs", "entry_point", "vector_entry_point"},
    *{"render_mode", "max_episode_steps", "autoreset", "disable_env_checker", "apply_api_compatibility"},
    *{"num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "additional_wrappers"},
}


@dataclass(frozen=True)
class SavedAgent:
    """What a file holds: float32 tensors on the CPU by name, and the description as it was saved."""

    tensors: dict[str, torch.Tensor]
    description: dict[str, Any]


def save_agent(path: Path, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]) -> None:
    """Writes the agent's file atomically, creating its folder.

    Args:
        path: the file, by convention `<run>/<best|last>/agent.safetensors`.
        tensors: finite float32 tensors by name, on any device.
        description: JSON with at least `env`: {"id": "CartPole-v1", "kwargs": {}}.

    Raises:
        UserError: the disk refuses, or `load_agent` would refuse what is to be saved.
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, "agent": dict(description)})
    _read_description(text, path)
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    for name, tensor in copies.items():
        _check_values(name, tensor, path)
    atomic_write_bytes(path, safetensors.torch.save(copies, {_METADATA_KEY: text}))


def load_agent(path: Path) -> SavedAgent:
    """Reads a file that may come from a stranger.

    Raises:
        UserError: not a saved agent of this program and version, damaged, or not safe to play.
    """
    _check_frame(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _METADATA_KEY not in metadata:
                raise _refused(path, "it is a safetensors file of another program")
            description = _read_description(metadata[_METADATA_KEY], path)
            names = sorted(file.keys())
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) != "F32":
                    raise _refused(path, f"its tensor {_short(name)} is {dtype}, not float32")
            tensors = {name: torch.from_numpy(file.get_tensor(name)) for name in names}
    except (OSError, SafetensorError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise _refused(path, f"it is damaged or cut short ({_short(str(error))})") from error
    for name, tensor in tensors.items():
        _check_values(name, tensor, path)
    return SavedAgent(tensors, description)


def check_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuses an agent whose tensors are not exactly the network's.

    Args:
        tensors: what the file holds.
        expected: shape of every parameter of the described network, by name.
        path: the file, for the message.

    Raises:
        UserError: names the first tensor that is missing, of another shape, or too many.
    """
    for name, shape in expected.items():
        if name not in tensors:
            raise _refused(path, f"its network needs a tensor {name!r}, which is missing")
        if tuple(tensors[name].shape) != tuple(shape):
            found = tuple(tensors[name].shape)
            raise _refused(path, f"its tensor {_short(name)} has shape {found}, its network needs {tuple(shape)}")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise _refused(path, f"its tensor {_short(extra[0])} is not part of its network")


def check_env(env: object, path: Path) -> None:
    """Refuses an environment description that could do more than make a registered environment.

    Raises:
        UserError: not {"id": <plain Gymnasium id>, "kwargs": <flat dict of plain values>}.
    """
    if not isinstance(env, dict) or env.keys() != {"id", "kwargs"}:
        raise _refused(path, "its description does not say the environment as id and kwargs")
    env_id, kwargs = env["id"], env["kwargs"]
    if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id):
        raise _refused(path, f"its environment id {_short(env_id)} is not a plain one such as 'CartPole-v1'")
    if env_id.rpartition("/")[2].startswith(_WRAPPING_IDS):
        raise _refused(path, f"its environment {env_id!r} would make another one of its choice")
    if not isinstance(kwargs, dict):
        raise _refused(path, "its environment's kwargs are not a dict")
    for key, value in kwargs.items():
        if not isinstance(key, str) or not _KEYWORD.fullmatch(key) or key in _MAKE_PARAMETERS:
            raise _refused(path, f"its environment has the keyword {_short(key)}, which is not allowed")
        if not _is_plain(value):
            plain = "a number, a truth value or a short plain text"
            raise _refused(path, f"its environment's {key!r} is {_short(value)}, not {plain}")


def find_agent(path: Path, which: Which) -> Path:
    """The agent's file for a run folder, an agent folder or the file itself.

    Raises:
        UserError: there is none; says what was looked for, or that only the other one is there.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give a run folder, an agent folder or an {FILE_NAME}.")
    places = [path / FILE_NAME, path / which / FILE_NAME]
    for place in places:
        if place.is_file():
            return place
    other = "last" if which == "best" else "best"
    if (path / other / FILE_NAME).is_file():
        raise UserError(f"{path} has no {which} agent yet, but a {other} one: use which={other}.")
    raise UserError(f"{path} holds no saved agent: neither {places[0]} nor {places[1]} exists.")


def _check_frame(path: Path) -> None:
    """Refuses what does not start like a safetensors file: the length of a JSON header, then the header."""
    if not path.is_file():
        raise UserError(f"{path} is not a file: give an {FILE_NAME}.")
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    length = int.from_bytes(start[:8], "little")
    if len(start) == 9 and start[8:] == b"{" and length <= min(_MAX_HEADER, size - 8):
        return
    if start.startswith((b"PK\x03\x04", b"\x80")):
        raise _refused(path, "it is a pickle (a .pt file?), which could run code when loaded")
    raise _refused(path, "it is not a safetensors file, or is damaged or cut short")


def _read_description(text: str, path: Path) -> dict[str, Any]:
    if len(text.encode()) > _MAX_DESCRIPTION:
        raise _refused(path, f"its description is longer than {_MAX_DESCRIPTION} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"its description is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _refused(path, "its description was written by another program")
    if content.get("version") != VERSION:
        version = _short(content.get("version"))
        raise _refused(path, f"it has version {version}, this program reads version {VERSION}")
    description = content.get("agent")
    if not isinstance(description, dict) or not _is_shallow(description):
        raise _refused(path, f"its description is not a dict of at most {_MAX_NESTING} levels")
    check_env(description.get("env"), path)
    return description


def _check_values(name: str, tensor: torch.Tensor, path: Path) -> None:
    if tensor.dtype != torch.float32:
        raise _refused(path, f"its tensor {_short(name)} is {tensor.dtype}, not float32")
    if not bool(torch.isfinite(tensor).all()):
        raise _refused(path, f"its tensor {_short(name)} holds values that are not finite")


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _KEYWORD_TEXT.fullmatch(value) is not None
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _is_shallow(value: dict[str, Any]) -> bool:
    containers: list[Any] = [value]
    for _ in range(_MAX_NESTING):
        nodes = [node.values() if isinstance(node, dict) else node for node in containers]
        containers = [child for node in nodes for child in node if isinstance(child, dict | list)]
    return not containers


def _short(value: object) -> str:
    """For messages: escapes control characters, which a terminal would obey, and stays short."""
    return f"{value!r:.80}"


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"{path} cannot be used: {why}; give an {FILE_NAME} saved by this program.")
