"""Evaluations during training: when they are due, their metrics, the best agent so far, and their failures."""

import math
from collections.abc import Callable
from dataclasses import astuple, replace

from agent.common.errors import UserError, one_line
from agent.common.foreign import foreign_frames, shown
from agent.common.kinds import PlainData
from agent.common.schedule import Every
from agent.common.seeding import environment_seeds
from agent.common.state import State
from agent.config.run import EvalConfig, TrainConfig
from agent.learning.dqn import DQN
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.records.evaluations import cut_episodes
from agent.records.tracking import Tracker
from agent.running.evaluation import Evaluation, EvaluationResults, evaluate, finite, metrics_of
from agent.running.failures import Folder
from agent.running.filming import film_of, record_film
from envs.make import Task
from envs.shared_env import SharedEnv
from envs.video import write_video

#: After this many failed evaluations in a row the run ends: nobody would see what it learns.
FAILURES = 3


class EvaluationsFailedError(UserError):
    """Evaluations failed too often, or at the end."""


class Evaluator:
    """Evaluates the agent of a run during its training, and keeps the results.

    An environment's error in an evaluation or a film becomes one line on the console, and training goes on.

    Args:
        config: the config of the run.
        task: the task, as evaluations play it.
        agent: the agent to evaluate.
        tracker: logs results and failures.
        folder: the folder of the run.
        shared_env: training's own environment, to play in between two of its episodes; None for fresh environments.

    Attributes:
        folder: the folder of the run.
        due: whether an evaluation is due.
        best_return: the highest mean return so far.
        result: the result of the newest evaluation.
        evaluated_at: the step of `result`.
        solved: whether enough evaluations in a row have reached `eval.stop_at`.

    Raises:
        UserError: for `eval.stop_at=solved`, if Gymnasium has no such return for the task.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        agent: DQN,
        tracker: Tracker,
        folder: Folder,
        shared_env: SharedEnv | None = None,
    ) -> None:
        self._config, self._task, self._agent = config.eval, task, agent
        self._tracker, self.folder, self._shared_env = tracker, folder, shared_env
        self._can_share = config.collect.engine == "local" and not config.eval.share
        self._seeds = environment_seeds(config.seed, "evaluation", config.eval.episodes)
        self._num_envs = config.eval.num_envs or config.num_envs
        self._stop_return = stop_return(config.eval, task)
        self._every = Every(config.eval.every)
        self.due = False
        self.best_return = -math.inf
        self.result: Evaluation | None = None
        self.evaluated_at = 0
        self._statistics: PlainData | None = None  # of `result`; they take seconds for many episodes
        self._evaluations = self._failures = self._times_reached = 0
        self._warned_of_cuts = False  # whether the console has a line on cut episodes

    def note_due(self, step: int, last: bool) -> None:
        """Notes whether an evaluation is due at `step`; one always is at the last step."""
        reached = self._every(step)
        self.due = (self.due or reached or last) and self._config.episodes > 0

    def can_play(self, last: bool) -> bool:
        """Whether an evaluation is due and can begin; at the last step, training no longer needs its environment."""
        return self.due and (self._shared_env is None or last or self._shared_env.is_between_episodes())

    @property
    def episodes(self) -> int:
        """Episodes of an evaluation; 0 if there are no evaluations."""
        return self._config.episodes

    @property
    def solved(self) -> bool:
        """Whether `eval.stop_patience` evaluations in a row have reached the return `eval.stop_at`."""
        return self._stop_return is not None and self._times_reached >= self._config.stop_patience

    # ---- an evaluation

    def play(self, step: int, last: bool, stop: Callable[[], bool]) -> dict[str, float] | None:
        """Plays the mean network, and perhaps the noisy network; returns the metrics, or None if it failed.

        Args:
            step: the step of the run.
            last: whether this is the last evaluation.
            stop: called between steps.

        Raises:
            EvaluationsFailedError: the last evaluation failed, or three in a row did.
            Stopped: `stop` returned True; the evaluation is still due.
        """
        try:
            results = EvaluationResults(self._evaluate(None, stop))
            if self._config.noisy and self._agent.noise.size:
                results = replace(results, noisy=self._evaluate(self._agent.noise, stop))
        except (Exception, SystemExit) as error:  # an environment may do anything
            self.failed(step, last, error)
            self.due = False
            return None
        self.due = False
        return self.record(step, results)

    def record(self, step: int, results: EvaluationResults) -> dict[str, float]:
        """Records the evaluation of a step as the newest; returns its metrics."""
        result, statistics = results.mean, results.mean.statistics(self._task.id)
        metrics = metrics_of(statistics)
        if results.noisy is not None:
            noisy = results.noisy.statistics()
            metrics |= {f"eval_noisy/{name}": noisy[name] for name in ("return_mean", "return_std")}
        self.result, self.evaluated_at, self._statistics = result, step, statistics
        self._evaluations, self._failures = self._evaluations + 1, 0
        reached = self._stop_return is not None and metrics["eval/return_mean"] >= self._stop_return
        self._times_reached = self._times_reached + 1 if reached else 0
        self._warn_of_cuts(result)
        return metrics

    def _evaluate(self, noise: NoiseModel | None, stop: Callable[[], bool]) -> Evaluation:
        result = evaluate(self._task, self._agent.network, self._seeds, noise, self._num_envs, stop, self._shared_env)
        return finite(result, self._task.id)

    def is_best(self) -> bool:
        """Whether the newest evaluation is the best so far; of equal ones, the later counts. Updates the best."""
        assert self._statistics is not None
        mean: float = self._statistics["return_mean"]
        best = mean >= self.best_return
        self.best_return = max(mean, self.best_return)
        return best

    def description(self) -> dict[str, object] | None:
        """The newest evaluation in a saved agent's description."""
        if self.result is None or self._statistics is None:
            return None
        return {"global_step": self.evaluated_at, **self._statistics}

    def failed(self, step: int, last: bool, error: BaseException) -> None:
        """Reports the failed evaluation of a step.

        Raises:
            EvaluationsFailedError: the last evaluation failed, or three in a row did.
        """
        self._failures += 1
        advice = "; if only one instance of the environment can exist: eval.share=true" if self._can_share else ""
        if last or self._failures >= FAILURES:
            subject = "the last evaluation" if last else f"{self._failures} evaluations in a row"
            raise EvaluationsFailedError(
                f"{subject} failed at step {step} ({one_line(error)}); everything is saved: go on with "
                f"resume={self.folder} once it is fixed, or without evaluations by eval.episodes=0{advice}",
                error.detail if isinstance(error, UserError) else shown(foreign_frames(error)),
            ) from error
        self._tracker.console.line(f"no evaluation at step {step}: {one_line(error)}")

    def _warn_of_cuts(self, result: Evaluation) -> None:
        cut = cut_episodes(result.lengths)
        if cut and not self._warned_of_cuts:
            self._warned_of_cuts = True
            self._tracker.console.line(f"{cut}: env.time_limit=<steps> cuts them earlier")

    # ---- a film

    def film(self, step: int, last: bool, stop: Callable[[], bool], network: QNetwork | None = None) -> None:
        """Films the first evaluation episode, if a film is due; if that fails, the console gets a line.

        Args:
            step: the step of the run.
            last: whether this is the last evaluation.
            stop: called between steps.
            network: the network to film; None for the agent's.

        Raises:
            Stopped: `stop` returned True.
        """
        if not self.film_is_due(last, self._evaluations):
            return
        try:
            network = network or self._agent.network
            frames, _ = record_film(self._task, network, self._seeds[:1], None, stop, self._shared_env)
            path = write_video(frames, film_of(self.folder, step), self._task.fps)
        except (Exception, SystemExit) as error:
            self._tracker.console.line(f"no video: {one_line(error)}")
            return
        self._tracker.video(step, path)

    def film_is_due(self, last: bool, count: int | None = None) -> bool:
        """Whether the evaluation with this number, counted from 1, is filmed; the next one by default."""
        every, number = self._config.video_every, self._evaluations + 1 if count is None else count
        return self._config.video and self._task.renders and bool(last or (every and number % every == 0))

    # ---- checkpoints

    def state(self) -> dict[str, object]:
        """The state for a checkpoint."""
        return {
            "best_return": self.best_return,
            "evaluations": self._evaluations,
            "evaluation": (self.evaluated_at, *(() if self.result is None else astuple(self.result))),
            "evaluation_due": self.due,
            "failures": self._failures,
            "reached": self._times_reached,
        }

    def load_state(self, step: int, state: State) -> None:
        """Continues from a checkpoint at `step`, perhaps of an earlier version that evaluated before it saved."""
        self._every = Every(self._config.every, step)
        self.best_return, self._evaluations = state["best_return"], state["evaluations"]
        self.evaluated_at, *results = state["evaluation"]
        self.result = Evaluation(*map(tuple, results)) if results else None
        self._statistics = None if self.result is None else self.result.statistics(self._task.id)
        self.due = state.get("evaluation_due", False) and self._config.episodes > 0
        self._failures = state.get("failures", 0)
        same_goal = state["config"]["eval"].get("stop_at") == self._config.stop_at
        self._times_reached = state.get("reached", 0) if same_goal else 0


def stop_return(config: EvalConfig, task: Task) -> float | None:
    """The mean return at which a run stops, if any.

    Raises:
        UserError: for `solved`, if Gymnasium has no such return for the task.
    """
    if config.stop_at != "solved":
        return config.stop_at
    if task.threshold is None:
        raise UserError(
            f"eval.stop_at=solved: Gymnasium does not say at which return {task.id} is solved; give a number"
        )
    return task.threshold
