"""The registry of heads. `agent.head` names one of them.

To add a head of your own, call this in any module that is imported before the agent is built::

    register_head("mine", lambda parts: MyHead(parts.sizes, **parts.options))

`agent.head=mine` then selects it, and `agent.head_options.<name>=<value>` sets its options.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from agent.common.errors import UserError, plain
from agent.common.foreign import OwnCodeError
from agent.config.algorithm import BUILT_IN_HEADS
from agent.networks import own_parts
from agent.networks.heads import categorical, expected, implicit_quantile, quantile
from agent.networks.heads.base import AnyHead, HeadFactory, HeadParts, gather_actions
from agent.networks.registry import Registry

_BUILDERS = (expected.build, categorical.build, quantile.build, implicit_quantile.build)
#: The heads by name.
HEADS: Registry[HeadFactory] = Registry("a head", "agent.head", dict(zip(BUILT_IN_HEADS, _BUILDERS, strict=True)))
register_head = HEADS.register


def build_head(parts: HeadParts) -> AnyHead:
    """Builds the head that `agent.head` names.

    Raises:
        UserError: if the name is not registered, the head does not know the options, or it fails.
    """
    name = parts.config.head
    factory = HEADS.find(name)
    return _own(name, factory, parts) if HEADS.is_own(name) else factory(parts)


def _own(name: str, factory: HeadFactory, parts: HeadParts) -> AnyHead:
    """Builds a head of the user's own, whose values are checked in every call, and tries a copy of it."""
    option = f"agent.head={name}"
    with own_parts.failures(option):
        try:
            head = factory(parts)
        except TypeError as error:
            if any(f"'{given}'" in str(error) for given in parts.options):
                raise UserError(f"agent.head_options={parts.options} do not go with {option}: {error}") from error
            raise
        head.noise_sizes = own_parts.noise_sizes(option, head.noise_sizes)
        if head.level_counts is not None:
            prediction, target = (own_parts.whole_number(option, "level_counts", count) for count in head.level_counts)
            head.level_counts = prediction, target
        _try(name, copy.deepcopy(head).eval(), parts)
        head.register_forward_hook(partial(_check_values, name, parts.sizes.actions))
    return head


def _try(name: str, head: AnyHead, parts: HeadParts) -> None:
    """Calls every method of a head of the user's own with two rows of zeros, and checks its results."""
    option, rows, actions = f"agent.head={name}", torch.zeros(2), parts.sizes.actions
    levels = None if head.level_counts is None else torch.full((2, head.level_counts[0]), 0.5)
    features, before = torch.zeros(2, parts.sizes.features), own_parts.tensors_of(head)
    with torch.enable_grad():
        values = head(features, [None] * len(head.noise_sizes), levels)
        own_parts.check_call(option, before, head, features)
        _check(name, "q_values", values.q_values, (2, actions))
        with torch.no_grad():
            outcome = gather_actions(values.outcomes, rows.long())
            target = head.target(outcome, rows, rows, parts.config.target_range)
        loss = head.loss(values, rows.long(), target)
        _check(name, "loss", loss, (2,))
        _check(name, "priority", head.priority(values, rows.long(), target, loss), (2,))
        if not loss.requires_grad:
            raise OwnCodeError(f"{option}: its loss has no gradient, so that nothing would be learned")
        own_parts.check_gradient(option, loss, head)


def _check_values(name: str, actions: int, head: nn.Module, arguments: tuple[Any, ...], values: object) -> None:
    """A forward hook: checks the action values that a head of the user's own makes from features [B, …, p]."""
    rows, q_values = len(arguments[0]), getattr(values, "q_values", None)
    if not torch.is_tensor(q_values):
        raise OwnCodeError(f"agent.head={name} must make values with a tensor q_values, and not {plain(values, 80)}")
    if q_values.shape[:1] != (rows,) or q_values.shape[-1] != actions:
        raise OwnCodeError(
            f"agent.head={name}: for {rows} rows its q_values have the shape {list(q_values.shape)}, and not "
            f"[{rows}, …, {actions}]"
        )


def _check(name: str, result: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise UserError(
            f"agent.head={name}: for 2 rows and all their actions its {result} must have the shape {list(shape)}, not "
            f"{list(tensor.shape)}: fix the head"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise OwnCodeError(f"agent.head={name}: its {result} is {tensor.dtype} and must be float32")
