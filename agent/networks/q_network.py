"""QNetwork = encoder + head; and its parameters as one flat vector."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agent.common.masking import Masking
from agent.networks.encoders import Encoder, PartsEncoder
from agent.networks.heads.base import Head, Values
from agent.networks.heads.expected import ExpectedValues
from agent.networks.masking import Masked
from agent.networks.masking import split as split_masks
from agent.noise.distributions import LayerNoise, split
from agent.noise.index_layer import IndexLinear, Prior
from agent.noise.layers import NoisyLinear

#: The value of an action that is not allowed: finite, as a policy gives it the probability 0, and 0·(−∞) is no number;
#: also divided by the least temperature of Munchausen's policy.
FORBIDDEN = -1e20


class QNetwork(nn.Module):
    """Action values as a pure function of observation, noise and parameters.

    Shapes: observation [B, *shape]; noise [N, noise_size] with N = 1 (shared by the batch) or N = B (per row), or
    None for the mean network; levels [B, K], for a head of implicit quantiles, or None for its fixed ones.

    Args:
        encoder: observation → features.
        head: features → values.
        index: d, where the noise is an index ξ ∈ R^d that all layers share; noise [N, M, d] then gives each row M
            values, [B, M, A]. 0 where every layer has noise of its own.
        prior: is added to the action values of the expected head, where there is noise.
        masking: takes observations and masks of actions out of rows of bytes; q_values of actions that are not allowed
            are then `FORBIDDEN`. None where there are no masks.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        index: int = 0,
        prior: Prior | None = None,
        masking: Masking | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.prior, self.index, self.masking = prior, index, masking
        self.noise_sizes = encoder.noise_sizes + head.noise_sizes
        self.noise_size = index or sum(a + b for a, b in self.noise_sizes)

    def forward(
        self,
        observation: Tensor | Masked,
        noise: Tensor | None,
        levels: Tensor | None = None,
        *,
        autocast: bool = False,
    ) -> Values:
        """Values of every action at each observation, in the typed tuple of the head.

        With autocast the encoder computes in bfloat16. The head never does: it would round close values to equal ones.
        """
        if self.masking is None:
            return self._values(observation, noise, levels, autocast)  # type: ignore[arg-type]
        masked = observation if isinstance(observation, Masked) else split_masks(self.masking, observation)
        return only_allowed(self._values(masked.observation, noise, levels, autocast), masked.allowed)

    def _values(
        self, observation: Tensor | list[Tensor], noise: Tensor | None, levels: Tensor | None, autocast: bool
    ) -> Values:
        layers = self._layer_noise(noise)
        depth = len(self.encoder.noise_sizes)
        if not autocast:
            features = self.encoder(observation, layers[:depth])
        else:
            with torch.autocast(next(self.parameters()).device.type, torch.bfloat16):
                features = self.encoder(observation, layers[:depth]).float()
        values: Values = self.head(features, layers[depth:], levels)
        if self.prior is None or noise is None:
            return values
        seen = self.encoder.flat(observation) if isinstance(self.encoder, PartsEncoder) else observation
        return ExpectedValues(values.q_values + self.prior(seen, noise))

    def _layer_noise(self, noise: Tensor | None) -> Sequence[LayerNoise | None]:
        """Each layer's own part of the noise, or the index that they share."""
        if noise is None:
            return [None] * len(self.noise_sizes)
        if self.index:
            return [LayerNoise(noise, noise)] * len(self.noise_sizes)
        return split(noise, self.noise_sizes)

    def noisy_layers(self) -> dict[str, NoisyLinear | IndexLinear]:
        """The noisy layers by name, in the order of their noise."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, NoisyLinear | IndexLinear)}


def only_allowed(values: Values, allowed: Tensor) -> Values:
    """The values of a head with `FORBIDDEN` in place of the q_values that the masks [..., A] do not allow."""
    if values.q_values.dim() > allowed.dim():
        allowed = allowed.unsqueeze(-2)  # for all values of a state, under several indices
    whole: Any = values
    result: Values = whole._replace(q_values=values.q_values.masked_fill(~allowed, FORBIDDEN))
    return result


def flatten_parameters(module: nn.Module) -> Tensor:
    """Moves all parameters of `module` into one vector [P], and their gradients into the `grad` of the vector.

    The parameters become views of the vector, so that an optimiser step, a target copy and a gradient norm take one
    kernel each, however deep the network is. A later move to another device or dtype would part views and vector.
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


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers in the state_dict of `module`, by name; they share its memory."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in module.state_dict().items() if name not in parameters}
