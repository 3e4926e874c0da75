"""Names of types that hold data of many forms."""

from typing import Any, TypeAlias

#: The content of a JSON or YAML file: numbers, texts, booleans, None, and lists and mappings of them.
PlainData: TypeAlias = dict[str, Any]
