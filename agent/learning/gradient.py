"""The gradient of the loss on a batch, by autograd."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from agent.common.arrays import Array, as_tensor
from agent.common.foreign import own_code
from agent.config.algorithm import AgentConfig
from agent.learning.loss import NO_LEVELS, Levels, Network, Networks, UpdateNoise, update_loss
from agent.networks.heads.base import Values
from agent.networks.q_network import QNetwork
from agent.replay.batch import Batch


class UpdateMetrics(NamedTuple):
    """Loss and gradient norm (before clipping) of one update, scalars, and the new priorities [B] if rows had weights.

    They stay on the device. The monitor turns them into floats once per logging interval.
    """

    loss: Tensor | float
    grad_norm: Tensor | float
    priority: Array | None = None


class Gradient(Protocol):
    """Fills the flat gradient of the online network's parameters, clipped to the norm `agent.max_grad_norm`.

    Where σ learns separately, each of the two parts is clipped to it.
    """

    def __call__(
        self, batch: Batch[Array], noise: UpdateNoise[Array], levels: Levels = NO_LEVELS, weight: Array | None = None
    ) -> UpdateMetrics:
        """Computes the gradient of `update_loss` on B transitions, given as arrays or tensors."""


class MakeGradient(Protocol):
    """Makes the Gradient of an agent's networks."""

    def __call__(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> Gradient:
        """Returns a Gradient that fills `parameters.grad`; `parameters` [P] is the online network's flat vector."""


class AutogradGradient:
    """A Gradient that uses torch's autograd.

    Args:
        network: the online network.
        target: the target network.
        parameters: the flat vector [P] of the online network's parameters (see `flatten_parameters`); each call fills
            its `grad`.
        config: the algorithm.
        autocast: whether the encoders compute in bfloat16.
        tf32: whether linear layers use TF32 on CUDA.
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
    ) -> None:
        self.network, self.target, self.config, self._tf32 = network, target, config, tf32
        assert parameters.grad is not None
        self._flat, everything = parameters.grad, list(network.parameters())
        self._leaves = [parameter for parameter in everything if parameter.requires_grad]
        # The gradient of frozen parameters of an encoder is 0, and Adam does not change them.
        self._fixed = {i: torch.zeros_like(p).view(-1) for i, p in enumerate(everything) if not p.requires_grad}
        options = {"autocast": autocast}
        self._networks = Networks(
            partial(network, **options), partial(target, **options), partial(only_sigma_learns(network), **options)
        )
        self._sigma = sigma_mask(network, config)

    def __call__(
        self, batch: Batch[Array], noise: UpdateNoise[Array], levels: Levels = NO_LEVELS, weight: Array | None = None
    ) -> UpdateMetrics:
        """See Gradient."""
        device = self._flat.device
        weights = None if weight is None else as_tensor(weight, device)
        rows, draws = batch.tensors(device), noise.tensors(device)
        own = own_code(self.network.own)
        with own, matmul_precision(self._tf32), torch.enable_grad():  # which an environment may have turned off
            loss, priority = update_loss(self.config, self._networks, self.network.head, rows, draws, levels, weights)
            gradients = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        flat = [gradient.reshape(-1) for gradient in gradients]
        for place, zeros in self._fixed.items():
            flat.insert(place, zeros)
        torch.cat(flat, out=self._flat)
        divisor, norm = clip_divisor(self._flat, self.config.max_grad_norm, self._sigma)
        self._flat /= divisor
        return UpdateMetrics(loss.detach(), norm, priority)


def constant_but(names: Container[str], parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The parameters by name, of which only those with the given names receive gradients."""
    return {name: value if name in names else value.detach() for name, value in parameters}


def sigma_mask(network: QNetwork, config: AgentConfig) -> Tensor | None:
    """Which numbers of the flat parameters are σ that learns separately: bool [P]; None if there are none."""
    if config.noise.learning == "joint" or not (sigma := network.sigma_names()):
        return None
    parts = [torch.full((p.numel(),), name in sigma, device=p.device) for name, p in network.named_parameters()]
    return torch.cat(parts)


def clip_divisor(gradient: Tensor, limit: float, sigma: Tensor | None) -> tuple[Tensor, Tensor]:
    """By how much to divide a flat gradient [P] so that its norm is at most `limit`, and the norm, a scalar.

    Where σ learns separately, its gradient is clipped separately: the mean network then learns as if it had no noise.
    The norm is that of the mean network.
    """
    if sigma is None:
        norm = torch.linalg.vector_norm(gradient)
        return (norm / limit).clamp(min=1.0), norm
    norm, of_sigma = (torch.linalg.vector_norm(gradient * part) for part in (~sigma, sigma))
    return (torch.where(sigma, of_sigma, norm) / limit).clamp(min=1.0), norm


def only_sigma_learns(network: QNetwork) -> Network:
    """`network` as a function in which every parameter but σ is a constant."""
    sigma = network.sigma_names()

    def noisy(observation: Tensor, noise: Tensor | None, levels: Tensor | None, *, autocast: bool = False) -> Values:
        parameters = constant_but(sigma, network.named_parameters())
        values: Values = functional_call(network, parameters, (observation, noise, levels), {"autocast": autocast})
        return values

    return noisy


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    """With `tf32`, matrix products on CUDA round their factors to ten bits, as torch's convolutions do by default."""
    if not tf32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
