"""Environments that draw from np.random and random: runs repeat, copies differ, and nothing else is disturbed."""
# ruff: noqa: NPY002 (environments draw so)

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from helpers import Programs

from agent.common.seeding import environment_seeds
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network
from agent.networks.q_network import QNetwork
from agent.running.evaluation import evaluate
from envs.global_random import globals_restored, isolated, seed_global_generators, state_of_global_generators
from envs.make import Task, load_task
from envs.resuming import begin, restore, saved
from envs.vector import make_vector, note_on_global_draws


def test_generators_and_folder_are_as_before_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of_global_generators()
    with globals_restored():
        seed_global_generators(1)
        os.chdir("/")
    assert (state_of_global_generators(), Path.cwd()) == (before, tmp_path)


class Wanderer(gym.Env[np.ndarray, np.int64]):
    """Changes the current folder."""

    observation_space = gym.spaces.Box(0, 1, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        os.chdir("/")
        return np.zeros(3), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(3), 1.0, True, False, {}


class Global(gym.Env[np.ndarray, np.int64]):
    """Observes a draw of its constructor and draws of the present step; an episode has five steps."""

    observation_space = gym.spaces.Box(0, 1, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, draws: bool = True) -> None:
        self.draws, self.made, self.time = draws, np.random.rand() if draws else 0.5, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.seen(), 1.0, self.time == 5, False, {}

    def seen(self) -> np.ndarray:
        drawn = (np.random.rand(), random.random()) if self.draws else self.np_random.random(2)
        return np.array([self.made, *drawn])


def network_of(task: Task) -> QNetwork:
    config = parse(AgentConfig, {"network": {"hidden": [8]}})
    return build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("Test/Global-v0", entry_point=Global)  # type: ignore[arg-type]
    yield
    gym.registry.pop("Test/Global-v0")


def played(vectorization: Any, seed: int) -> np.ndarray:
    """The observations of three copies in twelve steps, [13, 3, 3]."""
    envs = make_vector(load_task("Test/Global-v0", {}), 3, vectorization, seed)
    shown = [np.array(begin(envs, seed))]
    shown += [np.array(envs.step(np.zeros(3, dtype=np.int64))[0]) for _ in range(12)]
    envs.close()
    return np.array(shown)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_run_repeats_by_its_seed_and_its_copies_differ(vectorization: str) -> None:
    first = played(vectorization, 4)
    np.random.rand(7)  # earlier draws do not matter
    random.random()
    assert np.array_equal(first, played(vectorization, 4))
    other = played(vectorization, 5)
    for one in (first, other):
        assert len(np.unique(one[:, :, 1:])) == one[:, :, 1:].size  # no number occurs twice in the copies
        assert len(np.unique(one[:, :, 0])) == 3
    assert not np.intersect1d(first, other).size


class Vector(VectorEnv):  # type: ignore[type-arg]
    """A vector class of the same environment, which also draws in its constructor."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs, self.made = num_envs, np.random.rand()
        self.single_observation_space, self.single_action_space = Global.observation_space, Global.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | list[int | None] | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.seen(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        nothing = np.zeros(self.num_envs)
        return self.seen(), nothing, nothing > 0, nothing > 0, {}

    def seen(self) -> np.ndarray:
        return np.array([[self.made, np.random.rand(), random.random()] for _ in range(self.num_envs)])


def test_a_vector_class_repeats_by_the_seed_of_its_run() -> None:
    gym.registry["Test/Global-v0"].vector_entry_point = Vector  # type: ignore[assignment]
    first, again, other = played("native", 4), played("native", 4), played("native", 5)
    assert np.array_equal(first, again)
    assert len(np.unique(first[:, :, 1:])) == first[:, :, 1:].size
    assert not np.intersect1d(first, other).size


LAZY = """
import random
import gymnasium as gym
import numpy as np


class Lazy(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.time += 1
        ended = self.time >= 5 and random.random() < 0.5
        return np.zeros(3, np.float32), 0.0, ended, False, {}


gym.register("Lazy-v0", entry_point=Lazy)
"""


@pytest.mark.parametrize(("vectorization", "told"), [("sync", 1), ("async", 0)])
def test_environments_that_draw_so_later_are_told_of_once(
    programs: Programs, tmp_path: Path, vectorization: str, told: int
) -> None:
    (tmp_path / "lazy.py").write_text(LAZY)
    words = ("steps=200", "wandb.mode=disabled", "eval.video=false", "eval.episodes=1", "checkpoint.every=50")
    words = ("env=lazy:Lazy-v0", f"env.vectorization={vectorization}", "num_envs=2", *words)
    result = programs.run("train", *words, "agent.learning_starts=64", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.err.count("Lazy-v0 draws from np.random or random, whose numbers its copies share") == told


def test_a_reset_with_a_seed_repeats_in_processes_of_their_own() -> None:
    envs = make_vector(load_task("Test/Global-v0", {}), 3, "async")
    shown = [np.array(envs.reset(seed=seed)[0])[:, 1:] for seed in (0, 0, 9)]
    envs.close()
    assert np.array_equal(shown[0], shown[1])
    assert len(np.unique(np.stack(shown[1:]))) == 12


@pytest.mark.parametrize(("vectorization", "comes_back"), [("sync", False), ("async", True)])
def test_in_processes_of_their_own_episodes_come_back_after_a_resume(vectorization: Any, comes_back: bool) -> None:
    """Copies that share the generators do not come back, and a note says so before."""
    task = load_task("Test/Global-v0", {})
    envs = make_vector(task, 2, vectorization, 1)
    assert (note_on_global_draws(task, envs) is None) == comes_back
    begin(envs, 1)
    for _ in range(3):
        envs.step(np.zeros(2, dtype=np.int64))
    state = saved(envs)
    envs.close()
    again = make_vector(task, 2, vectorization, 1)
    restored = restore(again, 1, state)
    again.close()
    assert restored is not None
    assert restored.all() == comes_back


def test_new_episodes_after_a_resume_draw_new_numbers() -> None:
    envs = make_vector(load_task("Test/Global-v0", {}), 2, "sync", 1)
    first, later, again = (np.array(begin(envs, 1, step))[:, 1:] for step in (0, 50, 0))
    envs.close()
    assert np.array_equal(first, again)
    assert not np.intersect1d(first, later).size


def test_only_environments_that_draw_so_are_told_of() -> None:
    for draws in (False, True):
        task = load_task("Test/Global-v0", {"draws": draws})
        assert task.draws_globally == draws
        envs = make_vector(task, 2, "sync")
        assert (note_on_global_draws(task, envs) is not None) == draws
        envs.close()


def test_loading_a_task_and_evaluating_it_leave_training_its_numbers() -> None:
    seed_global_generators(3)
    before = state_of_global_generators()
    task = load_task("Test/Global-v0", {})
    network = network_of(task)
    results = [evaluate(task, network, environment_seeds(0, "evaluation", 3)) for _ in range(2)]
    assert state_of_global_generators() == before
    assert results[0] == results[1]


def test_an_environment_that_changes_the_folder_changes_it_for_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gym.register("Test/Wanderer-v0", entry_point=Wanderer)  # type: ignore[arg-type]
    try:
        task = load_task("Test/Wanderer-v0", {})
        assert Path.cwd() == tmp_path
        network = network_of(task)
        evaluate(task, network, environment_seeds(0, "evaluation", 3))
        assert Path.cwd() == tmp_path
    finally:
        gym.registry.pop("Test/Wanderer-v0")


def raising_after_a_draw() -> None:
    np.random.rand()
    random.random()
    raise KeyError


def test_the_generators_stand_where_they_stood_also_after_an_error() -> None:
    np.random.seed(1)
    random.seed(1)
    before = state_of_global_generators()
    with pytest.raises(KeyError), isolated(2):
        raising_after_a_draw()
    assert state_of_global_generators() == before
    with isolated(2):
        first = np.random.rand(), random.random()
    with isolated(2):
        assert (np.random.rand(), random.random()) == first
