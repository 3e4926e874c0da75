"""Starts Ray, or connects to it, for a run with actors."""

from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.records.tracking import Tracker
from agent.replay.rings import AnyRings
from agent.running.build import build_rings
from agent.running.distributed.chunk import split_evenly
from agent.running.distributed.cluster import Cluster
from agent.running.distributed.collector import IN_FLIGHT, RayCollector
from envs.make import Task

#: The store has `BASE_BYTES`, and `MARGIN` times the bytes of chunks and weights.
BASE_BYTES, MARGIN = 64 * 2**20, 1.5


def rings_of(config: TrainConfig, task: Task) -> AnyRings:
    """The replay of a run: a ring for each actor."""
    return build_rings(config, task, split_evenly(config.num_envs, config.collect.actors))


def start_collector(config: TrainConfig, task: Task, agent: DQN, replay: AnyRings, tracker: Tracker) -> RayCollector:
    """Connects to Ray and makes the collector. Closing it ends everything that was started.

    Raises:
        UserError: if the extra is not installed, or Ray does not start.
    """
    collect, shares = config.collect, split_evenly(config.num_envs, config.collect.actors)
    requested = None if collect.memory is None else int(collect.memory * 2**30)
    store = requested or store_bytes(config, task, agent.parameters.numel())
    cluster = Cluster(collect.address, collect.actors + 1, store)  # one more: for evaluations
    if not cluster.local and (cpus := cluster.total("CPU")) < collect.actors:
        tracker.console.line(
            f"the cluster has {cpus:g} CPUs, and each of {collect.actors} actors requests one: the others cannot start "
            "until it has more"
        )
    tracker.console.line(f"collecting: {format_shares(shares)}{' in lockstep' if collect.sync else ''}, on Ray")
    return RayCollector(config, task, cluster, agent, replay, tracker)


def format_shares(shares: tuple[int, ...]) -> str:
    """The numbers of environments of the actors, in words."""
    groups = [f"{shares.count(share)} × {share}" for share in sorted(set(shares), reverse=True)]
    return f"{len(shares)} actors with {' and '.join(groups)} environments"


def store_bytes(config: TrainConfig, task: Task, parameters: int) -> int:
    """Bytes of the object store for the chunks and weights in use, including weights under evaluation."""
    collect = config.collect
    chunks = (IN_FLIGHT + 1) * collect.chunk * config.num_envs * (task.observation.stored_bytes + 32)
    versions = (IN_FLIGHT * collect.actors + 2) * 4 * parameters
    return BASE_BYTES + int(MARGIN * (chunks + versions))
