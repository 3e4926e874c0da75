"""From a config to the objects of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.common.seeding import torch_generator
from agent.compute.numpy.network import NumpyNetwork
from agent.compute.plan import Plan, choose_plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.build import build_network
from agent.records.console import Console
from agent.records.event_files import EventFiles, has_event_files
from agent.records.tracking import Tracker
from agent.replay.memory import required_bytes
from agent.replay.prioritised import PrioritisedReplay, prioritised_bytes
from agent.replay.ring import Replay
from agent.replay.rings import AnyRings, PrioritisedRings, Rings
from agent.running.filming import draw_into_memory
from agent.running.remedies import remedies
from agent.running.resources import check_replay_memory, threads_for_numpy
from envs.aside import Aside
from envs.episodes import RepeatableCopies
from envs.kinds import Envs
from envs.make import Task
from envs.vector import make_vector


def build_agent(config: TrainConfig, task: Task, device: torch.device) -> tuple[DQN, Plan]:
    """The agent with its first parameters, and how it is computed."""
    generator = torch_generator(config.seed, "initialisation")
    network = build_network(config.agent, task.observation, task.actions, generator)
    fits_numpy = device.type == "cpu" and NumpyNetwork.fits(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    plan = choose_plan(config, fits_numpy, device, parameters)
    if plan.numpy_policy:
        threads_for_numpy(config.threads)
    if plan.backend == "compiled":
        torch.compiler.reset()  # the jobs of a sweep share a process, which compiles a function eight times at most
    return DQN(network, config.agent, task.actions, config.seed, device, plan.policy, plan.gradient), plan


def build_player(config: TrainConfig, task: Task, initialised_by: int) -> DQN:
    """An agent that only acts, on the CPU, whose parameters others will give it.

    Args:
        config: its own; `seed` is of its exploration.
        task: what it plays.
        initialised_by: the seed of the first parameters, and of what is never learned, as fixed priors.
    """
    generator = torch_generator(initialised_by, "initialisation")
    network = build_network(config.agent, task.observation, task.actions, generator)
    plan = Plan(numpy_policy=config.backend != "torch" and NumpyNetwork.fits(network))
    return DQN(network, config.agent, task.actions, config.seed, "cpu", plan.policy)


def build_tracker(
    config: TrainConfig, home: Path, console: Console, begun: tuple[int, dict[str, Any]] | None
) -> Tracker:
    """What a run reports goes through it.

    Args:
        config: of the run.
        home: its folder, where metrics.jsonl ends at the checkpoint to go on from.
        console: where it prints.
        begun: step and state of that checkpoint.

    Raises:
        UserError: where something that was asked for cannot be reported to.
    """
    step, state = begun if begun is not None else (0, {})
    also = []
    if config.tensorboard:
        whole = state.get("config", {}).get("tensorboard", False) and has_event_files(home)
        anew = step if state.get("evaluation_due") else step + 1
        also.append(EventFiles(home, console, None if begun is None else anew if whole else 0))
    return Tracker(home, to_plain(config), config.wandb, console, state.get("wandb_run_id"), also)


def build_rings(config: TrainConfig, task: Task, shares: Sequence[int]) -> AnyRings:
    """A ring for each actor in the machine's memory, if they fit: each has the part of its environments in the whole.

    Args:
        config: of the run.
        task: what is played.
        shares: environments of each actor.
    """
    agent, count = config.agent, config.num_envs
    sizes = [(-(-agent.replay_size * share // count), share, task.observation) for share in shares]
    _check_memory(config, task, sizes, torch.device("cpu"))
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma}
    if agent.priority.enabled:
        exponent = agent.priority.exponent
        return PrioritisedRings([PrioritisedReplay(*size, exponent=exponent, **options) for size in sizes])
    return Rings([Replay(*size, **options) for size in sizes])


def build_replay(config: TrainConfig, task: Task, device: torch.device, plan: Plan) -> Replay:
    """The replay, where the config puts it, if it fits."""
    agent, sizes = config.agent, (config.agent.replay_size, config.num_envs, task.observation)
    where = device if agent.replay_device == "auto" else torch.device("cpu")
    if agent.priority.enabled and where.type == "mps":
        where = torch.device("cpu")  # priorities are float64, which Apple's GPU does not have
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": where}
    options["compiled"] = plan.compile(agent.batch_size, where)
    _check_memory(config, task, [sizes], where)
    if agent.priority.enabled:
        return PrioritisedReplay(*sizes, exponent=agent.priority.exponent, **options)
    return Replay(*sizes, **options)


def _check_memory(
    config: TrainConfig, task: Task, sizes: Sequence[tuple[int, int, ObservationSpec]], where: torch.device
) -> None:
    """Refuses replays of these sizes (transitions, environments, observation) that do not fit together."""
    bytes_of = prioritised_bytes if config.agent.priority.enabled else required_bytes

    def smaller(free: int) -> str:
        capacity = config.agent.replay_size
        return remedies(task, capacity, lambda size, form: bytes_of(size, config.num_envs, form), free)

    check_replay_memory(sum(bytes_of(*size) for size in sizes), where, smaller)


def build_envs(config: TrainConfig, task: Task) -> Envs:
    """The training's environments; where evaluations are played in one of them, that one can be filmed as well."""
    vectorization, share = config.env.vectorization, config.eval.share
    if share and vectorization == "auto":
        vectorization = "sync"  # copies that can be played one by one
    draws = share and config.eval.video and task.renders
    if draws:
        draw_into_memory()
    return make_vector(task, config.num_envs, vectorization, config.seed, "rgb_array" if draws else None)


def aside_of(config: TrainConfig, task: Task, envs: Envs) -> Aside | None:
    """The copy of the training's environment in which evaluations are played, if they are."""
    if not config.eval.share:
        return None
    if not isinstance(envs, RepeatableCopies):
        raise UserError(
            f"eval.share=true plays in one copy by itself, which the vector class of {task.id} has not: "
            "use env.vectorization=sync or async"
        )
    return Aside(envs, task.id)
