"""Noise by an index of few dimensions: the layer, the prior, shared draws, and the state of draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent
from torch import Tensor

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec, as_spec
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.dqn import DQN
from agent.learning.loss import UpdateNoise
from agent.networks.build import build_network, noise_model
from agent.networks.q_network import flatten_parameters
from agent.noise.distributions import LayerNoise
from agent.noise.index_layer import IndexLinear, Prior, along
from agent.noise.layers import Linear
from agent.records.saved_agent import read_agent, save_agent
from agent.replay.ring import Batch

P, Q, D, ROWS, INPUTS, ACTIONS = 5, 3, 4, 6, 7, 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def layer(seed: int = 0) -> IndexLinear:
    return IndexLinear(P, Q, D, generator=generator(seed)).double()


def given(index: Tensor) -> LayerNoise:
    return LayerNoise(index, index)


def config_of(noise: dict[str, Any] | None = None, **agent: Any) -> AgentConfig:
    index = {"form": "index", "learning": "joint", "index": D, "prior": 0.5, "share": True}
    index |= {"mean_rows": 0.0, "mean_envs": 0, "draws": 0}
    small = {"network": {"hidden": [8]}, "batch_size": ROWS, "learning_starts": ROWS, "n_step": 1, "target_every": 2}
    return parse(AgentConfig, {**small, **agent, "noise": index | (noise or {})}, "agent.")


def make(config: AgentConfig, seed: int = 0) -> DQN:
    return make_agent(build_network(config, INPUTS, ACTIONS, generator(seed)), config, ACTIONS, seed)


def batch_of(seed: int = 3) -> Batch:
    return Batch(
        values(ROWS, INPUTS, seed=seed, dtype=torch.float32),
        torch.randint(ACTIONS, (ROWS,), generator=generator(seed)),
        values(ROWS, seed=seed + 1, dtype=torch.float32),
        0.9 * (torch.arange(ROWS) % 3 > 0),
        values(ROWS, INPUTS, seed=seed + 2, dtype=torch.float32),
    )


# ---- the layer


def matrices(one: IndexLinear, index: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [q, p] and bias [q] of the member that an index [d] picks, entry by entry."""
    weight, bias = one.weight.clone(), one.bias.clone()  # type: ignore[union-attr]
    for k in range(D):
        for i in range(Q):
            weight[i] = weight[i] + index[k] * one.sigma_weight[k * Q + i]
            bias[i] = bias[i] + index[k] * one.sigma_bias[k * Q + i]
    return weight, bias


@pytest.mark.parametrize("inner", [(), (2,), (2, 3)])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_agrees_with_the_matrix_of_the_member(rows: int, inner: tuple[int, ...]) -> None:
    one, x, index = layer(), values(ROWS, *inner, P), values(rows, D, seed=2)
    y = one(x, given(index))
    assert y.shape == (ROWS, *inner, Q)
    for row in range(ROWS):
        weight, bias = matrices(one, index[row % rows])
        torch.testing.assert_close(y[row], x[row] @ weight.T + bias)


@pytest.mark.parametrize("inner", [(), (2,)])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_several_indices_are_each_of_them(rows: int, inner: tuple[int, ...]) -> None:
    one, x, index = layer(), values(ROWS, *inner, P), values(rows, 5, D, seed=2)
    y = one(x, given(index))
    assert y.shape == (ROWS, *inner, 5, Q)
    for m in range(5):
        torch.testing.assert_close(y[..., m, :], one(x, given(index[:, m])))


@pytest.mark.parametrize("shape", [(1, D), (ROWS, D), (ROWS, 3, D)])
def test_gradients_against_finite_differences(shape: tuple[int, ...]) -> None:
    one, x, index = layer(), values(ROWS, P).requires_grad_(), values(*shape, seed=2).requires_grad_()
    names, tensors = zip(*one.named_parameters(), strict=True)

    def outputs(x: Tensor, index: Tensor, *tensors: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(one, dict(zip(names, tensors, strict=True)), (x, given(index)))
        return y

    assert set(names) == {"weight", "bias", "sigma_weight", "sigma_bias"}
    assert torch.autograd.gradcheck(outputs, (x, index, *tensors))


def test_without_noise_and_at_the_origin_it_is_the_mean_layer() -> None:
    one, x = layer(), values(ROWS, P)
    mean = torch.nn.functional.linear(x, one.weight, one.bias)
    assert torch.equal(one(x), mean)
    torch.testing.assert_close(one(x, given(torch.zeros(1, D, dtype=torch.float64))), mean)


def test_directions_differ_and_are_of_the_scale_that_is_asked_for() -> None:
    wide = IndexLinear(100, 50, D, sigma0=0.5, generator=generator())
    sigma = wide.sigma_weight.detach().view(D, -1)
    correlation = torch.corrcoef(sigma)
    assert (correlation - torch.eye(D)).abs().max() < 0.06  # 5000 numbers each: 4 standard errors
    assert sigma.abs().max() <= 0.05
    torch.testing.assert_close(wide.mean_sigma().item(), 0.25, rtol=0.02, atol=0.0)
    assert not IndexLinear(P, Q, D, sigma0=0.0).sigma_weight.any()


@pytest.mark.parametrize(("x", "index"), [((ROWS, P), (2, D)), ((P,), (1, D)), ((ROWS, P), (ROWS - 1, 2, D))])
def test_refuses_an_index_that_does_not_fit(x: tuple[int, ...], index: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        layer()(values(*x), given(values(*index)))


def test_refuses_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="index is 0"):
        IndexLinear(P, Q, 0)
    with pytest.raises(ValueError, match="sigma0"):
        IndexLinear(P, Q, D, sigma0=-1.0)


# ---- the prior


def test_prior_is_linear_in_the_index_and_of_the_scale_that_is_asked_for() -> None:
    prior = Prior(as_spec(40), 400, 50, D, 2.0, generator())
    x, a, b = values(200, 40, dtype=torch.float32), *(values(1, D, seed=s, dtype=torch.float32) for s in (2, 3))
    torch.testing.assert_close(prior(x, a + 2 * b), prior(x, a) + 2 * prior(x, b), rtol=1e-3, atol=1e-3)
    assert not prior(x, torch.zeros(1, D)).any()
    each = torch.stack([prior(x, e[None]) for e in torch.eye(D)])
    torch.testing.assert_close(each.std().item(), 2.0, rtol=0.1, atol=0.0)
    assert not list(prior.parameters())


def test_prior_reads_images_and_truth_values() -> None:
    image = Prior(ObservationSpec((2, 3, 3), "uint8", 255.0), 8, ACTIONS, D, 1.0, generator())
    x = torch.randint(256, (ROWS, 2, 3, 3), generator=generator(), dtype=torch.uint8)
    flat = Prior(as_spec(18), 8, ACTIONS, D, 1.0, generator())
    index = values(ROWS, D, dtype=torch.float32)
    torch.testing.assert_close(image(x, index), flat(x.flatten(1) / 255.0, index))
    assert flat(x.flatten(1) > 128, index).shape == (ROWS, ACTIONS)


# ---- the network


@pytest.mark.parametrize("dueling", [False, True])
def test_the_index_is_one_for_all_layers_and_only_outputs_are_noisy(dueling: bool) -> None:
    config = config_of(network={"hidden": [9, 8], "dueling": dueling})
    network = build_network(config, INPUTS, ACTIONS, generator())
    streams = ["head.advantage.output", *(["head.value.output"] if dueling else [])]
    assert list(network.noisy_layers()) == streams
    assert (network.noise_size, noise_model(config, network).factorised) == (D, False)
    x, index = values(ROWS, INPUTS, dtype=torch.float32), values(ROWS, D, dtype=torch.float32)
    moved = {  # only one stream's layer is noisy; centring is linear, so that the parts add up
        name: build_network(config, INPUTS, ACTIONS, generator()) for name in streams
    }
    for name, other in moved.items():
        for layer_name, one in other.noisy_layers().items():
            if layer_name != name:
                torch.nn.init.zeros_(one.sigma_weight)
                torch.nn.init.zeros_(one.sigma_bias)  # type: ignore[arg-type]
        other.prior = None
    mean = network(x, None).q_values
    parts = sum(other(x, index).q_values - mean for other in moved.values())
    assert network.prior is not None
    expected = mean + parts + network.prior(x, index)
    torch.testing.assert_close(network(x, index).q_values, expected)


def test_the_mean_network_has_no_prior() -> None:
    with_prior, without = (build_network(config_of({"prior": s}), INPUTS, ACTIONS, generator()) for s in (0.5, 0.0))
    x = values(ROWS, INPUTS, dtype=torch.float32)
    assert torch.equal(with_prior(x, None).q_values, without(x, None).q_values)
    assert not torch.equal(with_prior(x, torch.ones(1, D)).q_values, without(x, torch.ones(1, D)).q_values)


@pytest.mark.parametrize("head", ["expected", "categorical", "quantile"])
def test_several_indices_for_each_row_under_every_head(head: str) -> None:
    config = config_of({"prior": 0.0}, head=head, network={"hidden": [8], "dueling": True})
    network = build_network(config, INPUTS, ACTIONS, generator())
    x, index = values(ROWS, INPUTS, dtype=torch.float32), values(ROWS, 3, D, dtype=torch.float32)
    several = network(x, index)
    for m in range(3):
        torch.testing.assert_close(several.q_values[:, m], network(x, index[:, m]).q_values)
    agent = make(config_of({"prior": 0.0, "repeat": 3}, head=head, network={"hidden": [8], "dueling": True}))
    metrics = agent.update(batch_of(), torch.ones(ROWS))
    assert metrics.priority.shape == (ROWS,)
    assert agent.is_finite()


# ---- the update


def draws_of(agent: DQN, batch: Batch) -> Tensor:
    """The noise that an update passes to its gradient."""
    seen: list[Tensor] = []
    gradient = agent._gradient

    def watched(batch: Batch[Any], noise: UpdateNoise[Any], *rest: Any) -> Any:
        seen.append(torch.stack([torch.as_tensor(draw) for draw in noise if draw is not None]))
        return gradient(batch, noise, *rest)

    agent._gradient = watched  # type: ignore[assignment]
    agent.update(batch)
    agent._gradient = gradient
    return seen[0]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("draws", "repeat"), [(0, 1), (0, 5), (1, 5), (3, 5)])
@pytest.mark.parametrize("share", [False, True])
def test_a_shared_draw_is_shared_and_others_are_not(double: bool, draws: int, repeat: int, share: bool) -> None:
    agent = make(config_of({"share": share, "draws": draws, "repeat": repeat}, double=double))
    first, second = (draws_of(agent, batch_of()) for _ in range(2))
    shape = (3 if double else 2, draws or ROWS, *((repeat,) if repeat > 1 else ()), D)
    assert first.shape == shape
    assert all(torch.equal(first[0], other) == share for other in first[1:])
    assert not torch.equal(first, second)
    assert len(first[0].reshape(-1, D).unique(dim=0)) == (draws or ROWS) * repeat


@pytest.mark.parametrize(("draws", "repeat"), [(0, 1), (1, 1), (0, 4), (1, 4), (2, 4)])
@pytest.mark.parametrize("double", [False, True])
def test_the_gradient_is_that_of_the_formula_row_by_row(draws: int, repeat: int, double: bool) -> None:
    """The loss is ½·error² of every row under each of its indices; prediction, selection and target share the index."""
    config = config_of({"draws": draws, "repeat": repeat}, double=double, loss="squared", max_grad_norm=1e9)
    agent, batch = make(config), batch_of()
    with torch.no_grad():
        agent._target_parameters.add_(values(len(agent._target_parameters), dtype=torch.float32), alpha=0.1)
    twin = build_network(config, INPUTS, ACTIONS, generator())
    noise = agent.update_noise(ROWS)
    agent._gradient(batch, noise)
    index = torch.as_tensor(noise.prediction)
    shared = index.reshape(len(index), -1, D).repeat_interleave(ROWS // len(index), dim=0)  # [B, M, d]
    losses = []
    for row in range(ROWS):
        for member in shared[row]:
            x, after = batch.observation[row : row + 1], batch.next_observation[row : row + 1]
            with torch.no_grad():
                following = agent.target(after, member[None]).q_values[0]
                chosen = (twin(after, member[None]).q_values[0] if double else following).argmax()
                goal = batch.reward[row] + batch.discount[row] * following[chosen]
            losses.append(0.5 * (twin(x, member[None]).q_values[0, batch.action[row]] - goal) ** 2)
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(twin.parameters()))
    assert agent.parameters.grad is not None
    torch.testing.assert_close(agent.parameters.grad, torch.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-6)


def test_priorities_are_the_mean_of_a_rows_errors() -> None:
    agent, weight = make(config_of({"repeat": 4})), torch.linspace(0.5, 1.0, ROWS)
    noise = agent.update_noise(ROWS)
    batch, single = batch_of(), []
    several = agent._gradient(batch, noise, weight=weight)
    for m in range(4):
        of_one = UpdateNoise(*(draw if draw is None else draw[:, m] for draw in noise))
        single.append(agent._gradient(batch, of_one, weight=weight))
    torch.testing.assert_close(several.priority, torch.stack([one.priority for one in single]).mean(dim=0))
    torch.testing.assert_close(several.loss, torch.stack([one.loss for one in single]).mean())


def test_learning_leaves_the_prior_and_moves_every_direction() -> None:
    agent = make(config_of({"repeat": 4}))
    before = {name: value.clone() for name, value in agent.tensors().items()}
    for seed in range(5):
        agent.update(batch_of(seed))
    after = agent.tensors()
    assert {name for name in after if name.startswith("prior.")} == {"prior.weight", "prior.directions"}
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith("prior."), name
    output = agent.network.head.advantage.output
    start = before["head.advantage.output.sigma_weight"]
    assert isinstance(output, IndexLinear)
    assert all((output.sigma_weight - start).view(D, -1).abs().sum(dim=1) > 0.0)
    assert agent.target.prior is not None
    assert torch.equal(agent.target.prior.weight, before["prior.weight"])
    assert len(flatten_parameters(build_network(agent.config, INPUTS, ACTIONS))) == len(agent.parameters)


def test_an_index_is_held_for_the_episode_by_each_environment() -> None:
    agent = make(config_of({"hold": "episode"}))
    begins = np.array([True, True, True])
    first = agent.acting_noise(begins, 0)
    second = agent.acting_noise(np.array([False, True, False]), 0)
    assert first is not None
    assert second is not None
    assert first.shape == (3, D)
    assert [np.array_equal(a, b) for a, b in zip(first, second, strict=True)] == [True, False, True]


def test_state_brings_the_prior_back() -> None:
    agent, other = make(config_of(), seed=0), make(config_of(), seed=1)
    agent.update(batch_of())
    other.load_state(agent.state())
    observation, begins = values(2, INPUTS, dtype=torch.float32).numpy(), np.ones(2, dtype=bool)
    for key, value in agent.tensors().items():
        assert torch.equal(value, other.tensors()[key]), key
    assert np.array_equal(agent.act(observation, begins), other.act(observation, begins))
    assert torch.equal(agent.update(batch_of(9)).loss, other.update(batch_of(9)).loss)
    assert torch.equal(agent.parameters, other.parameters)


# ---- options that make no sense


@pytest.mark.parametrize(
    ("noise", "agent", "parts"),
    [
        ({"form": "factorised", "prior": 0.5}, {}, ["agent.noise.prior=0.5", "form=index"]),
        ({"enabled": False, "prior": 0.5, "share": False}, {}, ["agent.noise.prior=0.5", "enabled=true"]),
        (
            {"enabled": False, "prior": 0.3, "repeat": 16, "share": True},
            {},
            ["agent.noise.prior=0.3", "or write agent.noise.prior=0 agent.noise.repeat=1 agent.noise.share=false"],
        ),
        (
            {"enabled": False, "prior": 0.0, "repeat": 1, "share": True},
            {},
            ["agent.noise.share=true has no draw", "or write agent.noise.share=false"],
        ),
        ({"form": "factorised", "prior": 0.0, "repeat": 4}, {}, ["agent.noise.repeat=4", "form=index"]),
        ({"enabled": False, "prior": 0.0, "share": True}, {}, ["agent.noise.share", "enabled=true"]),
        ({}, {"head": "categorical"}, ["agent.noise.prior", "agent.head=categorical"]),
        ({"prior": 0.0, "repeat": 2}, {"head": "implicit_quantile"}, ["agent.noise.repeat", "implicit_quantile"]),
        ({"index": 0}, {}, ["agent.noise.index", "between 1 and 256"]),
        ({"prior": -1.0}, {}, ["agent.noise.prior", "at least 0"]),
    ],
)
def test_combinations_that_make_no_sense_are_refused(
    noise: dict[str, Any], agent: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        config_of(noise, **agent)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_draw_may_be_shared_in_every_form() -> None:
    config = config_of({"form": "factorised", "prior": 0.0})
    agent = make(config)  # by NumPy
    draws = draws_of(agent, batch_of())
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])
    assert agent.is_finite()
    by_autograd = replace(config, noise=replace(config.noise, share=False))
    assert not torch.equal(*draws_of(make(by_autograd), batch_of())[:2])


def test_an_implicit_quantile_head_with_an_index() -> None:
    agent = make(config_of({"prior": 0.0}, head="implicit_quantile"))
    agent.update(batch_of())
    assert agent.is_finite()
    assert isinstance(agent.network.head.embedding, Linear)


def test_along_by_hand() -> None:
    spread = torch.tensor([[[1.0, 2.0], [10.0, 20.0]]])  # one row, two directions, two outputs
    assert along(spread, torch.tensor([[3.0, -1.0]])).tolist() == [[-7.0, -14.0]]
    assert along(spread, torch.tensor([[[3.0, -1.0], [0.0, 1.0]]])).tolist() == [[[-7.0, -14.0], [10.0, 20.0]]]


def test_a_saved_agent_loads_into_a_network_of_another_seed_prior_included(tmp_path: Path) -> None:
    agent = make(config_of(), seed=0)
    path = tmp_path / "agent.safetensors"
    save_agent(path, agent.tensors(), {"env": {"id": "DeepSea-v0", "kwargs": {}}})
    other = build_network(config_of(), INPUTS, ACTIONS, generator(5))
    other.load_state_dict(read_agent(path).tensors)
    x, index = values(ROWS, INPUTS, dtype=torch.float32), values(ROWS, D, dtype=torch.float32)
    assert torch.equal(other(x, index).q_values, agent.network(x, index).q_values)
