"""Names of types that hold data of many forms."""

from typing import Any, TypeAlias

#: What a checkpoint keeps of an object, by name: arrays, tensors, numbers, texts, and states of its parts.
State: TypeAlias = dict[str, Any]
#: The content of a JSON or YAML file: numbers, texts, booleans, None, and lists and mappings of them.
PlainData: TypeAlias = dict[str, Any]
