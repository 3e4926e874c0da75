"""Evaluations that training waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.common.interrupt import Interrupt
from agent.common.state import State
from agent.learning.dqn import DQN
from agent.running.evaluator import Evaluator
from agent.running.keeping import EvaluationRecorder
from agent.running.saving import Saver
from agent.running.snapshot import Snapshot


class ForegroundEvaluations:
    """Plays each evaluation in this process when it is due.

    Args:
        evaluator: plays, and knows whether an evaluation is due.
        agent: is evaluated.
        recorder: records the results of an evaluation.
        saver: knows the newest checkpoint.
        check: raises an error if the agent has values that are not finite.
        snapshot: holds the state from before an evaluation in training's own environment; None: in fresh environments.
    """

    busy = False  # an evaluation has ended when `poll` returns

    def __init__(
        self,
        evaluator: Evaluator,
        agent: DQN,
        recorder: EvaluationRecorder,
        saver: Saver,
        check: Callable[[], None],
        snapshot: Snapshot | None,
    ) -> None:
        self._evaluator, self._agent, self._recorder, self._saver = evaluator, agent, recorder, saver
        self._check, self._snapshot = check, snapshot

    def poll(self, step: int, last: bool, seconds: float, interrupt: Interrupt) -> None:
        """Evaluates the agent if that is due, keeps the best agent so far, and films it.

        Args:
            step: the step of the run.
            last: whether this is the last call.
            seconds: the seconds of training so far.
            interrupt: a signal ends the evaluation.

        Raises:
            EvaluationsFailedError: the last evaluation failed, or three in a row did.
            Stopped: a signal came.
        """
        evaluator = self._evaluator
        if not evaluator.can_play(last):
            return
        self._check()
        with self._droppable(interrupt):
            metrics = evaluator.play(step, last, interrupt.__bool__)
        if metrics is not None:
            self._recorder.record(step, seconds, metrics, self._agent.tensors)
        if self._saver.step == step:
            self._recorder.save_note(step, evaluator.state())
        if metrics is not None:
            with self._droppable(interrupt):
                evaluator.film(step, last or evaluator.solved, interrupt.__bool__)

    @contextmanager
    def _droppable(self, interrupt: Interrupt) -> Iterator[None]:
        """Lets a signal end the block; the state to save is then the one from before it."""
        if self._snapshot is not None:
            self._snapshot.take()
        with interrupt.droppable():
            yield
        if self._snapshot is not None:
            self._snapshot.drop()

    def saved(self) -> None:
        """Does nothing: no evaluation is under way between two calls of `poll`."""

    def state(self) -> State:
        """No state, for the same reason."""
        return {}

    def load_state(self, state: State) -> None:
        """Does nothing."""
