"""Features → values. Every head returns a typed tuple that carries q_values [B, actions]."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent import targets
from agent.encoders import normalisation
from agent.layers import LinearFactory
from agent.noise import LayerNoise, NoiseSizes


class ExpectedValues(NamedTuple):
    """What the expected-value head says of a batch: q_values [B, actions]."""

    q_values: Tensor


class Stream(nn.Module):
    """One hidden layer with ReLU, then a linear output: features [B, p] → [B, outputs]."""

    def __init__(
        self, features: int, hidden: int, outputs: int, linear: LinearFactory, layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.hidden = linear(features, hidden)
        self.norm = normalisation(hidden, layer_norm)
        self.output = linear(hidden, outputs)
        self.noise_sizes: tuple[NoiseSizes, ...] = (self.hidden.noise_sizes, self.output.noise_sizes)

    def forward(self, features: Tensor, noise: Sequence[LayerNoise | None]) -> Tensor:
        """Maps features [B, p] to [B, outputs]."""
        output: Tensor = self.output(torch.relu(self.norm(self.hidden(features, noise[0]))), noise[1])
        return output


class ExpectedHead(nn.Module):
    """q(s, a) as one number per action, with or without dueling streams.

    Dueling (Wang et al. 2016, eq. 9): q = v + a − mean(a), each stream with a hidden layer of its own.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        actions: int,
        linear: LinearFactory,
        *,
        dueling: bool = False,
        layer_norm: bool = False,
        loss: targets.Loss = "huber",
    ) -> None:
        super().__init__()
        self.advantage = Stream(features, hidden, actions, linear, layer_norm)
        self.value = Stream(features, hidden, 1, linear, layer_norm) if dueling else None
        self.loss_name: targets.Loss = loss
        value_sizes = self.value.noise_sizes if self.value is not None else ()
        self.noise_sizes: tuple[NoiseSizes, ...] = self.advantage.noise_sizes + value_sizes

    def forward(self, features: Tensor, noise: Sequence[LayerNoise | None]) -> ExpectedValues:
        """Maps features [B, p] to values of every action."""
        advantage = self.advantage(features, noise[:2])
        if self.value is None:
            return ExpectedValues(advantage)
        value = self.value(features, noise[2:])
        return ExpectedValues(value + advantage - advantage.mean(dim=-1, keepdim=True))

    def target(self, following: ExpectedValues, next_action: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The learning target [B]: what `following`, the values at s', say of next_action [B], discounted."""
        next_value = targets.gather_actions(following.q_values, next_action)
        return targets.bellman_target(reward, discount, next_value)

    def loss(self, prediction: ExpectedValues, action: Tensor, target: Tensor) -> Tensor:
        """The unreduced loss [B] of q(s, a) against target [B]."""
        return targets.td_loss(targets.gather_actions(prediction.q_values, action), target, self.loss_name)
