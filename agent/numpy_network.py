"""The network on a CPU: the same formulas by NumPy, with their derivatives by hand.

A small network spends more time in torch's dispatcher and autograd than in its sums; an update by these few lines takes
half as long. They work on views of the module's parameters and gradients, so that there is nothing to keep in step,
and a test holds them to autograd's result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from agent.encoders import MLPEncoder
from agent.heads import CategoricalHead, ExpectedHead, Stream
from agent.layers import Linear, NoisyLinear
from agent.network import QNetwork
from agent.quantile_heads import QuantileHead

#: Takes the gradient by a result, writes that of the parameters, and returns that by the input.
Pullback = Callable[[np.ndarray], np.ndarray]
Noise = tuple[np.ndarray, np.ndarray] | None


def _mean_atom(head: CategoricalHead) -> Callable[[np.ndarray], np.ndarray]:
    """Logits [B, A, K] → q_values [B, A]."""
    atoms = head.atoms.numpy()

    def q_values(logits: np.ndarray) -> np.ndarray:
        masses = np.exp(logits - np.maximum.reduce(logits, axis=2, keepdims=True))
        mean: np.ndarray = (masses @ atoms) / np.add.reduce(masses, axis=2)
        return mean

    return q_values


#: The heads that are known here: what makes q_values [B, A] of their streams' outputs [B, A] or [B, A, K].
Q_VALUES: dict[type, Callable[[Any], Callable[[np.ndarray], np.ndarray]]] = {
    ExpectedHead: lambda head: lambda outputs: outputs,
    CategoricalHead: _mean_atom,
    QuantileHead: lambda head: lambda outputs: outputs.mean(axis=2),
}


class NumpyNetwork:
    """A QNetwork of linear layers on the CPU.

    Args:
        network: its parameters are shared; their gradients, where there are any, are written by the pullback.
    """

    def __init__(self, network: QNetwork) -> None:
        encoder, head = network.encoder, network.head
        assert isinstance(encoder, MLPEncoder)
        pairs = zip(encoder.layers, encoder.norms, strict=True)
        self._trunk = [_Layer(layer, norm, first=i == 0) for i, (layer, norm) in enumerate(pairs)]  # type: ignore[arg-type]
        self._advantage = _stream(head.advantage, first=not self._trunk)
        self._value = None if head.value is None else _stream(head.value, first=not self._trunk)
        self._shape = (-1, *head.shape)
        self._q_values = Q_VALUES[type(head)](head)
        ends = np.cumsum([size for pair in network.noise_sizes for size in pair]).tolist()
        self._cuts = list(zip([0, *ends][::2], ends[::2], ends[1::2], strict=False))

    @staticmethod
    def fits(network: QNetwork) -> bool:
        """Whether `network` is on the CPU and all its parts are known here: no other noise, no other encoder."""
        layers = [module for module in network.modules() if isinstance(module, NoisyLinear)]
        known = type(network.encoder) is MLPEncoder and type(network.head) in Q_VALUES
        on_cpu = next(network.parameters()).device.type == "cpu"
        return known and on_cpu and not network.index and all(layer.factorised for layer in layers)

    def __call__(self, observation: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """q_values [B, A] of observations [B, inputs] under noise [N, size], where N divides B; None: the mean network.

        Each draw holds for B / N rows in a row.
        """
        return self._q_values(self.outputs(observation, noise))

    def outputs(self, observation: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """The head's combined streams [B, A] or [B, A, K], of which its `values` makes the typed tuple."""
        return self.vjp(observation, noise)[0]

    def vjp(self, observation: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, Pullback]:
        """The outputs, and the pullback of ∂L/∂outputs (which it may overwrite)."""
        if observation.dtype != np.float32:  # truth values
            observation = observation.astype(np.float32)
        cuts, depth = iter(self._cuts), len(self._trunk)
        parts: list[Noise] = [None if noise is None else (noise[:, a:b], noise[:, b:c]) for a, b, c in cuts]
        features, pull_features = _chain(self._trunk, observation, parts)
        flat, pull_advantage = _chain(self._advantage, features, parts[depth:])
        advantage = flat.reshape(self._shape)
        if self._value is None:
            return advantage, lambda g: pull_features(pull_advantage(g.reshape(flat.shape)))
        value, pull_value = _chain(self._value, features, parts[depth + len(self._advantage) :])
        actions = np.float32(self._shape[1])
        outputs = value.reshape(-1, 1, *self._shape[2:]) + advantage
        outputs -= np.add.reduce(advantage, axis=1, keepdims=True) / actions

        def pullback(g: np.ndarray) -> np.ndarray:
            total = np.add.reduce(g, axis=1, keepdims=True)
            by_advantage = (g - total / actions).reshape(flat.shape)
            return pull_features(pull_advantage(by_advantage) + pull_value(total.reshape(value.shape)))

        return outputs, pullback


def _stream(stream: Stream, first: bool) -> list["_Layer"]:
    return [_Layer(stream.hidden, stream.norm, first), _Layer(stream.output, None, False)]


def _chain(layers: Sequence["_Layer"], x: np.ndarray, noise: Sequence[Noise]) -> tuple[np.ndarray, Pullback]:
    pulls = []
    for layer, layer_noise in zip(layers, noise, strict=False):
        x, pull = layer.vjp(x, layer_noise)
        pulls.append(pull)

    def pullback(g: np.ndarray) -> np.ndarray:
        for pull in reversed(pulls):
            g = pull(g)
        return g

    return x, pullback


class _Layer:
    """A linear layer, its normalisation and its ReLU."""

    def __init__(self, layer: Linear, norm: nn.Module | None, first: bool) -> None:
        """norm None: an output layer. first: what it pulls back to is an observation, which needs no gradient."""
        self.first, self.hidden = first, norm is not None
        (self.mu, self.g_mu), (self.mu_bias, self.g_mu_bias) = _views(layer.weight), _views(layer.bias)
        self.noisy = isinstance(layer, NoisyLinear)
        if isinstance(layer, NoisyLinear):
            self.sigma, self.g_sigma = _views(layer.sigma_weight)
            self.sigma_bias, self.g_sigma_bias = _views(layer.sigma_bias)
        self.norm = _Norm(norm) if isinstance(norm, nn.LayerNorm) else None

    def vjp(self, x: np.ndarray, noise: Noise) -> tuple[np.ndarray, Pullback]:
        """The outputs [B, q] of x [B, p], and their pullback."""
        if noise is None or not self.noisy:
            y, pull = self._mean(x)
        elif len(noise[0]) == 1 < len(x):
            y, pull = self._shared(x, *noise)
        else:
            y, pull = self._rows(x, *noise)
        if not self.hidden:
            return y, pull
        if self.norm is None:
            return _relu(y, pull)
        return _relu(*self.norm.vjp(y, pull))

    def _mean(self, x: np.ndarray) -> tuple[np.ndarray, Pullback]:
        y = x @ self.mu.T
        y += self.mu_bias

        def pullback(g: np.ndarray) -> np.ndarray:
            np.matmul(g.T, x, out=self.g_mu)
            np.add.reduce(g, axis=0, out=self.g_mu_bias)
            if self.noisy:
                self.g_sigma.fill(0.0)
                self.g_sigma_bias.fill(0.0)
            return g if self.first else g @ self.mu

        return y, pullback

    def _shared(self, x: np.ndarray, e_in: np.ndarray, e_out: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """x·(μ + σ ⊙ ε)ᵀ with one ε for all rows. What the trick is for: ∂L/∂σ is ∂L/∂μ times ε."""
        scale = e_out.T * e_in
        weight, bias = self.sigma * scale, self.sigma_bias * e_out[0]
        weight += self.mu
        bias += self.mu_bias
        y = x @ weight.T
        y += bias

        def pullback(g: np.ndarray) -> np.ndarray:
            np.multiply(np.matmul(g.T, x, out=self.g_mu), scale, out=self.g_sigma)
            np.multiply(np.add.reduce(g, axis=0, out=self.g_mu_bias), e_out[0], out=self.g_sigma_bias)
            return g if self.first else g @ weight

        return y, pullback

    def _rows(self, x: np.ndarray, e_in: np.ndarray, e_out: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """x·μᵀ + b_μ + e_out ⊙ ((x ⊙ e_in)·σᵀ + b_σ), several ε: the matrices are never formed."""
        scaled = _times(x, e_in)
        spread = scaled @ self.sigma.T
        spread += self.sigma_bias
        y = x @ self.mu.T
        y += self.mu_bias
        y += _times(spread, e_out)

        def pullback(g: np.ndarray) -> np.ndarray:
            np.matmul(g.T, x, out=self.g_mu)
            np.add.reduce(g, axis=0, out=self.g_mu_bias)
            noisy = _times(g, e_out)
            np.matmul(noisy.T, scaled, out=self.g_sigma)
            np.add.reduce(noisy, axis=0, out=self.g_sigma_bias)
            return g if self.first else g @ self.mu + _times(noisy @ self.sigma, e_in)

        return y, pullback


class _Norm:
    """Layer normalisation (Ba et al. 2016)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        (self.weight, self.g_weight), (self.bias, self.g_bias) = _views(norm.weight), _views(norm.bias)
        self.eps, self.average = np.float32(norm.eps), np.full(len(self.weight), 1.0 / len(self.weight), np.float32)

    def vjp(self, x: np.ndarray, pull: Pullback) -> tuple[np.ndarray, Pullback]:
        """Normalises x [B, q] in place; `pull` is what follows in the pullback."""
        x -= (x @ self.average)[:, None]
        scale = 1.0 / np.sqrt((x * x) @ self.average + self.eps)[:, None]
        x *= scale
        y = x * self.weight
        y += self.bias

        def pullback(g: np.ndarray) -> np.ndarray:
            np.add.reduce(g, axis=0, out=self.g_bias)
            np.add.reduce(g * x, axis=0, out=self.g_weight)
            g *= self.weight
            along = ((g * x) @ self.average)[:, None]
            g -= (g @ self.average)[:, None]
            g -= x * along
            g *= scale
            return pull(g)

        return y, pullback


def _relu(y: np.ndarray, pull: Pullback) -> tuple[np.ndarray, Pullback]:
    np.maximum(y, 0.0, out=y)

    def pullback(g: np.ndarray) -> np.ndarray:
        g *= y > 0.0
        return pull(g)

    return y, pullback


def _times(rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """rows [B, p] ⊙ noise [N, p], each draw for B / N rows in a row."""
    groups = rows if len(rows) == len(noise) else rows.reshape(len(noise), -1, rows.shape[1])
    product: np.ndarray = groups * (noise if groups is rows else noise[:, None])
    return product.reshape(rows.shape)


def _views(parameter: Tensor | None) -> tuple[Any, Any]:
    """A parameter and its gradient (None where it has none), as arrays that share their memory."""
    assert parameter is not None
    return parameter.detach().numpy(), None if parameter.grad is None else parameter.grad.numpy()
