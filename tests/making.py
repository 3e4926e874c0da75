"""Agents for tests, computed as a run on this machine would compute them."""

from typing import Any

import torch

from agent.compute.numpy.network import NumpyNetwork
from agent.compute.plan import Plan
from agent.config.algorithm import AgentConfig
from agent.learning.dqn import DQN
from agent.learning.loss import UpdateNoise
from agent.networks.q_network import QNetwork


def plan_of(network: QNetwork, device: torch.device | str = "cpu") -> Plan:
    """NumPy where it knows the network, else plain PyTorch."""
    by_numpy = torch.device(device).type == "cpu" and NumpyNetwork.fits(network)
    return Plan(backend="numpy" if by_numpy else "torch", numpy_policy=by_numpy)


def make_agent(
    network: QNetwork,
    config: AgentConfig,
    actions: int,
    seed: int,
    device: torch.device | str = "cpu",
    plan: Plan | None = None,
) -> DQN:
    """A DQN; without a plan it has that of `plan_of`."""
    plan = plan_of(network, device) if plan is None else plan
    return DQN(network, config, actions, seed, device, plan.policy, plan.gradient)


def update_noise(draws: torch.Tensor | None) -> UpdateNoise[Any]:
    """The draws [2 or 3, N, size] of prediction, target and selection."""
    return UpdateNoise() if draws is None else UpdateNoise(*draws)
