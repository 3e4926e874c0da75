"""Linear layers that take their noise as an argument.

`NoisyLinear` also works outside this project, as a replacement for `torch.nn.Linear`::

    layer = NoisyLinear(64, 32)
    y = layer(x)                             # the mean layer, as nn.Linear
    y = layer(x, layer.draw(1))              # one draw for the whole batch
    y = layer(x, layer.draw(len(x)))         # one draw per row
"""

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.common.arrays import floats
from agent.noise.distributions import Distribution, LayerNoise, NoiseModel, NoiseSizes, split

#: The initial σ of the independent form (Fortunato et al. 2018, §3.2), for layers of every size.
INDEPENDENT_SIGMA = 0.017
#: The default σ0 of the factorised form; the initial σ is σ0/√p (§3.2).
FACTORISED_SIGMA0 = 0.5
#: Rows of truth values of at least this length are looked up, if at most this fraction of them is true.
LOOK_UP_FROM, SPARSE = 512, 1 / 16


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias, [..., q], of floats or truth values x [..., p].

    Truth values choose columns of the weight. On a CPU a sum of few columns takes less time than the product; for
    one-hot rows it is the same, bit for bit.
    """
    if x.dtype != torch.bool:
        return F.linear(x, weight, bias)
    true = _true_positions(x)
    if true is None or len(true) > SPARSE * x.numel():
        return F.linear(floats(x, weight.dtype), weight, bias)
    return _sum_of_columns(x.shape, true, weight, bias)


def _true_positions(x: Tensor) -> np.ndarray | None:
    """The flat positions of the true values of x [..., p]; None where a look-up does not pay or is not possible."""
    if not x.is_cpu or x.shape[-1] < LOOK_UP_FROM or torch.compiler.is_compiling():
        return None
    try:
        return np.flatnonzero(x.numpy())
    except RuntimeError:  # a tensor without memory, as torch.func's transforms pass
        return None


def _sum_of_columns(shape: torch.Size, true: np.ndarray, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`product` for truth values of this shape that are true at the flat positions `true`."""
    row, column = (torch.from_numpy(index) for index in np.divmod(true, shape[-1]))
    rows = (shape[:-1].numel(), len(weight))
    start = weight.new_zeros(rows) if bias is None else bias.expand(rows)
    return start.index_add(0, row, weight.index_select(1, column).t()).view(*shape[:-1], len(weight))


class Linear(nn.Module):
    """y = x·Wᵀ + b, with W and b drawn from U[±1/√p] by the caller's generator. It ignores its noise argument.

    Shapes: x [..., p], weight [q, p], bias [q], result [..., q].
    """

    noise_sizes: NoiseSizes = (0, 0)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"a layer needs at least one input and one output, not {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self._fill_uniform(1.0 / sqrt(in_features), generator)

    def _fill_uniform(self, bound: float, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            for parameter in (self.weight, self.bias):
                if parameter is not None:
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """Maps x [..., p], floats or truth values, to [..., q]."""
        return product(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The layer's part of `print(network)`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class NoisyLinear(Linear):
    """A linear layer whose weights and biases are μ + σ·ε (Fortunato et al. 2018, eq. 9); the caller passes ε.

    Factorised (the default): ε_w = f(ε_out)·f(ε_in)ᵀ and ε_b = f(ε_out) (eq. 10, 11), μ ~ U[±1/√p], σ = σ0/√p for
    weights and biases. Independent: one ε for each weight and bias, μ ~ U[±√(3/p)], σ = 0.017.

    The state_dict holds μ as `weight` and `bias`, the names of nn.Linear, and σ as `sigma_weight` and `sigma_bias`. It
    holds no noise.

    Args:
        in_features: p.
        out_features: q.
        bias: whether the layer has a bias, which is noisy like the weights.
        sigma0: σ0 of the factorised form (None: 0.5); σ itself of the independent form (None: 0.017).
        factorised: whether the noise is factorised (True) or independent (False).
        generator: draws the initial μ (None: torch's default generator).
        device: the device of the parameters.
        dtype: the dtype of the parameters.

    Raises:
        ValueError: for sizes below 1 or a negative sigma0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        sigma0: float | None = None,
        factorised: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, generator=generator, device=device, dtype=dtype)
        if sigma0 is not None and sigma0 < 0:
            raise ValueError(f"sigma0 is {sigma0}: it must be at least 0")
        self.factorised = factorised
        if factorised:
            self.noise_sizes = (in_features, out_features)
            sigma = (FACTORISED_SIGMA0 if sigma0 is None else sigma0) / sqrt(in_features)
        else:
            self.noise_sizes = (out_features * in_features, out_features)
            sigma = INDEPENDENT_SIGMA if sigma0 is None else sigma0
            self._fill_uniform(sqrt(3.0 / in_features), generator)
        self.sigma_weight = nn.Parameter(torch.full_like(self.weight, sigma))
        self.sigma_bias = nn.Parameter(torch.full_like(self.bias, sigma)) if self.bias is not None else None

    def draw(
        self,
        rows: int = 1,
        distribution: Distribution = "normal",
        *,
        generator: torch.Generator | None = None,
    ) -> LayerNoise:
        """Draws noise for this layer, on its device: one draw for each of `rows` rows, or one that the batch shares."""
        model = NoiseModel(sum(self.noise_sizes), self.factorised, distribution)
        flat = model.draw(rows, generator=generator, device=self.weight.device)
        assert flat is not None
        return split(flat.to(self.weight.dtype), [self.noise_sizes])[0]

    def forward(self, x: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """Maps x [..., p] to [..., q]. With one draw per row (N = B), x is [B, ..., p].

        Raises:
            ValueError: if the noise has neither one draw nor one draw per row of x.
        """
        if noise is None:
            return product(x, self.weight, self.bias)
        if x.dtype == torch.bool:
            x = floats(x, self.weight.dtype)
        rows = noise.output.shape[0]
        if rows != 1 and (x.dim() < 2 or rows != x.shape[0]):
            raise ValueError(f"noise of {rows} draws does not fit an input of shape {tuple(x.shape)}")
        if rows == 1 and x.numel() > self.in_features:
            return F.linear(x, *self._sampled(noise))  # one matrix for a whole batch: form it once
        if not self.factorised:
            return self._independent_rows(x, noise)
        return self._factorised_rows(x, noise)

    def _sampled(self, noise: LayerNoise) -> tuple[Tensor, Tensor | None]:
        """The one noisy matrix [q, p] and bias [q] of a shared draw."""
        if self.factorised:
            scale = noise.output.mT * noise.input
        else:
            scale = noise.input.view_as(self.weight)
        weight = torch.addcmul(self.weight, self.sigma_weight, scale)
        if self.bias is None or self.sigma_bias is None:
            return weight, None
        return weight, torch.addcmul(self.bias, self.sigma_bias, noise.output[0])

    def _factorised_rows(self, x: Tensor, noise: LayerNoise) -> Tensor:
        """x·μᵀ + b_μ + e_out ⊙ ((x ⊙ e_in)·σᵀ + b_σ): each row has its own noisy matrix, but no matrix is formed."""
        inner = (1,) * (x.dim() - 2)  # the dimensions between row and features share the row's noise
        e_in = noise.input.view(-1, *inner, self.in_features) if x.dim() > 1 else noise.input[0]
        e_out = noise.output.view(-1, *inner, self.out_features) if x.dim() > 1 else noise.output[0]
        spread = F.linear(x * e_in, self.sigma_weight, self.sigma_bias)
        return torch.addcmul(F.linear(x, self.weight, self.bias), e_out, spread)

    def _independent_rows(self, x: Tensor, noise: LayerNoise) -> Tensor:
        """The outputs for independent noise, which needs the matrix [q, p] of each row."""
        spread = self.sigma_weight * noise.input.view(-1, self.out_features, self.in_features)
        rows = x.reshape(spread.shape[0], -1, self.in_features)
        y = torch.bmm(rows, spread.mT).reshape(*x.shape[:-1], self.out_features)
        y = y + F.linear(x, self.weight, self.bias)
        if self.sigma_bias is None:
            return y
        shift = self.sigma_bias * noise.output
        return y + (shift.view(-1, *(1,) * (x.dim() - 2), self.out_features) if x.dim() > 1 else shift[0])

    def mean_sigma(self) -> Tensor:
        """Mean |σ_w|·√p, a scalar without gradient: the paper's Σ̄ (§4), on one scale for all layers and for σ0."""
        return self.sigma_weight.detach().abs().mean() * sqrt(self.in_features)

    def extra_repr(self) -> str:
        """The layer's part of `print(network)`."""
        return f"{super().extra_repr()}, {'factorised' if self.factorised else 'independent'}"


#: Makes a layer of p inputs and q outputs; `linear_factories` in agent/networks/build.py chooses its class.
LinearFactory = Callable[[int, int], Linear]
