"""The network on a CPU: the same formulas in NumPy, with derivatives that are written by hand.

A small network spends more time in torch's dispatcher and autograd than in its sums; an update in NumPy takes a
third to nine tenths as long. Tests compare the results with autograd's.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from agent.common.arrays import Array, as_array
from agent.compute.numpy.convolution import PatchConvolution
from agent.compute.numpy.layers import Layer, Noise, chain, run
from agent.compute.numpy.normalisation import Pullback, own_parameters
from agent.networks.encoders import MLPEncoder, TrunkEncoder
from agent.networks.heads.base import Stream
from agent.networks.heads.categorical import CategoricalHead
from agent.networks.heads.expected import ExpectedHead
from agent.networks.heads.quantile import QuantileHead
from agent.networks.q_network import FORBIDDEN, QNetwork
from agent.noise.layers import Linear, NoisyLinear


def _mean_atom(head: CategoricalHead) -> Callable[[np.ndarray], np.ndarray]:
    """Logits [B, A, K] → q_values [B, A]."""
    atoms = head.atoms.numpy()

    def q_values(logits: np.ndarray) -> np.ndarray:
        masses = np.exp(logits - np.maximum.reduce(logits, axis=2, keepdims=True))
        mean: np.ndarray = (masses @ atoms) / np.add.reduce(masses, axis=2)
        return mean

    return q_values


#: For each head that NumPy computes: the function from its streams' outputs [B, A] or [B, A, K] to q_values [B, A].
Q_VALUES: dict[type, Callable[[Any], Callable[[np.ndarray], np.ndarray]]] = {
    ExpectedHead: lambda head: lambda outputs: outputs,
    CategoricalHead: _mean_atom,
    QuantileHead: lambda head: lambda outputs: outputs.mean(axis=2),
}


class NumpyNetwork:
    """A QNetwork of linear layers on the CPU, behind a small convolution where there is one.

    Args:
        network: its parameters are shared; the pullback writes their gradients, where they have any.
    """

    def __init__(self, network: QNetwork) -> None:
        encoder, head = network.encoder, network.head
        self._convolution = PatchConvolution(encoder) if PatchConvolution.fits(encoder) else None
        mlp = encoder.mlp if isinstance(encoder, TrunkEncoder) else encoder
        assert isinstance(mlp, MLPEncoder)
        encoded = self._convolution is not None
        pairs = zip(mlp.layers, mlp.norms, strict=True)
        self._trunk = [Layer(layer, norm, i == 0, encoded) for i, (layer, norm) in enumerate(pairs)]  # type: ignore[arg-type]
        self._advantage = _stream(head.advantage, not self._trunk, encoded)
        self._value = None if head.value is None else _stream(head.value, not self._trunk, encoded)
        self._shape = (-1, *head.shape)
        self._q_values, self._masking = Q_VALUES[type(head)](head), network.masking
        ends = np.cumsum([0, *(size for pair in network.noise_sizes for size in pair)]).tolist()
        cuts = [(..., slice(a, b)) for a, b in pairwise(ends)]
        self._cuts = list(zip(cuts[::2], cuts[1::2], strict=True))

    @staticmethod
    def fits(network: QNetwork) -> bool:
        """Whether `network` is on the CPU, NumPy can compute all its parts, and no parameter is frozen."""
        encoder, head = network.encoder, network.head
        known = type(encoder) is MLPEncoder or PatchConvolution.fits(encoder)
        if not known or type(head) not in Q_VALUES or network.index:
            return False
        on_cpu = next(network.parameters()).device.type == "cpu"
        learns = all(parameter.requires_grad for parameter in network.parameters())
        return on_cpu and learns and _layers_fit(network) and _is_plain(network)

    def __call__(self, observation: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """q_values [B, A] of observations [B, *shape] under noise [N, size], where N divides B; None: the mean network.

        Each draw applies to B / N consecutive rows.
        """
        return self.q_values(self.outputs(self.read(observation), noise), self.allowed(observation))

    def q_values(self, outputs: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
        """q_values [B, A] for outputs of the streams; FORBIDDEN where the masks [B, A] do not allow the action."""
        values = self._q_values(outputs)
        return values if allowed is None else _masked(values, allowed)

    def allowed(self, observation: np.ndarray) -> np.ndarray | None:
        """The masks of actions [B, A] that come with observations; None where there are none."""
        return None if self._masking is None else self._masking.allowed(observation)

    def read(self, observation: np.ndarray) -> np.ndarray:
        """Observations as `outputs` and `vjp` take them: floats [B, inputs], or the patches of images."""
        if self._masking is not None:
            observation = self._masking.observed(observation)
        if self._convolution is not None:
            return self._convolution.patches(observation)
        return observation if observation.dtype == np.float32 else observation.astype(np.float32)

    def outputs(self, inputs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """The head's combined streams [B, A] or [B, A, K], of which its `values` makes the typed tuple."""
        if len(inputs) > 1:
            return self.vjp(inputs, noise)[0]
        parts, depth = self._split(None if noise is None else noise[0]), len(self._trunk)
        x = inputs if self._convolution is None else self._convolution.vjp(inputs)[0]
        features = run(self._trunk, x[0], parts)
        advantage = run(self._advantage, features, parts[depth:]).reshape(self._shape)
        if self._value is None:
            return advantage
        return self._combine(run(self._value, features, parts[depth + len(self._advantage) :]), advantage)

    def vjp(
        self, inputs: np.ndarray, noise: np.ndarray | None, sigma_alone: bool = False
    ) -> tuple[np.ndarray, Pullback]:
        """The outputs, and the pullback, which takes ∂L/∂outputs and may overwrite it.

        With `sigma_alone` the pullback writes the gradients of σ alone, and none of the others.
        """
        if self._convolution is None:
            return self._linear_vjp(inputs, noise, sigma_alone)
        x, pull_x = self._convolution.vjp(inputs)
        outputs, pull = self._linear_vjp(x, noise, sigma_alone)
        return outputs, pull if sigma_alone else lambda g: pull_x(pull(g))

    def _linear_vjp(
        self, inputs: np.ndarray, noise: np.ndarray | None, sigma_alone: bool
    ) -> tuple[np.ndarray, Pullback]:
        parts, depth = self._split(noise), len(self._trunk)
        features, pull_features = chain(self._trunk, inputs, parts, sigma_alone)
        flat, pull_advantage = chain(self._advantage, features, parts[depth:], sigma_alone)
        advantage = flat.reshape(self._shape)
        if self._value is None:
            return advantage, lambda g: pull_features(pull_advantage(g.reshape(flat.shape)))
        value, pull_value = chain(self._value, features, parts[depth + len(self._advantage) :], sigma_alone)

        def pullback(g: np.ndarray) -> np.ndarray:
            total = np.add.reduce(g, axis=1, keepdims=True)
            by_advantage = (g - total / np.float32(g.shape[1])).reshape(flat.shape)
            return pull_features(pull_advantage(by_advantage) + pull_value(total.reshape(value.shape)))

        return self._combine(value, advantage), pullback

    def _split(self, noise: np.ndarray | None) -> list[Noise]:
        """The layers' parts of a draw [..., size]."""
        return [None if noise is None else (noise[a], noise[b]) for a, b in self._cuts]

    def _combine(self, value: np.ndarray, advantage: np.ndarray) -> np.ndarray:
        """The dueling streams as one [B, A, …]: v + a − mean(a)."""
        mean = np.add.reduce(advantage, axis=1, keepdims=True) / np.float32(self._shape[1])
        outputs: np.ndarray = value.reshape(-1, 1, *self._shape[2:]) + advantage
        outputs -= mean
        return outputs


def _masked(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The values [B, A], with FORBIDDEN where the masks [B, A] do not allow the action."""
    return np.where(allowed, values, np.float32(FORBIDDEN))


#: The layers that NumPy computes, and the parameters that each must have. A subclass may compute something else.
LINEAR: dict[type[nn.Module], set[str]] = {
    Linear: {"weight", "bias"},
    NoisyLinear: {"weight", "bias", "sigma_weight", "sigma_bias"},
}
NORMS: dict[type[nn.Module], set[str]] = {nn.LayerNorm: {"weight", "bias"}, nn.Identity: set()}


def _layers_fit(network: QNetwork) -> bool:
    """Whether NumPy knows all layers, each of which occurs once, and no other module has parameters."""
    encoder, streams = network.encoder, [network.head.advantage, *filter(None, [network.head.value])]
    mlp = encoder.mlp if isinstance(encoder, TrunkEncoder) else encoder
    if type(mlp) is not MLPEncoder or any(type(stream) is not Stream for stream in streams):
        return False
    layers = [*mlp.layers, *(layer for stream in streams for layer in (stream.hidden, stream.output))]
    norms = [*mlp.norms, *(stream.norm for stream in streams)]
    convolutions = list(encoder.trunk.modules()) if isinstance(encoder, TrunkEncoder) else []
    own = [own_parameters(module) for module in (*layers, *norms, *convolutions)]
    return (
        all(LINEAR.get(type(layer)) == own_parameters(layer) for layer in layers)
        and all(NORMS.get(type(norm)) == own_parameters(norm) for norm in norms)
        and all(layer.factorised for layer in layers if isinstance(layer, NoisyLinear))
        and sum(map(len, own)) == len(list(network.parameters()))
    )


def _is_plain(network: QNetwork) -> bool:
    """Whether no module has a hook or a `forward` of the user's own, which NumPy would not call."""
    encoder, head = network.encoder, network.head
    # A part of the user's own has one hook of this project, which checks shapes.
    checked = {encoder, head, getattr(encoder, "trunk", None)} if network.own else set()
    return not any(
        len(module._forward_hooks) > (module in checked) or module._forward_pre_hooks or "forward" in vars(module)
        for module in network.modules()
    )


def _stream(stream: Stream, lowest: bool, encoded: bool) -> list[Layer]:
    return [Layer(stream.hidden, stream.norm, lowest, encoded), Layer(stream.output, None, False)]


class NumpyPolicy:
    """A Policy for a network that NumpyNetwork.fits."""

    def __init__(self, network: QNetwork) -> None:
        self._network = NumpyNetwork(network)

    def __call__(self, observation: np.ndarray, noise: Array | None) -> np.ndarray:
        """See agent.learning.policy.Policy."""
        action: np.ndarray = self._network(observation, None if noise is None else as_array(noise)).argmax(axis=1)
        return action
