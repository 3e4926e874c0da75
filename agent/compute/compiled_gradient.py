"""The gradient as one compiled function.

It is the function that AutogradGradient computes, of the same arguments: parameters, batch, draws, levels, weights. It
is what compiling asks for: nothing random, no state, no module that changes how it behaves. Draws come in as arguments
at every call, so that none can be baked in.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from agent.compute.compiled import Compiled
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.plan import EAGER, Speed
from agent.config.algorithm import AgentConfig
from agent.learning.gradient import AutogradGradient, Result, products
from agent.learning.loss import Levels, loss_on
from agent.networks.heads.base import Values
from agent.networks.q_network import QNetwork

if TYPE_CHECKING:
    from agent.replay.batch import Batch


class CompiledGradient:
    """See AutogradGradient, as for its arguments; compiled at its first call, which takes 10 to 90 s.

    Raises:
        UserError: at the first call, where it cannot be compiled and `speed.strict` says that it has to be.
    """

    def __init__(
        self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig, speed: Speed = EAGER
    ) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = network, target, config
        self._parameters, self._flat, self._speed = parameters, parameters.grad, speed
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self._fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self._compiled = Compiled(self.pure, speed.strict)

    def __call__(
        self, batch: Batch, draws: Tensor | None, levels: Levels | None = None, weight: Tensor | None = None
    ) -> Result:
        """The mean loss, its gradient's norm, and priorities where there are weights."""
        with products(self._speed.tf32):
            gradient, *result = self._compiled(self._parameters, batch, draws, levels, weight)
        self._flat.copy_(gradient)
        return Result(*result, *(None,) * (3 - len(result)))

    def pure(
        self, parameters: Tensor, batch: Batch, draws: Tensor | None, levels: Levels | None, weight: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Clipped gradient [P] by the flat parameters [P], loss, norm before clipping, priorities [B] if any."""

        def loss(named: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            def online(*arguments: Tensor | None) -> Values:
                values: Values = functional_call(self.network, named, arguments, {"autocast": self._speed.autocast})
                return values

            target = partial(self.target, autocast=self._speed.autocast)
            heads = self.network.head, self.target.head
            value, priority = loss_on(self.config, online, target, heads, batch, draws, levels, weight)
            return value, () if priority is None else (priority,)

        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), torch.split(parameters, sizes), strict=True)
        gradients, (value, priority) = grad_and_value(loss, has_aux=True)(
            {name: part.view(shape) for (name, shape), part in parts}
        )
        for name in self._fixed:
            gradients[name] = torch.zeros_like(gradients[name])
        gradient = torch.cat([gradients[name].reshape(-1) for name in self._shapes])
        norm = torch.linalg.vector_norm(gradient)
        return gradient / (norm / self.config.max_grad_norm).clamp(min=1.0), value, norm, *priority


def gradient_of(
    network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig, on_numpy: bool, speed: Speed
) -> NumpyGradient | AutogradGradient | CompiledGradient:
    """What computes the gradient: the fastest there is without compiling, unless `speed` asks for that."""
    if speed.compiled:
        return CompiledGradient(network, target, parameters, config, speed)
    if on_numpy:
        return NumpyGradient(network, target, parameters, config)
    return AutogradGradient(network, target, parameters, config, speed)
