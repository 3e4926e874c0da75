"""The interface between a trainer and the object that plays the environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.common.state import State
from agent.running.background import EvaluationWorker


class AnyCollector(Protocol):
    """Plays the environments of a run and stores their transitions: `Collector` here, or `RayCollector` by actors."""

    step: int  # transitions so far

    def begin(self) -> None:
        """Begins the first episodes."""

    def send(self) -> int:
        """Begins the next steps; returns the step count that they are known to reach."""

    def receive(self, arrived: Callable[[], None] | None = None) -> None:
        """Waits for the steps under way, calls `arrived`, and stores and counts the steps."""

    def evaluation_worker(self) -> EvaluationWorker | None:
        """A worker that plays evaluations while training goes on; None: training waits for them."""

    def metrics(self) -> dict[str, float]:
        """Metrics of collecting since the last call."""

    def state(self, of_episodes: bool = True) -> dict[str, object]:
        """The state for a checkpoint."""

    def load_state(self, step: int, state: State | None) -> None:
        """Continues at `step` from a saved state."""
