"""Evaluations that other processes play while training goes on."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from agent.common.errors import UserError, one_line
from agent.common.files import make_folder, new_file
from agent.common.interrupt import Interrupt, Stopped
from agent.common.state import State
from agent.learning.dqn import DQN
from agent.networks.q_network import QNetwork
from agent.records.tracking import Tracker
from agent.running.evaluation import EncodedFilm, EvaluationResults
from agent.running.evaluator import Evaluator
from agent.running.failures import Folder
from agent.running.filming import film_of
from agent.running.keeping import EvaluationRecorder, Tensors
from agent.running.saving import Saver


class EvaluationWorker(Protocol):
    """Another process that plays one evaluation at a time."""

    def begin(self, tensors: Mapping[str, Tensor], films: bool) -> None:
        """Begins an evaluation of the network with these parameters, and perhaps a film of its first episode."""

    def result(self, wait: bool) -> EvaluationResults | None:
        """The results of the evaluation that was begun; None if they have not arrived.

        Args:
            wait: whether the call may wait for a moment.

        Raises:
            UserError: the evaluation failed.
        """


@dataclass
class PendingEvaluation:
    """An evaluation that has not arrived.

    Attributes:
        step: the step of the agent that is evaluated.
        seconds: the seconds of training until then.
        tensors: its parameters.
        begun: whether a process plays it; False after a resume.
    """

    step: int
    seconds: float
    tensors: Tensors
    begun: bool = False


class BackgroundEvaluations:
    """Lets another process play one evaluation at a time, while training goes on.

    An evaluation that is due before the last one has arrived begins when that arrives, with the agent of that time. At
    the end of a run, training waits for all of them. A checkpoint holds the parameters under evaluation: a resumed run
    evaluates them again, unless a note beside the checkpoint holds the results.

    Args:
        evaluator: knows whether an evaluation is due, and records its results.
        agent: the agent to evaluate.
        recorder: records the results of an evaluation.
        saver: knows the newest checkpoint.
        check: raises an error if the agent has values that are not finite.
        worker: plays the evaluations.
        tracker: logs films.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        agent: DQN,
        recorder: EvaluationRecorder,
        saver: Saver,
        check: Callable[[], None],
        worker: EvaluationWorker,
        tracker: Tracker,
    ) -> None:
        self._evaluator, self._worker, self._agent = evaluator, worker, agent
        self._recorder, self._saver, self._tracker, self._check = recorder, saver, tracker, check
        self._pending: PendingEvaluation | None = None
        self._due_when_saved = False  # whether another one was due at the newest checkpoint

    @property
    def busy(self) -> bool:
        """Whether an evaluation has not arrived."""
        return self._pending is not None

    def poll(self, step: int, last: bool, seconds: float, interrupt: Interrupt) -> None:
        """Records an evaluation that has arrived, and begins one that is due; at the last step, waits for all of them.

        Args:
            step: the step of the run.
            last: whether this is the last call.
            seconds: the seconds of training so far.
            interrupt: ends the waiting.

        Raises:
            EvaluationsFailedError: the last evaluation failed, or three in a row did; the checkpoint still holds them.
            Stopped: a signal came while it waited.
        """
        evaluator = self._evaluator
        while self._pending is not None or evaluator.due:
            if self._pending is None:
                self._check()
                self._pending, evaluator.due = PendingEvaluation(step, seconds, self._agent.tensors()), False
                self._due_when_saved &= step != self._saver.step
            if not self._pending.begun:
                self._worker.begin(self._pending.tensors, evaluator.film_is_due(last))
                self._pending.begun = True
            if not self._has_finished(self._pending, step, last, interrupt.__bool__):
                return
            if evaluator.solved and not last:  # the run ends here
                evaluator.due = False

    def _has_finished(self, pending: PendingEvaluation, step: int, last: bool, stop: Callable[[], bool]) -> bool:
        """Records the pending evaluation if it has arrived, and returns whether it has; waits at the last step."""
        of_last_step = last and not self._evaluator.due
        try:
            while (results := self._worker.result(last)) is None:
                if not last:
                    return False
                if stop():
                    raise Stopped
        except UserError as error:
            self._evaluator.failed(pending.step, of_last_step, error)
            results = None
        self._pending = None
        if results is not None:
            metrics = self._evaluator.record(pending.step, results)
            self._recorder.record(pending.step, pending.seconds, metrics, lambda: pending.tensors)
        if self._saver.step >= pending.step:
            self._recorder.save_note(step, self._evaluator.state() | {"evaluation_due": self._due_when_saved})
        if results is not None:
            self._film(pending, results, stop)
        return True

    def _film(self, pending: PendingEvaluation, results: EvaluationResults, stop: Callable[[], bool]) -> None:
        """Keeps the film of an evaluation; an agent that solved the task is filmed here if it has no film."""
        if results.film is not None:
            keep_film(self._evaluator.folder, self._tracker, pending.step, results.film)
        elif self._evaluator.solved:
            network = self._agent.network
            self._evaluator.film(pending.step, True, stop, with_tensors(network, pending.tensors))

    # ---- checkpoints

    def saved(self) -> None:
        """Notes that a checkpoint was just saved."""
        self._due_when_saved = self._evaluator.due

    def state(self) -> State:
        """The state for a checkpoint besides the evaluator's: the evaluation under way, if any."""
        if (pending := self._pending) is None:
            return {}
        return {"under_way": {"step": pending.step, "seconds": pending.seconds, "tensors": dict(pending.tensors)}}

    def load_state(self, state: State) -> None:
        """Continues from a checkpoint's state; the evaluator's must be loaded before."""
        self._due_when_saved = self._evaluator.due
        if (saved := state.get("under_way")) is not None and self._evaluator.episodes:
            self._pending = PendingEvaluation(saved["step"], saved["seconds"], dict(saved["tensors"]))


def with_tensors(network: QNetwork, tensors: Mapping[str, Tensor]) -> QNetwork:
    """A copy of a network with other parameters."""
    copied = copy.deepcopy(network)
    copied.load_state_dict(dict(tensors))
    return copied


def keep_film(folder: Folder, tracker: Tracker, step: int, film: EncodedFilm) -> None:
    """Writes the film of a step to a run's folder; if that fails, the console gets a line."""
    path = film_of(folder, step).with_suffix(film.suffix)
    try:
        if film.failure:
            raise UserError(film.failure)
        make_folder(path.parent)
        with new_file(path) as file:
            file.write(film.content)
    except (OSError, UserError) as error:
        tracker.console.line(f"no video: {one_line(error)}")
        return
    tracker.video(step, path)
