"""From the config to a network: its encoder, its head and its noise."""

import torch

from agent.common.observation import ObservationSpec, as_spec
from agent.config.algorithm import AgentConfig, NoiseConfig
from agent.networks.encoders import EncoderParts, build_encoder
from agent.networks.heads.base import Head, Sizes
from agent.networks.heads.categorical import CategoricalHead
from agent.networks.heads.expected import ExpectedHead
from agent.networks.heads.implicit_quantile import ImplicitQuantileHead
from agent.networks.heads.quantile import QuantileHead
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
    """The network that `config` describes, on the CPU; its initial parameters are drawn by `generator`.

    Args:
        config: the algorithm.
        observation: what the network is given; a number n stands for float32 vectors of that length.
        actions: how many there are.
        generator: None for torch's default generator.

    Raises:
        UserError: where the encoder is not registered, or does not take these observations.
    """

    noise, spec, prior = config.noise, as_spec(observation), None
    index = noise.index if noise.enabled and noise.form == "index" else 0
    *hidden, last = config.network.hidden
    linear, output = linear_factories(noise, generator)
    encoder = build_encoder(EncoderParts(spec, tuple(hidden), linear, config.network, generator))
    head = build_head(config, encoder.features, last, actions, linear, output)
    if noise.prior > 0.0:
        prior = Prior(spec, last, actions, index, noise.prior, generator)
    return QNetwork(encoder, head, index, prior)


def linear_factories(noise: NoiseConfig, generator: torch.Generator | None) -> tuple[LinearFactory, LinearFactory]:
    """What makes the hidden layers, and what makes the output layers: of the index form the noisy ones."""

    def plain(p: int, q: int) -> Linear:
        return Linear(p, q, generator=generator)

    def noisy(p: int, q: int) -> Linear:
        return NoisyLinear(p, q, sigma0=noise.sigma0, factorised=noise.form == "factorised", generator=generator)

    def indexed(p: int, q: int) -> Linear:
        return IndexLinear(p, q, noise.index, sigma0=noise.sigma0, generator=generator)

    if not noise.enabled:
        return plain, plain
    return (plain, indexed) if noise.form == "index" else (noisy, noisy)


def build_head(
    config: AgentConfig,
    features: int,
    hidden: int,
    actions: int,
    linear: LinearFactory,
    output: LinearFactory | None = None,
) -> Head:
    """The head that `config` names, its output layers made by `output` (None: as the others)."""
    sizes = Sizes(features, hidden, actions, linear, config.network.dueling, config.network.layer_norm, output)
    match config.head:
        case "expected":
            return ExpectedHead(sizes, config.loss, config.huber_threshold)
        case "categorical":
            categorical = config.categorical
            return CategoricalHead(sizes, categorical.atoms, categorical.v_min, categorical.v_max)
        case "quantile":
            return QuantileHead(sizes, config.quantile.count, config.quantile.kappa)
        case "implicit_quantile":
            implicit = config.implicit_quantile
            samples = implicit.samples, implicit.target_samples
            return ImplicitQuantileHead(sizes, implicit.acting, samples, implicit.cosines, implicit.kappa)


def noise_model(config: AgentConfig, network: QNetwork) -> NoiseModel:
    """How `network`'s noise is drawn under `config`."""
    return NoiseModel(network.noise_size, config.noise.form == "factorised", config.noise.distribution)
