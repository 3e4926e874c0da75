"""The collector whose environments are played by actors on Ray."""

import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np

from agent.common.interrupt import stopping
from agent.common.state import State
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.encoder_registry import ENCODERS
from agent.networks.heads.registry import HEADS
from agent.records.tracking import Tracker
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.rings import AnyRings
from agent.running.distributed.actor_pool import ActorPool, ActorSlot
from agent.running.distributed.chunk import Chunk, Setup, ladder, split_evenly
from agent.running.distributed.cluster import Cluster
from agent.running.distributed.evaluations import RayEvaluations
from agent.running.distributed.weights import Publisher
from envs.make import Task

#: Calls that an actor has at once: it plays the next chunk while the learner stores the last.
IN_FLIGHT = 2


class RayCollector:
    """Lets actors play, and stores their experience, a chunk at a time.

    The learner makes all updates that are due after a chunk before it takes the next one: the replay ratio is exact. An
    actor has two calls at most, so that it never plays far ahead. Its weights are the newest that were published when
    the call was made.

    Args:
        config: the config of the run.
        task: the task.
        cluster: the connection to Ray, on which the actors run.
        agent: the learning agent, whose weights are published.
        replay: one ring for each actor.
        tracker: logs every episode that ends.

    Attributes:
        step: the number of transitions so far.
    """

    def __init__(
        self, config: TrainConfig, task: Task, cluster: Cluster, agent: DQN, replay: AnyRings, tracker: Tracker
    ) -> None:
        self.config, self.task, self.agent, self.replay, self.tracker = config, task, agent, replay, tracker
        self.step = 0
        self._cluster = cluster
        self._pool: ActorPool | None = None
        self._evaluations: RayEvaluations | None = None
        self._shares = split_evenly(config.num_envs, config.collect.actors)
        self._incarnations = [0] * config.collect.actors  # of the next actors
        self._acting_scales = [1.0] * config.collect.actors  # with which they begin
        self._restarts = 0  # before a resume
        self._publisher = Publisher(cluster)
        self._measurements = CollectionMetrics()

    def begin(self) -> None:
        """Starts the actors; they begin new episodes."""
        timeout, report, cluster = self.config.collect.timeout, self.tracker.console.line, self._cluster
        actors = self._incarnations, self._acting_scales
        self._pool = ActorPool(cluster.ray, self._setup(), *actors, timeout, report, cluster.actor_cpus)

    def _setup(self) -> Setup:
        spec = gym.registry.get(self.task.id)
        return Setup(self.config, self.task, spec, self._shares, ENCODERS.own(), HEADS.own())

    def evaluation_worker(self) -> RayEvaluations | None:
        """A Ray task that plays evaluations; None in lockstep, as the time of their arrival would be random."""
        if self.config.collect.sync or not self.config.eval.episodes:
            return None
        self._evaluations = RayEvaluations(self._cluster.ray, self._setup())
        return self._evaluations

    @property
    def pool(self) -> ActorPool:
        """The actors that `begin` started."""
        assert self._pool is not None, "call begin first"
        return self._pool

    def send(self) -> int:
        """Gives the actors calls, with new weights if these are due; returns the steps so far."""
        collect = self.config.collect
        self._publisher.publish(self.agent, 1 if collect.sync else collect.publish)
        limit = 1 if collect.sync else IN_FLIGHT
        for slot in self.pool.slots:
            while len(slot.calls) < limit:
                self._call(slot)
        return self.step

    def _call(self, slot: ActorSlot) -> None:
        published = self._publisher
        self.pool.call(slot, self.step, published.version, published.newer_than(slot.version))
        slot.version = published.version

    def receive(self, arrived: Callable[[], None] | None = None) -> None:
        """Waits for the next chunk (in lockstep, for one of each actor), and stores and counts it; a signal ends it.

        Args:
            arrived: called when the chunks have arrived, before anything is stored.

        Raises:
            UserError: if no incarnation of an actor can play.
        """
        began = time.monotonic()
        chunks = self._round() if self.config.collect.sync else self._next()
        self._measurements.record_wait(time.monotonic() - began)
        if arrived is not None:
            arrived()
        for chunk in chunks:
            self._store(chunk)

    def _next(self) -> list[Chunk]:
        """The next chunk that arrives."""
        for result in self.pool.results(stopping):
            if isinstance(result, Chunk):
                return [result]
            self._call(result)
        return []

    def _round(self) -> list[Chunk]:
        """One chunk of each actor, in the order of their numbers; none if a signal came in between."""
        chunks: dict[int, Chunk] = {}
        for result in self.pool.results(stopping):
            if isinstance(result, Chunk):
                chunks[result.actor] = result
            else:
                self._call(result)
        complete = len(chunks) == len(self._shares)
        return [chunks[number] for number in sorted(chunks)] if complete else []

    def _store(self, chunk: Chunk) -> None:
        ring = self.replay.rings[chunk.actor]
        if chunk.first is not None:
            self.replay.begin(chunk.actor, chunk.first)
        before = self.step
        for i, reward in enumerate(chunk.reward):
            life_lost = None if chunk.life_lost is None else chunk.life_lost[i]
            ring.add(chunk.action[i], reward, chunk.terminated[i], chunk.truncated[i], chunk.observation[i], life_lost)
        if chunk.priority is not None and isinstance(ring, PrioritisedReplay):
            ring.prioritise(ring.head, chunk.priority)
        step_after = before + np.add.accumulate(chunk.steps)
        self.step = int(step_after[-1])
        for line in chunk.lines:
            self.tracker.console.line(line)
        for i, episode_return, length in chunk.episodes:
            episode = {"train/episode_return": episode_return, "train/episode_length": length}
            self.tracker.log(int(step_after[i]), episode)
        self._measurements.record_chunk(chunk, self.agent.updates - chunk.version)

    def metrics(self) -> dict[str, float]:
        """The metrics since the last call, and means over the actors: the acting noise's factor, the ladder's ε."""
        metrics = {**self._measurements.metrics(), "collect/restarts": self._total_restarts()}
        if self.config.agent.noise.scales_acting:
            metrics["noise/acting_scale"] = float(np.mean(self._scales()))
        if self.config.collect.ladder:
            actors = self.config.collect.actors
            metrics["train/epsilon"] = float(np.mean([ladder(actor, actors) for actor in range(actors)]))
        return metrics

    def _scales(self) -> list[float]:
        """The factor of each actor's acting noise."""
        return self._acting_scales if self._pool is None else [slot.acting_scale for slot in self._pool.slots]

    def _total_restarts(self) -> int:
        """The number of restarted actors, including those before a resume."""
        return self._restarts + (0 if self._pool is None else self._pool.restarts)

    def state(self, of_episodes: bool = True) -> dict[str, object]:
        """The state for a checkpoint: a resumed run continues with the next incarnations, which begin new episodes."""
        slots = None if self._pool is None else self._pool.slots
        numbers = self._incarnations if slots is None else [slot.incarnation + 1 for slot in slots]
        scales = np.array(self._scales(), dtype=np.float64)
        return {
            "incarnations": np.array(numbers, dtype=np.int64),
            "acting_scales": scales,
            "restarts": self._total_restarts(),
        }

    def load_state(self, step: int, state: State | None) -> None:
        """Continues at `step` from a saved state."""
        if state is None or "incarnations" not in state:
            raise ValueError("it was collected without Ray")
        self.step, self._restarts = step, int(state["restarts"])
        self._incarnations = [int(number) for number in state["incarnations"]]
        self._acting_scales = [float(scale) for scale in state["acting_scales"]]
        self.tracker.console.line(
            "the actors begin new episodes: the run can be resumed, but is not bit-equal to one that was never stopped"
        )

    def close(self) -> None:
        """Ends the actors, and Ray if it was started here."""
        if self._evaluations is not None:
            self._evaluations.close()
        if self._pool is not None:
            self._pool.close()
        self._cluster.close()


class CollectionMetrics:
    """Measures the waits of actors and learner, and the age of the acting weights; means between two calls."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0
        self._chunks: list[tuple[int, int, float, float, int, int]] = []

    def record_wait(self, seconds: float) -> None:
        """Records a wait of the learner for a chunk."""
        self._waited += seconds

    def record_chunk(self, chunk: Chunk, staleness: int) -> None:
        """Records a stored chunk; `staleness` is the number of updates since its weights were made."""
        row = chunk.actor, sum(chunk.steps), chunk.playing, chunk.waiting, staleness, chunk.bytes
        self._chunks.append(row)

    def metrics(self) -> dict[str, float]:
        """The metrics since the last call.

        Waits are fractions of the time: the mean over the actors, and the learner's. Steps per second are given for
        each actor while it plays, and for all together.
        """
        elapsed = max(time.monotonic() - self._since, 1e-9)
        rows, waited = np.array(self._chunks, dtype=np.float64).reshape(-1, 6), self._waited
        self._reset()
        metrics = {"collect/learner_wait": waited / elapsed}
        if not len(rows):
            return metrics
        actors, steps, playing, waiting, staleness, size = rows.T
        metrics |= {
            "collect/actor_wait": float(waiting.sum() / max(waiting.sum() + playing.sum(), 1e-9)),
            "collect/staleness": float(staleness.mean()),
            "collect/steps_per_second": float(steps.sum() / elapsed),
            "collect/bytes_per_step": float(size.sum() / max(steps.sum(), 1.0)),
        }
        for actor in np.unique(actors).astype(int):
            of_actor = actors == actor
            name = f"collect/steps_per_second_of_actor_{actor}"
            metrics[name] = float(steps[of_actor].sum() / max(playing[of_actor].sum(), 1e-9))
        return metrics
