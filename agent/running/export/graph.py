"""An agent as one function of an environment's observations, written as an ONNX file."""

import copy
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agent.common import beginning
from agent.common.errors import UserError, one_line
from agent.common.files import atomic_write_bytes
from agent.learning.targets import greedy
from agent.networks.q_network import QNetwork
from agent.networks.trunks import Convolution, spectral_norms
from agent.running.export.inputs import Input, inputs_of, observation_module
from agent.running.player import Player

#: An ONNX file is one protocol-buffer message, which can hold no more.
MAX_BYTES = 2**31 - 2**20
OUTPUTS = ("q_values", "action")


class ExportedAgent(nn.Module):
    """Maps observations, and perhaps ε of the noise [B, size], to q_values [B, A] and the greedy actions [B].

    The actions are the environment's, which may begin at another number than 0. The function f of factorised noise is
    included, so that ε is drawn from the base distribution itself.

    Args:
        player: the agent, whose network is copied.
        noise: whether the last input is noise; otherwise the mean network acts.
    """

    def __init__(self, player: Player, noise: bool) -> None:
        super().__init__()
        self.observe, self.network = observation_module(player.task.observe), exportable(player.network)
        self.first, self.noise, self.factorised = player.task.first_action, noise, player.noise.factorised

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the inputs, each [B, ...], in the order of the file."""
        leaves, noise = (inputs[:-1], inputs[-1]) if self.noise else (inputs, None)
        if noise is not None and self.factorised:
            noise = noise.sign() * noise.abs().sqrt()
        values = self.network(self.observe(leaves), noise).q_values
        return values, greedy(values) + self.first


class MaxPool(nn.Module):
    """An adaptive max-pool of images of fixed size to side×side, built from slices: ONNX has no such operation."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """[..., H, W] → [..., side, side]."""
        for dim in (-2, -1):
            n = x.shape[dim]
            ends = [(i * n // self.side, -(-(i + 1) * n // self.side)) for i in range(self.side)]
            x = torch.stack([x.narrow(dim, start, end - start).amax(dim) for start, end in ends], dim)
        return x


class Norm(nn.Module):
    """Layer normalisation of rows of any size: the squares of numbers above 10¹⁹ overflow in single precision.

    An agent itself is played in double precision, where they do not.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm, self.dims = norm, tuple(range(-len(norm.normalized_shape), 0))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., *normalized_shape] to the same shape: the largest |x| divides x and ε, if it is above 1."""
        size = x.abs().amax(self.dims, keepdim=True).clamp(min=1.0)
        x = x / size
        x = x - x.mean(self.dims, keepdim=True)
        eps = (self.norm.eps**0.5 / size).square().clamp(min=1e-30)  # above zero, for rows of equal numbers
        x = x * (x.square().mean(self.dims, keepdim=True) + eps).rsqrt()
        x = x if self.norm.weight is None else x * self.norm.weight
        return x if self.norm.bias is None else x + self.norm.bias


def exportable(network: QNetwork) -> QNetwork:
    """A copy on the CPU that computes the same with operations that ONNX has, and without overflow."""
    copied = copy.deepcopy(network).cpu().eval()
    normed = [module for module in copied.modules() if isinstance(module, Convolution) and module.spectral_norm]
    with torch.no_grad():
        for layer, norm in zip(normed, spectral_norms(normed), strict=True):
            layer.weight.div_(norm)  # type: ignore[arg-type]
            layer.spectral_norm = False
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveMaxPool2d):
                setattr(module, name, MaxPool(int(child.output_size)))  # type: ignore[arg-type]
            elif type(child) is nn.LayerNorm and not isinstance(module, Norm):
                setattr(module, name, Norm(child))
    return copied


def write_onnx(player: Player, path: Path, noise: bool = False) -> list[Input]:
    """Writes the agent as one ONNX file, for batches of any size.

    Returns:
        Its inputs, without the noise.

    Raises:
        UserError: if the extra is not installed, noise is requested from an agent without noise, or its network has
            operations that ONNX lacks.
    """
    check_installed()
    if noise and not player.noise.size:
        raise UserError(f"{player.path} has no noisy layers: leave noise=true out")
    inputs, size = inputs_of(player.task), sum(4 * x.numel() for x in player.network.state_dict().values())
    if size > MAX_BYTES:
        raise UserError(f"{player.path} has {size:,} bytes of parameters: an ONNX file holds {MAX_BYTES:,}")
    examples = [torch.zeros(2, *item.shape, dtype=_dtype(item, player)) for item in inputs]
    names = [item.name for item in inputs]
    if noise:
        examples, names = [*examples, torch.zeros(2, player.noise.size)], [*names, "noise"]
    atomic_write_bytes(path, _file(ExportedAgent(player, noise), examples, names, player))
    return inputs


def check_installed() -> None:
    """Raises a UserError if a package that writes ONNX is missing."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise UserError(f"to=onnx needs {' and '.join(missing)}: pip install 'noisy-dqn[onnx]'")


def _dtype(item: Input, player: Player) -> torch.dtype:
    found = getattr(torch, item.dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise UserError(f"{player.task.id} observes {item.name} as {item.dtype}, which ONNX does not support")
    return found


def _file(module: nn.Module, examples: list[Tensor], names: list[str], player: Player) -> bytes:
    batch = torch.export.Dim("batch")
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            program: Any = torch.onnx.export(
                module.eval(),
                tuple(examples),
                dynamo=True,
                external_data=False,
                input_names=names,
                output_names=OUTPUTS,
                dynamic_shapes=(tuple({0: batch} for _ in examples),),
                verbose=False,
            )
            if any(isinstance(item.shape[0], int) for item in program.model.graph.inputs):
                raise UserError("its encoder or head makes a plain number of the size of a batch, by len() for example")
            content: bytes = program.model_proto.SerializeToString()  # its `save` needs a file, on a disk with space
            return content
    except Exception as error:  # a user's encoder or head may hold anything that torch can compute
        if _is_interrupted(error):
            raise KeyboardInterrupt from error
        reason = re.sub(r"\\x1b\[[\d;]*m", "", one_line(error))  # the exporter colours its words for terminals
        raise UserError(f"{player.path} cannot be written as ONNX: {reason}") from error


def _is_interrupted(error: Exception) -> bool:
    """Whether Ctrl-C led to the error. A user's encoder may raise a KeyboardInterrupt itself, which is a failure."""
    interrupts = any(isinstance(cause, KeyboardInterrupt) for cause in _causes(error))
    return beginning.is_ctrl_c() and (beginning.ctrl_c_came or interrupts)  # C++ code leaves no causes


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that led to it: the exporter raises errors of its own for others."""
    yield error
    for cause in {error.__cause__, error.__context__}:
        if cause is not None:
            yield from _causes(cause)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the reports of the exporter, which do not help users."""
    level, logger = logging.getLogger("torch.onnx").level, logging.getLogger("torch.onnx")
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
