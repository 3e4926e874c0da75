"""Actions as environments get them: in every place of the same kind."""

from typing import Any

import gymnasium as gym
import numpy as np


class Action(int):
    """A number that is what `action_space.sample()` gives, np.int64 as a rule, and a Python int as well.

    Some environments were written against libraries that hand out NumPy's numbers and call `action.item()` or look at
    `action.dtype`; others hand their action on as JSON, which takes Python's numbers alone. This is both.
    """

    _numpy: Any

    def __new__(cls, value: int, kind: type[Any] = np.int64) -> "Action":
        """The action `value`, which has the methods of `kind`."""
        self = super().__new__(cls, value)
        self._numpy = kind(value)
        return self

    def __getattr__(self, name: str) -> Any:
        """What NumPy's numbers have and Python's have not; NumPy itself is not to take it for an array."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._numpy, name)

    @property  # type: ignore[misc, unused-ignore]
    def __class__(self) -> type:
        """For isinstance, which looks at the type as well."""
        return type(self._numpy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes."""
        return Action, (int(self), type(self._numpy))


def action_table(space: gym.spaces.Discrete) -> dict[int, Action]:
    """The actions of a space, by their numbers."""
    kind, start = np.dtype(space.dtype).type, int(space.start)
    return {number: Action(number, kind) for number in range(start, start + int(space.n))}
