"""The state that is saved while a run is in the middle of a step."""

from collections.abc import Callable

from agent.common.state import State


class Snapshot:
    """Keeps a state of before the step under way, to be saved in place of the present one.

    Args:
        current_state: makes the present state, with the episodes under way or without them.
    """

    def __init__(self, current_state: Callable[[bool], State]) -> None:
        self._current_state = current_state
        self._state: State | None = None

    def take(self, episodes: bool = True) -> None:
        """Holds the present state."""
        self.drop()  # first: two states at once would take twice the memory
        self._state = self._current_state(episodes)

    def drop(self) -> None:
        """Holds nothing: the present state is the one to save."""
        self._state = None

    def state(self) -> State:
        """The state to save: the held one, or the present one where none is held."""
        return self._current_state(True) if self._state is None else self._state
