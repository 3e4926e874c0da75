"""Collects transitions: acts in the training's environments, steps them, and stores the result in the replay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.common.state import State
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.replay.ring import Replay
from agent.replay.rings import AnyReplay
from agent.running.background import EvaluationWorker
from envs import resuming
from envs.episodes import RepeatableEnvs
from envs.global_random import state_of_global_generators
from envs.kinds import Envs, Info, StepResult
from envs.make import Task
from envs.vector import begin_step, draws_of

#: Episodes of this many steps take so long to replay that the console gets a line.
LONG_EPISODE = 10_000


class Collector:
    """Plays the environments in this process, one vector step at a time.

    A vector step has two halves, `send` and `receive`, so that the learner can work while the environments step.
    Steps are real transitions: rows in which an environment only resets are not counted.

    Args:
        config: the config of the run.
        task: the task of the environments.
        envs: E environments side by side, with NEXT_STEP autoreset.
        agent: chooses the actions.
        replay: stores the transitions.
        tracker: logs every episode that ends.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        envs: Envs,
        agent: DQN,
        replay: Replay,
        tracker: Tracker,
    ) -> None:
        self.config, self.task, self.envs = config, task, envs
        self.agent, self.replay, self.tracker = agent, replay, tracker
        self.step = 0  # transitions so far
        self._warned_of_lives = False  # whether the console has a line that the task reports no lost lives
        self._generators: object = None  # the state of the global generators when the environments began
        self._action = np.zeros(envs.num_envs, dtype=np.int64)
        self._result: Callable[[], StepResult] | None = None  # waits for the step under way
        self._observation = np.zeros((envs.num_envs, *task.observation.shape), task.observation.dtype)
        self._begins = np.ones(envs.num_envs, dtype=bool)  # whether an episode begins with this observation
        self._resets = np.zeros(envs.num_envs, dtype=bool)  # whether the next step only resets
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, dtype=np.int64)

    def begin(self) -> None:
        """Begins the first episodes of a new run; a resumed run has its episodes already."""
        if self.step == 0:
            self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed))
            self.replay.begin(self._observation)
            self._generators = state_of_global_generators()

    def send(self) -> int:
        """Chooses actions and begins a step of the environments; returns the step count that it will reach."""
        agent, begins = self.config.agent, self._begins
        if self.step < agent.learning_starts and agent.warmup == "random":
            self._action = self.agent.random_actions(len(begins), self._observation)
        else:
            change = agent.noise.change.at(self.step)
            self._action = self.agent.act(self._observation, begins, agent.epsilon.at(self.step), change, self._resets)
        self._result = begin_step(self.envs, self.task.to_environment(self._action))
        return self.step + len(begins) - int(np.count_nonzero(self._resets))

    def receive(self, arrived: Callable[[], None] | None = None) -> None:
        """Waits for the step that `send` began, stores its transitions and counts them.

        Args:
            arrived: called when the environments have stepped, before anything is stored.
        """
        assert self._result is not None, "call send first"
        next_observation, reward, terminated, truncated, info = self._result()
        if arrived is not None:
            arrived()
        self._observation = self.task.observe(next_observation)
        stored_reward = reward.clip(-1.0, 1.0) if self.config.env.clip_rewards else reward
        life_lost = self._life_lost(info) if self.config.env.life_loss else None
        self.replay.add(self._action, stored_reward, terminated, truncated, self._observation, life_lost)
        self._count(reward, terminated | truncated)

    def evaluation_worker(self) -> EvaluationWorker | None:
        """None: training waits for evaluations."""
        return None

    def metrics(self) -> dict[str, float]:
        """The factor of the acting noise, if it is adapted."""
        if not self.config.agent.noise.scales_acting:
            return {}
        return {"noise/acting_scale": self.agent.acting_scale.factor}

    def state(self, of_episodes: bool = True) -> dict[str, object]:
        """The state of the episodes under way for a checkpoint.

        Args:
            of_episodes: False after an environment failed during a step; a resumed run then begins new episodes.
        """
        self._look_at_global_draws()
        return {
            "observation": self._observation,
            "begins": self._begins,
            "resets": self._resets,
            "returns": self._returns,
            "lengths": self._lengths,
            "episodes": resuming.saved(self.envs) if of_episodes else None,
        }

    def load_state(self, step: int, state: State | None) -> None:
        """Continues at `step` from a saved state; None for a checkpoint of an earlier version, which kept no episodes.

        An episode that cannot be continued becomes a truncation in the replay, which must be loaded before.

        Raises:
            ValueError: if the state belongs to other environments.
        """
        self.step = step
        self._continue(step, state)
        self._generators = state_of_global_generators()

    def _continue(self, step: int, state: State | None) -> None:
        if state is None:
            self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed, step))
            self.replay.begin(self._observation)
            self._report_new_episodes(len(self._begins), "its checkpoint is of a version that began new episodes")
            return
        if not isinstance(state, dict):
            raise ValueError(f"episodes that are a {type(state).__name__}")
        for name in ("observation", "begins", "resets", "returns", "lengths"):
            setattr(self, f"_{name}", resuming.checked(name, state.get(name), getattr(self, f"_{name}")).copy())
        if (steps := int(self._lengths.max())) >= LONG_EPISODE:
            self.tracker.console.line(f"playing the episodes under way again: the longest has {steps:,} steps")
        restored = resuming.restore(self.envs, self.config.seed, state.get("episodes"))
        if restored is None:
            self._restart_all(state.get("episodes") is not None)
        elif not restored.all():
            self._truncate(~restored & ~self._resets)
            self._report_new_episodes(
                int(np.count_nonzero(~restored)), "a replay of the episode gave other observations"
            )

    def _look_at_global_draws(self) -> None:
        """Says once that a resumed run will draw other numbers, where the first step has not shown it."""
        drawn = self._generators is not None and self._generators != state_of_global_generators()
        if drawn and not self.task.draws_globally and (note := draws_of(self.task, self.envs)) is not None:
            self.tracker.console.line(note)
        self._generators = None if drawn else self._generators

    def _truncate(self, copies: np.ndarray) -> None:
        """Ends the episodes of some environments, bool [E], as truncations: the next step only resets these."""
        self.replay.cut(copies)
        self._resets = self._resets | copies
        self._begins = self._begins & ~copies
        self._returns[copies], self._lengths[copies] = 0.0, -1

    def _restart_all(self, saved: bool) -> None:
        """Ends all episodes as truncations and begins new ones, where the vector class cannot restore them.

        Args:
            saved: whether the checkpoint has the episodes, in the form of another vector class.
        """
        count = len(self._begins)
        self._truncate(np.ones(count, dtype=bool))
        self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed, self.step))
        zeros = np.zeros(count)
        self.replay.add(zeros, zeros, zeros > 0, zeros > 0, self._observation)  # the row that only resets
        self._begins[:], self._resets[:], self._lengths[:] = True, False, 0
        if saved:
            reason = "another vector class has played them: eval.share and env.vectorization select it"
        elif isinstance(self.envs, RepeatableEnvs):  # it restores every saved episode
            reason = "they were left in the middle of a step"
        else:
            reason = "its vector class cannot bring them back: env.vectorization=sync or async can"
        self._report_new_episodes(count, reason)

    def _report_new_episodes(self, count: int, reason: str) -> None:
        self.tracker.console.line(
            f"{self.task.id} begins new episodes in {count} of {len(self._begins)} copies ({reason}): the run can be "
            "resumed, but is not bit-equal to one that was never stopped"
        )

    def _life_lost(self, info: Info) -> np.ndarray | None:
        """Which environments [E] lost a life. If the task reports none, the console gets a line once."""
        lost: np.ndarray | None = info.get("life_lost")
        if lost is None and not self._warned_of_lives and not self._resets.all():  # a reset reports nothing
            self.tracker.console.line(f"env.life_loss=true does nothing: {self.task.id} reports no lost lives")
            self._warned_of_lives = True
        return None if lost is None else lost.astype(bool)  # None from an environment becomes False

    def _count(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Counts real transitions and finishes episodes; the step after an ending only resets."""
        resets = self._resets
        ended = ended & ~resets  # a vector class may leave anything in a row that only resets
        self.step += len(ended) - int(np.count_nonzero(resets))
        self._returns += np.where(resets, 0.0, reward)
        self._lengths += 1
        for i in ended.nonzero()[0]:
            episode = {"train/episode_return": float(self._returns[i]), "train/episode_length": int(self._lengths[i])}
            self.tracker.log(self.step, episode)
            self._returns[i], self._lengths[i] = 0.0, -1  # the next step, which only resets, makes it 0
        self._begins, self._resets = resets, ended


def in_process(
    config: TrainConfig,
    task: Task,
    envs: Envs | None,
    agent: DQN,
    replay: AnyReplay,
    tracker: Tracker,
) -> Collector:
    """The collector of a run that plays its own environments."""
    assert envs is not None
    assert isinstance(replay, Replay)
    return Collector(config, task, envs, agent, replay, tracker)
