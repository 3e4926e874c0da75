"""Encoders: sizes of the papers, the choice by the observation, noise, exactness, and encoders of the user's own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent
from torch import Tensor, nn
from torch.nn import functional as F

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.compute.numpy.network import NumpyNetwork
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.loss import Levels, match_noise
from agent.networks.build import build_network, noise_model
from agent.networks.encoder_registry import ENCODERS, register_encoder
from agent.networks.encoders import EncoderParts, MLPEncoder, TrunkEncoder
from agent.networks.q_network import QNetwork
from agent.networks.trunks import Convolution, Impala, largest_singular_values, spectral_norms
from agent.noise.layers import Linear
from agent.replay.ring import Batch

ATARI = ObservationSpec((4, 84, 84), "uint8", 255.0)
MINATAR = ObservationSpec((4, 10, 10), "bool")
TINY = ObservationSpec((2, 5, 7), "uint8", 9.0)
BITS = ObservationSpec((6,), "bool")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(**network: Any) -> AgentConfig:
    return parse(AgentConfig, {"network": {"hidden": [24], "layer_norm": False} | network, "batch_size": 6})


def build(spec: ObservationSpec | int, seed: int = 0, **network: Any) -> QNetwork:
    return build_network(config_of(**network), spec, 3, generator(seed))


def observations(spec: ObservationSpec, count: int, seed: int = 0) -> Tensor:
    if spec.dtype == "float32":
        return torch.randn(count, *spec.shape, generator=generator(seed))
    drawn = torch.randint(int(spec.high) + 1, (count, *spec.shape), generator=generator(seed))
    return drawn.to(getattr(torch, spec.dtype))


# ---- the choice of the encoder


@pytest.mark.parametrize(
    ("spec", "kernels"),
    [
        (ObservationSpec((4,)), []),
        (BITS, []),
        (MINATAR, [3]),
        (ObservationSpec((3, 35, 99), "uint8", 255.0), [3]),
        (ObservationSpec((3, 36, 36), "uint8", 255.0), [8, 4, 3]),
        (ATARI, [8, 4, 3]),
        (ObservationSpec((1, 210, 160)), [8, 4, 3]),
    ],
    ids=str,
)
def test_the_observation_chooses_its_encoder(spec: ObservationSpec, kernels: list[int]) -> None:
    network = build(spec)
    assert [layer.kernel for layer in network.modules() if isinstance(layer, Convolution)] == kernels
    assert network(observations(spec, 2), None).q_values.shape == (2, 3)


def test_sizes_are_the_papers() -> None:
    """Features of 84×84: 3 136 (Mnih et al. 2015), 576 (van Hasselt 2019), 3 872 (IMPALA); of 10×10 1 024 (MinAtar)."""
    assert [build(spec).encoder.features for spec in (ATARI, MINATAR)] == [64 * 7 * 7, 16 * 8 * 8]
    assert build(ATARI, encoder="data_efficient").encoder.features == 64 * 3 * 3
    shapes = [tuple(p.shape) for p in build(ATARI).encoder.parameters() if p.dim() == 4]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    trunk = Impala((4, 84, 84))
    assert trunk.features == 32 * 11 * 11
    convolutions = [
        (layer.weight.shape[1], layer.outputs) for layer in trunk.modules() if isinstance(layer, Convolution)
    ]
    assert convolutions == [(4, 16), *[(16, 16)] * 4, (16, 32), *[(32, 32)] * 4, (32, 32), *[(32, 32)] * 4]
    wide = build(ATARI, encoder="impala", impala={"width": 2, "spectral_norm": True})
    assert wide.encoder.features == 64 * 6 * 6  # Beyond the Rainbow
    spectral = [layer.spectral_norm for layer in wide.modules() if isinstance(layer, Convolution)]
    assert spectral == [False, *[True] * 4] * 3


@pytest.mark.parametrize("side", [3, 4, 9, 10, 36, 37])
@pytest.mark.parametrize("encoder", ["minatar", "nature", "impala", "mlp"])
@pytest.mark.parametrize("pool", [None, 6])
def test_any_size_fits_or_is_refused(encoder: str, side: int, pool: int | None) -> None:
    spec = ObservationSpec((2, side, side + 3), "uint8", 255.0)
    if encoder == "nature" and side < 36:
        with pytest.raises(UserError, match=r"images of \[2, \d+, \d+\] are too small.*agent\.network\.encoder"):
            build(spec, encoder=encoder)
        return
    network = build(spec, encoder=encoder, impala={"pool": pool})
    assert network(observations(spec, 2), None).q_values.shape == (2, 3)


@pytest.mark.parametrize("encoder", ["minatar", "nature", "impala"])
def test_images_are_asked_for(encoder: str) -> None:
    with pytest.raises(UserError, match=rf"encoder={encoder} takes images.*vectors \[4\] of float32"):
        build(4, encoder=encoder)


# ---- features


@pytest.mark.parametrize("spec", [ATARI, MINATAR, TINY], ids=str)
def test_values_are_torchs_own(spec: ObservationSpec) -> None:
    network, images = build(spec), observations(spec, 5)
    x = images.float() / spec.high
    assert float(x.max()) <= 1.0
    for layer in network.encoder.modules():
        if isinstance(layer, Convolution):
            x = torch.relu(F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding))
    head = network.head.advantage
    expected = head.output(torch.relu(head.hidden(x.flatten(1))))
    torch.testing.assert_close(network(images, None).q_values, expected)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_impala_by_hand(spectral_norm: bool) -> None:
    spec = ObservationSpec((3, 11, 14), "uint8", 255.0)
    network = build(spec, encoder="impala", impala={"pool": 2, "spectral_norm": spectral_norm})
    images = observations(spec, 3)
    layers = iter([layer for layer in network.encoder.modules() if isinstance(layer, Convolution)])

    def convolve(x: Tensor) -> Tensor:
        layer = next(layers)
        scale = torch.linalg.matrix_norm(layer.weight.flatten(1), 2) if layer.spectral_norm else 1.0
        return F.conv2d(x, layer.weight / scale, layer.bias, padding=1)

    x = images.float() / 255
    for _ in range(3):
        x = F.max_pool2d(convolve(x), 3, 2, 1)
        for _ in range(2):
            x = x + convolve(torch.relu(convolve(torch.relu(x))))
    x = F.adaptive_max_pool2d(torch.relu(x), 2).flatten(1)
    torch.testing.assert_close(network.encoder(images, []), x, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (16, 4, 3, 3), (32, 32, 3, 3), (1, 9), (9, 1)])
def test_the_spectral_norm_is_exact_with_its_gradient(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=generator(), dtype=torch.float64, requires_grad=True)
    exact = torch.linalg.matrix_norm(weight.flatten(1), 2)
    others = torch.randn((2, *shape), generator=generator(), dtype=torch.float64)
    (_, found, _) = largest_singular_values(torch.stack([others[0], weight, others[1]]))
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)
    gradients = [torch.autograd.grad(value, weight)[0] for value in (found, exact)]
    assert float(F.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0)) > 0.999
    layer = Convolution(3, 8, 3, spectral_norm=True, generator=generator())
    same = Convolution(3, 8, 3, generator=generator())
    with torch.no_grad():
        same.weight /= torch.linalg.matrix_norm(same.weight.flatten(1), 2)
    x = torch.randn(2, 3, 6, 6, generator=generator())
    torch.testing.assert_close(layer(x), same(x), rtol=1e-3, atol=1e-4)
    (norm,) = spectral_norms([layer])
    with torch.autocast("cpu", torch.bfloat16):
        assert spectral_norms([layer]) == [norm]
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.isfinite(layer(x)).all()


@pytest.mark.parametrize("encoder", ["auto", "mlp", "impala"])
def test_every_linear_layer_is_noisy_and_no_convolution(encoder: str) -> None:
    network = build(MINATAR, encoder=encoder, hidden=[8, 24], dueling=True)
    linear = [name for name, module in network.named_modules() if isinstance(module, (Linear, nn.Linear))]
    assert linear == list(network.noisy_layers())
    assert len(linear) == 5
    assert [layer.noise_sizes for layer in network.noisy_layers().values()] == list(network.noise_sizes)
    sigmas = [name for name in network.state_dict() if "sigma" in name]
    assert not [name for name in sigmas if "trunk" in name]
    assert not [name for name in network.state_dict() if "_scale" in name]


@pytest.mark.parametrize("spec", [MINATAR, TINY, BITS], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_of_rows_share_a_draw(spec: ObservationSpec, groups: int) -> None:
    """A batch [k, B/k, *shape] under k draws gives each group the values of [B/k, *shape] under one draw."""
    config = config_of(hidden=[8, 24])
    network = build_network(config, spec, 3, generator())
    noise = noise_model(config, network).draw(groups, generator=generator())
    assert noise is not None
    images = observations(spec, 6)
    rows = Batch(images, *(torch.zeros(6) for _ in range(3)), images)
    batch, _ = match_noise(rows, Levels(), noise)
    found = network(batch.observation, noise).q_values.reshape(6, 3)
    parts = zip(images.split(6 // groups), noise.split(1), strict=True)
    torch.testing.assert_close(found, torch.cat([network(*part).q_values for part in parts]))


def test_the_generator_alone_decides_and_the_global_one_rests() -> None:
    state = torch.random.get_rng_state()
    for encoder in ("auto", "impala"):
        one, same, other = (build(ATARI, seed, encoder=encoder).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_is_allocated_where_only_shapes_are_asked() -> None:
    with torch.device("meta"):
        for encoder in ("auto", "mlp", "impala"):
            network = build_network(config_of(encoder=encoder), ATARI, 3)
            assert all(parameter.is_meta for parameter in network.parameters())


# ---- in the agent


def test_truth_values_keep_the_fast_path_and_its_values() -> None:
    network, x = build(BITS, hidden=[8, 24], layer_norm=True), observations(BITS, 5)
    assert NumpyNetwork.fits(network)
    config = config_of(hidden=[8, 24], layer_norm=True)
    noise = noise_model(config, network).draw(5, generator=generator())
    assert noise is not None
    found = NumpyNetwork(network)(x.numpy(), noise.numpy())
    torch.testing.assert_close(torch.from_numpy(found), network(x, noise).q_values, rtol=1e-4, atol=1e-5)
    assert not NumpyNetwork.fits(build(MINATAR, encoder="mlp"))


@pytest.mark.parametrize("spec", [MINATAR, TINY, BITS, ATARI], ids=str)
@pytest.mark.parametrize("encoder", ["auto", "mlp", "impala"])
def test_an_agent_learns_from_stored_observations(spec: ObservationSpec, encoder: str) -> None:
    """Most parameters change, and the loss decreases."""
    if encoder == "impala" and not spec.is_image:
        return
    config = parse(AgentConfig, {"network": {"hidden": [24], "encoder": encoder}, "batch_size": 6, "gamma": 0.0})
    agent = make_agent(build_network(config, spec, 3, generator()), config, 3, seed=0)
    x, before = observations(spec, 6), agent.parameters.clone()
    batch = Batch(x, torch.arange(6) % 3, torch.arange(6.0), torch.zeros(6), x)
    losses = [float(agent.update(batch).loss) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert float((agent.parameters != before).float().mean()) > 0.5
    actions = agent.act(x.numpy(), np.ones(6, dtype=bool))
    assert actions.shape == (6,)


# ---- encoders of the user's own


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ENCODERS, "_factories", dict(ENCODERS._factories))
    return


@pytest.mark.usefixtures("registry")
def test_an_encoder_of_ones_own_by_one_line() -> None:
    class Rows(nn.Module):
        """The mean of each row."""

        features = 2 * 5

        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=-1).flatten(1)

    with pytest.raises(UserError, match=r"'rows'.*no encoder of this name.*imports="):
        build(TINY, encoder="rows")
    register_encoder("rows", lambda parts: TrunkEncoder(Rows(), parts))
    network, x = build(TINY, encoder="rows", hidden=[8, 24]), observations(TINY, 4)
    assert len(network.noisy_layers()) == 3
    layer = network.noisy_layers()["encoder.mlp.layers.0"]
    expected = torch.relu(layer((x.float() / 9).mean(-1).flatten(1)))
    torch.testing.assert_close(network.encoder(x, [None]), expected)

    def doubled(parts: EncoderParts) -> MLPEncoder:
        return MLPEncoder(parts.observation.size, [2 * width for width in parts.hidden], parts.linear)

    register_encoder("doubled", doubled)
    assert build(5, encoder="doubled", hidden=[8, 24]).encoder.features == 16


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    "name", ["auto", "mlp", "impala", "data_efficient", "", "os:system", "a b", "x" * 65, "\x1b[2J"]
)
def test_names_that_cannot_be_registered(name: str) -> None:
    with pytest.raises(ValueError, match=r"name"):
        register_encoder(name, lambda parts: MLPEncoder(1, (), parts.linear))
