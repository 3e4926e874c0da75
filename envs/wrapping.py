"""How a task differs from the environment of its id: the parts of an observation that are kept."""

from dataclasses import dataclass
from typing import Any

from agent.common.errors import UserError, plain

#: Letters of a part's name, and how many parts may be named.
LONGEST_NAME, MOST_PARTS = 64, 256


@dataclass(frozen=True)
class Wrapping:
    """What is put around an environment, as plain data. The default is nothing.

    Attributes:
        parts: names of the parts of a Dict or Tuple observation that are kept (of a Tuple: "0", "1", …); () for all.
    """

    parts: tuple[str, ...] = ()

    def description(self) -> dict[str, Any]:
        """As plain data: what differs from the default."""
        return {"observation": list(self.parts)} if self.parts else {}

    @property
    def first(self) -> str | None:
        """The first option that puts something on, for errors; None where nothing is put on."""
        return "env.observation" if self.parts else None


#: The environment as it is.
BARE = Wrapping()


def wrapping_of(parts: Any) -> Wrapping:
    """Checks what an option or a saved file says of the parts.

    Raises:
        UserError: where it is no list of names, or one of them comes twice.
    """
    if not isinstance(parts, list | tuple) or len(parts) > MOST_PARTS:
        raise UserError(
            f"env.observation is {plain(repr(parts), 80)}: it must be a list of parts, such as [image,direction]"
        )
    names = tuple(str(part) if type(part) is int else part for part in parts)
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise UserError(
                f"env.observation names {plain(repr(name), 80)}: a part has a short name, or a number in a Tuple"
            )
        if names.count(name) > 1:
            raise UserError(f"env.observation names {name!r} twice")
    return Wrapping(names)
