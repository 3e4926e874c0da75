"""Builds the objects of a run from its config."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agent.common.errors import UserError
from agent.common.global_torch import seed_global_torch
from agent.common.observation import ObservationSpec
from agent.common.seeding import torch_generator
from agent.common.state import Checkpoint
from agent.compute.numpy.network import NumpyNetwork
from agent.compute.plan import Plan, choose_plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.build import build_network
from agent.networks.encoders import MLPEncoder
from agent.networks.q_network import QNetwork
from agent.noise.layers import NoisyLinear
from agent.records.console import Console
from agent.records.dashboard import Sink
from agent.records.event_files import EventFiles, has_event_files
from agent.records.tracking import Tracker
from agent.replay.memory import required_bytes
from agent.replay.prioritised import PrioritisedReplay, prioritised_bytes
from agent.replay.ring import Replay
from agent.replay.rings import AnyRings, PrioritisedRings, Rings
from agent.running.filming import draw_into_memory
from agent.running.progress import evaluated_again
from agent.running.remedies import remedies
from agent.running.resources import check_replay_memory, threads_for_numpy
from envs.episodes import RepeatableCopies
from envs.kinds import Envs
from envs.make import Task
from envs.shared_env import SharedEnv
from envs.vector import make_vector


def build_agent(config: TrainConfig, task: Task, device: torch.device) -> tuple[DQN, Plan]:
    """The agent with its initial parameters, and the plan of how it is computed."""
    seed_global_torch(config.seed, device)
    generator = torch_generator(config.seed, "initialisation")
    network = build_network(config.agent, task.observation, task.actions, generator)
    fits_numpy = device.type == "cpu" and NumpyNetwork.fits(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    plan = choose_plan(config, fits_numpy, device, parameters, _truth_values(network, task.observation))
    if plan.numpy_policy:
        threads_for_numpy(config.threads)
    if plan.backend == "compiled":
        torch.compiler.reset()  # the jobs of a sweep share a process, and torch compiles a function eight times at most
    return DQN(network, config.agent, task.actions, config.seed, device, plan.policy, plan.gradient), plan


def _truth_values(network: QNetwork, observation: ObservationSpec) -> int:
    """The number of truth values in an observation, if the network looks them up; otherwise 0."""
    noisy = any(isinstance(module, NoisyLinear) for module in network.modules())
    encoder = network.encoder
    reads = isinstance(encoder, MLPEncoder) and (len(encoder.layers) > 0 or network.head.takes_truth_values)
    return observation.size if observation.dtype == "bool" and reads and not noisy else 0


def build_acting_agent(config: TrainConfig, task: Task, parameter_seed: int) -> DQN:
    """An agent that only acts, on the CPU, and gets its parameters from elsewhere: that of an actor or an evaluation.

    Args:
        config: its config; `seed` is the seed of its exploration.
        task: its task.
        parameter_seed: the seed of the initial parameters, and of parts that are never learned, such as fixed priors.
    """
    seed_global_torch(parameter_seed, torch.device("cpu"))
    generator = torch_generator(parameter_seed, "initialisation")
    network = build_network(config.agent, task.observation, task.actions, generator)
    plan = Plan(numpy_policy=config.backend != "torch" and NumpyNetwork.fits(network))
    return DQN(network, config.agent, task.actions, config.seed, "cpu", plan.policy, least_exploring=0)


def build_tracker(config: TrainConfig, home: Path, console: Console, checkpoint: Checkpoint | None) -> Tracker:
    """The tracker of a run, which is not open yet.

    Args:
        config: the config of the run.
        home: its folder.
        console: the console for its lines.
        checkpoint: the checkpoint to resume from; None for a new run.
    """
    step, state = checkpoint or Checkpoint(0, {})
    sinks: list[Callable[[], Sink]] = []
    if config.tensorboard:
        continues = state.get("config", {}).get("tensorboard", False) and has_event_files(home)
        prefix, again = evaluated_again(step, state)
        first_step = again if prefix else step + 1  # TensorBoard drops what later events write again
        since = None if checkpoint is None else first_step if continues else 0
        sinks.append(partial(EventFiles, home, console, since))
    return Tracker(home, to_plain(config), config.wandb, console, state.get("wandb_run_id"), sinks)


def build_rings(config: TrainConfig, task: Task, shares: Sequence[int]) -> AnyRings:
    """A ring for each actor in main memory, if they fit; its size is in proportion to the actor's environments.

    Args:
        config: the config of the run.
        task: the task.
        shares: the number of environments of each actor.
    """
    agent, count = config.agent, config.num_envs
    sizes = [(-(-agent.replay_size * share // count), share, task.observation) for share in shares]
    _check_memory(config, task, sizes, torch.device("cpu"))
    n_step, gamma, exponent = agent.n_step, agent.gamma, agent.priority.exponent
    if agent.priority.enabled:
        rings = (PrioritisedReplay(*size, exponent=exponent, n_step=n_step, gamma=gamma) for size in sizes)
        return PrioritisedRings(list(rings))
    return Rings([Replay(*size, n_step=n_step, gamma=gamma) for size in sizes])


def build_replay(config: TrainConfig, task: Task, device: torch.device, plan: Plan) -> Replay:
    """The replay on the device that the config names, if it fits."""
    agent, sizes = config.agent, (config.agent.replay_size, config.num_envs, task.observation)
    replay_device = device if agent.replay_device == "auto" else torch.device("cpu")
    if agent.priority.enabled and replay_device.type == "mps":
        replay_device = torch.device("cpu")  # priorities are float64, which Apple's GPU does not have
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": replay_device}
    options["compiled"] = plan.compile(agent.batch_size, replay_device)
    _check_memory(config, task, [sizes], replay_device)
    if agent.priority.enabled:
        return PrioritisedReplay(*sizes, exponent=agent.priority.exponent, **options)
    return Replay(*sizes, **options)


def _check_memory(
    config: TrainConfig, task: Task, sizes: Sequence[tuple[int, int, ObservationSpec]], replay_device: torch.device
) -> None:
    """Refuses replays of these sizes (transitions, environments, observation) that do not fit together."""
    bytes_of = prioritised_bytes if config.agent.priority.enabled else required_bytes

    def smaller(free: int) -> str:
        capacity = config.agent.replay_size
        return remedies(task, capacity, lambda size, form: bytes_of(size, config.num_envs, form), free)

    check_replay_memory(sum(bytes_of(*size) for size in sizes), replay_device, smaller)


def build_envs(config: TrainConfig, task: Task) -> Envs:
    """Training's environments. If evaluations play in one of them, they can draw frames for films."""
    vectorization, share = config.env.vectorization, config.eval.share
    if share and vectorization == "auto":
        vectorization = "sync"  # copies that can be played one by one
    films = share and config.eval.video and task.renders
    if films:
        draw_into_memory()
    return make_vector(task, config.num_envs, vectorization, config.seed, "rgb_array" if films else None)


def shared_env_of(config: TrainConfig, task: Task, envs: Envs) -> SharedEnv | None:
    """The copy of training's environment for evaluations with eval.share; otherwise None.

    Raises:
        UserError: if the vector class has no single copies.
    """
    if not config.eval.share:
        return None
    if not isinstance(envs, RepeatableCopies):
        raise UserError(
            f"eval.share=true plays in a single copy, which the vector class of {task.id} does not offer: "
            "use env.vectorization=sync or async"
        )
    return SharedEnv(envs, task.id)
