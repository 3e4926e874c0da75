"""Saved agents, rebuilt to play."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.common.errors import UserError
from agent.common.masking import masked_spec
from agent.common.observation import ObservationSpec, packed
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network, noise_model
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.records.saved_agent import check_shapes, load_agent, read_header
from envs.make import Task, load_saved_task
from envs.masks import OFF, source_of
from envs.observed_parts import Where
from envs.wrapping import wrapping_of

#: A description from a stranger may name no more: numbers of an observation, actions.
MAX_OBSERVATION, MAX_ACTIONS, MAX_PARTS = 1 << 26, 1 << 20, 256


@dataclass(frozen=True)
class Player:
    """A saved agent, rebuilt: what it plays, its network, how its noise is drawn, and what its file says of it."""

    task: Task
    network: QNetwork
    noise: NoiseModel
    description: dict[str, Any]
    path: Path  # as it was named
    home: Path  # the same, absolute: an environment may change the current folder


def load_player(path: Path, device: torch.device | str = "cpu") -> Player:
    """Rebuilds the agent of an agent.safetensors; nothing in the file is executed, and nothing larger allocated.

    All that the file says of itself is compared before its environment, its network or its tensors are made.

    Raises:
        UserError: for a damaged or foreign file, one whose parts do not fit, or a task that is not installed here.
    """
    here, home = Path.cwd(), path.absolute()
    header = read_header(path)
    said = header.description
    config, limit = _agent_config(said, path), _time_limit(said, path)
    with torch.device("meta"):  # shapes only: a lying description allocates nothing
        sketch = _network(config, _observation(said, path), said["actions"], path)
    check_shapes(header.shapes, {name: tuple(value.shape) for name, value in sketch.state_dict().items()}, path)
    env, channels, action_mask = said["env"], _channels(said, path), _action_mask(said, path)
    wrapping = wrapping_of(env.get("observation", ()), env.get("wrappers", ()))
    task = load_saved_task(
        env["id"], {**env.get("kwargs", {}), **env.get("eval_kwargs", {})}, limit, channels, wrapping, action_mask
    )
    os.chdir(here)  # paths of other agents are read from it
    if (said["observation"], said["actions"]) != (task.observe.description(), task.actions):
        raise UserError(f"{path} was trained on another version of {task.id}: observations or actions differ")
    network = _network(config, task.observation, task.actions, path, torch.Generator())
    network.load_state_dict(load_agent(path).tensors)
    return Player(task, network.to(device), noise_model(config, network), said, path, home)


def _network(
    config: AgentConfig, spec: ObservationSpec, actions: int, path: Path, generator: torch.Generator | None = None
) -> QNetwork:
    """The network that a description names.

    Raises:
        UserError: where it cannot be built.
    """
    try:
        return build_network(config, spec, actions, generator)
    except UserError:
        raise
    except Exception as error:  # numbers that no tensor holds, kernels larger than the image, and so on
        raise UserError(
            f"{path} describes a network that cannot be built ({type(error).__name__}: {str(error)!r:.80})"
        ) from error


def _time_limit(said: dict[str, object], path: Path) -> int | None:
    limit = said.get("time_limit")
    if limit is not None and (type(limit) is not int or not 0 < limit < 2**31):
        raise UserError(f"{path} is damaged: its time limit is {limit!r:.80}")
    return limit


def _observation(said: dict[str, object], path: Path) -> ObservationSpec:
    """The observations that a description names, of a size that an environment may have."""
    form = said.get("observation")
    actions = said.get("actions")
    if not isinstance(form, dict) or type(actions) is not int or not 0 < actions <= MAX_ACTIONS:
        raise UserError(f"{path} is damaged: it does not describe its observations and actions")
    spec = _packed(form, path) if "parts" in form else _part(form, path)
    if _action_mask(said, path) == OFF:
        return spec
    if form.get("mask") != actions:
        raise UserError(f"{path} is damaged: its observations have masks of {form.get('mask')!r:.80} actions")
    return masked_spec(spec, actions)


def _packed(form: dict[str, object], path: Path) -> ObservationSpec:
    """Images and a vector side by side in rows of bytes."""
    parts, stack = form["parts"], form.get("stack")
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_PARTS or type(stack) is not int or not 0 < stack <= 64:
        raise UserError(f"{path} is damaged: its observations are {form!r:.80}")
    specs = [_part(part, path) for part in parts]
    try:
        spec = packed(specs, stack)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if spec.size > MAX_OBSERVATION:
        raise UserError(f"{path} is damaged: its observations have {spec.size:,} bytes")
    return spec


def _part(form: object, path: Path) -> ObservationSpec:
    """An image or a vector that a description names."""
    form = form if isinstance(form, dict) else {}
    missing: object = None
    shape, dtype, high = (form.get(name, missing) for name in ("shape", "dtype", "high"))
    sides = isinstance(shape, list) and len(shape) in (1, 3) and all(type(n) is int and n > 0 for n in shape)
    plain = dtype in ("float32", "uint8", "bool") and type(high) in (int, float) and 0 < high < math.inf
    if not sides or not plain or math.prod(shape) > MAX_OBSERVATION:
        raise UserError(f"{path} is damaged: its observations are {form!r:.80}")
    return ObservationSpec(tuple(shape), dtype, high)


def _action_mask(said: dict[str, object], path: Path) -> str:
    """Where the masks of actions are found."""
    action_mask = said.get("action_mask", OFF)
    if not isinstance(action_mask, str):
        raise UserError(f"{path} is damaged: its action_mask is {action_mask!r:.80}")
    try:
        source_of(action_mask)
    except UserError:
        raise UserError(f"{path} is damaged: its action_mask is {action_mask!r:.80}") from None
    return action_mask


def _channels(said: dict[str, Any], path: Path) -> Where:
    """Where the channels of a board are; the first version saved none, and had a rule of its own."""
    channels = said.get("channels", "older")
    if channels not in (None, "first", "last", "older"):
        raise UserError(f"{path} is damaged: its channels are {channels!r:.80}")
    if channels is None and "parts" not in said["observation"]:
        return "flat"  # of a Dict, whose images older versions did not see
    return channels or "auto"


def _agent_config(said: dict[str, Any], path: Path) -> AgentConfig:
    """The algorithm that a description from a stranger names; what is wrong with it is said briefly and escaped."""
    step, seed = said.get("global_step"), said.get("seed")
    numbers = type(step) is int and 0 <= step < 2**63 and (seed is None or (type(seed) is int and abs(seed) < 2**63))
    if not isinstance(said.get("agent"), dict) or not numbers:
        raise UserError(f"{path} is damaged: it does not describe its agent")
    try:
        return parse(AgentConfig, said["agent"], "agent.")
    except UserError as error:
        raise UserError(f"{path} describes an agent that cannot be built: {str(error)!r:.200}") from None
