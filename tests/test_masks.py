"""Masks of actions: all their effects, from the environment's infos to saved agents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from agent import evaluate, load_agent, train
from agent.common.errors import UserError
from agent.common.masking import Masking, masked_spec
from agent.common.observation import ObservationSpec, packed
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.numpy.network import NumpyNetwork, NumpyPolicy
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.run import TrainConfig, upgraded
from agent.learning.dqn import DQN
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import UpdateNoise, learning_target
from agent.learning.policy import TorchPolicy
from agent.networks.build import build_network, noise_model
from agent.networks.heads.base import gather_actions
from agent.networks.masking import split_masks
from agent.networks.q_network import FORBIDDEN, QNetwork, flatten_parameters
from agent.replay.batch import Batch
from agent.replay.ring import Replay
from agent.running.build import build_agent
from agent.running.evaluation import EvaluationPolicy
from envs.make import load_task
from envs.vector import make_vector
from envs.wrapping import wrapping_of

ACTIONS, INPUTS = 4, 3
SPEC = masked_spec(ObservationSpec((INPUTS,)), ACTIONS)


class Trap(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for the best action of a step. A forbidden action raises an error; action 2 is always forbidden."""

    observation_space, action_space = spaces.Box(-1, 1, (INPUTS,), np.float32), spaces.Discrete(ACTIONS)

    def __init__(self, fault: str = "", key: str = "legal", limit: int = 0) -> None:
        self.fault, self.key, self.limit = fault, key, limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._tell(self._mask())

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self.mask[action] and self.fault != "tame":
            raise ValueError("action is not allowed")
        self.steps += 1
        ended, truncated = self.steps == 6, self.steps == self.limit
        reward = 1.0 if action == self.best else 0.0
        observation, info = self._tell(np.zeros(ACTIONS, np.int8) if ended else self._mask())
        return observation, reward, ended, truncated, {} if self.fault == "missing" and not ended else info

    def _tell(self, mask: np.ndarray) -> tuple[Any, dict[str, Any]]:
        return self._observe(), {self.key: mask}

    def _mask(self) -> np.ndarray:
        self.best = int(self.np_random.choice([0, 1, 3]))
        self.mask = np.ones(ACTIONS, np.int8)
        self.mask[2] = 0
        self.mask[(self.best + 1) % ACTIONS] = 0
        if self.fault == "none":
            return np.zeros(ACTIONS, np.int8)
        return self.mask[:3] if self.fault == "short" else self.mask

    def _observe(self) -> np.ndarray:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()


class Picture(Trap):
    """A Trap that observes images."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Told(Trap):
    """A Trap that observes a Dict with a mask as one part; `kind` chooses the other parts."""

    KINDS: ClassVar[dict[str, dict[str, spaces.Space[Any]]]] = {
        "vector": {"at": spaces.Box(-1, 1, (INPUTS,), np.float32)},
        "mixed": {"at": spaces.Box(-1, 1, (INPUTS,), np.float32), "zone": spaces.Discrete(3)},
        "image": {"view": spaces.Box(0, 255, (8, 8, 3), np.uint8)},
        "both": {"view": spaces.Box(0, 255, (8, 8, 3), np.uint8), "at": spaces.Box(-1, 1, (INPUTS,), np.float32)},
    }

    def __init__(self, kind: str = "vector", **options: Any) -> None:
        super().__init__(**options)
        self.rest = spaces.Dict(self.KINDS[kind])
        self.observation_space = spaces.Dict({**self.KINDS[kind], "action_mask": spaces.MultiBinary(ACTIONS)})

    def _tell(self, mask: np.ndarray) -> tuple[Any, dict[str, Any]]:
        self.rest.seed(int(self.np_random.integers(2**31)))
        return {**self.rest.sample(), "action_mask": mask}, {}


@pytest.fixture(autouse=True)
def trap() -> Iterator[None]:
    gym.register("Test/Trap-v0", entry_point=Trap)
    gym.register("Test/Picture-v0", entry_point=Picture)
    gym.register("Test/Told-v0", entry_point=Told)
    yield
    del gym.registry["Test/Told-v0"]
    del gym.registry["Test/Picture-v0"]
    del gym.registry["Test/Trap-v0"]


def config_of(**options: Any) -> AgentConfig:
    return parse(AgentConfig, {"network": {"hidden": [8, 8]}, **options})


#: Observations without masks: with one part and with several, of every dtype, and in stacks of frames.
KINDS: dict[str, ObservationSpec] = {
    "vector": ObservationSpec((INPUTS,)),
    "bits": ObservationSpec((5,), "bool"),
    "board": ObservationSpec((2, 5, 5), "bool"),
    "image": ObservationSpec((3, 8, 8), "uint8", 255.0),
    "floats": ObservationSpec((1, 7, 6)),
    "stack": ObservationSpec((4, 9, 7), "uint8", 255.0, stack=4),
    "parts": packed([ObservationSpec((3,)), ObservationSpec((1, 6, 7), "uint8", 255.0)]),
    "stacked parts": packed([ObservationSpec((3,)), ObservationSpec((1, 6, 7), "uint8", 255.0)], 3),
}
#: The observations for which NumPy computes the network.
BY_NUMPY = [kind for kind in KINDS if not KINDS[kind].parts]


def one_kind(rng: np.random.Generator, spec: ObservationSpec, rows: int) -> np.ndarray:
    """Random observations [rows, *shape]."""
    if spec.parts:
        out = np.zeros((rows, spec.stack, spec.stored_shape[0]), np.uint8)
        start = 0
        for part, end in zip(spec.parts, spec.ends, strict=True):
            out[:, :, start:end] = one_kind(rng, part, rows * spec.stack).reshape(rows, spec.stack, -1).view(np.uint8)
            start = end
        return out.reshape(rows, -1)
    if spec.dtype == "float32":
        return rng.normal(size=(rows, *spec.shape)).astype(np.float32)
    return rng.integers(256 if spec.dtype == "uint8" else 2, size=(rows, *spec.shape)).astype(spec.dtype)


def masks(rng: np.random.Generator, rows: int, actions: int = ACTIONS) -> np.ndarray:
    """Masks [rows, actions], each of which allows at least one action."""
    allowed = rng.random((rows, actions)) < 0.5
    allowed[np.arange(rows), rng.integers(actions, size=rows)] = True
    return allowed


def observations(rng: np.random.Generator, rows: int, kind: str = "vector") -> tuple[np.ndarray, np.ndarray, Any]:
    """Rows of bytes with masks, these masks, and the observations without masks."""
    free, allowed = one_kind(rng, KINDS[kind], rows), masks(rng, rows)
    return Masking(masked_spec(KINDS[kind], ACTIONS)).pack(free, allowed), allowed, torch.from_numpy(free)


def twins(config: AgentConfig, kind: str, seed: int) -> tuple[QNetwork, QNetwork]:
    """A network with masks, and a network without masks that has the same parameters."""
    both = [
        build_network(config, spec, ACTIONS, torch.Generator().manual_seed(seed)).requires_grad_(False)
        for spec in (masked_spec(KINDS[kind], ACTIONS), KINDS[kind])
    ]
    assert all(torch.equal(x, y) for x, y in zip(*(net.parameters() for net in both), strict=True))
    return both[0], both[1]


HEADS: dict[str, dict[str, Any]] = {
    "expected": {"head": "expected"},
    "categorical": {"head": "categorical", "categorical": {"v_min": -5.0, "v_max": 5.0}},
    "quantile": {"head": "quantile"},
    "implicit": {"head": "implicit_quantile"},
}


@pytest.mark.parametrize("actions", [2, 4, 8, 9, 18])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_stored_as_bits(kind: str, actions: int) -> None:
    """The mask has one bit per action, behind the observation. Unpacking returns both, from bytes and from floats."""
    rng, spec = np.random.default_rng(actions), masked_spec(KINDS[kind], actions)
    free, allowed, masking = one_kind(rng, KINDS[kind], 6), masks(rng, 6, actions), Masking(spec)
    rows = masking.pack(free, allowed)
    assert (rows.shape, rows.dtype) == ((6, *spec.shape), np.uint8)
    bare = sum(part.stored_bytes for part in spec.parts)
    assert spec.shape[0] // spec.stack - bare - (actions + 7) // 8 in range(4)
    assert (masking.allowed(rows) == allowed).all()
    assert (
        np.packbits(allowed, axis=1) == rows.reshape(6, spec.stack, -1)[:, -1, bare:][:, : (actions + 7) // 8]
    ).all()
    tensors = torch.from_numpy(rows)
    for given in (tensors, tensors.double(), tensors.view(2, 3, -1)):
        split = split_masks(masking, given)
        assert (split.allowed.reshape(6, actions).numpy() == allowed).all()
        if not KINDS[kind].parts:
            seen = split.observation
            assert isinstance(seen, torch.Tensor)
            assert seen.dtype == (torch.float64 if given.dtype == torch.float64 else torch.from_numpy(free).dtype)
            assert (seen.reshape(free.shape).numpy() == free).all()
            assert (masking.observed(rows) == free).all()
            assert masking.observed(rows).dtype == free.dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("double", [False, True])
def test_a_target_takes_the_best_allowed_action(head: str, double: bool, kind: str) -> None:
    """The twin chooses row by row among the allowed actions, by networks without masks but with the same parameters."""
    config, rng = config_of(**HEADS[head], double=double), np.random.default_rng(1)
    nets, free = zip(*(twins(config, kind, i) for i in range(2)), strict=True)
    x, (following, allowed, inner) = observations(rng, 32, kind)[0], observations(rng, 32, kind)
    action = torch.from_numpy(rng.integers(ACTIONS, size=32))
    reward, discount = torch.from_numpy(rng.normal(size=(2, 32)).astype(np.float32)).abs()
    batch = Batch(torch.from_numpy(x), action, reward, discount, torch.from_numpy(following))
    values, selector = (net(batch.next_observation, None) for net in nets)
    goal = learning_target(config, nets[0].head, batch, values, selector if double else values, None)
    own, chooser = free[0](inner, None), free[1 if double else 0](inner, None)
    best = [max(np.flatnonzero(row), key=lambda a: float(chooser.q_values[i, a])) for i, row in enumerate(allowed)]
    assert (torch.tensor(best) != chooser.q_values.argmax(1)).any()
    outcome = gather_actions(own.outcomes, torch.tensor(best))
    assert torch.equal(goal, nets[0].head.target(outcome, reward, discount, config.target_range))


@pytest.mark.parametrize("kind", ["vector", "stacked parts"])
@pytest.mark.parametrize("head", HEADS)
def test_munchausen_s_policy_is_over_allowed_actions(head: str, kind: str) -> None:
    config, rng = config_of(**HEADS[head], double=False, munchausen={"enabled": True}), np.random.default_rng(2)
    net, free = twins(config, kind, 0)
    (now, may, seen), (following, allowed, next_seen) = observations(rng, 32, kind), observations(rng, 32, kind)
    action = np.array([rng.choice(np.flatnonzero(row)) for row in may])
    reward, discount = np.abs(rng.normal(size=(2, 32))).astype(np.float32)
    batch = Batch(*map(torch.from_numpy, (now, action, reward, discount, following)))
    current, values = net(batch.observation, None), net(batch.next_observation, None)
    goal = learning_target(config, net.head, batch, values, values, current)
    soft, mixed, rewards = config.munchausen, [], []
    free_now, free_next = free(seen, None), free(next_seen, None)
    q_all, q_next_all = (values.q_values.double().numpy() for values in (free_now, free_next))
    outcomes = free_next.outcomes.double().numpy()
    for i in range(32):
        (q, mask), (q_next, mask_next) = (q_all[i], may[i]), (q_next_all[i], allowed[i])

        def log_softmax(z: np.ndarray) -> np.ndarray:
            z = z / soft.temperature
            return z - z.max() - np.log(np.exp(z - z.max()).sum())

        log_now = log_softmax(q[mask])[np.flatnonzero(np.flatnonzero(mask) == action[i])[0]]
        bonus = soft.alpha * np.clip(soft.temperature * log_now, soft.clip, 0.0)
        log_next = log_softmax(q_next[mask_next])
        mixed.append(np.tensordot(np.exp(log_next), outcomes[i][mask_next], 1))  # 1, or K quantiles or masses
        entropy = -soft.temperature * (np.exp(log_next) * log_next).sum()
        rewards.append(reward[i] + bonus + discount[i] * entropy)
    outcome, total = (torch.from_numpy(np.asarray(values, np.float32)) for values in (mixed, rewards))
    expected = free.head.target(outcome, total, batch.discount)
    np.testing.assert_allclose(goal.detach().numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", BY_NUMPY)
@pytest.mark.parametrize(
    "options",
    [
        HEADS["expected"],
        {**HEADS["expected"], "double": False, "loss": "squared"},
        {"head": "expected", "munchausen": {"enabled": True}, "double": False},
        HEADS["categorical"],
        HEADS["quantile"],
        {"head": "categorical", "munchausen": {"enabled": True}, "double": False, **{"categorical": {"v_max": 5.0}}},
    ],
)
def test_numpy_learns_with_masks_as_autograd_does(kind: str, options: dict[str, Any]) -> None:
    """The gradient on one batch under one noise is the same, and it is another without the masks."""
    config, rng, found = config_of(**options, batch_size=16), np.random.default_rng(3), []
    (now, may, _), (following, _, _) = observations(rng, 16, kind), observations(rng, 16, kind)
    everything = Masking(masked_spec(KINDS[kind], ACTIONS))
    free = everything.pack(everything.observed(following), np.ones((16, ACTIONS), bool))
    action = np.array([rng.choice(np.flatnonzero(row)) for row in may])
    reward, discount = rng.normal(size=(2, 16)).astype(np.float32)
    for make, after in ((AutogradGradient, following), (NumpyGradient, following), (NumpyGradient, free)):
        nets = [twins(config, kind, i)[0] for i in range(2)]
        flat = flatten_parameters(nets[0].requires_grad_(True))
        assert NumpyNetwork.fits(nets[0])
        model = noise_model(config, nets[0])
        draws = [model.draw(16, generator=torch.Generator().manual_seed(i)) for i in range(3)]
        make(nets[0], nets[1], flat, config)(Batch(now, action, reward, discount, after), UpdateNoise(*draws))
        assert flat.grad is not None
        found.append(flat.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert (found[2] - found[0]).abs().max() > 1e-3


INDEX = {"form": "index", "learning": "joint", "index": 4, "prior": 1.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [{"enabled": True}, INDEX, {"enabled": False}])
def test_only_allowed_actions_are_taken(noise: dict[str, Any], kind: str) -> None:
    """This holds for greedy, noisy, random and warm-up actions; NumPy, where it acts, takes the actions of torch."""
    config, rng = config_of(noise=noise, double=True), np.random.default_rng(0)
    nets = [twins(config, kind, 0)[0].requires_grad_(True) for _ in range(2)]
    by_numpy = NumpyNetwork.fits(nets[0])
    assert by_numpy == (kind in BY_NUMPY and "index" not in noise)
    policies = (TorchPolicy, NumpyPolicy) if by_numpy else (TorchPolicy,)
    agents = [DQN(net, config, ACTIONS, 0, policy=policy) for net, policy in zip(nets, policies, strict=False)]
    taken = np.zeros((ACTIONS,), int)
    for epsilon in (0.0, 0.5, 1.0, None):
        for _ in range(5):
            x, allowed, _ = observations(rng, 64, kind)
            begins, actions = np.ones(64, bool), []
            for agent in agents:
                actions.append(agent.random_actions(64, x) if epsilon is None else agent.act(x, begins, epsilon))
                assert allowed[np.arange(64), actions[-1]].all()
            assert (actions[0] == actions[-1]).mean() > 0.98  # rounding decides between close values
            taken += np.bincount(actions[0], minlength=ACTIONS)
    assert (taken > 0).all()
    agent = agents[0]
    x, allowed, _ = observations(rng, 8, kind)
    noise_of = agent.noise.draw(8, generator=torch.Generator()) if agent.noise.size else None
    values = agent.network(torch.from_numpy(x), noise_of).q_values
    assert ((values == FORBIDDEN).squeeze(1).numpy() == ~allowed).all()
    policy = EvaluationPolicy(agent.network, agent.noise, [0, 1, 2, 3])
    x, allowed, _ = observations(rng, 64, kind)
    assert allowed[np.arange(64), policy(x, [0, 1, 2, 3] * 16)].all()


@pytest.mark.parametrize("enabled", [True, False])
def test_measures_leave_out_what_is_not_allowed(enabled: bool) -> None:
    config, rng = config_of(noise={"enabled": enabled}), np.random.default_rng(4)
    net, free = twins(config, "vector", 0)
    x, allowed, inner = observations(rng, 32)
    zeros = np.zeros(32, np.float32)
    agent = DQN(net.requires_grad_(True), config, ACTIONS, 0)
    seen = agent.diagnostics(Batch(x, zeros.astype(int), zeros, zeros, x), torch.Generator().manual_seed(0))
    values = free(inner, None).q_values[torch.from_numpy(allowed)]
    assert float(seen["q/mean"]) == pytest.approx(float(values.mean()), rel=1e-4)
    assert float(seen["q/max"]) == pytest.approx(float(values.max()), rel=1e-4)
    if enabled:
        noise = agent.noise.draw(32, generator=torch.Generator().manual_seed(0))
        noisy = free(inner, noise).q_values[torch.from_numpy(allowed)]
        assert float(seen["noise/q_std"]) == pytest.approx(float((noisy - values).std()), rel=1e-3)


def test_random_actions_are_uniform_among_the_allowed() -> None:
    config = config_of()
    agent = DQN(build_network(config, SPEC, ACTIONS), config, ACTIONS, 0)
    allowed = np.tile([True, False, True, True], (30_000, 1))
    x = Masking(SPEC).pack(np.zeros((30_000, INPUTS), np.float32), allowed)
    shares = np.bincount(agent.random_actions(len(x), x), minlength=ACTIONS) / len(x)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.015)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_masks_come_with_their_observations(vectorization: Any) -> None:
    task = load_task("Test/Trap-v0", {}, action_mask="info.legal")
    assert task.observation == SPEC
    envs = make_vector(task, 2, vectorization)
    x = task.observe(envs.reset(seed=0)[0])
    for _ in range(30):
        allowed = Masking(SPEC).allowed(x)
        assert allowed.any(axis=1).all()
        action = allowed.argmax(axis=1)  # a forbidden action would raise an error
        x = task.observe(envs.step(action)[0])
    envs.close()


@pytest.mark.parametrize(
    ("kwargs", "action_mask", "expected"),
    [
        ({"fault": "none"}, "info.legal", "must allow an action while an episode goes on"),
        ({"fault": "short"}, "info.legal", "must be a mask of 4 truth values"),
        ({"fault": "missing"}, "info.legal", "must be a mask of 4 truth values"),
        ({}, "info.action_mask", r"Test/Trap-v0 .*info\['action_mask'\].* must be a mask"),
        ({}, "on", "env.action_mask is 'on': it must be auto, off, info.<key> or observation.<key>"),
        ({"key": "action_mask", "fault": "none"}, "auto", "must allow an action while an episode goes on, not none"),
        ({"key": "action_mask", "fault": "short"}, "auto", "where env.action_mask finds masks, must be a mask of 4"),
        ({"key": "action_mask", "fault": "missing"}, "auto", "must be a mask of 4 truth values, not nothing at all"),
        ({}, "observation.legal", "Test/Trap-v0 observes Box.*, without legal"),
    ],
)
def test_what_is_no_mask_is_refused(kwargs: dict[str, Any], action_mask: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_task("Test/Trap-v0", kwargs, action_mask=action_mask)


@pytest.mark.parametrize("fault", ["none", "short"])
def test_a_part_that_is_no_mask_is_refused(fault: str) -> None:
    with pytest.raises(UserError, match=r"Test/Told-v0 breaks a rule .*observation\['action_mask'\].* must"):
        load_task("Test/Told-v0", {"fault": fault}, action_mask="auto")


def test_auto_finds_what_there_is() -> None:
    """The search is made once, when a task is loaded. Without masks it changes nothing, nor the count of resets."""
    found = {
        env_id: load_task(env_id, kwargs, action_mask="auto")
        for env_id, kwargs in (
            ("Test/Trap-v0", {"key": "action_mask"}),
            ("Test/Told-v0", {}),
            ("Taxi-v4", {}),
            ("CartPole-v1", {}),
        )
    }
    places = [task.action_mask for task in found.values()]
    assert places == ["info.action_mask", "observation.action_mask", "info.action_mask", "off"]
    assert load_task("Test/Trap-v0", {"fault": "tame"}, action_mask="auto").action_mask == "off"
    assert found["CartPole-v1"].observation == load_task("CartPole-v1", {}).observation
    assert found["Taxi-v4"].observation == masked_spec(ObservationSpec((500,), "bool"), 6)
    assert load_task("Taxi-v4", {}).observation == ObservationSpec((500,), "bool")


@pytest.mark.parametrize("action_mask", ["auto", "off"])
def test_what_has_no_masks_is_reset_once(action_mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = Trap.reset

    def reset(self: Trap, **options: Any) -> Any:
        calls.append("reset")
        return original(self, **options)

    monkeypatch.setattr(Trap, "reset", reset)
    load_task("Test/Trap-v0", {"fault": "tame"}, action_mask=action_mask)
    assert calls == ["reset"]


@pytest.mark.parametrize(
    ("kind", "parts", "inner"),
    [
        ("vector", (), ObservationSpec((INPUTS,))),
        ("mixed", (), ObservationSpec((INPUTS + 3,))),
        ("mixed", ["zone"], ObservationSpec((3,), "bool")),
        ("mixed", ["zone", "action_mask"], ObservationSpec((3,), "bool")),
        ("image", (), ObservationSpec((3, 8, 8), "uint8", 255.0)),
        ("both", (), packed([ObservationSpec((INPUTS,)), ObservationSpec((3, 8, 8), "uint8", 255.0)])),
        ("both", ["view"], ObservationSpec((3, 8, 8), "uint8", 255.0)),
    ],
)
def test_a_mask_among_the_observations_is_left_out_of_them(kind: str, parts: Any, inner: ObservationSpec) -> None:
    task = load_task("Test/Told-v0", {"kind": kind}, wrapping=wrapping_of(parts, ()), action_mask="auto")
    assert task.observation == masked_spec(inner, ACTIONS)
    env, masking = task.make(), Masking(task.observation)
    observation, _ = env.reset(seed=3)
    told: Any = env.unwrapped
    array = task.observe(task.observe.stack([observation]))
    assert (masking.allowed(array)[0] == told.mask).all()


@pytest.mark.parametrize("kwargs", [{}, {"limit": 3}, {"limit": 4}])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("env_id", "wrappers"),
    [
        ("Test/Trap-v0", ()),
        ("Test/Told-v0", ()),
        ("Test/Picture-v0", ({"FrameStackObservation": {"stack_size": 3}},)),
    ],
)
def test_a_replay_gives_the_mask_of_each_state(env_id: str, wrappers: Any, n_step: int, kwargs: Any) -> None:
    """A twin keeps the observations and masks of the environments, over autoresets, truncations and n steps."""
    task = load_task(env_id, {"key": "action_mask", **kwargs}, wrapping=wrapping_of((), wrappers), action_mask="auto")
    assert task.observation.stack == (3 if wrappers else 1)
    masking, envs = Masking(task.observation), make_vector(task, 2)
    replay = Replay(200, 2, task.observation, n_step=n_step, gamma=0.5)
    x, rng = task.observe(envs.reset(seed=5)[0]), np.random.default_rng(0)
    replay.begin(x)
    seen, ends, resets = [x], [], [np.zeros(2, bool)]
    for _ in range(40):
        allowed = masking.allowed(x)
        action = np.array([rng.choice(np.flatnonzero(row)) for row in allowed])
        following, reward, terminated, truncated, _ = envs.step(action)
        x = task.observe(following)
        replay.add(action, reward, terminated, truncated, x)
        seen.append(x)
        ends.append((terminated, truncated))
        resets.append((terminated | truncated) & ~resets[-1])
    envs.close()
    for t in range(40):
        for e in range(2):
            if resets[t][e]:
                continue  # this row only resets
            k = next((i + 1 for i in range(n_step) if t + i < 40 and (ends[t + i][0] | ends[t + i][1])[e]), n_step)
            k = min(k, 40 - t)
            batch = replay.gather(np.array([t * 2 + e]))
            assert (masking.allowed(np.asarray(batch.observation)) == masking.allowed(seen[t])[e]).all()
            assert (masking.observed(np.asarray(batch.observation)) == masking.observed(seen[t])[e]).all()
            after = np.asarray(batch.next_observation)
            assert (masking.observed(after) == masking.observed(seen[t + k])[e]).all()
            assert (masking.allowed(after) == masking.allowed(seen[t + k])[e]).all()
            assert float(batch.discount[0]) == 0.5**k * (not ends[t + k - 1][0][e])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("env", "wrappers"),
    [
        ({"id": "Test/Trap-v0", "kwargs": {"key": "action_mask"}}, []),
        ({"id": "Test/Told-v0", "kwargs": {"kind": "both", "limit": 4}}, []),
        (
            {"id": "Test/Picture-v0", "kwargs": {"key": "action_mask"}},
            [{"FrameStackObservation": {"stack_size": 2}}],
        ),
    ],
)
def test_the_best_looking_action_is_never_taken(
    tmp_path: Path, env: dict[str, Any], wrappers: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network gives action 2 the highest value, and taking it would end the run. The run acts in all modes."""
    if backend == "numpy" and env["id"] == "Test/Told-v0":
        backend = "auto"  # torch computes a Dict with images, with masks or without
    original = build_agent

    def tempted(*arguments: Any) -> Any:
        agent, plan = original(*arguments)
        for net in (agent.network, agent.target):
            with torch.no_grad():
                net.head.advantage.output.bias[2] = 1e4
        return agent, plan

    monkeypatch.setattr("agent.running.run.build_agent", tempted)
    run = train(
        f"hydra.run.dir={tmp_path / 'run'}",
        agent={
            "network": {"hidden": [16]},
            "learning_starts": 64,
            "batch_size": 16,
            "epsilon": {"start": 0.3, "end": 0.1},
        },
        env={**env, "wrappers": wrappers},
        eval={"episodes": 2, "video": False, "every": 100},
        wandb={"mode": "disabled"},
        log={"progress": False},
        steps=200,
        num_envs=2,
        backend=backend,
    )
    saved = (run.folder / "config.yaml").read_text()
    assert f"action_mask: {'observation' if 'Told' in env['id'] else 'info'}.action_mask" in saved
    player = load_agent(run.folder, "last")
    assert player.description["action_mask"] in saved
    task = player._task
    env_made, values = task.make(), EvaluationPolicy(player._policy._network, None, [])
    (observation, mask), _ = env_made.reset(seed=0)
    assert int(player.act(observation)) == 2
    assert mask[int(player.act(observation, mask=mask))] == 1
    array = task.observe(task.observe.stack([(observation, mask)]))
    assert mask[values(array, [0])[0]] == 1
    assert len(evaluate(run.folder, which="last", episodes=3)["returns"]) == 3


def test_a_loaded_agent_takes_the_mask_from_its_observation(tmp_path: Path) -> None:
    run = train(
        f"hydra.run.dir={tmp_path / 'run'}",
        agent={"network": {"hidden": [16]}, "learning_starts": 64, "batch_size": 16},
        env={"id": "Test/Told-v0", "kwargs": {"kind": "mixed"}},
        eval={"episodes": 0},
        wandb={"mode": "disabled"},
        log={"progress": False},
        steps=80,
        num_envs=2,
    )
    agent, env = load_agent(run.folder, "last"), gym.make("Test/Told-v0", kind="mixed")
    observation, _ = env.reset(seed=0)
    best = int(agent.q_values(observation).argmax())
    masks = {int(agent.act({**observation, "action_mask": np.arange(ACTIONS) == i})) for i in range(ACTIONS)}
    assert masks == set(range(ACTIONS))
    assert int(agent.act({**observation, "action_mask": np.ones(ACTIONS, np.int8)})) == best
    batch = {name: np.stack([part, part]) for name, part in observation.items()}
    assert (agent.act({**batch, "action_mask": np.eye(ACTIONS, dtype=np.int8)[:2]}) == [0, 1]).all()


def test_a_run_from_before_has_no_masks() -> None:
    """The config of an earlier release does not mention masks: they are off, and are not looked for."""
    assert upgraded({"env": {"id": "Taxi-v4"}})["env"] == {"id": "Taxi-v4", "action_mask": "off"}
    assert upgraded({"env": {"action_mask": "info.legal"}})["env"] == {"action_mask": "info.legal"}
    assert parse(TrainConfig, {}).env.action_mask == "auto"


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrappers"),
    [
        ("Test/Trap-v0", {"key": "action_mask"}, []),
        ("Test/Told-v0", {"limit": 5, "kind": "both"}, []),
        ("Test/Picture-v0", {"limit": 4, "key": "action_mask"}, [{"FrameStackObservation": {"stack_size": 2}}]),
    ],
)
def test_a_run_in_two_parts_is_that_in_one(tmp_path: Path, env_id: str, kwargs: Any, wrappers: Any) -> None:
    """The runs agree bit for bit; a forbidden action would end a run."""
    options: dict[str, Any] = {
        "agent": {"network": {"hidden": [16]}, "learning_starts": 64, "batch_size": 32, "n_step": 3},
        "env": {"id": env_id, "kwargs": kwargs, "wrappers": wrappers},
        "eval": {"episodes": 2, "video": False, "every": 100},
        "wandb": {"mode": "disabled"},
        "log": {"progress": False},
        "num_envs": 2,
    }
    whole = train(f"hydra.run.dir={tmp_path / 'whole'}", steps=300, **options)
    train(f"hydra.run.dir={tmp_path / 'parts'}", steps=150, **options)
    parts = train(resume=tmp_path / "parts", steps=300)
    one, two = (safetensors_of(run.folder) for run in (whole, parts))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def safetensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters of the last agent of a run."""
    return load_file(folder / "last" / "agent.safetensors")


def test_an_agent_is_given_its_masks(tmp_path: Path) -> None:
    run = train(
        f"hydra.run.dir={tmp_path / 'run'}",
        agent={"network": {"hidden": [16]}, "learning_starts": 64, "batch_size": 32},
        env={"id": "Test/Trap-v0", "action_mask": "info.legal"},
        eval={"episodes": 0},
        wandb={"mode": "disabled"},
        log={"progress": False},
        steps=80,
        num_envs=2,
    )
    one = load_agent(run.folder, "last")
    x = np.random.default_rng(0).uniform(-1, 1, (50, INPUTS)).astype(np.float32)
    mask = np.tile(np.array([0, 1, 0, 0]), (50, 1))
    assert (one.act(x, mask=mask) == 1).all()
    assert one.act(x[0], mask=[False, False, False, True]) == 3
    taxi = load_task("Taxi-v4", {}, action_mask="info.action_mask")
    assert taxi.observation == masked_spec(ObservationSpec((500,), "bool"), 6)
    assert taxi.observation.stored_bytes == 504  # 500 states and six bits, in multiples of four bytes
    assert len(evaluate(run.folder, which="last", episodes=5)["returns"]) == 5
