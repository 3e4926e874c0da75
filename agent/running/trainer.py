"""The loop: collect, learn, evaluate, save. Everything is built elsewhere and handed in."""

import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import VectorEnv

from agent.common.errors import UserError
from agent.common.interrupt import Interrupt
from agent.common.schedule import Every
from agent.common.seeding import environment_seeds, restore, state_of
from agent.compute.plan import TORCH, Plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.checkpoint import latest_checkpoint, save_checkpoint
from agent.records.saved_agent import save_agent
from agent.records.tracking import Tracker
from agent.replay.ring import Replay
from agent.running.collector import Collector
from agent.running.evaluation import EPISODE_CAP, Evaluation, evaluate
from agent.running.filming import record
from agent.running.monitor import Monitor, NotFiniteError
from envs.make import Task
from envs.video import write_video


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last step, and the code of the signal that stopped it (0: none)."""

    step: int
    exit_code: int
    evaluation: Evaluation | None


class Trainer:
    """Trains one agent on one task.

    Steps are real transitions: the rows in which an environment resets are not counted. A checkpoint changes nothing
    of what is learned: a run that is killed and resumed comes back into the middle of its episodes (see envs.episodes).
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        envs: VectorEnv[Any, Any, Any],
        agent: DQN,
        replay: Replay,
        tracker: Tracker,
        run_dir: Path,
        plan: Plan = TORCH,
    ) -> None:
        self.config, self.task = config, task
        self.agent, self.replay, self.tracker, self.run_dir = agent, replay, tracker, run_dir
        self.best_return = -float("inf")
        self.collector = Collector(config, task, envs, agent, replay, tracker)
        self._learner = plan.learner(agent, replay, config.seed)
        self._overlap = plan.overlap
        self._monitor = Monitor(agent, replay, tracker, config.seed)
        self._eval_seeds = environment_seeds(config.seed, "evaluation", config.eval.episodes)
        self._seconds = 0.0  # spent in collecting and learning alone
        self._evaluation: Evaluation | None = None
        self._evaluated_at = self._evaluations = 0
        self._saved_at = -1  # step of the last checkpoint
        self._cut_told = False  # that evaluations cut episodes

    # ---- the loop

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the monitor looks for what is not finite
    def run(self, interrupt: Interrupt) -> Outcome:
        """Trains until `config.steps`, or until a signal asks to stop; evaluates at the end, saves in both cases."""
        config = self.config
        log, evaluation = Every(config.log.every, self.step), Every(config.eval.every, self.step)
        checkpoint = Every(config.checkpoint.every, self.step)
        self.begin()
        try:
            while self.step < config.steps and not interrupt:
                self.iterate()
                self.tracker.console.update(self.step)
                complete = self.step >= config.steps
                saving = checkpoint(self.step) or complete
                if log(self.step) or saving:  # a kill would lose what waits to be logged
                    self._monitor.log(self.step, self._seconds)
                if evaluated := evaluation(self.step) or complete:
                    self._evaluate()
                if saving:
                    self._checkpoint()
                if evaluated:  # last: it takes the most memory, and what is saved is saved
                    self._video(complete)
            if interrupt and self._saved_at != self.step:
                self._checkpoint()
        except NotFiniteError as error:
            self._stop(error)
        return Outcome(self.step, interrupt.exit_code, self._evaluation)

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return self.collector.step

    def begin(self) -> None:
        """Begins the first episodes, where no checkpoint is gone on from."""
        self.collector.begin()

    def iterate(self) -> None:
        """One vector step, and the updates that are due after it."""
        began = time.perf_counter()
        coming = self.collector.send()
        if self._overlap:  # the updates that this step makes due, from the transitions before it
            self._learn(coming)
        self.collector.receive()
        self._learn(self.step)
        self._seconds += time.perf_counter() - began

    def _learn(self, step: int) -> None:
        for metrics in self._learner(step):
            self._monitor.report(metrics)

    # ---- what is seen

    def _stop(self, error: NotFiniteError) -> NoReturn:
        good = latest_checkpoint(self.run_dir)
        where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        if what := self.replay.not_finite():
            raise UserError(
                f"training stopped at step {self.step} because {what} that {self.task.id} gave are NaN or infinite: "
                f"mend the environment; {where}"
            ) from error
        raise UserError(
            f"training stopped at step {self.step} because {error}; {where}; "
            "a lower agent.lr or agent.max_grad_norm often helps"
        ) from error

    def _evaluate(self) -> None:
        """Evaluates the mean network, and the noisy one beside it; keeps the best agent so far."""
        self._monitor.check_finite()
        config, network = self.config.eval, self.agent.network
        result = self._evaluation = evaluate(self.task, network, self._eval_seeds)
        self._evaluated_at, self._evaluations = self.step, self._evaluations + 1
        statistics = result.statistics(self.task.id)
        low, high = statistics.pop("return_ci95")
        metrics = {f"eval/{name}": value for name, value in statistics.items()}
        metrics |= {"eval/return_ci95_low": low, "eval/return_ci95_high": high}
        metrics["time/train_seconds"] = self._seconds
        if config.noisy and self.agent.noise.size:
            noisy = evaluate(self.task, network, self._eval_seeds, self.agent.noise).statistics()
            metrics |= {f"eval_noisy/{name}": noisy[name] for name in ("return_mean", "return_std")}
        self.tracker.log(self.step, metrics)
        if (cut := sum(length >= EPISODE_CAP for length in result.lengths)) and not self._cut_told:
            self._cut_told = True
            self.tracker.console.line(
                f"{cut} of {len(result.lengths)} episodes of the evaluation were cut after {EPISODE_CAP:,} steps: "
                "env.time_limit=<steps> cuts them earlier"
            )
        if statistics["return_mean"] >= self.best_return:
            self.best_return = statistics["return_mean"]
            self._save_agent("best")

    def _video(self, last: bool) -> None:
        """Films the first evaluation episode, if due; a machine that cannot render still finishes its run."""
        every = self.config.eval.video_every
        due = last or (every and self._evaluations % every == 0)
        if not (self.config.eval.video and due and self.task.renders):
            return
        try:
            frames, _ = record(self.task, self.agent.network, self._eval_seeds[:1])
            path = write_video(frames, self.run_dir / "videos" / f"step_{self.step:012d}", self.task.fps)
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self.tracker.console.line(f"no video: {kind}{error}")
            return
        self.tracker.video(self.step, path)

    # ---- what is saved

    def _save_agent(self, which: str) -> None:
        save_agent(self.run_dir / which / "agent.safetensors", self.agent.tensors(), self.description())

    def description(self) -> dict[str, Any]:
        """What a saved agent says of itself: enough to rebuild and to judge it, as plain data."""
        found = self._evaluation  # of `last` it may be of an earlier step
        return {
            "env": {"id": self.task.id, "kwargs": self.task.kwargs},
            "time_limit": self.task.time_limit,
            "channels": self.task.observe.channels,
            "observation": self.task.observe.description(),
            "actions": self.task.actions,
            "agent": to_plain(self.config.agent),
            "seed": self.config.seed,
            "global_step": self.step,
            "evaluation": found and {"global_step": self._evaluated_at, **found.statistics()},
        }

    def _checkpoint(self) -> None:
        """Saves everything and the last agent."""
        self._monitor.check_finite()
        (self.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)  # before `last`: see open_run
        self._save_agent("last")
        save_checkpoint(self.run_dir, self.step, self.state(), self.config.checkpoint.keep)
        self._saved_at = self.step

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, besides its config."""
        return {
            "config": to_plain(self.config),
            "agent": self.agent.state(),
            "replay": self.replay.state(),
            "collector": self.collector.state(),
            "sampling_generator": state_of(self._learner.generator),
            "monitor": self._monitor.state(),
            "best_return": self.best_return,
            "evaluations": self._evaluations,
            "evaluation": (self._evaluated_at, *(() if self._evaluation is None else astuple(self._evaluation))),
            "seconds": self._seconds,
            "wandb_run_id": self.tracker.run_id,
        }

    def load_state(self, step: int, state: dict[str, Any]) -> None:
        """Takes over a checkpoint's state at `step`."""
        self._saved_at = step
        self.agent.load_state(state["agent"])
        self.replay.load_state(state["replay"])
        self.collector.load_state(step, state.get("collector"))
        restore(self._learner.generator, state["sampling_generator"])
        names = ("best_return", "evaluations", "seconds")
        self.best_return, self._evaluations, self._seconds = (state[name] for name in names)
        self._evaluated_at, *results = state["evaluation"]
        self._evaluation = Evaluation(*results) if results else None
        self._monitor.load_state(state["monitor"], step, self._seconds)
