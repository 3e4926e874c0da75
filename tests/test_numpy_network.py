"""The network by NumPy against the same network by torch and autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent, update_noise
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from agent.common.observation import ObservationSpec
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import UpdateNoise
from agent.networks.build import build_network
from agent.networks.encoder_registry import register_encoder
from agent.networks.encoders import EncoderParts, MLPEncoder
from agent.networks.q_network import QNetwork, flatten_parameters
from agent.networks.trunks import Convolution
from agent.noise.distributions import LayerNoise
from agent.noise.layers import Linear, NoisyLinear
from agent.replay.ring import Batch

INPUTS, ACTIONS, ROWS = 5, 3, 12
NETWORKS: dict[str, dict[str, Any]] = {
    "one hidden layer": {"hidden": [7], "layer_norm": False},
    "one hidden layer, dueling": {"hidden": [7], "layer_norm": True, "dueling": True},
    "three layers": {"hidden": [8, 6, 7], "layer_norm": False},
    "three layers, normalised": {"hidden": [8, 6, 7], "layer_norm": True},
    "dueling": {"hidden": [8, 6], "layer_norm": False, "dueling": True},
    "dueling, normalised": {"hidden": [8, 6], "layer_norm": True, "dueling": True},
    "a large matrix": {"hidden": [256, 256], "layer_norm": False},  # large enough to be multiplied from the left
}
#: The heads that NumPy computes, with few atoms and quantiles.
HEADS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"categorical": {"atoms": 6, "v_min": -3.0, "v_max": 4.0}},
    "quantile": {"quantile": {"count": 5}},
}
heads = pytest.mark.parametrize("head", HEADS)
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
#: Draws for a batch of 12 rows: none, shared, groups of rows, one per row.
draws = pytest.mark.parametrize("count", [None, 1, 3, ROWS], ids=["mean", "shared", "groups", "rows"])


def config_of(network: dict[str, Any], **agent: Any) -> AgentConfig:
    noise = {"learning": "joint", **agent.pop("noise", {})}
    return parse(AgentConfig, {"network": network, "noise": noise, **agent})


def build(config: AgentConfig, seed: int = 0) -> tuple[QNetwork, Tensor]:
    """A network whose parameters are all different, including biases and normalisation, and its flat vector."""
    network = build_network(config, INPUTS, ACTIONS, torch.Generator().manual_seed(seed))
    flat = flatten_parameters(network)
    with torch.no_grad():
        flat += 0.3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed + 1))
    return network, flat


def noise_of(network: QNetwork, count: int | None, seed: int = 5) -> Tensor | None:
    if count is None or network.noise_size == 0:
        return None
    return torch.randn(count, network.noise_size, generator=torch.Generator().manual_seed(seed))


def rows_of(noise: Tensor | None) -> Tensor | None:
    """The noise in the form of torch's network: one draw, or one for each row."""
    return noise if noise is None or len(noise) == 1 else noise.repeat_interleave(ROWS // len(noise), dim=0)


def outputs_of(network: QNetwork, observation: Tensor, noise: Tensor | None) -> Tensor:
    """The combined streams of the head, computed by torch."""
    seen: list[Tensor] = []
    kept = network.head.values
    network.head.values = lambda outputs: seen.append(outputs) or kept(outputs)  # type: ignore[method-assign]
    network(observation, noise)
    del network.head.values
    return seen[0]


def batch_of(seed: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(ROWS, INPUTS, generator=generator),
        torch.randint(ACTIONS, (ROWS,), generator=generator),
        3.0 * torch.randn(ROWS, generator=generator),  # errors on both sides of Huber's threshold
        torch.rand(ROWS, generator=generator),
        torch.randn(ROWS, INPUTS, generator=generator),
    )


@networks
@draws
@heads
@pytest.mark.parametrize("noisy", [True, False])
def test_values_and_gradients_are_autograds(network: dict[str, Any], count: int | None, head: str, noisy: bool) -> None:
    module, flat = build(config_of(network, noise={"enabled": noisy}, head=head, **HEADS[head]))
    noise, batch = noise_of(module, count), batch_of()
    outputs = outputs_of(module, batch.observation, rows_of(noise))
    pull_on = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(9))
    expected = torch.autograd.grad(outputs, list(module.parameters()), pull_on, allow_unused=True)

    assert flat.grad is not None
    flat.grad.fill_(torch.nan)  # every number must be overwritten
    assert NumpyNetwork.fits(module)
    values, pullback = NumpyNetwork(module).vjp(batch.observation.numpy(), None if noise is None else noise.numpy())
    np.testing.assert_allclose(values, outputs.detach().numpy(), rtol=1e-4, atol=1e-5)
    pullback(pull_on.numpy().copy())
    for (name, parameter), gradient in zip(module.named_parameters(), expected, strict=True):
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("loss", ["huber", "squared", "low threshold"])
@pytest.mark.parametrize("limits", [None, [-1.0, 1.5]])
@pytest.mark.parametrize("count", [1, 3, ROWS])
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_the_loss_of_a_batch_is_autograds(
    double: bool, loss: str, limits: list[float] | None, count: int, clip: float
) -> None:
    kind = {"huber_threshold": 0.1} if loss == "low threshold" else {"loss": loss}
    config = config_of({"hidden": [8, 6]}, double=double, target_range=limits, batch_size=16, **kind)
    config = replace(config, max_grad_norm=clip)
    (online, flat), (target, _) = build(config, 0), build(config, 50)
    noise = torch.randn(3 if double else 2, count, online.noise_size, generator=torch.Generator().manual_seed(1))
    by_torch = noise if count == 1 else noise.repeat_interleave(ROWS // count, dim=1)
    expected_loss, expected_norm, _ = AutogradGradient(online, target, flat, config)(batch_of(), update_noise(by_torch))
    assert flat.grad is not None
    expected = flat.grad.clone()
    flat.grad.fill_(torch.nan)
    loss_seen, norm_seen, _ = NumpyGradient(online, target, flat, config)(batch_of(), update_noise(noise))
    assert float(loss_seen) == pytest.approx(float(expected_loss), rel=1e-4)
    assert float(norm_seen) == pytest.approx(float(expected_norm), rel=1e-4)
    assert float(flat.grad.norm()) == pytest.approx(min(clip, float(expected_norm)), rel=1e-4)
    torch.testing.assert_close(flat.grad, expected, rtol=1e-3, atol=1e-5 * min(clip, 1.0))


@heads
@pytest.mark.parametrize("target", ["max", "double", "munchausen"])
@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("limits", [None, [-1.0, 1.5]])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("count", [1, 3, None])
def test_the_loss_of_every_head_is_autograds(
    head: str, target: str, dueling: bool, limits: list[float] | None, weighted: bool, count: int | None
) -> None:
    switches = {"double": target == "double", "munchausen": {"enabled": target == "munchausen"}}
    network = {"hidden": [8, 6], "dueling": dueling}
    noise_on = {"enabled": count is not None}
    config = config_of(network, head=head, target_range=limits, noise=noise_on, **switches, **HEADS[head])
    config = replace(config, max_grad_norm=1e3)
    (online, flat), (frozen, _) = build(config, 0), build(config, 50)
    noise = by_torch = None
    if count is not None:
        noise = torch.randn(3, count, online.noise_size, generator=torch.Generator().manual_seed(1))
        noise = by_torch = noise[: 2 + config.double]
    weight = torch.rand(ROWS, generator=torch.Generator().manual_seed(2)) if weighted else None
    expected = AutogradGradient(online, frozen, flat, config)(batch_of(), update_noise(by_torch), weight=weight)
    assert flat.grad is not None
    gradient = flat.grad.clone()
    flat.grad.fill_(torch.nan)
    seen = NumpyGradient(online, frozen, flat, config)(batch_of(), update_noise(noise), weight=weight)
    assert float(seen.loss) == pytest.approx(float(expected.loss), rel=1e-4)
    assert float(seen.grad_norm) == pytest.approx(float(expected.grad_norm), rel=1e-3)
    torch.testing.assert_close(flat.grad, gradient, rtol=1e-3, atol=1e-5)
    assert (seen.priority is None) == (expected.priority is None) == (weight is None)
    if weight is not None:
        np.testing.assert_allclose(np.asarray(seen.priority), expected.priority.numpy(), rtol=1e-4, atol=1e-5)


@heads
@pytest.mark.parametrize("target", ["max", "double", "munchausen"])
@pytest.mark.parametrize("network", ["one hidden layer, dueling", "three layers, normalised", "dueling"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("count", [1, 2, None], ids=["shared", "groups", "rows"])
@pytest.mark.parametrize("clip", [1e3, 1e-3])
def test_separate_learning_is_autograds(
    head: str, target: str, network: str, weighted: bool, count: int | None, clip: float
) -> None:
    """σ learns from the last two thirds of the rows, and every number of the gradient is written."""
    switches = {"double": target == "double", "munchausen": {"enabled": target == "munchausen"}}
    noise_options = {"learning": "separate", "mean_rows": 1 / 3}
    config = config_of(NETWORKS[network], head=head, noise=noise_options, **switches, **HEADS[head])
    config = replace(config, max_grad_norm=clip)
    (online, flat), (frozen, _) = build(config, 0), build(config, 50)
    noise = UpdateNoise(sigma=noise_of(online, count or 8))
    weight = torch.rand(ROWS, generator=torch.Generator().manual_seed(2)) if weighted else None
    expected = AutogradGradient(online, frozen, flat, config)(batch_of(), noise, weight=weight)
    assert flat.grad is not None
    gradient = flat.grad.clone()
    flat.grad.fill_(torch.nan)
    seen = NumpyGradient(online, frozen, flat, config)(batch_of(), noise, weight=weight)
    assert float(seen.loss) == pytest.approx(float(expected.loss), rel=1e-4)
    assert float(seen.grad_norm) == pytest.approx(float(expected.grad_norm), rel=1e-3)
    torch.testing.assert_close(flat.grad, gradient, rtol=1e-3, atol=1e-5 * min(clip, 1.0))
    if weight is not None:
        np.testing.assert_allclose(np.asarray(seen.priority), expected.priority.numpy(), rtol=1e-4, atol=1e-5)


@heads
def test_weights_scale_the_loss_of_their_rows(head: str) -> None:
    """Weights of 1 change nothing, and a row of weight 0 has no effect."""
    config = replace(config_of({"hidden": [8, 6]}, head=head, double=False, **HEADS[head]), max_grad_norm=1e9)
    (online, flat), (frozen, _) = build(config, 0), build(config, 50)
    learn, batch = NumpyGradient(online, frozen, flat, config), batch_of()
    assert flat.grad is not None
    seen = []
    for weight in (None, torch.ones(ROWS), torch.tensor([2.0] * 6 + [0.0] * 6)):
        loss = float(learn(batch, update_noise(None), weight=weight).loss)
        seen.append((loss, flat.grad.clone()))
    learn(Batch(*(field[:6] for field in batch)), update_noise(None))
    seen.append((0.0, flat.grad.clone()))
    assert seen[0][0] == pytest.approx(seen[1][0])
    torch.testing.assert_close(seen[0][1], seen[1][1])
    torch.testing.assert_close(seen[2][1], seen[3][1], rtol=1e-4, atol=1e-6)


@heads
def test_q_values_are_the_modules(head: str) -> None:
    module, _ = build(config_of({"hidden": [8, 6], "dueling": True}, head=head, **HEADS[head]))
    with torch.no_grad():
        module.head.advantage.output.weight *= 30.0  # far from uniform masses
    noise, x = noise_of(module, ROWS), batch_of().observation
    assert noise is not None
    seen = NumpyNetwork(module)(x.numpy(), noise.numpy())
    np.testing.assert_allclose(seen, module(x, noise).q_values.detach().numpy(), rtol=1e-4, atol=1e-4)


@networks
@heads
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("count", [1, None])
def test_one_row_is_a_batch(network: dict[str, Any], head: str, noisy: bool, count: int | None) -> None:
    module, _ = build(config_of(network, noise={"enabled": noisy}, head=head, **HEADS[head]))
    noise, observation = noise_of(module, count), batch_of().observation[:1]
    by_numpy = NumpyNetwork(module)
    given = observation.numpy(), None if noise is None else noise.numpy()
    wanted = outputs_of(module, observation, noise).detach().numpy()
    np.testing.assert_allclose(by_numpy.outputs(*given), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_numpy.vjp(*given)[0], wanted, rtol=1e-4, atol=1e-5)


def test_parameters_are_shared_and_the_observation_is_left_alone() -> None:
    module, flat = build(config_of({"hidden": [8, 6]}))
    by_numpy, observation = NumpyNetwork(module), batch_of().observation
    before, kept = by_numpy(observation.numpy(), None), observation.clone()
    with torch.no_grad():
        flat += 0.1
    after = by_numpy(observation.numpy(), None)
    assert np.abs(after - before).min() > 1e-4
    np.testing.assert_allclose(after, module(observation, None).q_values.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert torch.equal(observation, kept)


def test_what_it_does_not_know_is_left_to_torch() -> None:
    independent = config_of({"hidden": [8, 6]}, noise={"form": "independent"})
    assert not NumpyNetwork.fits(build(independent)[0])

    class Other(torch.nn.Identity):
        pass

    module, _ = build(config_of({"hidden": [8, 6]}))
    assert NumpyNetwork.fits(module)
    module.encoder = Other()  # type: ignore[assignment]
    assert not NumpyNetwork.fits(module)
    assert not NumpyNetwork.fits(build(config_of({"hidden": [8, 6]}, head="implicit_quantile"))[0])


@pytest.mark.parametrize("norm", [torch.nn.RMSNorm(8), torch.nn.LayerNorm(8, bias=False), torch.nn.Tanh()], ids=str)
def test_a_norm_that_it_does_not_know_is_left_to_torch(norm: torch.nn.Module) -> None:
    """An encoder of the user's own may be an MLPEncoder with other parts."""
    module, _ = build(config_of({"hidden": [8, 6]}))
    module.encoder.norms[0] = norm
    assert not NumpyNetwork.fits(module)


class Halved(Linear):
    """A layer of the user's own."""

    def forward(self, x: Tensor, noise: LayerNoise | None = None) -> Tensor:
        return 0.5 * super().forward(x, noise)


def doubled(*arguments: Any) -> Tensor:
    """A forward hook: doubles the result."""
    result: Tensor = arguments[2]
    return 2.0 * result


def tie(first: torch.nn.Module, second: torch.nn.Module) -> None:
    second.weight = first.weight


def use_twice(layers: torch.nn.ModuleList) -> None:
    layers[1] = layers[0]


#: Changes of a network of two equal layers and a dueling head that NumPy would not see.
CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "a layer of one's own": lambda encoder, head: encoder.layers.__setitem__(0, Halved(INPUTS, 5)),
    "a layer of one's own, above": lambda encoder, head: setattr(head.value, "output", Halved(5, 1)),
    "a norm that is a layer": lambda encoder, head: encoder.norms.__setitem__(0, Linear(5, 5)),
    "no bias": lambda encoder, head: encoder.layers.__setitem__(0, NoisyLinear(INPUTS, 5, bias=False)),
    "a bias that is no parameter": lambda encoder, head: (
        delattr(head.advantage.output, "bias") or head.advantage.output.register_buffer("bias", torch.ones(ACTIONS))
    ),
    "weight normalisation": lambda encoder, head: weight_norm(encoder.layers[0]),
    "a parametrised norm": lambda encoder, head: spectral_norm(head.value.hidden),
    "a layer twice": lambda encoder, head: use_twice(encoder.layers),
    "a weight twice": lambda encoder, head: tie(encoder.layers[0], encoder.layers[1]),
    "a stream twice": lambda encoder, head: setattr(head, "value", head.advantage),
    "a norm of the head": lambda encoder, head: setattr(head.advantage, "norm", torch.nn.RMSNorm(5)),
    "a spare parameter": lambda encoder, head: setattr(encoder, "temperature", torch.nn.Parameter(torch.ones(()))),
    "independent noise": lambda encoder, head: setattr(head.value, "output", NoisyLinear(5, 1, factorised=False)),
    "a hook": lambda encoder, head: encoder.layers[0].register_forward_hook(doubled),
    "a hook of the encoder": lambda encoder, head: encoder.register_forward_hook(doubled),
    "a hook before": lambda encoder, head: head.value.register_forward_pre_hook(lambda module, arguments: None),
    "another forward": lambda encoder, head: setattr(encoder.layers[1], "forward", Halved(5, 5).forward),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_it_does_not_compute_is_left_to_torch(change: Callable[[Any, Any], object]) -> None:
    """An encoder or a head of the user's own may be one of ours with other parts."""
    module, _ = build(config_of({"hidden": [5, 5, 5], "dueling": True, "layer_norm": False}))
    assert NumpyNetwork.fits(module)
    change(module.encoder, module.head)
    assert not NumpyNetwork.fits(module)


CONVOLUTIONS: dict[str, Callable[[Any], object]] = {
    "one of one's own": lambda trunk: trunk.layers.__setitem__(0, type("Own", (Convolution,), {})(4, 16, 3)),
    "no bias": lambda trunk: setattr(trunk.layers[0], "bias", None),
    "pooling": lambda trunk: trunk.layers.append(torch.nn.MaxPool2d(1)),
    "a hook": lambda trunk: trunk.register_forward_hook(doubled),
}


@pytest.mark.parametrize("change", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_a_convolution_that_it_does_not_compute_is_left_to_torch(change: Callable[[Any], object]) -> None:
    spec = ObservationSpec((4, 10, 10), "uint8", True)
    module = build_network(config_of({"hidden": [8]}), spec, ACTIONS, torch.Generator().manual_seed(0))
    flatten_parameters(module)
    assert NumpyNetwork.fits(module)
    change(module.encoder.trunk)
    assert not NumpyNetwork.fits(module)


@pytest.mark.parametrize("hook", [False, True])
def test_an_encoder_of_ones_own_that_is_one_of_ours_is_computed(hook: bool) -> None:
    """The hook that checks its features does not keep NumPy away; a hook of the user's own does."""

    def build_encoder(parts: EncoderParts) -> MLPEncoder:
        encoder = MLPEncoder(parts.observation.size, [2 * width for width in parts.hidden], parts.linear)
        if hook:
            encoder.register_forward_hook(doubled)
        return encoder

    name = f"of_these_layers_{hook}"
    register_encoder(name, build_encoder)
    module, _ = build(config_of({"hidden": [8, 6], "encoder": name}))
    assert NumpyNetwork.fits(module) != hook


@pytest.mark.parametrize("frozen", ["encoder.layers.0.weight", "encoder.norms.0", "head"])
def test_what_is_frozen_is_left_to_torch(frozen: str) -> None:
    module, _ = build(config_of({"hidden": [8, 6]}))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    assert not NumpyNetwork.fits(module)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("count", [1, 0, 4])
def test_an_agent_learns_the_same_with_both(monkeypatch: pytest.MonkeyPatch, double: bool, count: int) -> None:
    """Fifty updates by NumPy and by torch end at the same parameters, up to rounding."""
    config = config_of({"hidden": [16, 16]}, double=double, batch_size=ROWS, noise={"draws": count}, lr=1e-3)
    agents = []
    for fits in (True, False):
        monkeypatch.setattr(NumpyNetwork, "fits", staticmethod(lambda network, fits=fits: fits))
        network = build_network(config, INPUTS, ACTIONS, torch.Generator().manual_seed(0))
        agents.append(make_agent(network, config, ACTIONS, seed=0))
    first = agents[0].parameters.clone()
    for i in range(50):
        batch = batch_of(seed=i)
        metrics = [agent.update(batch) for agent in agents]
        assert float(metrics[0].loss) == pytest.approx(float(metrics[1].loss), rel=1e-3)
        assert float(metrics[0].grad_norm) == pytest.approx(float(metrics[1].grad_norm), rel=1e-3)
    torch.testing.assert_close(agents[0].parameters, agents[1].parameters, rtol=0, atol=2e-3)
    assert float((agents[0].parameters - first).abs().max()) > 2e-2
    observation = np.random.default_rng(0).normal(size=(200, INPUTS)).astype(np.float32)
    actions = [agent.act(observation, np.ones(200, dtype=bool)) for agent in agents]
    assert (actions[0] == actions[1]).mean() > 0.97


@pytest.mark.parametrize("draws", [0, 1])
@pytest.mark.parametrize("share", [False, True])
def test_an_agent_learns_the_same_from_arrays_as_from_tensors(share: bool, draws: int) -> None:
    config = config_of({"hidden": [7], "layer_norm": True}, noise={"draws": draws, "share": share}, batch_size=ROWS)
    batch, weight = batch_of(), torch.linspace(0.2, 1.0, ROWS)
    seen = []
    for kind, by_row in ((batch, weight), (batch.arrays(), weight.numpy())):
        agent = make_agent(build(config)[0], config, ACTIONS, 0)
        assert isinstance(agent._gradient, NumpyGradient)
        metrics = [agent.update(kind, by_row) for _ in range(5)]
        seen.append((agent.parameters, [float(m.loss) for m in metrics], metrics[-1].priority.tolist()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert seen[0][1:] == seen[1][1:]
