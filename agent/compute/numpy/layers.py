"""Linear layers with normalisation and ReLU in NumPy on a CPU, with derivatives that are written by hand.

`vjp` (vector-Jacobian product) returns the outputs and a pullback, which goes back from the gradient of the outputs.
The layers work on views of the modules' parameters and gradients: nothing is copied, and no copy can be out of date.
"""

from collections.abc import Sequence

import numpy as np
from torch import nn

from agent.compute.numpy.normalisation import Normalisation, Pullback, total, views
from agent.noise.layers import Linear, NoisyLinear

#: f(ε) for a layer's inputs [N, p] and outputs [N, q], where N divides B; [p] and [q] for a row; None: the mean layer.
Noise = tuple[np.ndarray, np.ndarray] | None

#: So many weights fit in a processor's cache beside the layer's inputs and outputs.
CACHED = 2**16
#: Rows up to which a large matrix is faster on the left of a product than on its right.
FEW = 64


def chain(
    layers: Sequence["Layer"], x: np.ndarray, noise: Sequence[Noise], sigma_alone: bool = False
) -> tuple[np.ndarray, Pullback]:
    """The output for x of the layers, one after the other, and the pullback through all of them; see Layer.vjp."""
    pulls = []
    for layer, layer_noise in zip(layers, noise, strict=False):
        x, pull = layer.vjp(x, layer_noise, sigma_alone)
        pulls.append(pull)

    def pullback(g: np.ndarray) -> np.ndarray:
        for pull in reversed(pulls):
            g = pull(g)
        return g

    return x, pullback


def run(layers: Sequence["Layer"], x: np.ndarray, noise: Sequence[Noise]) -> np.ndarray:
    """The output of the layers, one after the other, for one row x [p] under noise of one row."""
    for layer, layer_noise in zip(layers, noise, strict=False):
        x = layer.row(x, layer_noise)
    return x


class Layer:
    """A linear layer, its normalisation and its ReLU.

    Args:
        layer: the linear layer.
        norm: its normalisation; None marks an output layer, without ReLU.
        lowest: whether no linear layer is below it.
        encoded: whether a convolution is below the lowest layer, which then needs the gradient of its input.
    """

    def __init__(self, layer: Linear, norm: nn.Module | None, lowest: bool, encoded: bool = False) -> None:
        self.lowest, self.input_is_data, self.hidden = lowest, lowest and not encoded, norm is not None
        (self.mu, self.g_mu), (self.mu_bias, self.g_mu_bias) = views(layer.weight), views(layer.bias)
        self.noisy = isinstance(layer, NoisyLinear)
        if isinstance(layer, NoisyLinear):
            self.sigma, self.g_sigma = views(layer.sigma_weight)
            self.sigma_bias, self.g_sigma_bias = views(layer.sigma_bias)
        self.norm = Normalisation(norm) if isinstance(norm, nn.LayerNorm) else None
        self._zeros = np.zeros((1, layer.out_features), np.float32)

    def vjp(self, x: np.ndarray, noise: Noise, sigma_alone: bool = False) -> tuple[np.ndarray, Pullback]:
        """The outputs [B, q] of x [B, p], and their pullback; with `sigma_alone` it writes the gradients of σ alone."""
        if noise is None or not self.noisy:
            y, pull = self._mean(x)
        elif len(noise[0]) == 1 < len(x):
            y, pull = self._shared(x, *noise, sigma_alone)
        else:
            y, pull = self._rows(x, *noise, sigma_alone)
        if not self.hidden:
            return y, pull
        if self.norm is not None:
            y, pull = self.norm.vjp(y, pull, sigma_alone)
        return self._relu(y, pull)

    def row(self, x: np.ndarray, noise: Noise) -> np.ndarray:
        """The outputs [q] of one row x [p]: a third of the time of a batch of one, and no pullback."""
        y: np.ndarray = self.mu.dot(x)
        y += self.mu_bias
        if noise is not None and self.noisy:
            spread = self.sigma.dot(x * noise[0])
            spread += self.sigma_bias
            spread *= noise[1]
            y += spread
        if self.hidden:
            if self.norm is not None:
                y, _ = self.norm.normalise(y)
            np.maximum(y, self._zeros[0], out=y)
        return y

    def _mean(self, x: np.ndarray) -> tuple[np.ndarray, Pullback]:
        y = product(x, self.mu)
        y += self.mu_bias

        def pullback(g: np.ndarray) -> np.ndarray:
            np.dot(g.T, x, out=self.g_mu)
            total(g, self.g_mu_bias)
            if self.noisy:
                self.g_sigma.fill(0.0)
                self.g_sigma_bias.fill(0.0)
            return g if self.input_is_data else g.dot(self.mu)

        return y, pullback

    def _shared(
        self, x: np.ndarray, e_in: np.ndarray, e_out: np.ndarray, sigma_alone: bool
    ) -> tuple[np.ndarray, Pullback]:
        """x·(μ + σ ⊙ ε)ᵀ with one ε for all rows. The reparameterisation trick: ∂L/∂σ is ∂L/∂μ times ε."""
        scale = _outer(e_out[0], e_in[0])
        weight, bias = self.sigma * scale, self.sigma_bias * e_out[0]
        weight += self.mu
        bias += self.mu_bias
        y = product(x, weight)
        y += bias

        def pullback(g: np.ndarray) -> np.ndarray:
            g_mu, g_bias = (self.g_sigma, self.g_sigma_bias) if sigma_alone else (self.g_mu, self.g_mu_bias)
            np.multiply(np.dot(g.T, x, out=g_mu), scale, out=self.g_sigma)
            np.multiply(total(g, g_bias), e_out[0], out=self.g_sigma_bias)
            return g if self._ends(sigma_alone) else g.dot(weight)

        return y, pullback

    def _rows(
        self, x: np.ndarray, e_in: np.ndarray, e_out: np.ndarray, sigma_alone: bool
    ) -> tuple[np.ndarray, Pullback]:
        """x·μᵀ + b_μ + e_out ⊙ ((x ⊙ e_in)·σᵀ + b_σ), several ε: the matrices are never formed."""
        scaled = _times(x, e_in)
        spread = product(scaled, self.sigma)
        spread += self.sigma_bias
        y = _times(spread, e_out, spread)
        y += product(x, self.mu)
        y += self.mu_bias

        def pullback(g: np.ndarray) -> np.ndarray:
            noisy = _times(g, e_out)
            np.dot(noisy.T, scaled, out=self.g_sigma)
            total(noisy, self.g_sigma_bias)
            if not sigma_alone:
                np.dot(g.T, x, out=self.g_mu)
                total(g, self.g_mu_bias)
            if self._ends(sigma_alone):
                return g
            by_input = noisy.dot(self.sigma)
            by_input = _times(by_input, e_in, by_input)
            by_input += g.dot(self.mu)
            return by_input

        return y, pullback

    def _ends(self, sigma_alone: bool) -> bool:
        """Whether nothing below this layer learns."""
        return self.input_is_data or (self.lowest and sigma_alone)

    def _relu(self, y: np.ndarray, pull: Pullback) -> tuple[np.ndarray, Pullback]:
        """The larger of y and 0, in place. NumPy compares with an array of zeros four times as fast as with a zero."""
        if len(self._zeros) < len(y):
            self._zeros = np.zeros((len(y), self._zeros.shape[1]), np.float32)
        np.maximum(y, self._zeros[: len(y)], out=y)

        def pullback(g: np.ndarray) -> np.ndarray:
            g *= y > 0.0
            return pull(g)

        return y, pullback


def product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x·weightᵀ [B, q] of x [B, p] and weight [q, p].

    For few rows and a large matrix, OpenBLAS takes up to twice as long as for the same product transposed.
    """
    left = len(x) <= FEW and weight.size >= CACHED
    y: np.ndarray = np.ascontiguousarray(weight.dot(x.T).T) if left else x.dot(weight.T)
    return y


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a_i·b_j [q, p]. A product of matrices is twice as fast while the result fits in the processor's cache."""
    product: np.ndarray = a[:, None].dot(b[None]) if a.size * b.size <= CACHED else a[:, None] * b
    return product


def _times(rows: np.ndarray, noise: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """rows [B, p] ⊙ noise [N, p], each draw for B / N rows in a row; into `out` [B, p] where it is given."""
    if out is None:
        out = np.empty_like(rows)
    if len(rows) == len(noise):
        np.multiply(rows, noise, out=out)
    else:
        groups = (len(noise), -1, rows.shape[1])
        np.multiply(rows.reshape(groups), noise[:, None], out=out.reshape(groups))
    return out
