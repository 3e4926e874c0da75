"""The gradient as one compiled function.

For the same arguments it returns the same result as AutogradGradient. torch.compile needs a pure function: nothing
random, no state, no module that changes its behaviour. Parameters, batch, noise, levels and weights are arguments of
every call, so that the compiler cannot turn a draw into a constant.
"""

from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from agent.common.arrays import Array, as_tensor
from agent.compute.compiled import Compiled
from agent.config.algorithm import AgentConfig
from agent.learning.gradient import UpdateMetrics, clip_divisor, constant_but, matmul_precision, sigma_mask
from agent.learning.loss import NO_LEVELS, Levels, Networks, UpdateNoise, update_loss
from agent.networks.heads.base import Values
from agent.networks.q_network import QNetwork
from agent.replay.batch import Batch


class CompiledGradient:
    """A Gradient that is compiled at its first call, which takes 10 to 90 s.

    Args:
        network: see AutogradGradient, as for all other arguments.
        strict: see Compiled.

    Raises:
        UserError: at the first call, if `strict` is set and the gradient cannot be compiled.
    """

    def __init__(
        self,
        network: QNetwork,
        target: QNetwork,
        parameters: Tensor,
        config: AgentConfig,
        *,
        autocast: bool = False,
        tf32: bool = False,
        strict: bool = False,
    ) -> None:
        assert parameters.grad is not None
        self.network, self.target, self.config = network, target, config
        self._parameters, self._flat, self._autocast, self._tf32 = parameters, parameters.grad, autocast, tf32
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self._fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self._sigma_names, self._sigma = network.sigma_names(), sigma_mask(network, config)
        self._compiled = Compiled(self.pure, strict)

    def __call__(
        self, batch: Batch[Array], noise: UpdateNoise[Array], levels: Levels = NO_LEVELS, weight: Array | None = None
    ) -> UpdateMetrics:
        """See Gradient."""
        device = self._flat.device
        weights = None if weight is None else as_tensor(weight, device)
        arguments = batch.tensors(device), noise.tensors(device), levels, weights
        with matmul_precision(self._tf32):
            gradient, loss, norm, *priority = self._compiled(self._parameters, *arguments)
        self._flat.copy_(gradient)
        return UpdateMetrics(loss, norm, *priority)

    def pure(
        self,
        parameters: Tensor,
        batch: Batch[Tensor],
        noise: UpdateNoise[Tensor],
        levels: Levels,
        weight: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """The clipped gradient [P] for parameters [P], the loss, the norm before clipping, priorities [B] if any."""

        def loss(named: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            def call(parameters: dict[str, Tensor], *arguments: Tensor | None) -> Values:
                values: Values = functional_call(self.network, parameters, arguments, {"autocast": self._autocast})
                return values

            target = partial(self.target, autocast=self._autocast)
            noisy = constant_but(self._sigma_names, named.items())
            networks = Networks(partial(call, named), target, partial(call, noisy))
            value, priority = update_loss(self.config, networks, self.network.head, batch, noise, levels, weight)
            return value, () if priority is None else (priority,)

        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), torch.split(parameters, sizes), strict=True)
        gradients, (value, priority) = grad_and_value(loss, has_aux=True)(
            {name: part.view(shape) for (name, shape), part in parts}
        )
        for name in self._fixed:
            gradients[name] = torch.zeros_like(gradients[name])
        gradient = torch.cat([gradients[name].reshape(-1) for name in self._shapes])
        divisor, norm = clip_divisor(gradient, self.config.max_grad_norm, self._sigma)
        return gradient / divisor, value, norm, *priority
