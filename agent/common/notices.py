"""Lines that concern a person and that nothing depends on, from places that do not know where a run prints."""

import sys
from collections.abc import Callable


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_say: Callable[[str], None] = _print
_told: set[str] = set()


def tell_through(say: Callable[[str], None]) -> None:
    """From now on lines are printed by `say`, such as one that does not break a progress bar."""
    global _say
    _say = say


def tell_once(line: str) -> None:
    """Prints a line, unless it was printed already."""
    if line not in _told:
        _told.add(line)
        _say(line)
