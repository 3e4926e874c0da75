"""The registry of encoders. `agent.network.encoder` names one, or `auto` chooses one by the observation.

To add an encoder of your own, call this in any module that is imported before the agent is built::

    register_encoder("mine", lambda parts: TrunkEncoder(MyTrunk(parts.observation.shape), parts))
"""

import copy
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from agent.common.errors import UserError, plain
from agent.common.foreign import OwnCodeError, is_stop, own_failure
from agent.common.observation import ObservationSpec
from agent.networks.encoders import Encoder, EncoderParts, Flatten, MLPEncoder, PartsEncoder, TrunkEncoder, image
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


_FACTORIES: dict[str, EncoderFactory] = {
    "mlp": _mlp,
    "minatar": _convolutions(MINATAR),
    "nature": _convolutions(NATURE),
    "data_efficient": _convolutions(DATA_EFFICIENT),
    "impala": _impala,
}
BUILT_IN = ("auto", *_FACTORIES)


def register_encoder(name: str, factory: EncoderFactory) -> None:
    """Registers `factory` as the encoder `agent.network.encoder=<name>`. Registering a name again replaces its factory.

    Raises:
        ValueError: if the name is not a plain word or is the name of a built-in encoder.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(f"{name!r} cannot name an encoder: the name must be a word of letters, digits, _ and -")
    if name in BUILT_IN:
        raise ValueError(f"{name!r} is the name of a built-in encoder")
    _FACTORIES[name] = factory


def own_encoders() -> dict[str, EncoderFactory]:
    """The registered encoders of users, by name. Actor processes register them as well."""
    return {name: factory for name, factory in _FACTORIES.items() if name not in BUILT_IN}


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
    if name not in _FACTORIES:
        raise UserError(
            f"agent.network.encoder is {name!r:.80}: there is no encoder of this name (there are auto, "
            f"{', '.join(_FACTORIES)}); one of your own is registered by the module that you name with imports="
        )
    return _FACTORIES[name](parts) if name in BUILT_IN else _own(name, parts)


def _own(name: str, parts: EncoderParts) -> Encoder:
    """Builds an encoder of the user's own, whose features are checked in every call, and tries a copy of it."""
    option, spec = f"agent.network.encoder={name}", parts.observation
    try:
        encoder = _FACTORIES[name](parts)
        zeros = torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype))
        noise = [None] * len(encoder.noise_sizes)
        for module in (encoder.trunk, encoder) if isinstance(encoder, TrunkEncoder) else (encoder,):
            module.register_forward_hook(partial(_check, option, len(spec.shape)))
        with torch.no_grad():
            features = copy.deepcopy(encoder).eval()(zeros, noise)
        if features.dtype != torch.float32:
            raise OwnCodeError(f"{option}: it makes features of {features.dtype}, and they must be float32")
    except BaseException as error:  # it may end the program by itself
        if is_stop(error):
            raise
        raise own_failure(option, error) from error
    return encoder


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
