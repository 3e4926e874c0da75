"""QNetwork = encoder + head, and its parameters as one flat vector."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agent.common.arrays import floats
from agent.common.foreign import own_code
from agent.common.masking import Masking
from agent.networks.encoders import Encoder, PartsEncoder
from agent.networks.heads.base import AnyHead, Values
from agent.networks.heads.expected import ExpectedValues
from agent.networks.masking import Masked, split_masks
from agent.noise.distributions import LayerNoise, split
from agent.noise.index_layer import IndexLinear, Prior
from agent.noise.layers import NoisyLinear

#: The value of an action that a mask forbids. It is finite because a policy multiplies it with the probability 0, and
#: 0·(−∞) is NaN. It stays finite in float32 when Munchausen's policy divides it by its lowest temperature.
FORBIDDEN = -1e20


class QNetwork(nn.Module):
    """Action values as a pure function of observation, noise and parameters.

    Shapes: observation [B, *shape]; noise [N, noise_size] with N = 1 (shared by the batch) or N = B (per row), or
    None for the mean network; levels [B, K], for a head of implicit quantiles, or None for its fixed ones.

    Args:
        encoder: observation → features.
        head: features → values.
        index: d, if the noise is an index ξ ∈ R^d that all layers share; noise [N, M, d] then gives M values for each
            row, [B, M, A]. 0 if every layer has its own noise.
        prior: is added to the action values of the expected head when there is noise.
        masking: describes rows of bytes that hold observations and masks of actions; the q_values of forbidden actions
            are then `FORBIDDEN`. None without masks.
        own: the options that name an encoder or a head of the user's own; empty if both are built in.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: AnyHead,
        index: int = 0,
        prior: Prior | None = None,
        masking: Masking | None = None,
        own: str = "",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.prior, self.index, self.masking, self.own = prior, index, masking, own
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
        """The values of every action at each observation, in the typed tuple of the head.

        With autocast the encoder computes in bfloat16. The head never does, since it would round close values to equal
        ones.
        """
        if not self.own or torch.compiler.is_compiling():
            return self._allowed_values(observation, noise, levels, autocast)
        with own_code(self.own):
            return self._allowed_values(observation, noise, levels, autocast)

    def _allowed_values(
        self, observation: Tensor | Masked, noise: Tensor | None, levels: Tensor | None, autocast: bool
    ) -> Values:
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
            if features.dtype == torch.bool and not self.head.takes_truth_values:
                features = floats(features)
        else:
            with torch.autocast(next(self.parameters()).device.type, torch.bfloat16):
                features = self.encoder(observation, layers[:depth]).float()
        values: Values = self.head(features, layers[depth:], levels)
        if self.prior is None or noise is None:
            return values
        flat = self.encoder.flat(observation) if isinstance(self.encoder, PartsEncoder) else observation
        return ExpectedValues(values.q_values + self.prior(flat, noise))

    def _layer_noise(self, noise: Tensor | None) -> Sequence[LayerNoise | None]:
        """The noise of each layer: its part of the draw, or the index that all layers share."""
        if noise is None:
            return [None] * len(self.noise_sizes)
        if self.index:
            return [LayerNoise(noise, noise)] * len(self.noise_sizes)
        return split(noise, self.noise_sizes)

    def sigma_names(self) -> set[str]:
        """The names of the parameters σ of the noisy layers."""
        layers = self.noisy_layers().items()
        return {f"{name}.{own}" for name, layer in layers for own, _ in layer.named_parameters() if "sigma" in own}

    def noisy_layers(self) -> dict[str, NoisyLinear | IndexLinear]:
        """The noisy layers by name, in the order of their noise."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, NoisyLinear | IndexLinear)}


def only_allowed(values: Values, allowed: Tensor) -> Values:
    """Replaces the q_values that the masks [..., A] do not allow with `FORBIDDEN`."""
    if values.q_values.dim() > allowed.dim():
        allowed = allowed.unsqueeze(-2)  # one mask for the values of a state under several indices
    return values._replace(q_values=values.q_values.masked_fill(~allowed, FORBIDDEN))


def flatten_parameters(module: nn.Module) -> Tensor:
    """Moves all parameters of `module` into one vector [P], and their gradients into `grad` of the vector.

    The parameters become views of the vector: an optimiser step, a target copy and a gradient norm then take one kernel
    each, however deep the network is. Moving the module to another device or dtype afterwards would separate the views
    from the vector.
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
