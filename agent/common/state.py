"""The state of a run, and the parts of it that belong to one object."""

from collections.abc import Mapping
from typing import Any, NamedTuple

#: What `state()` returned: tensors, arrays, plain values and further states, by name. A file may hold any of them, so
#: `load_state` checks the values that it reads.
State = Mapping[str, Any]


class Checkpoint(NamedTuple):
    """The state of a run at an environment step."""

    step: int
    state: State
