"""The training loop: collect, learn, save, evaluate."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np

from agent.common.errors import UserError
from agent.common.global_torch import global_generator
from agent.common.interrupt import Interrupt, Stopped
from agent.common.schedule import Every
from agent.common.seeding import restore, state_of
from agent.common.state import State
from agent.compute.plan import TORCH, Plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.replay.rings import AnyReplay
from agent.running.any_collector import AnyCollector
from agent.running.background import BackgroundEvaluations
from agent.running.build import shared_env_of
from agent.running.collector import in_process
from agent.running.evaluator import EvaluationsFailedError, Evaluator
from agent.running.failures import Folder, ForeignCodeError, foreign_failure, is_foreign, not_finite
from agent.running.foreground import ForegroundEvaluations
from agent.running.keeping import EvaluationRecorder
from agent.running.monitor import Monitor, NotFiniteError
from agent.running.outcome import Outcome
from agent.running.saving import Saver
from agent.running.snapshot import Snapshot
from envs.kinds import Envs
from envs.make import Task


class Trainer:
    """Trains one agent on one task.

    Steps are real transitions: rows in which an environment only resets are not counted. A checkpoint does not change
    learning: a run that is killed and resumed continues in the middle of its episodes (see envs.resuming).
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        envs: Envs | None,
        agent: DQN,
        replay: AnyReplay,
        tracker: Tracker,
        run_dir: Path | Folder,
        plan: Plan = TORCH,
        collector: AnyCollector | None = None,
    ) -> None:
        self.config, self.task, self.agent, self.replay, self.tracker = config, task, agent, replay, tracker
        self.folder = run_dir if isinstance(run_dir, Folder) else Folder(run_dir)
        self._saver = Saver(self.folder, config.checkpoint.keep)
        self.collector: AnyCollector = collector or in_process(config, task, envs, agent, replay, tracker)
        shared_env = None if envs is None else shared_env_of(config, task, envs)
        self.evaluator = Evaluator(config, task.for_evaluation(), agent, tracker, self.folder, shared_env)
        self._recorder = EvaluationRecorder(config, task, agent, self.evaluator, self._saver, tracker)
        self._learner, self._overlap = plan.learner(agent, replay, config.seed), plan.overlap
        self._monitor = Monitor(agent, replay, tracker, config.seed)
        self._seconds = 0.0  # time spent in collecting and learning
        self._compiles_next = plan.backend == "compiled"  # the next update compiles, and a signal may end it
        self._snapshot = Snapshot(self.state)
        self._outdated = False  # whether the newest checkpoint, of this step, has other options or lacks updates
        parts = self.evaluator, agent, self._recorder, self._saver, self._monitor.check_finite
        self._evaluations: ForegroundEvaluations | BackgroundEvaluations
        self._evaluations = ForegroundEvaluations(*parts, self._snapshot if config.eval.share else None)
        if (worker := self.collector.evaluation_worker()) is not None:
            self._evaluations = BackgroundEvaluations(*parts, worker, tracker)
        self._waiting_for_envs, self._lock = False, threading.RLock()  # the lock is for saving

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the monitor checks that values are finite
    def run(self, interrupt: Interrupt) -> Outcome:
        """Trains until `config.steps`, a signal or the return at which to stop. Everything is saved in each case.

        Raises:
            UserError: if the run cannot be saved, or a value is not finite.
        """
        self.folder.open()
        interrupt.rescue = self.rescue
        failure: UserError | None = None
        try:
            with suppress(Stopped):  # in the middle of work that can be dropped
                self._train(interrupt)
            self.save()
        except ForeignCodeError as error:  # everything before the failure is saved
            failure = error
        except EvaluationsFailedError as error:
            failure = error
            self.save()
        except NotFiniteError as error:
            raise not_finite(error, self.step, self.task.id, self.replay, self.folder) from error
        interrupt.saved()
        due = self.evaluator.due or self._evaluations.busy
        result = self.evaluator.result if self.evaluator.episodes else None  # otherwise it is from before a resume
        return Outcome(self.step, interrupt.exit_code, result, self._seconds, self.evaluator.solved, due, failure)

    def _train(self, interrupt: Interrupt) -> None:
        """The loop. Work that may fail comes after the checkpoint of the same step."""
        last = self._monitor.step if (has_learned := self.begin(interrupt.__bool__)) else self.step
        log, checkpoint = (Every(part.every, last) for part in (self.config.log, self.config.checkpoint))
        if has_learned:  # the step of the checkpoint ends only now
            self._end_step(log, checkpoint)
            self.save()
        self._evaluate(interrupt)  # a resumed run may have been stopped before an evaluation
        while self.step < self.config.steps and not self.evaluator.solved and not interrupt:
            self.iterate()
            self.tracker.console.update(self.step)
            self._end_step(log, checkpoint)
            self._evaluate(interrupt)

    def _end_step(self, log: Every, checkpoint: Every) -> None:
        """Logs and saves, if that is due after a step."""
        saving = checkpoint(self.step) or self.step >= self.config.steps
        if log(self.step) or saving:  # a kill would lose metrics that are not logged yet
            self.folder.check()
            self._monitor.log(self.step, self._seconds, self.collector.metrics())
        if saving:
            self._checkpoint()

    @property
    def step(self) -> int:
        """The number of environment steps so far."""
        return self.collector.step

    def begin(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Begins a new run's episodes, or makes the updates that a resumed run owes; returns whether it made all."""
        owes = self._learner.owes(self.step)  # an error or a signal came between a step and its updates
        try:
            self.collector.begin()
            if owes:
                self._snapshot_before_compiling()
                self._learn(self.step, stop)
        except (Exception, SystemExit) as error:
            self._fail(error)
        self._snapshot.drop()
        self._outdated |= owes
        return owes and not self._learner.owes(self.step)

    def iterate(self) -> None:
        """One step of the collector, a vector step or chunks of actors, and the updates that are due after it."""
        began = time.perf_counter()
        try:
            self._snapshot_before_compiling()
            next_step = self.collector.send()
            if self._overlap:  # the updates due after this step use the transitions before it
                self._learn(next_step)
            self._waiting_for_envs = True
            self.collector.receive(self._envs_stepped)
            self.evaluator.note_due(self.step, self.step >= self.config.steps)  # now, as an update may fail
            self._snapshot_before_compiling()
            self._learn(self.step)
        except (Exception, SystemExit) as error:
            self._fail(error)
        self._snapshot.drop()
        self._seconds += time.perf_counter() - began

    def _envs_stepped(self) -> None:
        with self._lock:  # another thread may hold it, to save in place of this one
            self._waiting_for_envs = False

    def _learn(self, step: int, stop: Callable[[], bool] = lambda: False) -> None:
        for metrics in self._learner(step):
            self._compiles_next = False
            self._monitor.report(metrics)
            if stop():
                break

    # ---- failures and saving

    def _snapshot_before_compiling(self) -> None:
        """Takes a snapshot if the next update compiles, since a signal may end the compilation."""
        if self._compiles_next and self._learner.due(self.step + self.config.num_envs) > 0:
            self._snapshot.take()

    def _fail(self, error: BaseException) -> NoReturn:
        """Saves the run after an error of foreign code ended a step; the episodes under way become truncations."""
        if not is_foreign(error):
            raise error
        self._snapshot.take(episodes=False)
        if self.step:
            self.save()
        raise foreign_failure(error, self.task.id, self.step, self.folder) from error

    def _evaluate(self, interrupt: Interrupt) -> None:
        """Evaluates if that is due; raises Stopped at a signal."""
        self._evaluations.poll(self.step, self.step >= self.config.steps, self._seconds, interrupt)

    def save(self) -> None:
        """Saves a checkpoint, unless the newest one is of this step and holds everything."""
        with self._lock:
            if self._saver.step != self.step or self._outdated:
                self._checkpoint()

    def rescue(self, dropped: bool) -> bool:
        """Saves from another thread while the main one waits for an environment or does work that can be dropped."""
        with self._lock:
            if not (dropped or self._waiting_for_envs):
                return False
            if not dropped:  # the episodes under way are in the middle of a step
                self._snapshot.take(episodes=False)
            if self.step:
                self.save()
        return True

    def _checkpoint(self) -> None:
        """Saves everything and the last agent."""
        self._monitor.check_finite()
        description = self._recorder.description(self.step)
        self._saver.checkpoint(self.step, self._snapshot.state(), self.agent.tensors(), description)
        self._outdated = False
        self._evaluations.saved()

    def state(self, episodes: bool = True) -> State:
        """Everything that a resumed run needs, including its config; `episodes` includes the episodes under way."""
        return {
            "config": to_plain(self.config),
            "agent": self.agent.state(),
            "replay": self.replay.state(),
            "collector": self.collector.state(episodes),
            "sampling_generator": state_of(self._learner.generator),
            "torch_generator": state_of(global_generator(self.agent.device)),
            "monitor": self._monitor.state(),
            **self.evaluator.state(),
            **self._evaluations.state(),
            "updates_due": self._learner.owes(self.step),
            "seconds": self._seconds,
            "wandb_run_id": self.tracker.run_id,
        }

    def load_state(self, step: int, state: State) -> None:
        """Loads the state of a checkpoint at `step`."""
        self._saver.step, self._outdated = step, state["config"] != to_plain(self.config)
        self.agent.load_state(state["agent"])
        self.replay.load_state(state["replay"])
        self.collector.load_state(step, state.get("collector"))
        restore(self._learner.generator, state["sampling_generator"])
        self.evaluator.load_state(step, state)
        self._evaluations.load_state(state)
        self._seconds = state["seconds"]
        self._monitor.load_state(state["monitor"], step, self._seconds)
        restore(global_generator(self.agent.device), state.get("torch_generator"))  # last: an environment may draw
