"""The registry of encoders. `agent.network.encoder` names one, or `auto` chooses one by the observation.

To add an encoder of your own, call this in any module that is imported before the agent is built::

    register_encoder("mine", lambda parts: TrunkEncoder(MyTrunk(parts.observation.shape), parts))
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from agent.common.errors import one_line, plain
from agent.common.foreign import OwnCodeError, own_frames, shown
from agent.common.observation import ObservationSpec
from agent.networks import own_parts
from agent.networks.encoders import Encoder, EncoderParts, Flatten, MLPEncoder, PartsEncoder, TrunkEncoder, image
from agent.networks.registry import Registry
from agent.networks.trunks import DATA_EFFICIENT, MINATAR, NATURE, Convolutions, Impala

#: From this height and width on, `auto` chooses three convolutions. On smaller images they do not fit; on larger
#: images a single convolution would leave too many features.
NATURE_FROM = 36

EncoderFactory = Callable[[EncoderParts], Encoder]


def _mlp(parts: EncoderParts) -> Encoder:
    if parts.observation.is_image:
        return TrunkEncoder(Flatten(parts.observation.shape), parts)
    return MLPEncoder(parts.observation.size, parts.hidden, parts.linear, parts.network.layer_norm)


def _convolutions(layers: Sequence[tuple[int, int, int]]) -> EncoderFactory:
    return lambda parts: TrunkEncoder(Convolutions(image(parts), layers, parts.generator), parts)


def _impala(parts: EncoderParts) -> Encoder:
    options = parts.network.impala
    trunk = Impala(image(parts), options.width, options.pool, options.spectral_norm, parts.generator)
    return TrunkEncoder(trunk, parts)


#: The encoders by name.
ENCODERS: Registry[EncoderFactory] = Registry(
    "an encoder",
    "agent.network.encoder",
    {
        "mlp": _mlp,
        "minatar": _convolutions(MINATAR),
        "nature": _convolutions(NATURE),
        "data_efficient": _convolutions(DATA_EFFICIENT),
        "impala": _impala,
    },
    reserved=("auto",),
)
register_encoder = ENCODERS.register


def build_encoder(parts: EncoderParts) -> Encoder:
    """Builds the encoder that the config names; `auto` chooses by the kind and size of the observations.

    Raises:
        UserError: if the name is not registered, the encoder does not take these observations, or it fails.
    """
    if parts.observation.parts:
        return PartsEncoder(parts, build_encoder)
    name = parts.network.encoder
    if name == "auto":
        name = _automatic(parts.observation)
    factory = ENCODERS.find(name)
    return _own(name, factory, parts) if ENCODERS.is_own(name) else factory(parts)


def _own(name: str, factory: EncoderFactory, parts: EncoderParts) -> Encoder:
    """Builds an encoder of the user's own, whose features are checked in every call, and tries copies of it."""
    option, dimensions = f"agent.network.encoder={name}", len(parts.observation.shape)
    with own_parts.failures(option):
        encoder = factory(parts)
        encoder.noise_sizes = own_parts.noise_sizes(option, encoder.noise_sizes)
        encoder.features = own_parts.whole_number(option, "features", encoder.features)
        for module in (encoder.trunk, encoder) if isinstance(encoder, TrunkEncoder) else (encoder,):
            module.register_forward_hook(partial(_check, option, dimensions))
        _try(option, encoder, parts.observation)
    return encoder


def _try(option: str, encoder: Encoder, spec: ObservationSpec) -> None:
    """Calls copies of an encoder of the user's own with zeros: as it learns, and as it plays, in double precision."""
    noise, learns = [None] * len(encoder.noise_sizes), copy.deepcopy(encoder)
    before, zeros = own_parts.tensors_of(learns), torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype))
    with torch.enable_grad():
        features = learns(zeros, noise)
    own_parts.check_call(option, before, learns, zeros)
    if features.dtype != torch.float32:
        raise OwnCodeError(f"{option}: it makes features of {features.dtype}, and they must be float32")
    own_parts.check_gradient(option, features, learns)
    plays = copy.deepcopy(encoder).eval()
    with torch.no_grad():
        plays(zeros.clone(), noise)
    plays.double()
    advice = f"{option} must play in double precision as well: leave casts such as x.float() out"
    try:
        with torch.no_grad():
            features = plays(zeros.double(), noise)
    except Exception as error:
        raise OwnCodeError(f"{advice} ({one_line(error)})", shown(own_frames(error))) from error
    if features.dtype != torch.float64:
        raise OwnCodeError(f"{advice} (it makes features of {features.dtype})")


def _check(option: str, dimensions: int, module: nn.Module, arguments: tuple[Any, ...], result: object) -> None:
    """A forward hook: checks the features that a trunk or an encoder makes from observations [..., *shape]."""
    leading = arguments[0].shape[:-dimensions]
    if not torch.is_tensor(result):
        raise OwnCodeError(f"{option} must make a tensor of features, and not {plain(result, 80)}")
    if result.shape != (*leading, module.features) or not result.is_floating_point():
        raise OwnCodeError(
            f"{option}: from {leading.numel()} observations it makes features of shape {list(result.shape)} "
            f"({result.dtype}), but its attribute features says {[*leading, module.features]}, and they must be floats"
        )


def _automatic(observation: ObservationSpec) -> str:
    if not observation.is_image:
        return "mlp"
    return "nature" if min(observation.shape[1:]) >= NATURE_FROM else "minatar"
