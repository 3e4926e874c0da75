"""A snapshot of a run's state from before the step under way."""

from collections.abc import Callable

from agent.common.state import State


class Snapshot:
    """Holds a state from before the step under way, which is saved in place of the current one.

    Args:
        current_state: returns the current state, with or without the episodes under way.
    """

    def __init__(self, current_state: Callable[[bool], State]) -> None:
        self._current_state = current_state
        self._state: State | None = None

    def take(self, episodes: bool = True) -> None:
        """Holds the current state from now on."""
        self.drop()  # first, as two states would take twice the memory
        self._state = self._current_state(episodes)

    def drop(self) -> None:
        """Drops the snapshot: the current state is to be saved again."""
        self._state = None

    def state(self) -> State:
        """The state to save: the snapshot, or the current state if there is none."""
        return self._current_state(True) if self._state is None else self._state
