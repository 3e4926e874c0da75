"""Nested state as JSON with references to its tensors, which are in a separate file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agent.common.tensor_file import DTYPES, dtype_name


def encode(value: Any, path: str, arrays: dict[str, torch.Tensor | np.ndarray]) -> object:
    """Converts `value` to JSON types; moves tensors and arrays to `arrays`, by their path, and leaves references."""
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
        items = [encode(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    if not isinstance(value, dict) or any(type(key) not in (str, int) for key in value):
        raise TypeError(f"a checkpoint cannot hold {path!r}: {type(value).__name__}")
    pairs = [(key, encode(item, f"{path}/{key}".lstrip("/"), arrays)) for key, item in value.items()]
    plain = all(type(key) is str and not key.startswith("$") for key in value)
    return dict(pairs) if plain else {"$items": [list(pair) for pair in pairs]}


def decode(node: object, arrays: dict[str, np.ndarray]) -> Any:
    """Inverts `encode`; removes the arrays that it uses from `arrays`, so that only unreferenced ones remain."""
    match node:
        case list():
            return [decode(item, arrays) for item in node]
        case {"$tensor": str(name)}:
            return torch.from_numpy(arrays.pop(name))
        case {"$array": str(name)}:
            return arrays.pop(name)
        case {"$tuple": list(items)}:
            return tuple(decode(item, arrays) for item in items)
        case {"$items": list(pairs)}:
            return {key: decode(item, arrays) for key, item in pairs}
        case dict():
            return {key: decode(item, arrays) for key, item in node.items()}
    return node
