"""Logs evaluations, and saves the best agent so far."""

from collections.abc import Callable

from torch import Tensor

from agent.common.state import State
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.running.description import describe
from agent.running.evaluator import Evaluator
from agent.running.saving import Saver
from envs.make import Task

Tensors = dict[str, Tensor]


class EvaluationRecorder:
    """Logs the evaluations of an agent, and saves the agent with their results.

    Args:
        config: the config of the run.
        task: the task.
        agent: the current agent.
        evaluator: holds the newest evaluation.
        saver: saves agents.
        tracker: logs the metrics.
    """

    def __init__(
        self, config: TrainConfig, task: Task, agent: DQN, evaluator: Evaluator, saver: Saver, tracker: Tracker
    ) -> None:
        self._config, self._task, self._agent = config, task, agent
        self._evaluator, self._saver, self._tracker = evaluator, saver, tracker

    def record(self, step: int, seconds: float, metrics: dict[str, float], tensors: Callable[[], Tensors]) -> None:
        """Logs the newest evaluation, and saves its agent if it is the best so far.

        Args:
            step: the step of the agent that was evaluated.
            seconds: the seconds of training until then.
            metrics: the metrics of the evaluation.
            tensors: returns the parameters of that agent.
        """
        self._tracker.log(step, metrics | {"time/train_seconds": seconds})
        if self._evaluator.is_best():
            self._saver.agent("best", tensors(), self.description(step))

    def save_note(self, step: int, state: State) -> None:
        """Writes the state after an evaluation beside the newest checkpoint; rewrites the last agent if due."""
        if self._saver.step == step:
            # Its description then holds the evaluation.
            self._saver.agent("last", self._agent.tensors(), self.description(step))
        self._saver.evaluation(self._saver.step, state)

    def description(self, step: int) -> dict[str, object]:
        """The description of a saved agent at a step."""
        return describe(self._config, self._task, step, self._evaluator.description())
