"""The types of options that are paths."""

import re
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Texts:
    """Texts in which a pattern is found, for Annotated types."""

    text: str  #: the texts in words, for messages
    pattern: str

    def holds(self, text: str) -> bool:
        """Whether the pattern is found."""
        return re.search(self.pattern, text) is not None


_FILLED = Texts("a path", r"\S")
_WITHOUT_TILDE = Texts("a path with $HOME in place of ~, which only a shell replaces", r"^(?!~(/|$))")

OptionalPath = Annotated[str | None, _FILLED, _WITHOUT_TILDE]
Paths = Annotated[tuple[str, ...], _FILLED, _WITHOUT_TILDE]
