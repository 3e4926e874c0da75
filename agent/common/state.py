"""The part of a checkpoint that belongs to one object."""

from collections.abc import Mapping
from typing import Any

#: What `state()` returned: tensors, arrays, plain values and further states, by name. A file may hold any of them, so
#: `load_state` checks the values that it reads.
State = Mapping[str, Any]
