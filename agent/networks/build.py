"""From the config to a network: its encoder, its head and its noise."""

import torch

from agent.common.observation import ObservationSpec, as_spec
from agent.config.algorithm import AgentConfig, NoiseConfig
from agent.networks.encoders import EncoderParts, build_encoder
from agent.networks.heads.base import HeadParts, Sizes
from agent.networks.heads.registry import build_head
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.noise.index_layer import IndexLinear, Prior
from agent.noise.layers import Linear, LinearFactory, NoisyLinear


def build_network(
    config: AgentConfig,
    observation: ObservationSpec | int,
    actions: int,
    generator: torch.Generator | None = None,
) -> QNetwork:
    """The network that `config` describes, on the CPU; `generator` draws its initial parameters.

    Args:
        config: the algorithm.
        observation: form of the observations; a number n stands for float32 vectors of that length.
        actions: how many there are.
        generator: None for torch's default generator.

    Raises:
        UserError: where no encoder or head of that name is registered, or the encoder does not take these observations.
    """

    noise, spec, prior = config.noise, as_spec(observation), None
    index = noise.index if noise.enabled and noise.form == "index" else 0
    *hidden, last = config.network.hidden
    linear, output = linear_factories(noise, generator)
    encoder = build_encoder(EncoderParts(spec, tuple(hidden), linear, config.network, generator))
    network = config.network
    sizes = Sizes(encoder.features, last, actions, linear, network.dueling, network.layer_norm, output)
    head = build_head(HeadParts(sizes, config, config.head_options))
    if noise.prior > 0.0:
        prior = Prior(spec, last, actions, index, noise.prior, generator)
    return QNetwork(encoder, head, index, prior)


def linear_factories(noise: NoiseConfig, generator: torch.Generator | None) -> tuple[LinearFactory, LinearFactory]:
    """The factories of hidden layers and of output layers; in the index form only output layers are noisy."""

    def plain(p: int, q: int) -> Linear:
        return Linear(p, q, generator=generator)

    def noisy(p: int, q: int) -> Linear:
        return NoisyLinear(p, q, sigma0=noise.sigma0, factorised=noise.form == "factorised", generator=generator)

    def indexed(p: int, q: int) -> Linear:
        return IndexLinear(p, q, noise.index, sigma0=noise.sigma0, generator=generator)

    if not noise.enabled:
        return plain, plain
    return (plain, indexed) if noise.form == "index" else (noisy, noisy)


def noise_model(config: AgentConfig, network: QNetwork) -> NoiseModel:
    """How `network`'s noise is drawn under `config`."""
    return NoiseModel(network.noise_size, config.noise.form == "factorised", config.noise.distribution)
