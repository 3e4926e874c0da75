"""Notices for the user, from code that does not know where a run prints."""

import sys
from collections.abc import Callable


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_say: Callable[[str], None] = _print
_told: set[str] = set()


def tell_through(say: Callable[[str], None]) -> None:
    """Sets the function that prints notices, such as one that keeps a progress bar intact."""
    global _say
    _say = say


def tell_once(line: str) -> None:
    """Prints a line, unless it was printed before."""
    if line not in _told:
        _told.add(line)
        _say(line)
