"""Parts of this project, built for a benchmark as train.py builds them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agent.compute.numpy.losses import LOSSES  # noqa: E402
from agent.compute.numpy.network import NumpyNetwork  # noqa: E402
from agent.config.parsing import parse  # noqa: E402
from agent.config.run import TrainConfig  # noqa: E402
from agent.learning.dqn import DQN  # noqa: E402
from agent.replay.ring import Replay  # noqa: E402
from agent.running.build import build_agent, build_replay  # noqa: E402
from envs.make import Task, load_task  # noqa: E402

#: The settings of the tables, unless a table says otherwise: the peers' workloads, with noise and nothing else on top.
BASIC: dict[str, Any] = {
    "network": {"hidden": [120, 84], "layer_norm": False},
    "noise": {"mean_envs": 0},
    "double": False,
    "n_step": 1,
    "batch_size": 128,
    "replay_size": 20_000,
}
PLAIN, SEPARATE = {"enabled": False}, {"learning": "separate", "draws": 0}
SHARED, PER_ROW = {"learning": "joint", "draws": 1}, {"learning": "joint", "draws": 0}
NOISES = {"plain": PLAIN, "one draw": SHARED, "a draw per row": PER_ROW, "separate": SEPARATE}


class Parts(NamedTuple):
    config: TrainConfig
    task: Task
    agent: DQN
    replay: Replay


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The first nested dict, updated with the values of the second."""
    both = {
        key: merged(first[key], value) if isinstance(value, dict) and isinstance(first.get(key), dict) else value
        for key, value in second.items()
    }
    return {**first, **both}


def build(settings: dict[str, Any] | None = None, num_envs: int = 8, env_id: str = "CartPole-v1") -> Parts:
    """Task, agent and empty replay of BASIC and further settings of the agent's config."""
    config = parse(TrainConfig, {"agent": merged(BASIC, settings or {}), "num_envs": num_envs, "env": {"id": env_id}})
    task, device = load_task(env_id, {}), torch.device("cpu")
    agent, plan = build_agent(config, task, device)
    return Parts(config, task, agent, build_replay(config, task, device, plan))


def fill(replay: Replay, task: Task, steps: int) -> None:
    """Random transitions; an episode of each environment ends about every hundred steps."""
    rng = np.random.Generator(np.random.PCG64(0))
    shape, envs = task.observation.shape, replay.num_envs
    observation = rng.random((envs, *shape)).astype(task.observation.dtype)
    nothing = np.zeros(envs, dtype=bool)
    replay.begin(observation)
    for t in range(steps // envs):
        actions = rng.integers(task.actions, size=envs)
        replay.add(actions, np.ones(envs), np.arange(envs) == t % 100, nothing, observation)


@contextmanager
def by_autograd() -> Iterator[None]:
    """Agents that are built in this context use autograd and torch's modules instead of NumPy."""
    with patch.object(NumpyNetwork, "fits", staticmethod(lambda network: False)):
        yield


@contextmanager
def losses_by_torch() -> Iterator[None]:
    """Agents that are built in this context use torch for the loss, and NumPy for the network."""
    with patch.dict(LOSSES, clear=True):
        yield
