"""Builds a network from the config: encoder, head and noise."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod

import numpy as np
import torch

from agent.common.errors import UserError
from agent.common.masking import Masking
from agent.common.observation import ObservationSpec, as_spec
from agent.config.algorithm import AgentConfig
from agent.config.parts import NoiseConfig
from agent.networks.encoder_registry import ENCODERS, build_encoder
from agent.networks.encoders import EncoderParts
from agent.networks.heads.base import HeadParts, Sizes
from agent.networks.heads.registry import HEADS, build_head
from agent.networks.own_parts import check_saved, check_tensors
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel, is_output_noise
from agent.noise.index_layer import IndexLinear, Prior
from agent.noise.layers import Linear, LinearFactory, NoisyLinear

#: The most parameters of one network: 4 GiB in float32. The target network, the gradient and Adam take 16 GiB more.
MOST_PARAMETERS = 2**30


class Budget:
    """Counts the parameters of a network's linear layers. Each layer is counted before it is made."""

    def __init__(self) -> None:
        self._count = 0

    def take(self, parameters: int) -> None:
        """Adds a number of parameters to the count.

        Raises:
            UserError: if the count exceeds `MOST_PARAMETERS`.
        """
        self._count += parameters
        check_parameters(self._count)

    def counted(self, factory: LinearFactory, tensors: int) -> LinearFactory:
        """A factory that counts each layer before it makes it, as `tensors` times the size of a plain layer."""

        def make(p: int, q: int) -> Linear:
            self.take(tensors * (p + 1) * q)
            return factory(p, q)

        return make


def check_parameters(count: int) -> None:
    """Refuses a network that has this number of parameters, or more.

    Raises:
        UserError: if the number exceeds `MOST_PARAMETERS`.
    """
    if count > MOST_PARAMETERS:
        raise UserError(
            f"the network would have {count:,} parameters or more, and {MOST_PARAMETERS:,} are the most: lower "
            "agent.network.hidden"
        )


def build_network(
    config: AgentConfig,
    observation: ObservationSpec | int,
    actions: int,
    generator: torch.Generator | None = None,
) -> QNetwork:
    """Builds the network that `config` describes, on the CPU.

    Args:
        config: the algorithm.
        observation: the form of the observations; a number n stands for float32 vectors of that length.
        actions: the number of actions.
        generator: draws the initial parameters (None: torch's default generator, on torch's default device).

    Raises:
        UserError: if no encoder or head of that name is registered, if the encoder does not take these observations, or
            if the network would be too large.
    """
    with _own_defaults(generator):
        return _build(config, as_spec(observation), actions, generator)


@contextmanager
def _own_defaults(generator: torch.Generator | None) -> Iterator[None]:
    """Makes float32 torch's default, which a user's module or an environment may have changed."""
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
    head = build_head(HeadParts(sizes, config))
    if noise.prior > 0.0:
        form = ObservationSpec((sum(spec.stacked(part).size for part in spec.parts),)) if spec.parts else spec
        budget.take(last * (prod(form.shape) + index * actions))
        prior = Prior(form, last, actions, index, noise.prior, generator)
    result = QNetwork(encoder, head, index, prior, Masking(whole) if whole.mask else None, own_options(config))
    check_tensors(result)
    if result.own:
        check_saved(result)
    check_parameters(sum(parameter.numel() for parameter in result.parameters()))  # with its convolutions
    return result


def own_options(config: AgentConfig) -> str:
    """The options that name an encoder or a head of the user's own, as a text; empty if both are built in."""
    encoder, head = config.network.encoder, config.head
    named = {f"{ENCODERS.option}={encoder}": ENCODERS.is_own(encoder), f"{HEADS.option}={head}": HEADS.is_own(head)}
    return ", ".join(option for option, is_own in named.items() if is_own)


def linear_factories(
    noise: NoiseConfig, generator: torch.Generator | None, budget: Budget
) -> tuple[LinearFactory, LinearFactory]:
    """The factories of hidden layers and of output layers. In the index form only output layers are noisy."""

    def plain(p: int, q: int) -> Linear:
        return Linear(p, q, generator=generator)

    def noisy(p: int, q: int) -> Linear:
        return NoisyLinear(p, q, sigma0=noise.sigma0, factorised=noise.form == "factorised", generator=generator)

    def indexed(p: int, q: int) -> Linear:
        return IndexLinear(p, q, noise.index, sigma0=noise.sigma0, generator=generator)

    if not noise.enabled:
        return budget.counted(plain, 1), budget.counted(plain, 1)
    if noise.form == "index":
        return budget.counted(plain, 1), budget.counted(indexed, 1 + noise.index)
    return budget.counted(noisy, 2), budget.counted(noisy, 2)


def scaled_numbers(config: AgentConfig, network: QNetwork) -> np.ndarray:
    """Which numbers of a draw must be multiplied by k, bool [size], for k times as much noise of `network`."""
    if config.noise.form == "factorised":
        return is_output_noise(network.noise_sizes)
    return np.ones(network.noise_size, dtype=bool)


def noise_model(config: AgentConfig, network: QNetwork) -> NoiseModel:
    """The model of the noise of `network` under `config`."""
    return NoiseModel(network.noise_size, config.noise.form == "factorised", config.noise.distribution)
