"""The base class of heads: features → values. Every head returns a typed tuple that carries q_values [..., A].

A head consists of streams, whose outputs are one number or K numbers per action. `values` makes the typed tuple from
these outputs, `target` makes the learning target from the outcome of the next action, and `loss` compares predictions
with this target for each row. Each head is a file beside this one, and registry.py holds them by name.

Shapes: [...] are the rows of a batch, A actions, K atoms or quantiles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from agent.config.algorithm import AgentConfig
from agent.networks.encoders import normalisation
from agent.noise.distributions import LayerNoise, NoiseSizes
from agent.noise.layers import LinearFactory

#: [low, high], the range to which learning targets are clipped (`agent.target_range`).
Limits = Sequence[float] | None


class Values(Protocol):
    """The values that a head gives for a batch."""

    @property
    def q_values(self) -> Tensor:
        """The expected return of every action [..., A]."""

    @property
    def outcomes(self) -> Tensor:
        """The numbers from which a target is made, per action: values [..., A], masses or quantiles [..., A, K]."""

    def _replace(self, *, q_values: Tensor) -> Self:
        """The same tuple with other q_values; every NamedTuple has this method."""


V = TypeVar("V", bound=Values)


class Stream(nn.Module):
    """One hidden layer with ReLU, then a linear output: features [..., p] → [..., outputs]."""

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        linear: LinearFactory,
        layer_norm: bool = False,
        output: LinearFactory | None = None,
    ) -> None:
        """`linear` makes the hidden layer, and `output` (None: `linear`) makes the output layer."""
        super().__init__()
        self.hidden = linear(features, hidden)
        self.norm = normalisation(hidden, layer_norm)
        self.output = (output or linear)(hidden, outputs)
        self.noise_sizes: tuple[NoiseSizes, ...] = (self.hidden.noise_sizes, self.output.noise_sizes)

    def forward(self, features: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps features [..., p] to [..., outputs]."""
        output: Tensor = self.output(torch.relu(self.norm(self.hidden(features, noise[0]))), noise[1])
        return output


@dataclass(frozen=True)
class Sizes:
    """The sizes and layers of a head.

    Attributes:
        features: p.
        hidden: width of each stream's hidden layer.
        actions: A.
        linear: makes the hidden layers.
        dueling: whether the head has a value stream.
        layer_norm: whether the hidden layers are normalised.
        output: makes the output layers (None: `linear` makes them).
    """

    features: int
    hidden: int
    actions: int
    linear: LinearFactory
    dueling: bool = False
    layer_norm: bool = False
    output: LinearFactory | None = None

    def stream(self, outputs: int) -> Stream:
        """A new stream with `outputs` outputs."""
        return Stream(self.features, self.hidden, outputs, self.linear, self.layer_norm, self.output)


class Head(nn.Module, Generic[V]):
    """A head whose values are of the type V: one stream, or dueling streams, with one number or K numbers per action.

    Dueling (Wang et al. 2016, eq. 9): v + a − mean(a), where each stream has its own hidden layer. With K numbers per
    action, the streams are combined for each of the K numbers, before any softmax (Hessel et al. 2018).

    Args:
        sizes: the sizes and layers of the streams.
        atoms: K (None: one number per action, without a dimension for it).
    """

    #: How many levels τ the prediction and the target need; None for all heads except implicit quantiles.
    level_counts: tuple[int, int] | None = None
    #: Whether a linear layer reads the features, which may then be truth values. Other heads get them as floats.
    takes_truth_values = False

    def __init__(self, sizes: Sizes, atoms: int | None = None) -> None:
        super().__init__()
        count = 1 if atoms is None else atoms
        self.shape = (sizes.actions,) if atoms is None else (sizes.actions, atoms)
        self.advantage = sizes.stream(sizes.actions * count)
        self.value = sizes.stream(count) if sizes.dueling else None
        value_sizes = self.value.noise_sizes if self.value is not None else ()
        self.noise_sizes: tuple[NoiseSizes, ...] = self.advantage.noise_sizes + value_sizes

    def outputs(self, features: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps features [..., p] to the combined streams [..., A] or [..., A, K]."""
        advantage: Tensor = self.advantage(features, noise[:2]).unflatten(-1, self.shape)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features, noise[2:]).unflatten(-1, (1, *self.shape[1:]))
        return value + advantage - advantage.mean(dim=-len(self.shape), keepdim=True)

    def forward(self, features: Tensor, noise: Sequence[LayerNoise | None], levels: Tensor | None = None) -> V:
        """Maps features [..., p] to the values of every action. Only implicit quantiles use `levels`."""
        return self.values(self.outputs(features, noise))

    def values(self, outputs: Tensor) -> V:
        """The typed tuple for outputs [..., A] or [..., A, K] of the combined streams."""
        raise NotImplementedError

    def target(self, outcome: Tensor, reward: Tensor, discount: Tensor, limits: Limits = None) -> Tensor:
        """The learning target [...] or [..., K]: the reward plus the discounted outcome at s', clipped to the limits.

        Args:
            outcome: [...] or [..., K], the `Values.outcomes` of the next action. With Munchausen targets it is the mean
                over all actions, weighted with a soft policy.
            reward: [...], the discounted sum of k rewards.
            discount: [...], γ^k·(1 − terminated).
            limits: [low, high], or None.
        """
        raise NotImplementedError

    def loss(self, prediction: V, action: Tensor, target: Tensor) -> Tensor:
        """The unreduced loss [...] of the predictions for the actions against the target."""
        raise NotImplementedError

    def priority(self, prediction: V, action: Tensor, target: Tensor, loss: Tensor) -> Tensor:
        """The priority of each row [...] in a prioritised replay. The default is the loss of the row, as in Rainbow."""
        return loss


#: A head with values of any type. Head has no common type of its own, since `loss` takes the values of its own class.
AnyHead = Head[Any]


@dataclass(frozen=True)
class HeadParts:
    """Everything that a head is built from.

    Attributes:
        sizes: the sizes and layers of its streams.
        config: the algorithm; a built-in head reads the node of its name, such as `config.quantile`.
    """

    sizes: Sizes
    config: AgentConfig

    @property
    def options(self) -> Mapping[str, Any]:
        """`agent.head_options`: keyword arguments of a head that a user registers."""
        return self.config.head_options


HeadFactory = Callable[[HeadParts], AnyHead]


def gather_actions(values: Tensor, action: Tensor) -> Tensor:
    """The entries [...] or [..., K] of the given actions [...] in values [..., A] or [..., A, K]."""
    rows = action.dim()
    index = action.reshape(*action.shape, *(1,) * (values.dim() - rows))
    return torch.take_along_dim(values, index, dim=rows).squeeze(rows)


def bellman_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """R + γ^k·(1 − terminated)·v(s'), each [...] (Sutton & Barto 2018, eq. 7.1 for k steps).

    For quantiles or atoms at s', reward and discount are [..., 1] and next_value is [..., K].
    """
    return reward + discount * next_value
