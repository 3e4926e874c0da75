"""Evaluation: exactly the asked episodes, the same however they run; statistics; saved agents rebuilt or refused."""

import copy
import json
import random
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch

from agent.common.errors import UserError
from agent.common.seeding import environment_seeds
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse, to_plain
from agent.networks.build import build_network, noise_model
from agent.networks.q_network import QNetwork
from agent.records.names import AGENT
from agent.records.saved_agent import save_agent
from agent.records.statistics import bootstrap_interval, interquartile_mean
from agent.running.evaluation import Evaluation, EvaluationPolicy, evaluate, play
from agent.running.player import load_player
from envs.make import Task, load_task
from envs.single import make_single

SEEDS = environment_seeds(0, "evaluation", 30)
SMALL = {"network": {"hidden": [24, 24]}}


def agent_of(task: Task, **options: Any) -> tuple[AgentConfig, QNetwork]:
    """A noisy agent whose parameters are drawn by one seed."""
    config = parse(AgentConfig, {**SMALL, **options})
    return config, build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))


def without_means(network: QNetwork) -> QNetwork:
    """Sets μ = 0 in all layers: in the mean network all actions have the same value, and noise alone decides."""
    with torch.no_grad():
        for layer in network.noisy_layers().values():
            layer.weight.zero_()
            layer.get_parameter("bias").zero_()
    return network


def balancer(task: Task) -> tuple[AgentConfig, QNetwork]:
    """An agent whose mean network pushes to where the pole leans, which lasts for 24 to 56 steps; σ is initial."""
    config, network = agent_of(task)
    first, middle, last = (layer.weight for layer in without_means(network).noisy_layers().values())
    with torch.no_grad():
        first[0, 2], first[1, 2] = 1.0, -1.0  # the positive and the negative part of the pole's angle, by one ReLU each
        middle[0, 0] = middle[1, 1] = last[1, 0] = last[0, 1] = 1.0
    return config, network


class SeedLength(gym.Env[np.ndarray, np.int64]):
    """Has episodes of 1 or 40 steps, by their seed, with a reward of 1 a step, and records its seeds and actions."""

    played: list[int | None] = []  # noqa: RUF012
    actions: set[int] = set()  # noqa: RUF012
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(3, start=5)

    def __init__(self, truncates: bool = False) -> None:
        self.truncates, self.left = truncates, 0

    @staticmethod
    def length(seed: int) -> int:
        return 1 if seed % 3 else 40

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.played.append(seed)
        self.left = self.length(seed or 0)
        return self.np_random.standard_normal(2), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.left > 0, "stepped after its end"
        self.actions.add(int(action))
        self.left -= 1
        ended = self.left == 0
        return self.np_random.standard_normal(2), 1.0, ended and not self.truncates, ended and self.truncates, {}


@pytest.fixture
def seed_length() -> Iterator[None]:
    entry_point: Any = SeedLength
    gym.register("Test/SeedLength-v0", entry_point=entry_point)
    SeedLength.played.clear()
    SeedLength.actions.clear()
    yield
    gym.registry.pop("Test/SeedLength-v0")


# ---- the same results, however they are computed


@pytest.mark.parametrize("noisy", [False, True])
def test_the_same_seeds_give_the_same_returns_whatever_runs_side_by_side(noisy: bool) -> None:
    task = load_task("CartPole-v1", {})
    config, network = balancer(task)
    noise = noise_model(config, network) if noisy else None
    one, *others = (evaluate(task, network, SEEDS, noise, num_envs) for num_envs in (1, 3, 7, 20, 50))
    assert all(other == one for other in others)
    assert len(one.returns) == len(one.lengths) == len(SEEDS)
    assert len(set(one.returns)) > 10
    assert one.returns == one.lengths


@pytest.mark.parametrize("noisy", [False, True])
def test_the_first_episodes_do_not_depend_on_how_many_are_asked(noisy: bool) -> None:
    task = load_task("CartPole-v1", {})
    config, network = balancer(task)
    noise = noise_model(config, network) if noisy else None
    everything = evaluate(task, network, SEEDS, noise)
    for n in (1, 4, 29):
        few = evaluate(task, network, SEEDS[:n], noise)
        assert (few.returns, few.lengths) == (everything.returns[:n], everything.lengths[:n])


def test_noise_changes_what_is_played_and_is_redrawn_at_every_step() -> None:
    """With μ = 0 noise chooses the action. A draw that was held for an episode would often repeat one action."""
    task = load_task("CartPole-v1", {})
    config, network = agent_of(task)
    without_means(network)
    mean = evaluate(task, network, SEEDS)
    noisy = evaluate(task, network, SEEDS, noise_model(config, network))
    assert max(mean.returns) <= 11  # these episodes repeat the first action
    assert np.mean(noisy.returns) > 15  # random actions reach 22 on average


def test_every_episode_has_noise_of_its_own() -> None:
    """With μ = 0 the actions at one observation are like coins. Two episodes have 40 equal ones once in 10¹²."""
    config, network = agent_of(load_task("CartPole-v1", {}))
    policy = EvaluationPolicy(without_means(network), noise_model(config, network), SEEDS[:6])
    coins = np.stack([policy(np.ones((6, 4), dtype=np.float32), range(6)) for _ in range(40)])
    assert len({tuple(column) for column in coins.T}) == 6


def test_the_policy_is_of_a_copy_in_evaluation_mode() -> None:
    """An encoder of the user's own may use dropout while it learns."""
    network = agent_of(load_task("CartPole-v1", {}))[1]
    network.encoder.norms[0] = torch.nn.Dropout(0.9)
    policy = EvaluationPolicy(network, None, SEEDS[:1])
    values = [policy._network(torch.ones(1, 4, dtype=torch.float64), None).q_values for _ in range(2)]
    assert torch.equal(*values)
    assert network.training


@pytest.mark.parametrize("num_envs", [1, 3, 8, 30])
@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.usefixtures("seed_length")
def test_exactly_the_asked_seeds_are_played_without_favour_for_short_episodes(num_envs: int, truncates: bool) -> None:
    task = load_task("Test/SeedLength-v0", {"truncates": truncates})
    SeedLength.played.clear()
    result = evaluate(task, agent_of(task)[1], SEEDS, None, num_envs)
    assert sorted(map(str, SeedLength.played)) == sorted(map(str, SEEDS))
    assert list(result.lengths) == [SeedLength.length(seed) for seed in SEEDS]
    assert result.returns == tuple(float(length) for length in result.lengths)
    assert SeedLength.actions <= {5, 6, 7}


def test_every_episode_gets_its_own_observations_and_only_running_ones_are_asked() -> None:
    """In the n-th call that has an episode, the policy gets the n-th observation of this episode."""
    task = load_task("CartPole-v1", {})
    seen: dict[int, list[Any]] = {}

    def policy(observation: np.ndarray, episodes: Any) -> np.ndarray:
        assert len(observation) == len(episodes) == len(set(episodes)) <= 4
        for row, episode in zip(observation, episodes, strict=True):
            seen.setdefault(episode, []).append(row)
        return np.array([episode % 2 for episode in episodes])

    result = play([make_single(task.id, {}) for _ in range(4)], policy, SEEDS[:11], task)
    for episode, seed in enumerate(SEEDS[:11]):
        env = make_single(task.id, {})
        observation, _ = env.reset(seed=seed)
        for row in seen[episode]:
            assert np.array_equal(row, task.observe(observation[None])[0])
            observation, *_ = env.step(episode % 2)
        assert len(seen[episode]) == result.lengths[episode]


# ---- nothing else changes


def global_state() -> list[object]:
    _, key, position, *_ = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), list(key), position, random.getstate()]


def test_evaluation_changes_neither_the_network_nor_a_global_generator() -> None:
    task = load_task("CartPole-v1", {})
    config, network = agent_of(task)
    network.train()
    before, states = copy.deepcopy(network.state_dict()), global_state()
    flags = [(p.requires_grad, p.dtype, p.data_ptr(), p.grad) for p in network.parameters()]
    evaluate(task, network, SEEDS[:5])
    evaluate(task, network, SEEDS[:5], noise_model(config, network))
    assert global_state() == states
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [(p.requires_grad, p.dtype, p.data_ptr(), p.grad) for p in network.parameters()] == flags
    assert network.training


def test_a_global_generator_changes_no_result() -> None:
    task = load_task("CartPole-v1", {})
    config, network = agent_of(task)
    results = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        random.seed(seed)
        results.append(evaluate(task, network, SEEDS[:5], noise_model(config, network)))
    assert results[0] == results[1]


# ---- statistics


def test_statistics_by_hand() -> None:
    """The IQM of 1 2 3 4 5 6 leaves one of the six out at each end."""
    seen = Evaluation((6.0, 1.0, 3.0, 2.0, 5.0, 4.0), (1, 2, 3, 4, 5, 9)).statistics()
    interval = seen.pop("return_ci95")
    assert seen == pytest.approx(
        {
            "return_mean": 3.5,
            "return_std": np.sqrt(35 / 12),
            "return_median": 3.5,
            "return_min": 1.0,
            "return_max": 6.0,
            "return_iqm": 3.5,
            "length_mean": 4.0,
        }
    )
    assert 1.5 < interval[0] < 3 < 4 < interval[1] < 5.5
    json.dumps(seen, allow_nan=False)
    assert interquartile_mean(np.array([0.0, 1.0, 10.0])) == pytest.approx(11 / 3)
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])) == pytest.approx(1.5)


def test_bootstrap_interval_is_deterministic_and_shrinks_to_a_point() -> None:
    values = np.random.Generator(np.random.PCG64(0)).standard_normal(50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values)
    half, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < low < half[0] < values.mean() < half[1] < high < wide[1]
    assert bootstrap_interval(np.full(20, 500.0)) == (500.0, 500.0)
    assert bootstrap_interval(np.array([3.0])) == (3.0, 3.0)


def test_bootstrap_interval_covers_the_mean_about_19_times_in_20() -> None:
    """There are 400 samples of 40. Percentile intervals are short: 93 % are expected, ± 3.7 standard errors."""
    rng = np.random.Generator(np.random.PCG64(1))
    hits = 0
    for _ in range(400):
        low, high = bootstrap_interval(rng.exponential(size=40) - 1.0)
        hits += low < 0 < high
    assert 0.88 <= hits / 400 <= 0.98


@pytest.mark.parametrize("n", [1, 7, 100, 2_097, 2_098, 5_000])
def test_bootstrap_interval_is_that_of_all_resamples_at_once(n: int) -> None:
    values = np.random.Generator(np.random.PCG64(n)).standard_normal(n)
    picks = np.random.Generator(np.random.PCG64(0)).integers(n, size=(2_000, n))
    assert bootstrap_interval(values) == tuple(np.quantile(values[picks].mean(axis=1), [(1 - 0.95) / 2, 1.95 / 2]))


def test_bootstrap_interval_of_many_episodes_takes_little_memory() -> None:
    """With an index and a value for each of 50 000 episodes, 500 resamples at once take 400 MB."""
    values = np.random.Generator(np.random.PCG64(0)).standard_normal(50_000)
    tracemalloc.start()
    try:
        bootstrap_interval(values, resamples=500)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


# ---- saved agents


def description(task: Task, config: AgentConfig, **changes: Any) -> dict[str, Any]:
    return {
        "env": {"id": task.id, "kwargs": dict(task.kwargs)},
        "observation": task.observe.description(),
        "actions": task.actions,
        "agent": to_plain(config),
        "seed": 0,
        "global_step": 100,
        "evaluation": None,
        **changes,
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": {"hidden": [7], "dueling": True}},
        {"network": {"hidden": [5, 6, 7]}, "noise": {"form": "independent", "sigma0": 0.1, "distribution": "laplace"}},
        {"noise": {"enabled": False}, "epsilon": {"start": 1.0, "end": 0.1, "steps": 10}},
        {"noise": {"form": "index", "learning": "joint", "index": 3, "prior": 0.5, "repeat": 2, "hold": "episode"}},
    ],
)
def test_a_saved_agent_plays_exactly_as_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    task = load_task("CartPole-v1", {"sutton_barto_reward": True})
    config, network = agent_of(task, **options)
    save_agent(tmp_path / AGENT, network.state_dict(), description(task, config))
    player = load_player(tmp_path / AGENT)
    model = noise_model(config, network)
    assert (player.noise, player.task.kwargs, player.path) == (model, task.kwargs, tmp_path / AGENT)
    observation = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    for noise in (None, model.draw(50, generator=torch.Generator().manual_seed(1))):
        assert torch.equal(player.network(observation, noise).q_values, network(observation, noise).q_values)
    noise_or_none = model if model.size else None
    states = global_state()
    load_player(tmp_path / AGENT)
    assert global_state() == states
    assert evaluate(player.task, player.network, SEEDS[:5], noise_or_none) == evaluate(
        task, network, SEEDS[:5], noise_or_none
    )


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]


def said(**changes: Any) -> Change:
    return lambda description, tensors: description.update(changes)


def options(**changes: Any) -> Change:
    return lambda description, tensors: description["agent"].update(changes)


def tensors_changed(name: str, value: torch.Tensor | None) -> Change:
    def change(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    return change


WEIGHT = "head.advantage.output.weight"

FORM: dict[str, Any] = {"shape": [4], "dtype": "float32", "high": 1.0, "shift": None, "scale": None}
WRONG_FORMS: list[tuple[dict[str, Any], str, Any]] = [
    *(
        (FORM, "shape", shape)
        for shape in ([], [4, 1], [-4], [0], [4.0], [True], "4", None, [2**40], [2**20, 2**20, 9])
    ),
    *((FORM, "dtype", dtype) for dtype in ("float64", "object", None, 5)),
    *((FORM, "high", high) for high in (0.0, -1.0, float("nan"), float("inf"), "1", None, True)),
]

LIES: list[tuple[Change, str]] = [
    (tensors_changed(WEIGHT, torch.zeros(3, 24)), "shape"),
    (tensors_changed(WEIGHT, torch.zeros(2, 24, 1)), "shape"),
    (tensors_changed(WEIGHT, None), "missing"),
    (tensors_changed("extra", torch.zeros(1)), "extra"),
    (said(env={"id": "Acrobot-v1", "kwargs": {}}), "Acrobot-v1"),
    (said(env={"id": "MountainCar-v0", "kwargs": {}}), "observations or actions"),
    (said(env={"id": "NoSuchTask-v0", "kwargs": {}}), "no environment 'NoSuchTask-v0'"),
    (said(env={"id": "Pendulum-v1", "kwargs": {}}), "Discrete"),
    (said(env={"id": "CartPole-v1", "kwargs": {"bogus": 1}}), "bogus"),
    (
        said(observation={"shape": [5], "dtype": "float32", "high": 1.0, "shift": None, "scale": None}),
        "shape",
    ),
    (said(actions=10**9), "observations and actions"),
    (said(actions=True), "observations and actions"),
    (said(actions=3), "shape"),
    (said(observation=None), "observations and actions"),
    *((said(observation=form | {name: value}), "observations") for form, name, value in WRONG_FORMS),
    (said(env={"id": "DeepSea-v0", "kwargs": {"size": 10_000}}), "1,000 is the most"),
    (said(env={"id": "ALE/Pong-v5", "kwargs": {"frameskip": 10**9}}), "100 is the most"),
    (said(env={"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": 10**400}}), "1,000,000 is the most"),
    (options(head="categorical", categorical={"v_max": 1e300}), "cannot be built|v_max|missing|shape"),
    (options(noise={"sigma0": 1e300}), "cannot be built|sigma0"),
    (options(no_such_option=1), "no_such_option"),
    (options(network={"encoder": "of_a_stranger"}), "'of_a_stranger'"),
    (options(network={"encoder": "os:system"}), "no encoder of this name"),
    (options(network={"encoder": "nature"}), "takes images"),
    (options(network={"encoder": "x" * 100_000}), "no encoder of this name"),
    (options(network={"impala": {"width": 10**9}}), "between 1 and 64"),
    (options(loss="squaredd"), "squaredd"),
    (options(lr="fast"), "lr"),
    (options(network={"hidden": []}), "hidden"),
    (options(network={"hidden": [24, 24], "dueling": True}), "missing"),
    (options(network={"hidden": [24, 24, 24]}), "tensor"),
    (options(network={"hidden": [24] * 100_000}), "100000 layers"),
    (options(network={"hidden": [10**9]}), "shape|tensor|hidden"),
    (options(network={"hidden": [10**9, 10**9]}), "shape|tensor|hidden"),
    (options(network={"hidden": [24.5, 24]}), "hidden"),
    (options(network={"hidden": "2424"}), "hidden"),
    (options(network=[24, 24]), "network"),
    (options(noise={"enabled": False}), "not part of its network"),
    (options(noise={"form": "independent", "sigma0": -1.0}), "sigma0"),
]


def refused(folder: Path, change: Change) -> str:
    """The sentence that refuses a saved agent after a change of its description and tensors."""
    task = load_task("CartPole-v1", {})
    config, network = agent_of(task)
    text, tensors = description(task, config), dict(network.state_dict())
    change(text, tensors)
    content = json.dumps({"format": "noisy-dqn-agent", "version": 1, "agent": text})
    (folder / AGENT).write_bytes(safetensors.torch.save(tensors, {"noisy-dqn": content}))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError) as caught:
        load_player(folder / AGENT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB: nothing large is allocated
    assert time.monotonic() - began < 5
    return str(caught.value)


@pytest.mark.parametrize(("change", "expected"), LIES)
def test_a_lying_file_is_refused(tmp_path: Path, change: Change, expected: str) -> None:
    sentence = refused(tmp_path, change)
    assert any(word in sentence for word in expected.split("|"))
    assert len(sentence) < 600


HOSTILE: list[tuple[str, Change]] = [
    ("agent is a number", said(agent=5)),
    ("agent is true", said(agent=True)),
    ("agent is a list", said(agent=[1])),
    ("agent is text", said(agent="text")),
    ("no agent", said(agent=None)),
    ("huge number for a float", options(lr=10**400)),
    ("huge width", options(network={"hidden": [10**30]})),
    ("huge network", options(network={"hidden": [2**40, 2**40]})),
    ("huge fraction", options(replay_ratio="1e3000000")),
    ("terminal sequences in a key", options(**{"\x1b[2Jlr": 1})),
    ("a very long value", options(loss="x" * 500_000)),
    ("a very long key", options(**{"x" * 500_000: 1})),
    ("no step", lambda description, tensors: description.pop("global_step")),
    ("step is no number", said(global_step="\x1b[2J")),
    ("step is negative", said(global_step=-1)),
    ("step has hundreds of digits", said(global_step=10**400)),
    ("seed is a text that a terminal obeys", said(seed="\x1b[2J")),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in HOSTILE])
def test_a_hostile_description_is_refused_in_a_short_clean_sentence(tmp_path: Path, change: Change) -> None:
    sentence = refused(tmp_path, change)
    assert AGENT in sentence
    assert sentence.isprintable()
    assert len(sentence) < 600 + len(str(tmp_path))


# ---- boards


class Board(gym.Env[np.ndarray, np.int64]):
    """Observes a cube in which the first layer is set."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, last: int = 5) -> None:
        self.observation_space = gym.spaces.Box(0, 1, (5, 5, last), np.bool_)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.arange(5)[:, None, None] * np.ones(self.observation_space.shape) == 0, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 1.0, True, False, {}


@pytest.mark.parametrize(
    ("said", "last", "channels"),
    [({"channels": "first"}, 5, "first"), ({"channels": "last"}, 5, "last"), ({}, 5, "last"), ({}, 9, "first")],
)
def test_a_saved_agent_remembers_where_the_channels_of_its_board_are(
    tmp_path: Path, said: dict[str, str], last: int, channels: Any
) -> None:
    """A file of the first version does not say where its channels are, and that version had another rule."""
    gym.register("Test/Board-v0", entry_point=Board)  # type: ignore[arg-type]
    try:
        task = load_task("Test/Board-v0", {"last": last}, channels=channels)
        config, network = agent_of(task)
        description = {
            "env": {"id": task.id, "kwargs": {"last": last}},
            "observation": task.observe.description(),
            "actions": 2,
            "agent": to_plain(config),
            "global_step": 1,
        }
        save_agent(tmp_path / AGENT, network.state_dict(), description | said)
        player = load_player(tmp_path / AGENT)
        assert player.task.observe.channels == channels
        board = player.task.observe(Board(last).reset()[0][None])[0]
        assert board[0].all() == (channels == "first")
        save_agent(tmp_path / AGENT, network.state_dict(), description | {"channels": "middle"})
        with pytest.raises(UserError, match="is damaged: its channels are 'middle'"):
            load_player(tmp_path / AGENT)
    finally:
        gym.registry.pop("Test/Board-v0")
