"""Saved agents, rebuilt to play."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network, noise_model
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.records.saved_agent import check_tensors, load_agent
from envs.make import Task, load_saved_task


@dataclass(frozen=True)
class Player:
    """A saved agent, rebuilt: what it plays, its network, how its noise is drawn, and what its file says of it."""

    task: Task
    network: QNetwork
    noise: NoiseModel
    description: dict[str, Any]
    path: Path


def load_player(path: Path, device: torch.device | str = "cpu") -> Player:
    """Rebuilds the agent of an agent.safetensors; nothing in the file is executed, and nothing larger allocated.

    Raises:
        UserError: for a damaged or foreign file, one whose parts do not fit, or a task that is not installed here.
    """
    saved = load_agent(path)
    said = saved.description
    task = _task(said, path)
    if (said.get("observation"), said.get("actions")) != (task.observe.description(), task.actions):
        raise UserError(f"{path} was trained on another version of {task.id}: observations or actions differ")
    config = _agent_config(said, path)
    if len(config.network.hidden) > len(saved.tensors):
        raise UserError(f"{path} is damaged: it describes more layers than it holds")
    with torch.device("meta"):  # shapes only: a lying description allocates nothing
        shapes = {
            name: tuple(value.shape)
            for name, value in build_network(config, task.observation, task.actions).state_dict().items()
        }
    check_tensors(saved.tensors, shapes, path)
    network = build_network(config, task.observation, task.actions, torch.Generator())
    network.load_state_dict(saved.tensors)
    return Player(task, network.to(device), noise_model(config, network), said, path)


def _task(said: dict[str, Any], path: Path) -> Task:
    """The task that a description names."""
    limit = said.get("time_limit")
    if limit is not None and (type(limit) is not int or not 0 < limit < 2**31):
        raise UserError(f"{path} is damaged: its time limit is {limit!r:.80}")
    channels = said.get("channels", "older")  # the first version saved none, and had a rule of its own
    if channels not in (None, "first", "last", "older"):
        raise UserError(f"{path} is damaged: its channels are {channels!r:.80}")
    return load_saved_task(said["env"]["id"], said["env"].get("kwargs", {}), limit, channels or "auto")


def _agent_config(said: dict[str, Any], path: Path) -> AgentConfig:
    """The algorithm that a description from a stranger names; what is wrong with it is said briefly and escaped."""
    if not isinstance(said.get("agent"), dict) or not isinstance(said.get("global_step"), int):
        raise UserError(f"{path} is damaged: it does not describe its agent")
    try:
        return parse(AgentConfig, said["agent"], "agent.")
    except UserError as error:
        raise UserError(f"{path} describes an agent that cannot be built: {str(error)!r:.200}") from None
