"""Collects transitions: acts in the training's environments, steps them, and stores the result in the replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agent.common.seeding import environment_seeds
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.replay.ring import Replay
from envs.make import Task
from envs.vector import begin_step


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
        envs: VectorEnv[Any, Any, Any],
        agent: DQN,
        replay: Replay,
        tracker: Tracker,
    ) -> None:
        self.config, self.task, self.envs = config, task, envs
        self.agent, self.replay, self.tracker = agent, replay, tracker
        self.step = 0  # transitions so far
        self._told = False  # that nobody tells of lost lives
        self._action = np.zeros(envs.num_envs, dtype=np.int64)
        self._result: Callable[[], tuple[Any, ...]] | None = None  # waits for the step that is under way
        self._observation = np.zeros((envs.num_envs, *task.observation.shape), task.observation.dtype)
        self._begins = np.ones(envs.num_envs, dtype=bool)  # an episode begins with this observation
        self._resets = np.zeros(envs.num_envs, dtype=bool)  # the next step only resets
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, dtype=np.int64)

    def begin(self) -> None:
        """Resets the environments for the first step, or for the first after a checkpoint."""
        observation = self.reset()
        if self.step == 0:
            self.replay.begin(observation)  # a checkpoint's replay holds it already, from the cut

    def send(self) -> int:
        """Chooses actions and lets the environments begin a step; returns the step count that it will lead to."""
        agent, begins = self.config.agent, self._begins
        if self.step < agent.learning_starts and agent.warmup == "random":
            self._action = self.agent.random_actions(len(begins))
        else:
            self._action = self.agent.act(self._observation, begins, agent.epsilon.at(self.step))
        self._result = begin_step(self.envs, self._action + self.task.first_action)
        return self.step + len(begins) - int(np.count_nonzero(self._resets))

    def receive(self) -> None:
        """Waits for the step that `send` began, stores its transitions and counts them."""
        assert self._result is not None, "call send first"
        next_observation, reward, terminated, truncated, info = self._result()
        self._observation = self.task.observe(next_observation)
        learned = reward.clip(-1.0, 1.0) if self.config.env.clip_rewards else reward
        life_lost = self._life_lost(info) if self.config.env.life_loss else None
        self.replay.add(self._action, learned, terminated, truncated, self._observation, life_lost)
        self._count(reward, terminated | truncated)

    def reset(self) -> np.ndarray:
        """Resets all environments with seeds from (seed, step), on which alone the observations [E, *shape] depend."""
        (seed,) = environment_seeds(self.config.seed, "environments", 1, self.step)
        observation, _ = self.envs.reset(seed=seed)
        self._observation = self.task.observe(observation)
        self._begins[:], self._resets[:] = True, False
        self._returns[:], self._lengths[:] = 0, 0
        return self._observation

    def _life_lost(self, info: dict[str, Any]) -> np.ndarray | None:
        """Which environments [E] lost a life; says once where the task does not tell."""
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
