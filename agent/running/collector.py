"""Collects transitions: acts in the training's environments, steps them, and stores the result in the replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.replay.ring import Replay
from agent.replay.rings import AnyReplay
from agent.running.beside import Elsewhere
from envs import resuming
from envs.episodes import Repeats
from envs.global_random import state_of_global_generators
from envs.kinds import Envs
from envs.make import Task
from envs.vector import begin_step, draws_of

#: Steps of an episode from which on it takes so long to play them again that a person should know of it.
LONG = 10_000


class AnyCollector(Protocol):
    """What a trainer knows of whoever plays the environments."""

    step: int  # transitions so far

    def begin(self) -> None:
        """Begins the first episodes."""

    def send(self) -> int:
        """Has the next steps begin; returns the step count that they are known to lead to."""

    def receive(self, arrived: Callable[[], None] | None = None) -> None:
        """Waits for steps that have begun, calls `arrived`, and stores and counts them."""

    def elsewhere(self) -> Elsewhere | None:
        """Who plays evaluations while training goes on; None: nobody, and training waits for them."""

    def metrics(self) -> dict[str, float]:
        """What is logged of collecting since the last call."""

    def state(self, of_episodes: bool = True) -> dict[str, object]:
        """What a checkpoint has to hold of it."""

    def load_state(self, step: int, state: dict[str, object] | None) -> None:
        """Goes on at `step` from a saved state."""


class Collector:
    """Plays the environments in this process, one vector step at a time.

    A vector step has two halves, `send` and `receive`, so that the learner can work while the environments step.
    Steps are real transitions: rows in which an environment only resets are not counted.

    Args:
        config: of the run.
        task: what the environments are.
        envs: E environments side by side, with NEXT_STEP autoreset.
        agent: chooses the actions.
        replay: takes the transitions.
        tracker: is told of every episode that ends.
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
        self._told = False  # whether the console has said that the task reports no lost lives
        self._generators: object = None  # where the global ones stood as the environments began
        self._action = np.zeros(envs.num_envs, dtype=np.int64)
        self._result: Callable[[], tuple[Any, ...]] | None = None  # waits for the step that is under way
        self._observation = np.zeros((envs.num_envs, *task.observation.shape), task.observation.dtype)
        self._begins = np.ones(envs.num_envs, dtype=bool)  # an episode begins with this observation
        self._resets = np.zeros(envs.num_envs, dtype=bool)  # the next step only resets
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, dtype=np.int64)

    def begin(self) -> None:
        """Begins the first episodes of a new run; a resumed run has its episodes already."""
        if self.step == 0:
            self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed))
            self.replay.begin(self._observation)
            self._generators = state_of_global_generators()

    def send(self) -> int:
        """Chooses actions and lets the environments begin a step; returns the step count that it will lead to."""
        agent, begins = self.config.agent, self._begins
        if self.step < agent.learning_starts and agent.warmup == "random":
            self._action = self.agent.random_actions(len(begins), self._observation)
        else:
            self._action = self.agent.act(self._observation, begins, agent.epsilon.at(self.step))
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
        stored = reward.clip(-1.0, 1.0) if self.config.env.clip_rewards else reward
        life_lost = self._life_lost(info) if self.config.env.life_loss else None
        self.replay.add(self._action, stored, terminated, truncated, self._observation, life_lost)
        self._count(reward, terminated | truncated)

    def elsewhere(self) -> Elsewhere | None:
        """Nobody."""
        return None

    def metrics(self) -> dict[str, float]:
        """Nothing: what is measured of a run says it all."""
        return {}

    def state(self, of_episodes: bool = True) -> dict[str, object]:
        """Where the episodes under way stand: everything that a checkpoint has to hold of them.

        Args:
            of_episodes: False where an environment failed in the middle of a step; a resumed run then begins others.
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

    def load_state(self, step: int, state: dict[str, Any] | None) -> None:
        """Goes on at `step` from a saved state; None: an earlier version saved it, which kept no episodes.

        An episode that cannot be continued becomes a truncation in the replay, which must be loaded already.

        Raises:
            ValueError: where the state is of other environments.
        """
        self.step = step
        self._go_on(step, state)
        self._generators = state_of_global_generators()

    def _go_on(self, step: int, state: dict[str, Any] | None) -> None:
        if state is None:
            self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed, step))
            self.replay.begin(self._observation)
            self._tell(len(self._begins), "its checkpoint is of a version that began new episodes")
            return
        if not isinstance(state, dict):
            raise ValueError(f"episodes that are a {type(state).__name__}")
        for name in ("observation", "begins", "resets", "returns", "lengths"):
            setattr(self, f"_{name}", resuming.checked(name, state.get(name), getattr(self, f"_{name}")).copy())
        if (steps := int(self._lengths.max())) >= LONG:
            self.tracker.console.line(f"playing the episodes under way again: the longest has {steps:,} steps")
        restored = resuming.restore(self.envs, self.config.seed, state.get("episodes"))
        if restored is None:
            self._begin_anew()
        elif not restored.all():
            self._cut(~restored & ~self._resets)
            self._tell(int(np.count_nonzero(~restored)), "played again, it does not show what it has shown before")

    def _look_at_global_draws(self) -> None:
        """Says once that a resumed run will draw other numbers, where the first step has not shown it."""
        drawn = self._generators is not None and self._generators != state_of_global_generators()
        if drawn and not self.task.draws_globally and (note := draws_of(self.task, self.envs)) is not None:
            self.tracker.console.line(note)
        self._generators = None if drawn else self._generators

    def _cut(self, copies: np.ndarray) -> None:
        """Ends the episodes of some environments, bool [E], as truncations: the next step only resets these."""
        self.replay.cut(copies)
        self._resets = self._resets | copies
        self._begins = self._begins & ~copies
        self._returns[copies], self._lengths[copies] = 0.0, -1

    def _begin_anew(self) -> None:
        """Ends all episodes as truncations and begins others, where the vector class cannot bring them back."""
        count = len(self._begins)
        self._cut(np.ones(count, dtype=bool))
        self._observation = self.task.observe(resuming.begin(self.envs, self.config.seed, self.step))
        zeros = np.zeros(count)
        self.replay.add(zeros, zeros, zeros > 0, zeros > 0, self._observation)  # the row that only resets
        self._begins[:], self._resets[:], self._lengths[:] = True, False, 0
        failed = isinstance(self.envs, Repeats)  # which brings back whatever was saved
        why = "its vector class cannot bring them back: env.vectorization=sync or async can"
        self._tell(count, "they were left in the middle of a step" if failed else why)

    def _tell(self, count: int, why: str) -> None:
        self.tracker.console.line(
            f"{self.task.id} begins new episodes in {count} of {len(self._begins)} copies ({why}): the run can be gone "
            "on with, but is not bit-equal to one that was never stopped"
        )

    def _life_lost(self, info: dict[str, Any]) -> np.ndarray | None:
        """Which environments [E] lost a life; the console says once if the task reports none."""
        lost: np.ndarray | None = info.get("life_lost")
        if lost is None and not self._told and not self._resets.all():  # a reset tells nothing
            self.tracker.console.line(f"env.life_loss=true does nothing: {self.task.id} does not tell of lost lives")
            self._told = True
        return None if lost is None else lost.astype(bool)  # None, from environments that said nothing this time: False

    def _count(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Counts real transitions and finishes episodes; the step after an ending only resets."""
        resets = self._resets
        self.step += len(ended) - int(np.count_nonzero(resets))
        self._returns += reward  # 0 in a reset row
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
