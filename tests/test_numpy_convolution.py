"""The convolution by NumPy against the same network by torch and autograd."""

from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent, update_noise
from torch import Tensor

from agent.common.observation import ObservationSpec
from agent.compute.numpy.convolution import PatchConvolution, patch_index
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import UpdateNoise
from agent.networks.build import build_network
from agent.networks.encoders import TrunkEncoder
from agent.networks.q_network import QNetwork, flatten_parameters
from agent.networks.trunks import Convolution, Convolutions
from agent.replay.ring import Batch

ROWS, ACTIONS = 6, 3
IMAGES = {
    "truth values": ObservationSpec((4, 10, 10), "bool"),
    "bytes": ObservationSpec((3, 7, 9), "uint8", high=255.0),
    "floats": ObservationSpec((1, 5, 4)),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "one hidden layer": {"hidden": [7], "layer_norm": False},
    "two": {"hidden": [8, 6], "layer_norm": True},
    "dueling": {"hidden": [7], "layer_norm": True, "dueling": True},
}
images = pytest.mark.parametrize("spec", IMAGES.values(), ids=IMAGES.keys())
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def config_of(network: dict[str, Any], **agent: Any) -> AgentConfig:
    noise = {"learning": "joint", **agent.pop("noise", {})}
    return parse(AgentConfig, {"network": network, "batch_size": 16, "noise": noise, **agent})


def build(config: AgentConfig, spec: ObservationSpec, seed: int = 0) -> tuple[QNetwork, Tensor]:
    network = build_network(config, spec, ACTIONS, torch.Generator().manual_seed(seed))
    return network, flatten_parameters(network)


def observe(spec: ObservationSpec, rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if spec.dtype == "float32":
        return torch.rand(rows, *spec.shape, generator=generator)
    values = torch.randint(256 if spec.dtype == "uint8" else 2, (rows, *spec.shape), generator=generator)
    return values.to(getattr(torch, spec.dtype))


def noise_of(network: QNetwork, count: int | None) -> Tensor | None:
    return None if count is None else torch.randn(count, network.noise_size, generator=torch.Generator().manual_seed(5))


@images
@networks
@pytest.mark.parametrize("count", [None, 1, ROWS])
def test_values_and_gradients_are_autograds(spec: ObservationSpec, network: dict[str, Any], count: int | None) -> None:
    module, flat = build(config_of(network), spec)
    observation, noise = observe(spec, ROWS), noise_of(module, count)
    pull_on = torch.randn(ROWS, ACTIONS, generator=torch.Generator().manual_seed(9))
    wanted = module(observation, noise).q_values
    expected = torch.autograd.grad(wanted, list(module.parameters()), pull_on, allow_unused=True)
    assert flat.grad is not None
    flat.grad.fill_(torch.nan)
    assert NumpyNetwork.fits(module)
    by_numpy = NumpyNetwork(module)
    given = None if noise is None else noise.numpy()
    values, pullback = by_numpy.vjp(by_numpy.read(observation.numpy()), given)
    np.testing.assert_allclose(values, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    pullback(pull_on.numpy().copy())
    for (name, parameter), gradient in zip(module.named_parameters(), expected, strict=True):
        assert parameter.grad is not None
        by_torch = torch.zeros_like(parameter) if gradient is None else gradient
        np.testing.assert_allclose(parameter.grad.numpy(), by_torch.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    one = by_numpy(observation[:1].numpy(), None if given is None else given[:1])
    np.testing.assert_allclose(one, values[:1], rtol=1e-4, atol=1e-5)


def batch_of(spec: ObservationSpec, generator: torch.Generator) -> Batch:
    action = torch.randint(ACTIONS, (ROWS,), generator=generator)
    reward, discount = torch.randn(ROWS, generator=generator), torch.rand(ROWS, generator=generator)
    return Batch(observe(spec, ROWS, 1), action, reward, discount, observe(spec, ROWS, 2))


@images
@pytest.mark.parametrize("head", ["expected", "categorical"])
@pytest.mark.parametrize("switches", [{"double": True}, {"double": False, "munchausen": {"enabled": True}}])
def test_the_loss_of_a_batch_is_autograds(spec: ObservationSpec, head: str, switches: dict[str, Any]) -> None:
    config = config_of({"hidden": [8]}, head=head, max_grad_norm=1e3, **switches)
    (online, flat), (target, _) = build(config, spec, 0), build(config, spec, 50)
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(spec, generator)
    noise = torch.randn(2 + config.double, 1, online.noise_size, generator=generator)
    wanted = AutogradGradient(online, target, flat, config)(batch, update_noise(noise))
    assert flat.grad is not None
    expected = flat.grad.clone()
    flat.grad.fill_(torch.nan)
    seen = NumpyGradient(online, target, flat, config)(batch, update_noise(noise))
    assert float(seen.loss) == pytest.approx(float(wanted.loss), rel=1e-4)
    torch.testing.assert_close(flat.grad, expected, rtol=1e-3, atol=1e-5)


@images
@pytest.mark.parametrize("count", [1, ROWS // 2])
def test_separate_learning_is_autograds(spec: ObservationSpec, count: int) -> None:
    """The convolution learns from the mean network, and the noisy predictions do not change its gradient."""
    config = config_of({"hidden": [8]}, max_grad_norm=1e3, noise={"learning": "separate"})
    (online, flat), (target, _) = build(config, spec, 0), build(config, spec, 50)
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(spec, generator)
    noise = UpdateNoise(sigma=torch.randn(count, online.noise_size, generator=generator))
    wanted = AutogradGradient(online, target, flat, config)(batch, noise)
    assert flat.grad is not None
    expected = flat.grad.clone()
    flat.grad.fill_(torch.nan)
    seen = NumpyGradient(online, target, flat, config)(batch, noise)
    assert float(seen.loss) == pytest.approx(float(wanted.loss), rel=1e-4)
    torch.testing.assert_close(flat.grad, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_are_torchs(stride: int) -> None:
    """This holds for strides above one, too."""
    layer, image = Convolution(2, 3, 3, stride), torch.arange(2 * 9 * 8).view(2, 9, 8)
    patches = torch.nn.functional.unfold(image[None].float(), 3, stride=stride)[0]
    index = patch_index((2, 9, 8), layer)
    np.testing.assert_array_equal(image.flatten()[torch.from_numpy(index)].view(18, -1).numpy(), patches.numpy())


def test_an_agent_acts_by_it() -> None:
    config, spec = config_of({"hidden": [8]}, noise={"mean_envs": 0}), IMAGES["truth values"]
    agent = make_agent(build(config, spec)[0], config, ACTIONS, seed=0)
    for rows in (1, 20):
        actions = agent.act(observe(spec, rows).numpy(), np.zeros(rows, dtype=bool))
        with torch.no_grad():
            q_values = agent.network(observe(spec, rows), torch.as_tensor(agent.acting_noise.held)).q_values
        assert actions.tolist() == q_values.argmax(dim=1).tolist()


def test_what_it_does_not_know_is_left_to_torch() -> None:
    config = config_of({"hidden": [8]})
    assert PatchConvolution.fits(build(config, IMAGES["bytes"])[0].encoder)
    for encoder, shape in (
        ("nature", (4, 84, 84)),
        ("impala", (4, 10, 10)),
        ("mlp", (4, 10, 10)),
        ("minatar", (1, 11, 11)),
    ):
        other = config_of({"hidden": [8], "encoder": encoder})
        assert not NumpyNetwork.fits(build(other, ObservationSpec(shape, "uint8", high=255.0))[0]), encoder
    network = build(config, IMAGES["bytes"])[0]
    assert isinstance(network.encoder, TrunkEncoder)
    assert isinstance(network.encoder.trunk, Convolutions)
    network.encoder.trunk.layers[0].padding = 1  # type: ignore[assignment]
    assert not NumpyNetwork.fits(network)
