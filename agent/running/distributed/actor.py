"""An actor: a process that plays its own environments with a copy of the network, a chunk at a time."""

import os
import time

import numpy as np

from agent.config.run import TrainConfig
from agent.replay.ring import Replay
from agent.running.build import build_acting_agent, build_envs
from agent.running.collector import Collector
from agent.running.distributed.chunk import Chunk, Failure, Recorder, Setup
from agent.running.distributed.priorities import FirstPriorities
from agent.running.distributed.weights import Weights, WeightsLoader
from agent.running.failures import is_foreign, sentence_of
from agent.running.resources import prepare_cpu

#: The fraction of collect.timeout after which an actor hands over what it has played: it is slow, and does not hang.
LONGEST_CHUNK = 0.25


class Actor:
    """Plays with an ordinary collector, which writes to a recorder in place of a replay.

    Args:
        setup: the setup of all actors.
        actor: its number.
        incarnation: the number of earlier actors with this number.
        acting_scale: the factor of the acting noise with which it begins.
    """

    def __init__(self, setup: Setup, actor: int, incarnation: int, acting_scale: float = 1.0) -> None:
        prepare_cpu(1)
        self._names = {"actor": actor, "incarnation": incarnation}
        self._config: TrainConfig = setup.config_of(actor, incarnation)
        self._setup, self._sequence, self._acting_scale = setup, 0, acting_scale
        self._collector: Collector | None = None
        self._recorder = Recorder(setup.task.observation)
        self._ended = 0.0

    def process(self) -> int:
        """The id of its process."""
        return os.getpid()

    def play(self, step: int, version: int, weights: Weights | None) -> Chunk | Failure:
        """Plays the next chunk.

        Args:
            step: the step of the run, which decides whether actions are still uniform, and ε.
            version: the number of updates that made the weights.
            weights: the weights to act with, which are copied; None: those of the last call, whose version is the same.

        Returns:
            The chunk, or the error of the environment or of the user's own code.
        """
        began = time.monotonic()
        waiting = began - self._ended if self._ended else 0.0
        try:
            chunk = self._play(step, version, weights, began, waiting)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # also one that an environment raises itself
            if not is_foreign(error):
                raise
            return Failure(*sentence_of(error, self._setup.task.id))
        self._ended = time.monotonic()
        return chunk

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the learner checks that values are finite
    def _play(self, step: int, version: int, weights: Weights | None, began: float, waiting: float) -> Chunk:
        if self._collector is None:
            self._collector = self._make()
            self._loader = WeightsLoader(self._collector.agent)
            self._collector.begin()  # before the step is set: it begins episodes at step 0 only
        collector = self._collector
        if weights is not None:
            self._loader.replace(weights, version)
        collect = self._config.collect
        latest = np.inf if collect.sync else began + LONGEST_CHUNK * collect.timeout
        steps: list[int] = []
        collector.step = step
        while len(steps) < collect.chunk and (not steps or time.monotonic() < latest):
            before = collector.step
            collector.send()
            collector.receive()
            steps.append(collector.step - before)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return self._recorder.chunk(
            **self._names,
            sequence=sequence,
            version=version,
            acting_scale=collector.agent.acting_scale.factor,
            steps=tuple(steps),
            playing=time.monotonic() - began,
            waiting=waiting,
        )

    def _make(self) -> Collector:
        task, recorder = self._setup.task, self._recorder
        self._setup.register()
        agent = build_acting_agent(self._config, task, self._setup.config.seed)
        agent.acting_scale.factor = self._acting_scale
        if (agent_config := self._config.agent).priority.enabled:
            capacity = (self._config.collect.chunk + agent_config.n_step) * self._config.num_envs
            shape = capacity, self._config.num_envs, task.observation
            recent = Replay(*shape, n_step=agent_config.n_step, gamma=agent_config.gamma)
            recorder.priorities = FirstPriorities(agent, recent)
        envs: object = build_envs(self._config, task)
        return Collector(self._config, task, envs, agent, recorder, recorder)  # type: ignore[arg-type]
