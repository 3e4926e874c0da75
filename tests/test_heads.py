"""Heads and their targets: numbers worked out by hand, twins that loop as the papers write it, gradients."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from making import make_agent
from torch import Tensor, nn

from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.parts import NetworkConfig
from agent.learning import targets
from agent.learning.gradient import AutogradGradient
from agent.networks.build import build_network, noise_model
from agent.networks.heads import registry
from agent.networks.heads.base import Sizes, gather_actions
from agent.networks.heads.categorical import CategoricalHead, project
from agent.networks.heads.expected import ExpectedHead, ExpectedValues
from agent.networks.heads.implicit_quantile import ImplicitQuantileHead
from agent.networks.heads.quantile import QuantileHead, midpoints, quantile_loss
from agent.networks.q_network import QNetwork
from agent.noise.layers import Linear, NoisyLinear
from agent.replay.batch import Batch

INPUTS, ACTIONS = 3, 4
HEADS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"categorical": {"atoms": 7, "v_min": -2.0, "v_max": 3.0}},
    "quantile": {"quantile": {"count": 5}},
    "implicit_quantile": {"implicit_quantile": {"samples": 6, "target_samples": 3, "acting": 8, "cosines": 9}},
}
heads = pytest.mark.parametrize("name", HEADS)
duelings = pytest.mark.parametrize("dueling", [False, True])
forms = pytest.mark.parametrize("form", ["factorised", "independent"])


def config_of(name: str, dueling: bool = False, form: str = "factorised", **agent: Any) -> AgentConfig:
    network = {"hidden": [6, 5], "dueling": dueling, "layer_norm": False}
    return parse(AgentConfig, {"head": name, "network": network, "noise": {"form": form}, **HEADS[name], **agent})


def build(config: AgentConfig, seed: int = 0) -> QNetwork:
    return build_network(config, INPUTS, ACTIONS, torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def draw(config: AgentConfig, network: QNetwork, rows: int, seed: int = 2) -> Tensor:
    flat = noise_model(config, network).draw(rows, generator=torch.Generator().manual_seed(seed))
    assert flat is not None
    return flat


# ---- the projection of C51


def projected_by_loops(probabilities: list[float], positions: list[float], atoms: list[float]) -> list[float]:
    """Bellemare et al. 2017, algorithm 1, one atom at a time."""
    width = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    masses = [0.0] * len(atoms)
    for probability, position in zip(probabilities, positions, strict=True):
        b = (min(max(position, atoms[0]), atoms[-1]) - atoms[0]) / width
        low, high = math.floor(b), math.ceil(b)
        if low == high:
            masses[low] += probability
        else:
            masses[low] += probability * (high - b)
            masses[high] += probability * (b - low)
    return masses


def test_projection_by_hand() -> None:
    """Atoms 0, 1, 2, 3: ¼ at 0.25 is shared 3:1, ½ on an atom stays, ⅛ below and ⅛ above go to the ends."""
    masses = project(torch.tensor([0.25, 0.5, 0.125, 0.125]), torch.tensor([0.25, 2.0, -5.0, 9.0]), torch.arange(4.0))
    torch.testing.assert_close(masses, torch.tensor([0.1875 + 0.125, 0.0625, 0.5, 0.125]))


@pytest.mark.parametrize(
    ("low", "high", "count"), [(-10.0, 10.0, 51), (0.0, 200.0, 51), (-1.0, 2.0, 2), (-3.0, -1.0, 9)]
)
def test_projection_agrees_with_loops(low: float, high: float, count: int) -> None:
    atoms = torch.linspace(low, high, count, dtype=torch.float64)
    probabilities = torch.softmax(normal(40, count).double(), dim=-1)
    positions = normal(40, 1, seed=2).double() * (high - low) / 2 + uniform(40, 1, seed=3).double() * atoms
    positions[0], positions[1], positions[2] = atoms, low - 1.0, high
    seen = project(probabilities, positions, atoms)
    rows = zip(probabilities.tolist(), positions.tolist(), strict=True)
    expected = [projected_by_loops(p, x, atoms.tolist()) for p, x in rows]
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(40, dtype=torch.float64))
    grouped = project(probabilities.view(4, 10, -1), positions.view(4, 10, -1), atoms)
    assert torch.equal(grouped.view(40, -1), seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_projection_keeps_the_mass_of_narrow_supports(dtype: torch.dtype) -> None:
    """The atoms are 0.0012 apart and near 1000, where float32 numbers are 0.00006 apart."""
    atoms = torch.linspace(1000.0, 1000.06, 51, dtype=dtype)
    probabilities = torch.softmax(normal(40, 51).to(dtype), dim=-1)
    positions = 1000.0 + 0.07 * uniform(40, 51, seed=3).to(dtype)
    seen = project(probabilities, positions, atoms)
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(40, dtype=dtype), rtol=0, atol=1e-6)


def test_the_mean_survives_the_projection_inside_the_support() -> None:
    atoms = torch.linspace(-10, 10, 51, dtype=torch.float64)
    probabilities, positions = torch.softmax(normal(30, 51).double(), -1), 9.9 * (2 * uniform(30, 51).double() - 1)
    seen = project(probabilities, positions, atoms)
    torch.testing.assert_close(seen @ atoms, (probabilities * positions).sum(-1))


def test_categorical_target_by_hand() -> None:
    """Atoms −1, 0, 1; all mass on 1; R = ½, discounts ½ and 0: the mass moves to 1, and half way between 0 and 1."""
    head = CategoricalHead(Sizes(2, 3, ACTIONS, Linear), 3, -1.0, 1.0)
    outcome, reward = torch.tensor([[0.0, 0.0, 1.0]] * 2), torch.tensor([0.5, 0.5])
    target = head.target(outcome, reward, torch.tensor([0.5, 0.0]))
    assert target.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.5, 0.5]]
    limited = head.target(outcome, reward, torch.tensor([0.5, 0.0]), [-1.0, 0.0])
    assert limited.tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


def test_categorical_values_and_loss_by_hand() -> None:
    head = CategoricalHead(Sizes(2, 3, 2, Linear), 2, 0.0, 4.0)
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])  # masses ¼, ¾ and ½, ½
    values = head.values(logits)
    torch.testing.assert_close(values.q_values, torch.tensor([[3.0, 2.0]]))
    torch.testing.assert_close(values.outcomes, torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]))
    action = torch.tensor([0])
    loss = head.loss(values, action, torch.tensor([[0.25, 0.75]]))
    assert float(loss) == pytest.approx(0.0, abs=1e-7)  # prediction and target are equal
    loss = head.loss(values, action, torch.tensor([[0.0, 1.0]]))
    assert float(loss) == pytest.approx(-math.log(0.75))  # 0·ln 0 counts as 0


def test_the_gradient_of_a_categorical_loss_never_dies() -> None:
    """Logits 60 apart: in single precision the softmax of the lower is 0, and its gradient is still −1."""
    head = CategoricalHead(Sizes(2, 3, 1, Linear), 2, 0.0, 1.0)
    logits = torch.tensor([[[0.0, 120.0]]], requires_grad=True)
    loss = head.loss(head.values(logits), torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(loss.detach()) == pytest.approx(120.0)
    assert gradient.flatten().tolist() == [-1.0, 1.0]


# ---- quantiles


def quantile_loss_by_loops(quantiles: list[float], tau: list[float], target: list[float], kappa: float) -> float:
    """Dabney et al. 2018b, eq. 3, one pair at a time."""
    total = 0.0
    for level, quantile in zip(tau, quantiles, strict=True):
        for sample in target:
            u = sample - quantile
            if kappa == 0.0:
                size = abs(u)
            elif abs(u) <= kappa:
                size = 0.5 * u * u / kappa
            else:
                size = abs(u) - 0.5 * kappa
            total += abs(level - (1.0 if u < 0 else 0.0)) * size / len(target)
    return total


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("count", "samples"), [(1, 1), (5, 5), (4, 9)])
def test_quantile_loss_agrees_with_loops(kappa: float, count: int, samples: int) -> None:
    quantiles, target, tau = normal(20, count), 2 * normal(20, samples, seed=2), uniform(20, count)
    seen = quantile_loss(quantiles, tau, target, kappa)
    rows = zip(quantiles.tolist(), tau.tolist(), target.tolist(), strict=True)
    torch.testing.assert_close(seen, torch.tensor([quantile_loss_by_loops(*row, kappa) for row in rows]))
    grouped = quantile_loss(*(x.view(4, 5, -1) for x in (quantiles, tau, target)), kappa)
    torch.testing.assert_close(grouped.flatten(), seen)


def test_quantile_loss_by_hand() -> None:
    """τ = ¼: an error of +3 costs ¼·2½, one of −3 costs ¾·2½, one of ½ costs ¼·⅛."""
    tau, target = torch.tensor([[0.25]]), torch.tensor([[3.0], [-3.0], [0.5]])
    assert quantile_loss(torch.zeros(3, 1), tau, target, 1.0).tolist() == [0.625, 1.875, 0.03125]


def test_quantile_regression_finds_the_quantiles() -> None:
    """Descending the loss at κ = 0 ends at the quantiles of the target's distribution."""
    tau, samples = midpoints(5), normal(1, 4001)
    quantiles = torch.zeros(1, 5, requires_grad=True)
    for i in range(300):
        (gradient,) = torch.autograd.grad(quantile_loss(quantiles, tau, samples, 0.0).sum(), quantiles)
        quantiles = (quantiles - 2.0 * 0.98**i * gradient).detach().requires_grad_()
    torch.testing.assert_close(quantiles.detach()[0], torch.quantile(samples[0], tau), rtol=0, atol=0.02)


def test_levels_are_the_middles_of_equal_parts() -> None:
    assert midpoints(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    network = build(config_of("quantile"))
    assert network(normal(2, INPUTS), None).levels.tolist() == midpoints(5).tolist()  # type: ignore[attr-defined]


def test_quantile_values_and_target_by_hand() -> None:
    head = QuantileHead(Sizes(2, 3, 2, Linear), 3, 1.0)
    values = head.values(torch.tensor([[[0.0, 1.0, 5.0], [1.0, 1.0, 1.0]]]))
    assert values.q_values.tolist() == [[2.0, 1.0]]
    outcome = gather_actions(values.outcomes, torch.tensor([0]))
    target = head.target(outcome, torch.tensor([1.0]), torch.tensor([0.5]))
    assert target.tolist() == [[1.0, 1.5, 3.5]]
    assert head.target(outcome, torch.tensor([1.0]), torch.zeros(1), [-1.0, 0.5]).tolist() == [[0.5, 0.5, 0.5]]


# ---- implicit quantiles


def test_implicit_quantiles_are_the_papers_formula() -> None:
    """ψ(x) ⊙ ReLU(W cos(πiτ) + b), then the streams (eq. 4), row by row and level by level."""
    network = build(config_of("implicit_quantile", dueling=True))
    head, x, tau = network.head, normal(6, INPUTS), uniform(6, 5)
    assert isinstance(head, ImplicitQuantileHead)
    seen = network(x, None, tau).quantiles  # type: ignore[attr-defined]
    features = network.encoder(x, [None])
    for row, level in product(range(6), range(5)):
        cosines = torch.tensor([math.cos(math.pi * i * float(tau[row, level])) for i in range(9)])
        mixed = features[row] * torch.relu(head.embedding(cosines))
        assert head.value is not None
        value, advantage = head.value(mixed, [None] * 2), head.advantage(mixed, [None] * 2)
        torch.testing.assert_close(seen[row, :, level], value + advantage - advantage.mean(), rtol=1e-4, atol=1e-5)


@forms
@pytest.mark.parametrize("rows", [None, 1, 6])
def test_fixed_levels_are_those_levels_for_every_row(form: str, rows: int | None) -> None:
    """Acting is a function of the observation alone, without draws and without influence of other rows."""
    config = config_of("implicit_quantile", dueling=True, form=form)
    network, x = build(config), normal(6, INPUTS)
    noise = None if rows is None else draw(config, network, rows)
    fixed, explicit = network(x, noise), network(x, noise, midpoints(8).expand(6, -1))
    torch.testing.assert_close(fixed.q_values, explicit.q_values)
    twin = copy.deepcopy(network).double()
    alone = [
        twin(x[i : i + 1].double(), None if noise is None else noise[-6:][i * (rows == 6)][None].double())
        for i in range(6)
    ]
    together = twin(x.double(), None if noise is None else noise.double())
    torch.testing.assert_close(torch.cat([values.q_values for values in alone]), together.q_values)


def test_levels_move_the_quantiles() -> None:
    network, x = build(config_of("implicit_quantile")), normal(6, INPUTS)
    low, high = (network(x, None, torch.full((6, 1), tau)).q_values.detach() for tau in (0.1, 0.9))
    assert float((low - high).abs().min()) > 0


# ---- Munchausen


def test_munchausen_by_hand() -> None:
    """q = (0, ln 3), τ = 1: π = (¼, ¾). Action 0 costs α·ln ¼; the entropy is −¼·ln ¼ − ¾·ln ¾."""
    q_values = torch.tensor([[0.0, math.log(3.0)]])
    policy, entropy = targets.soft_policy(q_values, 1.0)
    torch.testing.assert_close(policy, torch.tensor([[0.25, 0.75]]))
    assert float(entropy) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    reward, action = torch.tensor([2.0]), torch.tensor([0])
    assert float(targets.munchausen_reward(reward, q_values, action, 0.5, 1.0, -9.0)) == pytest.approx(
        2.0 + 0.5 * math.log(0.25)
    )
    assert float(targets.munchausen_reward(reward, q_values, action, 0.5, 1.0, -1.0)) == pytest.approx(1.5)
    mixed = targets.mix_actions(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), policy)
    torch.testing.assert_close(mixed, torch.tensor([[2.5, 5.0]]))


def test_a_cold_soft_policy_is_the_greedy_one() -> None:
    q_values = 100 * normal(50, ACTIONS)
    policy, entropy = targets.soft_policy(q_values, 1e-3)
    assert torch.isfinite(policy).all()
    torch.testing.assert_close(targets.mix_actions(q_values, policy), q_values.max(dim=-1).values)
    torch.testing.assert_close(entropy, torch.zeros(50))


# ---- networks with every head


@heads
@duelings
@forms
def test_every_linear_layer_is_noisy_and_in_the_order_of_its_noise(name: str, dueling: bool, form: str) -> None:
    config = config_of(name, dueling, form)
    network = build(config)
    linear = {name for name, m in network.named_modules() if isinstance(m, (Linear, nn.Linear))}
    assert linear == set(network.noisy_layers())
    assert ("head.embedding" in linear) == (name == "implicit_quantile")
    assert sum(sum(layer.noise_sizes) for layer in network.noisy_layers().values()) == network.noise_size
    kinds = {"weight", "bias", "sigma_weight", "sigma_bias"}
    assert {key.rpartition(".")[2] for key in network.state_dict()} == kinds


@heads
@forms
def test_every_layer_sees_noise_of_its_own(name: str, form: str) -> None:
    config = config_of(name, True, form)
    network = build(config)
    noise = draw(config, network, 1)
    seen: list[Tensor] = []
    for layer in network.noisy_layers().values():
        layer.register_forward_pre_hook(lambda _, arguments: seen.extend(part.reshape(-1) for part in arguments[1]))
    network(normal(6, INPUTS), noise)
    assert torch.equal(torch.cat(seen).sort().values, noise.reshape(-1).sort().values)


@heads
@duelings
@forms
def test_grouped_batches_are_the_rows_of_their_group(name: str, dueling: bool, form: str) -> None:
    config = config_of(name, dueling, form)
    network, x = build(config), normal(4, 5, INPUTS)
    noise, tau = draw(config, network, 4), uniform(4, 5, 3) if name == "implicit_quantile" else None
    for levels in (tau, None):
        together = network(x, noise, levels)
        assert together.q_values.shape == (4, 5, ACTIONS)
        for group in range(4):
            one = network(x[group], noise[group : group + 1], None if levels is None else levels[group])
            torch.testing.assert_close(together.q_values[group], one.q_values)
            torch.testing.assert_close(together.outcomes[group], one.outcomes)


@heads
def test_dueling_streams_are_combined_for_every_number(name: str) -> None:
    """A number that is added to all advantages changes nothing; one that is added to the value changes all outputs."""
    network = build(config_of(name, True))
    head, features = network.head, normal(6, 6)
    before = head.outputs(features, [None] * 4)
    assert head.value is not None
    value = head.value(features, [None] * 2).reshape(before[:, 0].shape)
    torch.testing.assert_close(before.mean(dim=1), value)  # the mean over the actions is the value
    with torch.no_grad():
        head.advantage.output.bias += 3.0
        torch.testing.assert_close(head.outputs(features, [None] * 4), before)
        head.value.output.bias += torch.arange(len(head.value.output.bias)) + 1.0
    shift = head.outputs(features, [None] * 4) - before
    torch.testing.assert_close(
        shift,
        (torch.arange(before[0, 0].numel()) + 1.0).expand_as(shift) if before.dim() > 2 else torch.ones_like(shift),
    )


# ---- gradients


@heads
@duelings
@forms
@pytest.mark.parametrize("rows", [1, 6])
def test_gradients_are_finite_differences(name: str, dueling: bool, form: str, rows: int) -> None:
    """The gradients of every layer's μ and σ are checked in double precision; these losses are far from their kinks."""
    config = config_of(name, dueling, form)
    network = build(config).double()
    noise, x = draw(config, network, rows).double(), normal(6, INPUTS).double()
    tau = uniform(6, 4).double() if name == "implicit_quantile" else None
    action = torch.arange(6) % ACTIONS
    outcome = gather_actions(network(x, None).outcomes.detach(), action).roll(1, 0)
    target = network.head.target(outcome, normal(6, seed=5).double(), torch.full((6,), 0.9).double())

    def loss() -> Tensor:
        return network.head.loss(network(x, noise, tau), action, target).mean()

    names, leaves = zip(*network.named_parameters(), strict=True)
    step = 1e-6
    for label, leaf, gradient in zip(names, leaves, torch.autograd.grad(loss(), leaves), strict=True):
        direction = normal(*leaf.shape, seed=7).double()
        with torch.no_grad():
            leaf += step * direction
            above = loss()
            leaf -= 2 * step * direction
            below = loss()
            leaf += step * direction
        slope = float((gradient * direction).sum())
        assert float(above - below) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6), label
        assert float(gradient.abs().max()) > 0, label
    assert any("sigma" in label for label in names)


@heads
def test_independent_rows_of_noise_reach_their_own_row(name: str) -> None:
    config = config_of(name, True)
    network, x = build(config), normal(6, INPUTS)
    noise = draw(config, network, 6)
    other = noise.clone()
    other[2] += 1.0
    same = (network(x, noise).q_values == network(x, other).q_values).all(dim=1)
    assert same.tolist() == [True, True, False, True, True, True]


def test_a_plain_network_has_every_head_too() -> None:
    for name in HEADS:
        network = build(config_of(name, True, noise={"enabled": False}))
        assert network.noise_size == 0
        assert not any(isinstance(module, NoisyLinear) for module in network.modules())
        assert network(normal(6, INPUTS), None).q_values.shape == (6, ACTIONS)


# ---- heads of the user's own


class Scaled(ExpectedHead):
    """Values times a number."""

    def __init__(self, sizes: Sizes, scale: float = 1.0) -> None:
        super().__init__(sizes)
        self.scale = scale

    def values(self, outputs: Tensor) -> ExpectedValues:
        return ExpectedValues(outputs * self.scale)


@pytest.fixture
def scaled() -> Iterator[None]:
    registry.register_head("scaled", lambda parts: Scaled(parts.sizes, **parts.options))
    yield
    del registry.HEADS._factories["scaled"]


def of_my_own(**options: Any) -> AgentConfig:
    return AgentConfig(NetworkConfig((8,)), head="scaled", head_options=options, loss="huber")


def test_a_head_of_ones_own_is_built_with_its_options_and_learns(scaled: None) -> None:
    config, plain = of_my_own(scale=3.0), AgentConfig(NetworkConfig((8,)))
    networks = [build_network(c, 4, 2, torch.Generator().manual_seed(0)) for c in (config, plain)]
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    mine, theirs = (network(x, None).q_values for network in networks)
    torch.testing.assert_close(mine, 3.0 * theirs)
    agent = make_agent(networks[0], config, 2, seed=0)
    assert isinstance(agent._gradient, AutogradGradient)  # NumPy does not compute this head
    before = agent.parameters.clone()
    rows = torch.Generator().manual_seed(2)
    ones, actions = torch.ones(64), torch.randint(2, (64,), generator=rows)
    agent.update(Batch(torch.randn(64, 4, generator=rows), actions, ones, ones, torch.randn(64, 4, generator=rows)))
    assert not torch.equal(agent.parameters, before)


def test_a_head_of_ones_own_is_kept_apart(scaled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("expected", "categorical", "no name", ""):
        with pytest.raises(ValueError):
            registry.register_head(name, lambda parts: Scaled(parts.sizes))
    with pytest.raises(ValueError, match="None cannot name a head"):
        registry.register_head(None, Scaled)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'mine': a NoneType makes no head; register a function"):
        registry.register_head("mine", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"agent\.head_options=\{'size': 2\} do not go with agent\.head=scaled.*size"):
        build_network(of_my_own(size=2), 4, 2)
    with pytest.raises(
        UserError, match=r"agent\.head is 'unknown': there is no head of this name.*expected, .*scaled.*imports="
    ):
        build_network(replace(of_my_own(), head="unknown"), 4, 2)
    monkeypatch.setattr(Scaled, "loss", lambda *values: None + 1)
    with pytest.raises(UserError, match=r"agent\.head=scaled failed: TypeError: unsupported operand"):
        build_network(of_my_own(scale=2.0), 4, 2)
    with pytest.raises(UserError, match=r"leave agent\.head_options out"):
        AgentConfig(head_options={"scale": 1.0})
    with pytest.raises(UserError, match=r"agent\.head_options\.scale must be a number"):
        of_my_own(scale=[1.0])
