"""From a config to the objects of a run."""

from typing import Any

import torch

from agent.common.seeding import torch_generator
from agent.compute.numpy.network import NumpyNetwork
from agent.compute.plan import Plan, choose_plan
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.build import build_network
from agent.replay.prioritised import PrioritisedReplay, prioritised_bytes
from agent.replay.ring import Replay, required_bytes
from agent.running.resources import check_replay_memory, threads_for_numpy
from envs.make import Task


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


def build_replay(config: TrainConfig, task: Task, device: torch.device, plan: Plan) -> Replay:
    """The replay, where the config puts it, if it fits."""
    agent, sizes = config.agent, (config.agent.replay_size, config.num_envs, task.observation)
    where = device if agent.replay_device == "auto" else torch.device("cpu")
    if agent.priority.enabled and where.type == "mps":
        where = torch.device("cpu")  # priorities are float64, which Apple's GPU does not have
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": where}
    options["compiled"] = plan.compile(agent.batch_size, where)
    if agent.priority.enabled:
        check_replay_memory(prioritised_bytes(*sizes), where)
        return PrioritisedReplay(*sizes, exponent=agent.priority.exponent, **options)
    check_replay_memory(required_bytes(*sizes), where)
    return Replay(*sizes, **options)
