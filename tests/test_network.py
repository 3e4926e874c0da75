"""Encoder, heads and network: shapes, where noise goes, and the parameters as one vector."""

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from agent.config.algorithm import AgentConfig
from agent.config.parts import NetworkConfig, NoiseConfig
from agent.networks.build import build_network, noise_model
from agent.networks.encoders import MLPEncoder
from agent.networks.heads.base import Sizes, gather_actions
from agent.networks.heads.expected import ExpectedHead
from agent.networks.q_network import QNetwork, flatten_parameters
from agent.noise.distributions import LayerNoise, split
from agent.noise.layers import Linear, NoisyLinear

INPUTS, ACTIONS = 3, 4
Form = Literal["factorised", "independent"]


def config(
    hidden: tuple[int, ...] = (6, 5),
    *,
    dueling: bool = False,
    layer_norm: bool = False,
    enabled: bool = True,
    form: Form = "factorised",
) -> AgentConfig:
    return AgentConfig(
        network=NetworkConfig(hidden, dueling, layer_norm), noise=NoiseConfig(enabled=enabled, form=form)
    )


def build(of: AgentConfig, seed: int = 0) -> QNetwork:
    return build_network(of, INPUTS, ACTIONS, torch.Generator().manual_seed(seed))


def observations(*shape: int) -> Tensor:
    return torch.randn((*shape, INPUTS), generator=torch.Generator().manual_seed(1))


def draw(network: QNetwork, of: AgentConfig, rows: int, seed: int = 2) -> Tensor:
    flat = noise_model(of, network).draw(rows, generator=torch.Generator().manual_seed(seed))
    assert flat is not None
    return flat


# ---- structure


def test_layers_of_the_plain_multilayer_perceptron() -> None:
    network = build(config((8, 7, 6), enabled=False))
    sizes = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, Linear)]
    assert sizes == [(3, 8), (8, 7), (7, 6), (6, 4)]
    assert not network.noisy_layers()
    assert network.noise_size == 0


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("form", ["factorised", "independent"])
def test_every_linear_layer_is_noisy(dueling: bool, form: Form) -> None:
    network = build(config(dueling=dueling, form=form))
    linear = [name for name, m in network.named_modules() if isinstance(m, (Linear, nn.Linear))]
    assert linear == list(network.noisy_layers())
    assert len(linear) == (5 if dueling else 3)
    assert [layer.noise_sizes for layer in network.noisy_layers().values()] == list(network.noise_sizes)
    assert all(layer.factorised == (form == "factorised") for layer in network.noisy_layers().values())


def test_each_dueling_stream_has_a_hidden_layer_of_its_own() -> None:
    network = build(config((8, 6), dueling=True))
    sizes = {name: (m.in_features, m.out_features) for name, m in network.noisy_layers().items()}
    assert sizes == {
        "encoder.layers.0": (3, 8),
        "head.advantage.hidden": (8, 6),
        "head.advantage.output": (6, 4),
        "head.value.hidden": (8, 6),
        "head.value.output": (6, 1),
    }


def test_one_hidden_layer_is_the_heads() -> None:
    network = build(config((8,)))
    assert [(m.in_features, m.out_features) for m in network.noisy_layers().values()] == [(3, 8), (8, 4)]


@pytest.mark.parametrize(("form", "sigma"), [("factorised", 0.5 / 3**0.5), ("independent", 0.017)])
def test_defaults_of_both_forms_are_the_papers(form: Form, sigma: float) -> None:
    first = next(iter(build(config(form=form)).noisy_layers().values()))
    assert first.sigma_weight.flatten().tolist() == pytest.approx([sigma] * first.sigma_weight.numel())


def test_sigma0_of_the_config_reaches_every_layer() -> None:
    network = build(AgentConfig(network=NetworkConfig((9, 4), dueling=True), noise=NoiseConfig(sigma0=0.3)))
    assert [float(layer.mean_sigma()) for layer in network.noisy_layers().values()] == pytest.approx([0.3] * 5)


# ---- values


@pytest.mark.parametrize("rows", [None, 1, 10])
def test_values_of_a_stack_of_layers(rows: int | None) -> None:
    of = config()
    network, x = build(of), observations(10)
    noise = None if rows is None else draw(network, of, rows)
    y = x
    parts = [None] * 3 if noise is None else split(noise, network.noise_sizes)
    for (name, layer), part in zip(network.noisy_layers().items(), parts, strict=True):
        y = layer(y, part)
        y = y if name == "head.advantage.output" else torch.relu(y)
    torch.testing.assert_close(network(x, noise).q_values, y)


@pytest.mark.parametrize("rows", [None, 1, 10])
def test_dueling_is_value_plus_centred_advantage(rows: int | None) -> None:
    """Wang et al. 2016, eq. 9; so the mean over actions is the value: mean(q − v) = 0."""
    of = config(dueling=True)
    network, x = build(of), observations(10)
    noise = None if rows is None else draw(network, of, rows)
    parts = [None] * 5 if noise is None else split(noise, network.noise_sizes)
    layer = network.noisy_layers()
    features = torch.relu(layer["encoder.layers.0"](x, parts[0]))
    advantage = layer["head.advantage.output"](torch.relu(layer["head.advantage.hidden"](features, parts[1])), parts[2])
    value = layer["head.value.output"](torch.relu(layer["head.value.hidden"](features, parts[3])), parts[4])
    q_values = network(x, noise).q_values
    torch.testing.assert_close(q_values, value + advantage - advantage.mean(dim=1, keepdim=True))
    torch.testing.assert_close(q_values.mean(dim=1), value.squeeze(1))


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("form", ["factorised", "independent"])
def test_grouped_batches_are_the_rows_of_their_group(dueling: bool, form: Form) -> None:
    """A batch [k, B/k, inputs] under k draws gives each group the values of [B/k, inputs] under one draw."""
    of = config(dueling=dueling, form=form)
    network, x = build(of), observations(4, 5)
    noise = draw(network, of, 4)
    q_values = network(x, noise).q_values
    assert q_values.shape == (4, 5, ACTIONS)
    for group in range(4):
        torch.testing.assert_close(q_values[group], network(x[group], noise[group : group + 1]).q_values)


@pytest.mark.parametrize("dueling", [False, True])
def test_the_plain_network_is_the_noisy_one_without_noise(dueling: bool) -> None:
    noisy, plain = build(config(dueling=dueling)), build(config(dueling=dueling, enabled=False), seed=1)
    plain.load_state_dict({k: v for k, v in noisy.state_dict().items() if "sigma" not in k})
    assert torch.equal(noisy(observations(6), None).q_values, plain(observations(6), None).q_values)


def test_every_layer_has_noise_of_its_own() -> None:
    """The layers take all numbers of the draw, and no number twice."""
    of = config(dueling=True)
    network, x = build(of), observations(6)
    noise = draw(network, of, 1)
    seen: dict[str, LayerNoise] = {}
    for name, layer in network.noisy_layers().items():
        layer.register_forward_pre_hook(lambda _, arguments, name=name: seen.update({name: arguments[1]}))
    network(x, noise)
    taken = torch.cat([part.reshape(-1) for pair in seen.values() for part in pair])
    assert sorted(seen) == sorted(network.noisy_layers())
    assert torch.equal(taken.sort().values, noise.reshape(-1).sort().values)  # each number once


def test_streams_and_layers_are_uncorrelated() -> None:
    """The outputs of the value and the advantage stream, each under its own noise, are compared over many draws."""
    of = config((4, 4), dueling=True)
    network = build(of)
    n = 40_000
    parts = split(draw(network, of, n), network.noise_sizes)
    features, layer = torch.ones(n, 4), network.noisy_layers()
    with torch.no_grad():
        outputs = {
            stream: layer[f"head.{stream}.output"](
                torch.relu(layer[f"head.{stream}.hidden"](features, parts[at])), parts[at + 1]
            )
            for stream, at in (("advantage", 1), ("value", 3))
        }
    both = torch.corrcoef(torch.cat([outputs["advantage"], outputs["value"]], dim=1).double().T)
    assert float(both[:4, 4].abs().max()) < 5 / n**0.5
    assert float(both[:4, :4].fill_diagonal_(0).abs().max()) > 0.01  # the outputs of one layer share f(ε_in)


def test_the_same_network_whatever_train_and_eval_say() -> None:
    of = config(dueling=True)
    network, noise = build(of), draw(build(of), of, 6)
    a, b = network.train()(observations(6), noise).q_values, network.eval()(observations(6), noise).q_values
    assert torch.equal(a, b)


def test_rows_do_not_mix() -> None:
    of = config(dueling=True)
    network, noise = build(of), draw(build(of), of, 6)
    x = observations(6)
    other = x.clone()
    other[2] += 1.0
    same = (network(x, noise).q_values == network(other, noise).q_values).all(dim=1)
    assert same.tolist() == [True, True, False, True, True, True]


# ---- the head's part of learning


def head(loss: Literal["huber", "squared"]) -> ExpectedHead:
    return ExpectedHead(Sizes(3, 4, 2, Linear), loss)


def test_head_target_and_loss_by_hand() -> None:
    """q(s') = (1, 5), (2, 0), terminal (9, 9); a' = 1, 0, 1; R = 1, −1, 3; γ = ½ → targets 3.5, 0, 3."""
    following = head("huber").values(torch.tensor([[1.0, 5.0], [2.0, 0.0], [9.0, 9.0]]))
    outcome = gather_actions(following.outcomes, torch.tensor([1, 0, 1]))
    reward, discount = torch.tensor([1.0, -1.0, 3.0]), torch.tensor([0.5, 0.5, 0.0])
    target = head("huber").target(outcome, reward, discount)
    assert target.tolist() == [3.5, 0.0, 3.0]
    assert head("huber").target(outcome, reward, discount, [0.5, 3.25]).tolist() == [3.25, 0.5, 3.0]
    prediction = head("huber").values(torch.tensor([[3.0, 100.0], [100.0, 3.0], [3.0, 100.0]]))
    action = torch.tensor([0, 1, 0])  # errors −½, 3, 0
    assert head("huber").loss(prediction, action, target).tolist() == [0.125, 2.5, 0.0]
    assert head("squared").loss(prediction, action, target).tolist() == [0.125, 4.5, 0.0]
    priority = head("squared").priority(prediction, action, target, torch.zeros(3))
    assert priority.tolist() == [0.5, 3.0, 0.0]  # |δ| for each loss


# ---- initial parameters, saving, the flat vector


@pytest.mark.parametrize("form", ["factorised", "independent"])
def test_parameters_are_of_the_generator_alone(form: Form) -> None:
    before = torch.get_rng_state()
    a, b, c = (flatten_parameters(build(config(dueling=True, form=form), seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dueling", [False, True])
def test_state_dict_holds_mu_and_sigma_and_nothing_else(dueling: bool) -> None:
    network = build(config(dueling=dueling))
    kinds = ("weight", "bias", "sigma_weight", "sigma_bias")
    assert set(network.state_dict()) == {f"{name}.{kind}" for name in network.noisy_layers() for kind in kinds}


def test_layer_norm_stands_before_every_relu_and_nowhere_else() -> None:
    with_norm, without = build(config((8, 7, 6), dueling=True, layer_norm=True)), build(config((8, 7, 6), dueling=True))
    names = {"encoder.norms.0", "encoder.norms.1", "head.advantage.norm", "head.value.norm"}
    added = set(with_norm.state_dict()) - set(without.state_dict())
    assert added == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    shared = {k: v for k, v in with_norm.state_dict().items() if k not in added}
    assert all(torch.equal(v, without.state_dict()[k]) for k, v in shared.items())  # it takes no random numbers
    grown = observations(5) * 1e4
    assert float(with_norm(grown, None).q_values.detach().abs().max()) < 10  # bounded for distant observations
    assert float(without(grown, None).q_values.detach().abs().max()) > 100


def test_flat_parameters_are_the_modules() -> None:
    of = config(dueling=True)
    network, x = build(of), observations(5)
    noise = draw(network, of, 5)
    before, names = network(x, noise).q_values, list(network.state_dict())
    saved = copy.deepcopy(network.state_dict())
    flat = flatten_parameters(network)
    assert flat.shape == (sum(p.numel() for p in network.parameters()),)
    assert torch.equal(network(x, noise).q_values, before)
    assert list(network.state_dict()) == names
    with torch.no_grad():
        flat.zero_()
    assert not network(x, noise).q_values.any()
    network.load_state_dict(saved)  # loading writes through to the vector
    assert torch.equal(flat, torch.cat([saved[name].reshape(-1) for name, _ in network.named_parameters()]))


def test_a_copy_of_a_flattened_network_is_apart_from_it() -> None:
    network = build(config())
    flat = flatten_parameters(network)
    twin = copy.deepcopy(network)
    before = twin(observations(3), None).q_values
    with torch.no_grad():
        flat.mul_(2.0)
    assert torch.equal(twin(observations(3), None).q_values, before)


def test_encoder_without_hidden_layers_is_the_observation() -> None:
    encoder = MLPEncoder(3, (), NoisyLinear)
    assert (encoder.features, encoder.noise_sizes) == (3, ())
    assert torch.equal(encoder(observations(5), []), observations(5))


def test_network_on_every_device(device: torch.device) -> None:
    of = config(dueling=True)
    network = build(of)
    noise, x = draw(network, of, 6), observations(6)
    here = network(x, noise).q_values
    there = copy.deepcopy(network).to(device)(x.to(device), noise.to(device)).q_values
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)
