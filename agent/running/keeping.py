"""What follows from an evaluation: it is logged, and the best agent so far is saved."""

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


class Results:
    """Logs evaluations of an agent, and saves it with what they say of it.

    Args:
        config: the config of the run.
        task: what is played.
        agent: the present one.
        evaluator: keeps the newest evaluation.
        saver: writes agents.
        tracker: is told of the metrics.
    """

    def __init__(
        self, config: TrainConfig, task: Task, agent: DQN, evaluator: Evaluator, saver: Saver, tracker: Tracker
    ) -> None:
        self._config, self._task, self._agent = config, task, agent
        self._evaluator, self._saver, self._tracker = evaluator, saver, tracker

    def keep(self, step: int, seconds: float, metrics: dict[str, float], tensors: Callable[[], Tensors]) -> None:
        """Logs the newest evaluation, and keeps its agent if that is the best so far.

        Args:
            step: the step of the agent that was evaluated.
            seconds: the seconds of training until then.
            metrics: the metrics of the evaluation.
            tensors: gives the parameters of that agent.
        """
        self._tracker.log(step, metrics | {"time/train_seconds": seconds})
        if self._evaluator.is_best():
            self._saver.agent("best", tensors(), self.description(step))

    def note(self, step: int, state: State) -> None:
        """Writes what an evaluation gave beside the newest checkpoint; and the last agent, if that is of this step."""
        if self._saver.step == step:
            self._saver.agent("last", self._agent.tensors(), self.description(step))  # which says how it was evaluated
        self._saver.evaluation(self._saver.step, state)

    def description(self, step: int) -> dict[str, object]:
        """What a saved agent of a step says of itself."""
        return describe(self._config, self._task, step, self._evaluator.description())
