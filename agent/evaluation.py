"""The only evaluation in the repository: fresh environments, seeds of its own, one seed per episode."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agent.config import AgentConfig
from agent.errors import UserError
from agent.network import QNetwork, build_network, noise_model
from agent.noise import NoiseModel
from agent.options import parse
from agent.saved_agent import check_tensors, load_agent
from agent.targets import greedy
from envs.atari import human_normalised
from envs.make import Task, load_saved_task, make_single

#: An episode is cut after as many steps as 30 minutes of Atari: an environment without a time limit may never end.
EPISODE_CAP = 27_000

#: Of the bootstrap: resampled numbers at a time, of which there are an index and a value (64 MiB).
MAX_PICKS = 1 << 22

Policy = Callable[[np.ndarray, Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of the episodes, in the order of their seeds."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    def statistics(self, env_id: str = "") -> dict[str, Any]:
        """Mean, spread, IQM, a 95 % bootstrap interval of the mean return; length; human-normalised score."""
        returns, human = np.array(self.returns), human_normalised(env_id, float(np.mean(self.returns)))
        return {
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_median": float(np.median(returns)),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "return_iqm": interquartile_mean(returns),
            "return_ci95": list(bootstrap_interval(returns)),
            "length_mean": float(np.mean(self.lengths)),
            **({} if human is None else {"human_normalised": human}),
        }


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of values [n]; a value on a quartile counts for its part (Agarwal et al. 2021)."""
    ordered = np.sort(values)
    n = len(ordered)
    edges = np.arange(n + 1) / n  # the i-th value stands for the quantiles i/n … (i+1)/n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return float(weights @ ordered / weights.sum())


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 2_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [n] (Efron 1979), always drawn from the same stream."""
    generator = np.random.Generator(np.random.PCG64(0))
    n, means = len(values), np.empty(resamples)
    rows = max(1, MAX_PICKS // n)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        chunk[:] = values[generator.integers(n, size=(len(chunk), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class EvaluationPolicy:
    """The greedy policy of the mean network, or of a fresh draw at every step of every episode.

    It computes in double precision: how many episodes are played side by side changes the rounding of a matrix
    product, and in single precision that could change an action.

    Args:
        network: is copied; later training does not change this policy.
        noise: how to draw, or None for the mean network.
        seeds: one per episode, of its noise.
    """

    def __init__(self, network: QNetwork, noise: NoiseModel | None, seeds: Sequence[int]) -> None:
        device = next(network.parameters()).device
        self._device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self._network = _double_copy(network, self._device)
        self._noise = noise if noise is not None and noise.size else None
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds] if self._noise is not None else []

    def __call__(self, observation: np.ndarray, episodes: Sequence[int]) -> np.ndarray:
        """Actions [n] for observations [n, *shape] of the episodes with these indices."""
        with torch.inference_mode():
            x = torch.from_numpy(observation).to(self._device, torch.float64)
            noise = None
            if self._noise is not None:
                draws = [self._noise.draw(generator=self._generators[episode]) for episode in episodes]
                noise = torch.stack([draw for draw in draws if draw is not None]).to(x)
            return greedy(self._network(x, noise).q_values).cpu().numpy()


def _double_copy(network: QNetwork, device: torch.device) -> QNetwork:
    with torch.no_grad():  # in evaluation mode: an encoder of one's own may hold what has one
        return copy.deepcopy(network).to(device=device, dtype=torch.float64).eval()


def play(
    envs: Sequence[gym.Env[Any, Any]],
    policy: Policy,
    seeds: Sequence[int],
    task: Task,
    look: Callable[[gym.Env[Any, Any]], None] | None = None,
) -> Evaluation:
    """Plays one whole episode for each seed, len(envs) of them side by side.

    Exactly these episodes count, so that short ones are not favoured; each begins with its own seed, so that the
    result does not depend on how many run side by side.

    Args:
        envs: environments of one task, free to be reset.
        policy: actions for observations [n, *shape] of the episodes with given indices.
        seeds: one per episode.
        task: what the environments are.
        look: called with the first environment after each of its resets and steps.
    """
    returns, lengths = [0.0] * len(seeds), [0] * len(seeds)
    waiting = iter(range(len(seeds)))
    running: dict[int, int] = {}  # environment → episode
    observations: dict[int, Any] = {}

    def begin(slots: Iterable[int]) -> None:
        for slot in slots:
            episode = next(waiting, None)
            running.pop(slot, None)
            if episode is not None:
                running[slot] = episode
                observations[slot], _ = envs[slot].reset(seed=seeds[episode])
                if slot == 0 and look is not None:
                    look(envs[0])

    begin(range(len(envs)))
    while running:
        slots, episodes = list(running), list(running.values())
        actions = policy(task.observe(task.observe.stack([observations[slot] for slot in slots])), episodes)
        ended = []
        for slot, episode, action in zip(slots, episodes, actions.tolist(), strict=True):
            observations[slot], reward, terminated, truncated, _ = envs[slot].step(action + task.first_action)
            returns[episode] += float(reward)
            lengths[episode] += 1
            if slot == 0 and look is not None:
                look(envs[0])
            if terminated or truncated or lengths[episode] >= EPISODE_CAP:
                ended.append(slot)
        begin(ended)
    return Evaluation(tuple(returns), tuple(lengths))


def evaluate(
    task: Task, network: QNetwork, seeds: Sequence[int], noise: NoiseModel | None = None, num_envs: int = 20
) -> Evaluation:
    """Plays one episode per seed in fresh environments: the mean network, or with fresh `noise` at every step."""
    envs = [make_single(task.id, task.kwargs, None, False, task.time_limit) for _ in range(min(num_envs, len(seeds)))]
    try:
        return play(envs, EvaluationPolicy(network, noise, seeds), seeds, task)
    finally:
        for env in envs:
            env.close()


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
    return load_saved_task(said["env"]["id"], said["env"].get("kwargs", {}), limit)


def _agent_config(said: dict[str, Any], path: Path) -> AgentConfig:
    """The algorithm that a description from a stranger names; what is wrong with it is said briefly and escaped."""
    if not isinstance(said.get("agent"), dict) or not isinstance(said.get("global_step"), int):
        raise UserError(f"{path} is damaged: it does not describe its agent")
    try:
        return parse(AgentConfig, said["agent"], "agent.")
    except UserError as error:
        raise UserError(f"{path} describes an agent that cannot be built: {str(error)!r:.200}") from None
