"""For scaling_out.py: stand-ins for actors, and the processor time of the processes of a run."""

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psutil

from agent.config.run import TrainConfig
from agent.running.build import build_acting_agent
from agent.running.distributed.actor import Actor
from agent.running.distributed.chunk import Chunk, Setup, split_evenly
from agent.running.distributed.weights import weights_of
from envs.make import load_task

CHUNKS = 32  # number of chunks that are played in advance


class StandIns:
    """Actors that never keep the learner waiting: they hand over chunks of one real actor, which lie in Ray's store.

    Attributes:
        chunks_of_one: the chunks.
        seconds_of_step: processor time in which the actor plays one step, in the fastest of its chunks.
    """

    def __init__(self, ray: Any, config: TrainConfig) -> None:
        task = load_task(config.env.id, config.env.kwargs)
        shares = split_evenly(config.num_envs, config.collect.actors)
        setup = Setup(config, task, None, shares)
        weights = weights_of(build_acting_agent(setup.config_of(0, 0), task, 0))
        player = Actor(setup, 0, 0)
        self.chunks_of_one: list[Chunk] = []
        seconds: list[float] = []
        for _ in range(CHUNKS):
            began = time.process_time()
            chunk = played(player.play(config.agent.learning_starts, 0, weights))  # before, the network does not act
            seconds.append((time.process_time() - began) / max(sum(chunk.steps), 1))
            self.chunks_of_one.append(chunk)
        self.seconds_of_step = min(seconds)
        self._ray, self._references = ray, [ray.put(chunk) for chunk in self.chunks_of_one]
        self.slots: list[Any] = []
        self._actors, self.count, self.restarts = len(shares), 0, 0

    def results(self, stop: Callable[[], bool]) -> Iterator[Chunk]:
        """Yields chunks of all actors in turns. An actor's first chunk has the observations with which it began."""
        while True:
            round_number, actor = divmod(self.count, self._actors)
            self.count += 1
            chunk: Chunk = self._ray.get(self._references[round_number % len(self._references)])
            yield chunk._replace(actor=actor, first=self.chunks_of_one[0].first if round_number == 0 else None)

    def close(self) -> None: ...


def played(chunk: Any) -> Chunk:
    """The chunk; an actor that failed has returned something else."""
    assert isinstance(chunk, Chunk), chunk
    return chunk


def processor_seconds(actors: Collection[int]) -> dict[str, float]:
    """Seconds of processor time, so far, of this process, of the actors (by their ids) and of Ray's own processes."""
    own = psutil.Process()
    found = {"learner": seconds_of(own), "actors": 0.0, "ray": 0.0}
    for child in own.children(recursive=True):
        found["actors" if child.pid in actors else "ray"] += seconds_of(child)
    return found


def seconds_of(process: psutil.Process) -> float:
    """User and system time of a process; 0 where it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
