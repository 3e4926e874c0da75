"""Masks of actions: where they hold, from the environment's infos to saved agents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agent import evaluate, load_agent, train
from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.dqn import DQN
from agent.learning.loss import learning_target
from agent.networks.build import build_network
from agent.networks.heads.base import gather_actions
from agent.networks.q_network import FORBIDDEN
from agent.replay.batch import Batch
from envs.make import load_task
from envs.vector import make_vector

ACTIONS, INPUTS = 4, 3
SPEC = ObservationSpec((INPUTS + ACTIONS,), mask=ACTIONS)


class Trap(gym.Env[np.ndarray, np.int64]):
    """Pays 100 for action 2, which is never allowed: who takes it is told so; and 1 for another one by the place."""

    observation_space, action_space = spaces.Box(-1, 1, (INPUTS,), np.float32), spaces.Discrete(ACTIONS)

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {"legal": self._mask()}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self.mask[action]:
            raise ValueError("action is not allowed")
        self.steps += 1
        ended = self.steps == 6
        reward = 1.0 if action == self.best else 0.0
        info = {"legal": np.zeros(ACTIONS, np.int8) if ended else self._mask()}
        if self.fault == "missing" and not ended:
            info = {}
        return self._observe(), reward, ended, False, info

    def _mask(self) -> np.ndarray:
        self.best = int(self.np_random.choice([0, 1, 3]))
        self.mask = np.ones(ACTIONS, np.int8)
        self.mask[2] = 0
        self.mask[(self.best + 1) % ACTIONS] = 0
        if self.fault == "none":
            return np.zeros(ACTIONS, np.int8)
        return self.mask[:3] if self.fault == "short" else self.mask

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, INPUTS).astype(np.float32)


class Picture(Trap):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def trap() -> Iterator[None]:
    gym.register("Test/Trap-v0", entry_point=Trap)
    gym.register("Test/Picture-v0", entry_point=Picture)
    yield
    del gym.registry["Test/Picture-v0"]
    del gym.registry["Test/Trap-v0"]


def config_of(**options: Any) -> AgentConfig:
    return parse(AgentConfig, {"network": {"hidden": [8, 8]}, **options})


def observations(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations [rows, INPUTS + ACTIONS], and their masks, each of which allows something."""
    allowed = rng.random((rows, ACTIONS)) < 0.5
    allowed[np.arange(rows), rng.integers(ACTIONS, size=rows)] = True
    return np.concatenate([rng.normal(size=(rows, INPUTS)), allowed], axis=1).astype(np.float32), allowed


HEADS: dict[str, dict[str, Any]] = {
    "expected": {"head": "expected"},
    "categorical": {"head": "categorical", "categorical": {"v_min": -5.0, "v_max": 5.0}},
    "quantile": {"head": "quantile"},
    "implicit": {"head": "implicit_quantile"},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("double", [False, True])
def test_a_target_takes_the_best_allowed_action(head: str, double: bool) -> None:
    """Its twin chooses row by row, among the allowed actions of an unmasked network with the same parameters."""
    config = config_of(**HEADS[head], double=double)
    nets = [build_network(config, SPEC, ACTIONS, torch.Generator().manual_seed(i)) for i in range(2)]
    rng = np.random.default_rng(1)
    for net in nets:
        net.requires_grad_(False)
    x, (following, allowed) = torch.from_numpy(observations(rng, 32)[0]), observations(rng, 32)
    action = torch.from_numpy(rng.integers(ACTIONS, size=32))
    reward, discount = torch.from_numpy(rng.normal(size=(2, 32)).astype(np.float32)).abs()
    batch = Batch(x, action, reward, discount, torch.from_numpy(following))
    values, selector = (net(batch.next_observation, None) for net in nets)
    goal = learning_target(config, nets[0].head, batch, values, selector if double else values, None)
    free = [net._values(batch.next_observation[:, :INPUTS], None, None, False) for net in nets]
    chooser = free[1] if double else free[0]
    best = [max(np.flatnonzero(row), key=lambda a: float(chooser.q_values[i, a])) for i, row in enumerate(allowed)]
    assert (torch.tensor(best) != chooser.q_values.argmax(1)).any()
    outcome = gather_actions(free[0].outcomes, torch.tensor(best))
    assert torch.equal(goal, nets[0].head.target(outcome, reward, discount, config.target_range))


def test_munchausen_s_policy_is_over_allowed_actions() -> None:
    config = config_of(double=False, munchausen={"enabled": True})
    net = build_network(config, SPEC, ACTIONS, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(2)
    (now, may), (following, allowed) = observations(rng, 32), observations(rng, 32)
    action = np.array([rng.choice(np.flatnonzero(row)) for row in may])
    reward, discount = np.abs(rng.normal(size=(2, 32))).astype(np.float32)
    batch = Batch(*map(torch.from_numpy, (now, action, reward, discount, following)))
    current, values = net(batch.observation, None), net(batch.next_observation, None)
    goal = learning_target(config, net.head, batch, values, values, current)
    soft, expected = config.munchausen, []
    free = [net._values(x[:, :INPUTS], None, None, False).q_values.detach().double().numpy() for x in batch[::4]]
    for i in range(32):
        (q, mask), (q_next, mask_next) = (free[0][i], may[i]), (free[1][i], allowed[i])

        def log_softmax(z: np.ndarray) -> np.ndarray:
            z = z / soft.temperature
            return z - z.max() - np.log(np.exp(z - z.max()).sum())

        log_now = log_softmax(q[mask])[np.flatnonzero(np.flatnonzero(mask) == action[i])[0]]
        bonus = soft.alpha * np.clip(soft.temperature * log_now, soft.clip, 0.0)
        log_next = log_softmax(q_next[mask_next])
        value = (np.exp(log_next) * (q_next[mask_next] - soft.temperature * log_next)).sum()
        expected.append(reward[i] + bonus + discount[i] * value)
    np.testing.assert_allclose(goal.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", [{"enabled": True}, {"form": "index", "index": 4, "prior": 1.0}, {"enabled": False}])
def test_only_allowed_actions_are_taken(noise: dict[str, Any]) -> None:
    config = config_of(noise=noise, double=True)
    net = build_network(config, SPEC, ACTIONS, torch.Generator().manual_seed(0))
    assert not NumpyNetwork.fits(net)
    agent, rng = DQN(net, config, ACTIONS, 0), np.random.default_rng(0)
    taken = np.zeros((ACTIONS,), int)
    for epsilon in (0.0, 0.5, 1.0, None):
        for _ in range(20):
            x, allowed = observations(rng, 64)
            begins = np.ones(64, bool)
            action = agent.random_actions(64, x) if epsilon is None else agent.act(x, begins, epsilon)
            assert allowed[np.arange(64), action].all()
            taken += np.bincount(action, minlength=ACTIONS)
    assert taken.min() > 0.15 * taken.sum() if not noise.get("enabled", True) else True
    x = torch.from_numpy(observations(rng, 8)[0])
    values = net(x, agent.noise.draw(8, generator=torch.Generator())).q_values if agent.noise.size else net(x, None)[0]
    assert ((values == FORBIDDEN).squeeze(1) == (x[:, INPUTS:] == 0)).all()


def test_random_actions_are_uniform_among_the_allowed() -> None:
    config = config_of()
    agent = DQN(build_network(config, SPEC, ACTIONS), config, ACTIONS, 0)
    x = np.tile(np.array([0, 0, 0, 1, 0, 1, 1], np.float32), (30_000, 1))
    shares = np.bincount(agent.random_actions(len(x), x), minlength=ACTIONS) / len(x)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.015)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_masks_come_with_their_observations(vectorization: Any) -> None:
    task = load_task("Test/Trap-v0", {}, action_mask="info.legal")
    assert task.observation == SPEC
    envs = make_vector(task, 2, vectorization)
    x = task.observe(envs.reset(seed=0)[0])
    for _ in range(30):
        assert x[:, -ACTIONS:].any(axis=1).all()
        action = x[:, -ACTIONS:].argmax(axis=1)  # one that is not allowed would end it
        x = task.observe(envs.step(action)[0])
    envs.close()


@pytest.mark.parametrize(
    ("kwargs", "action_mask", "expected"),
    [
        ({"fault": "none"}, "info.legal", "must allow an action where an episode goes on"),
        ({"fault": "short"}, "info.legal", "must be a mask of 4 truth values"),
        ({"fault": "missing"}, "info.legal", "must be a mask of 4 truth values"),
        ({}, "info.action_mask", r"info\['action_mask'\] must be a mask"),
        ({}, "on", "env.action_mask is 'on': it must be off or info.<key>"),
    ],
)
def test_what_is_no_mask_is_refused(kwargs: dict[str, Any], action_mask: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_task("Test/Trap-v0", kwargs, action_mask=action_mask)


def test_masks_of_images_are_refused() -> None:
    with pytest.raises(UserError, match="goes with vectors, and Test/Picture-v0 observes images"):
        load_task("Test/Picture-v0", {}, action_mask="info.legal")


def test_a_run_keeps_to_its_masks(tmp_path: Path) -> None:
    """An action that is not allowed would end it. A run in two parts is that in one, and its agent needs the masks."""
    options: dict[str, Any] = {
        "agent": {"network": {"hidden": [16]}, "learning_starts": 64, "batch_size": 32},
        "env": {"id": "Test/Trap-v0", "action_mask": "info.legal"},
        "eval": {"episodes": 4, "video": False, "every": 100},
        "wandb": {"mode": "disabled"},
        "log": {"progress": False},
        "num_envs": 2,
    }
    whole = train(f"hydra.run.dir={tmp_path / 'whole'}", steps=400, **options)
    train(f"hydra.run.dir={tmp_path / 'parts'}", steps=200, **options)
    parts = train(resume=tmp_path / "parts", steps=400)
    one, two = (load_agent(run.folder, "last") for run in (whole, parts))
    x = np.random.default_rng(0).uniform(-1, 1, (50, INPUTS)).astype(np.float32)
    assert (one.q_values(x) == two.q_values(x)).all()
    mask = np.tile(np.array([0, 1, 0, 0]), (50, 1))
    assert (one.act(x, mask=mask) == 1).all()
    assert one.act(x[0], mask=[False, False, False, True]) == 3
    taxi = load_task("Taxi-v4", {}, action_mask="info.action_mask")
    assert taxi.observation == ObservationSpec((506,), "bool", mask=6)
    assert len(evaluate(whole.folder, episodes=5)["returns"]) == 5
