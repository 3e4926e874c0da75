"""The state that is saved while a run is in the middle of a step."""

from collections.abc import Callable
from typing import Any


class Held:
    """Keeps a state of before the step under way, to be saved in place of the present one.

    Args:
        present: makes the present state, with the episodes under way or without them.
    """

    def __init__(self, present: Callable[[bool], dict[str, Any]]) -> None:
        self._present = present
        self._held: dict[str, Any] | None = None

    def hold(self, episodes: bool = True) -> None:
        """Holds the present state."""
        self.drop()  # first: two states at once would take twice the memory
        self._held = self._present(episodes)

    def drop(self) -> None:
        """Holds nothing: the present state is the one to save."""
        self._held = None

    def state(self) -> dict[str, Any]:
        """The state to save: the held one, or the present one where none is held."""
        return self._present(True) if self._held is None else self._held
