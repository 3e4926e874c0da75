"""From the config to a network: its encoder, its head and its noise."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod

import torch

from agent.common.errors import UserError
from agent.common.masking import Masking
from agent.common.observation import ObservationSpec, as_spec
from agent.config.algorithm import AgentConfig
from agent.config.parts import NoiseConfig
from agent.networks.encoder_registry import build_encoder
from agent.networks.encoders import EncoderParts
from agent.networks.heads.base import HeadParts, Sizes
from agent.networks.heads.registry import build_head
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.noise.index_layer import IndexLinear, Prior
from agent.noise.layers import Linear, LinearFactory, NoisyLinear

#: Of one network: 4 GiB in float32, and the target network, the gradient and Adam take four times as much again.
MOST_PARAMETERS = 2**30


class Budget:
    """Counts the parameters of a network's layers, each before it is made."""

    def __init__(self) -> None:
        self._used = 0

    def take(self, parameters: int) -> None:
        """Counts so many more.

        Raises:
            UserError: where there are more than `MOST_PARAMETERS`.
        """
        self._used += parameters
        if self._used > MOST_PARAMETERS:
            raise UserError(
                f"the network would have {self._used:,} parameters or more, and {MOST_PARAMETERS:,} are the most: "
                "lower agent.network.hidden"
            )

    def limit(self, factory: LinearFactory, tensors: int) -> LinearFactory:
        """The factory, each layer of which takes so many times the size of a plain one."""

        def limited(p: int, q: int) -> Linear:
            self.take(tensors * (p + 1) * q)
            return factory(p, q)

        return limited


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
        generator: None for torch's default generator, and for a network on torch's default device.

    Raises:
        UserError: where no encoder or head of that name is registered, the encoder does not take these observations, or
            the network would be too large.
    """
    with _own_defaults(generator):
        return _build(config, as_spec(observation), actions, generator)


@contextmanager
def _own_defaults(generator: torch.Generator | None) -> Iterator[None]:
    """Makes float32 torch's default, which a module of one's own, as an environment, may have changed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if generator is None else generator.device:
            yield
    finally:
        torch.set_default_dtype(before)


def _build(config: AgentConfig, whole: ObservationSpec, actions: int, generator: torch.Generator | None) -> QNetwork:
    noise, prior = config.noise, None
    spec = whole.unmasked
    index = noise.index if noise.enabled and noise.form == "index" else 0
    *hidden, last = config.network.hidden
    budget = Budget()
    linear, output = linear_factories(noise, generator, budget)
    encoder = build_encoder(EncoderParts(spec, tuple(hidden), linear, config.network, generator))
    network = config.network
    sizes = Sizes(encoder.features, last, actions, linear, network.dueling, network.layer_norm, output)
    head = build_head(HeadParts(sizes, config, config.head_options))
    if noise.prior > 0.0:
        form = ObservationSpec((sum(spec.stacked(part).size for part in spec.parts),)) if spec.parts else spec
        budget.take(last * (prod(form.shape) + index * actions))
        prior = Prior(form, last, actions, index, noise.prior, generator)
    return QNetwork(encoder, head, index, prior, Masking(whole) if whole.mask else None)


def linear_factories(
    noise: NoiseConfig, generator: torch.Generator | None, budget: Budget
) -> tuple[LinearFactory, LinearFactory]:
    """The factories of hidden layers and of output layers; in the index form only output layers are noisy."""

    def plain(p: int, q: int) -> Linear:
        return Linear(p, q, generator=generator)

    def noisy(p: int, q: int) -> Linear:
        return NoisyLinear(p, q, sigma0=noise.sigma0, factorised=noise.form == "factorised", generator=generator)

    def indexed(p: int, q: int) -> Linear:
        return IndexLinear(p, q, noise.index, sigma0=noise.sigma0, generator=generator)

    if not noise.enabled:
        return budget.limit(plain, 1), budget.limit(plain, 1)
    if noise.form == "index":
        return budget.limit(plain, 1), budget.limit(indexed, 1 + noise.index)
    return budget.limit(noisy, 2), budget.limit(noisy, 2)


def noise_model(config: AgentConfig, network: QNetwork) -> NoiseModel:
    """How `network`'s noise is drawn under `config`."""
    return NoiseModel(network.noise_size, config.noise.form == "factorised", config.noise.distribution)
