"""Rebuilds saved agents, so that they can play."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from agent.common.errors import UserError
from agent.common.kinds import PlainData
from agent.common.masking import masked_spec
from agent.common.observation import ObservationSpec, packed
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network, noise_model, own_options
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.records.saved_agent import check_shapes, read_agent, read_header
from envs.channels import BoxChannels
from envs.make import Task, load_saved_task
from envs.masks import OFF, source_of
from envs.wrapping import wrapping_of

#: Bounds on a description from a stranger: numbers in an observation, actions, parts.
MAX_OBSERVATION, MAX_ACTIONS, MAX_PARTS = 1 << 26, 1 << 20, 256


@dataclass(frozen=True)
class Player:
    """A rebuilt agent: its task, its network, the model of its noise, and the description in its file."""

    task: Task
    network: QNetwork
    noise: NoiseModel
    description: PlainData
    path: Path  # as the user named it
    home: Path  # the absolute path, as an environment may change the current folder


def load_player(path: Path, device: torch.device | str = "cpu") -> Player:
    """Rebuilds the agent in an agent.safetensors. Nothing in it is executed, and no memory beyond its size is used.

    The whole description is checked before its environment, its network or its tensors are made; only with an encoder
    or a head of the user's own is the network made twice.

    Raises:
        UserError: the file is damaged or foreign, its parts do not fit, or its task is not installed here.
    """
    working_folder, home = Path.cwd(), path.absolute()
    header = read_header(path)
    description = header.description
    config, time_limit = _agent_config(description, path), _time_limit(description, path)
    on_cpu = torch.Generator() if own_options(config) else None  # a part of the user's own may need numbers
    with torch.device("meta"):  # shapes only, so that a false description allocates nothing
        described = _network(config, _observation(description, path), description["actions"], path, on_cpu)
    check_shapes(header.shapes, {name: tuple(value.shape) for name, value in described.state_dict().items()}, path)
    env, channels, action_mask = description["env"], _channels(description, path), _action_mask(description, path)
    wrapping = wrapping_of(env.get("observation", ()), env.get("wrappers", ()))
    task = load_saved_task(
        env["id"], {**env.get("kwargs", {}), **env.get("eval_kwargs", {})}, time_limit, channels, wrapping, action_mask
    )
    os.chdir(working_folder)  # paths of other agents are relative to it
    if (description["observation"], description["actions"]) != (task.observe.description(), task.actions):
        raise UserError(f"{path} was trained on another version of {task.id}: observations or actions differ")
    network = _network(config, task.observation, task.actions, path, torch.Generator())
    saved = read_agent(path)
    if saved.description != description:  # a run has replaced the file since
        return load_player(path, device)
    network.load_state_dict(saved.tensors)
    return Player(task, network.to(device), noise_model(config, network), description, path, home)


def _network(
    config: AgentConfig, spec: ObservationSpec, actions: int, path: Path, generator: torch.Generator | None = None
) -> QNetwork:
    """The network in a description.

    Raises:
        UserError: if it cannot be built.
    """
    try:
        return build_network(config, spec, actions, generator)
    except UserError:
        raise
    except Exception as error:  # such as sizes that no tensor has, or kernels larger than the image
        raise UserError(
            f"{path} describes a network that cannot be built ({type(error).__name__}: {str(error)!r:.80})"
        ) from error


def _time_limit(description: PlainData, path: Path) -> int | None:
    time_limit = description.get("time_limit")
    if time_limit is not None and (type(time_limit) is not int or not 0 < time_limit < 2**31):
        raise UserError(f"{path} is damaged: its time limit is {time_limit!r:.80}")
    return time_limit


def _observation(description: PlainData, path: Path) -> ObservationSpec:
    """The form of the observations in a description, whose size must be within bounds."""
    observation = description.get("observation")
    actions = description.get("actions")
    if not isinstance(observation, dict) or type(actions) is not int or not 0 < actions <= MAX_ACTIONS:
        raise UserError(f"{path} is damaged: it does not describe its observations and actions")
    spec = _packed(observation, path) if "parts" in observation else _part(observation, path)
    if _action_mask(description, path) == OFF:
        return spec
    if observation.get("mask") != actions:
        raise UserError(f"{path} is damaged: its observations have masks of {observation.get('mask')!r:.80} actions")
    return masked_spec(spec, actions)


def _packed(observation: PlainData, path: Path) -> ObservationSpec:
    """The form of images and a vector side by side in rows of bytes."""
    parts, stack = observation["parts"], observation.get("stack")
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_PARTS or type(stack) is not int or not 0 < stack <= 64:
        raise UserError(f"{path} is damaged: its observations are {observation!r:.80}")
    specs = [_part(part, path) for part in parts]
    try:
        spec = packed(specs, stack)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if spec.size > MAX_OBSERVATION:
        raise UserError(f"{path} is damaged: its observations have {spec.size:,} bytes")
    return spec


def _part(observation: object, path: Path) -> ObservationSpec:
    """The form of an image or a vector in a description."""
    observation = observation if isinstance(observation, dict) else {}
    missing: object = None
    shape, dtype, high = (observation.get(name, missing) for name in ("shape", "dtype", "high"))
    has_shape = isinstance(shape, list) and len(shape) in (1, 3) and all(type(n) is int and n > 0 for n in shape)
    has_dtype = dtype in ("float32", "uint8", "bool") and type(high) in (int, float) and 0 < high < math.inf
    if not has_shape or not has_dtype or math.prod(shape) > MAX_OBSERVATION:
        raise UserError(f"{path} is damaged: its observations are {observation!r:.80}")
    return ObservationSpec(tuple(shape), dtype, high)


def _action_mask(description: PlainData, path: Path) -> str:
    """The source of the action masks."""
    action_mask = description.get("action_mask", OFF)
    if not isinstance(action_mask, str):
        raise UserError(f"{path} is damaged: its action_mask is {action_mask!r:.80}")
    try:
        source_of(action_mask)
    except UserError:
        raise UserError(f"{path} is damaged: its action_mask is {action_mask!r:.80}") from None
    return action_mask


def _channels(description: PlainData, path: Path) -> BoxChannels:
    """The dimension of images that holds the channels; the first version did not save it, and had its own rule."""
    channels = description.get("channels", "older")
    if channels not in (None, "first", "last", "older"):
        raise UserError(f"{path} is damaged: its channels are {channels!r:.80}")
    if channels is None and "parts" not in description["observation"]:
        return "flat"  # a Dict, whose images older versions flattened
    return channels or "auto"


def _agent_config(description: PlainData, path: Path) -> AgentConfig:
    """The algorithm in a description. An error quotes it briefly and escaped, as it may come from a stranger."""
    step, seed = description.get("global_step"), description.get("seed")
    numbers = type(step) is int and 0 <= step < 2**63 and (seed is None or (type(seed) is int and abs(seed) < 2**63))
    if not isinstance(description.get("agent"), dict) or not numbers:
        raise UserError(f"{path} is damaged: it does not describe its agent")
    try:
        return parse(AgentConfig, description["agent"], "agent.")
    except UserError as error:
        raise UserError(f"{path} describes an agent that cannot be built: {str(error)!r:.200}") from None
