"""QNetwork = encoder + head; and its parameters as one flat vector."""

import torch
from torch import Tensor, nn

from agent.config import AgentConfig
from agent.encoders import Encoder, EncoderParts, build_encoder
from agent.heads import CategoricalHead, ExpectedHead, Head, Sizes, Values
from agent.layers import Linear, LinearFactory, NoisyLinear
from agent.noise import NoiseModel, split
from agent.observation import ObservationSpec, as_spec
from agent.quantile_heads import ImplicitQuantileHead, QuantileHead


class QNetwork(nn.Module):
    """Action values as a pure function of observation, noise and parameters.

    Shapes: observation [B, *shape]; noise [N, noise_size] with N = 1 (shared by the batch) or N = B (per row), or
    None for the mean network; tau [B, K], levels for a head of implicit quantiles, or None for its fixed ones.
    """

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.noise_sizes = encoder.noise_sizes + head.noise_sizes
        self.noise_size = sum(a + b for a, b in self.noise_sizes)

    def forward(
        self, observation: Tensor, noise: Tensor | None, tau: Tensor | None = None, *, autocast: bool = False
    ) -> Values:
        """Values of every action at each observation, in the typed tuple of the head.

        With autocast the encoder computes in bfloat16; the head, whose values have to be told apart, never does.
        """
        layers = [None] * len(self.noise_sizes) if noise is None else split(noise, self.noise_sizes)
        depth = len(self.encoder.noise_sizes)
        if not autocast:
            features = self.encoder(observation, layers[:depth])
        else:
            with torch.autocast(observation.device.type, torch.bfloat16):
                features = self.encoder(observation, layers[:depth]).float()
        values: Values = self.head(features, layers[depth:], tau)
        return values

    def noisy_layers(self) -> dict[str, NoisyLinear]:
        """The noisy layers by name, in the order of their noise."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, NoisyLinear)}


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

    def linear(p: int, q: int) -> Linear:
        if not config.noise.enabled:
            return Linear(p, q, generator=generator)
        noise = config.noise
        return NoisyLinear(p, q, sigma0=noise.sigma0, factorised=noise.form == "factorised", generator=generator)

    *hidden, last = config.network.hidden
    factory: LinearFactory = linear
    encoder = build_encoder(EncoderParts(as_spec(observation), tuple(hidden), factory, config.network, generator))
    return QNetwork(encoder, build_head(config, encoder.features, last, actions, factory))


def build_head(config: AgentConfig, features: int, hidden: int, actions: int, linear: LinearFactory) -> Head:
    """The head that `config` names."""
    sizes = Sizes(features, hidden, actions, linear, config.network.dueling, config.network.layer_norm)
    match config.head:
        case "expected":
            return ExpectedHead(sizes, config.loss)
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


def flatten_parameters(module: nn.Module) -> Tensor:
    """Moves all parameters of `module` into one vector [P] and their gradients into its gradient; they stay as views.

    One optimiser step, one target copy and one gradient norm are then one kernel each, whatever the depth. Moving the
    module to another device or dtype afterwards would break the tie.
    """
    parameters = list(module.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        part = slice(start, start + parameter.numel())
        parameter.data = flat[part].view_as(parameter)
        parameter.grad = flat.grad[part].view_as(parameter)
        start += parameter.numel()
    return flat
