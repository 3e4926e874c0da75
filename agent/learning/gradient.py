"""The gradient of the loss on a batch, by autograd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from agent.compute.plan import EAGER, Speed
from agent.config.algorithm import AgentConfig
from agent.networks.q_network import QNetwork

if TYPE_CHECKING:
    from agent.replay.batch import Batch
from agent.learning.loss import Levels, loss_on


class Result(NamedTuple):
    """What a batch gave: the mean loss and the norm of its gradient before clipping, scalars; priorities [B].

    There are priorities where the rows had weights.
    """

    loss: Any
    norm: Any
    priority: Any


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Whether CUDA rounds what linear layers multiply to TF32's ten bits, as by torch's default in convolutions."""
    if not tf32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class AutogradGradient:
    """The loss of a batch; its gradient, clipped to the largest norm of the config, goes to the parameters' `grad`.

    Args:
        network: the online network.
        target: the target network.
        parameters: the online network's flat vector, whose gradient its parameters' gradients are views of.
        config: the algorithm.
        speed: whether the encoders compute in bfloat16, and linear layers in TF32.
    """

    def __init__(
        self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig, speed: Speed = EAGER
    ) -> None:
        self.network, self.target, self.config, self._tf32 = network, target, config, speed.tf32
        assert parameters.grad is not None
        self._flat, everything = parameters.grad, list(network.parameters())
        self._leaves = [parameter for parameter in everything if parameter.requires_grad]
        # What an encoder keeps fixed has a gradient of 0, which Adam leaves where it is.
        self._fixed = {i: torch.zeros_like(p).view(-1) for i, p in enumerate(everything) if not p.requires_grad}
        self._heads = network.head, target.head
        self._online, self._following = (partial(net, autocast=speed.autocast) for net in (network, target))

    def __call__(
        self, batch: Batch, draws: Tensor | None, levels: Levels | None = None, weight: Tensor | None = None
    ) -> Result:
        """The mean loss, its gradient's norm, and priorities where there are weights; see `loss_on`."""
        networks = self._online, self._following
        with products(self._tf32):
            loss, priority = loss_on(self.config, *networks, self._heads, batch, draws, levels, weight)
            gradients = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        parts = [gradient.reshape(-1) for gradient in gradients]
        for place, zeros in self._fixed.items():
            parts.insert(place, zeros)
        torch.cat(parts, out=self._flat)
        norm = torch.linalg.vector_norm(self._flat)
        self._flat /= (norm / self.config.max_grad_norm).clamp_(min=1.0)
        return Result(loss.detach(), norm, priority)
