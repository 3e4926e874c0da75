"""Checks of an encoder or a head of the user's own. It is tried when a network is built, and not hours later."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from agent.common.arrays import WHOLE_NUMBERS
from agent.common.errors import UserError, plain
from agent.common.foreign import OwnCodeError, is_stop, own_failure
from agent.common.tensor_file import MAX_TENSORS
from agent.noise.distributions import NoiseSizes

#: float32 holds every whole number up to this one.
EXACT = 2**24


@contextmanager
def failures(option: str) -> Iterator[None]:
    """Turns an error of a part of the user's own into one sentence. Such a part may even end the program by itself.

    Raises:
        UserError: names the option, such as agent.head=mine.
    """
    try:
        yield
    except BaseException as error:
        if is_stop(error):
            raise
        raise own_failure(option, error) from error


def whole_number(option: str, name: str, value: object) -> int:
    """An attribute of a part as an int; NumPy's whole numbers are converted.

    Raises:
        OwnCodeError: if it is anything else.
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = -1
    if number < 0:
        kind = type(value).__name__
        raise OwnCodeError(f"{option}: its attribute {name} is {plain(value, 40)} ({kind}) and must be a whole number")
    return number


def noise_sizes(option: str, sizes: object) -> tuple[NoiseSizes, ...]:
    """The attribute `noise_sizes` of a part: a pair of whole numbers for each of its linear layers.

    Raises:
        OwnCodeError: if it is anything else.
    """
    pairs = sizes if isinstance(sizes, Sequence) else None
    if pairs is None or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise OwnCodeError(
            f"{option}: its attribute noise_sizes is {plain(sizes, 80)} and must hold the numbers (inputs, outputs) of "
            "noise for each linear layer, such as ((4, 16),); () is for layers without noise"
        )
    return tuple((whole_number(option, "noise_sizes", a), whole_number(option, "noise_sizes", b)) for a, b in pairs)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _is_lazy(tensor: Tensor) -> bool:
    return isinstance(tensor, UninitializedParameter | UninitializedBuffer)


def check_call(option: str, before: dict[str, Tensor], module: nn.Module, inputs: Tensor) -> None:
    """Checks, after a call with `inputs`, that a module has not written to them, and has the same tensors as `before`.

    Raises:
        OwnCodeError: if it has.
    """
    if inputs._version:
        raise OwnCodeError(f"{option} writes to its input, which others read too: x = x - 1 in place of x -= 1")
    for name, tensor in sorted(tensors_of(module).items()):
        if name not in before:
            raise OwnCodeError(f"{option} makes {name} when it is called: make all layers in its constructor")
        if tensor is not before[name]:  # the target network, a checkpoint or a CUDA graph would keep the first one
            raise OwnCodeError(f"{option} replaces {name} when it is called: write into it, with copy_")


def check_gradient(option: str, outputs: Tensor, module: nn.Module) -> None:
    """Goes back once from outputs to the parameters of a module, which is a copy of the user's.

    Raises:
        OwnCodeError: if a parameter of the copy cannot learn, or its gradient is sparse.
    """
    leaves = {name: each for name, each in module.named_parameters() if each.requires_grad and not _is_lazy(each)}
    for name, parameter in leaves.items():
        if not parameter.is_leaf:
            raise OwnCodeError(
                f"{option}: a copy of {name} cannot learn, as after torch.jit.script: use the plain module"
            )
    if outputs.requires_grad and leaves:
        gradients = torch.autograd.grad(outputs.sum(), [*leaves.values()], allow_unused=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None and gradient.layout != torch.strided:
                raise OwnCodeError(f"{option}: the gradient of {name} is sparse: use sparse=False")


def check_tensors(network: nn.Module) -> None:
    """Refuses tensors of a user's encoder or head that cannot learn, or that a saved agent cannot hold.

    Raises:
        UserError: names the first of them.
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if _is_lazy(tensor):
            raise UserError(f"the network's {name} has no size yet: a lazy layer needs the number of its inputs")
        if tensor.dtype != torch.float32 and (isinstance(tensor, nn.Parameter) or tensor.dtype not in WHOLE_NUMBERS):
            raise UserError(
                f"the network's {name} is {tensor.dtype}: parameters must be float32, and buffers float32, whole "
                "numbers or truth values"
            )


def check_saved(network: nn.Module) -> None:
    """Refuses a network whose saved agent could not be written, or not be read.

    Raises:
        OwnCodeError: says what the state_dict lacks or holds.
    """
    state = network.state_dict()
    parts = {name for name, _ in (*network.named_parameters(remove_duplicate=False), *network.named_buffers())}
    for name, value in state.items():
        if not torch.is_tensor(value) or name not in parts:
            raise OwnCodeError(
                f"the network's state_dict holds {name}, which is no parameter and no buffer: leave it out"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise OwnCodeError(
                f"the network's {name} holds values that are not finite, which no saved agent holds: use large "
                "numbers, or register the buffer with persistent=False"
            )
        if not value.is_floating_point() and ((value.long() > EXACT) | (value.long() < -EXACT)).any():
            raise OwnCodeError(
                f"the network's {name} holds whole numbers above {EXACT:,}, which a saved agent rounds to float32: "
                "keep them below, or register the buffer with persistent=False"
            )
    for name, _ in network.named_parameters(remove_duplicate=False):
        if name not in state:
            raise OwnCodeError(f"the network's state_dict lacks {name}, which a saved agent needs")
    if len(state) > MAX_TENSORS:
        raise OwnCodeError(f"the network has {len(state):,} tensors, and {MAX_TENSORS:,} are the most: stack them")
