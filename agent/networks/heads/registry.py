"""The registry of heads. `agent.head` names one of them.

To add a head of your own, call this in any module that is imported before the agent is built::

    register_head("mine", lambda parts: MyHead(parts.sizes, **parts.options))

`agent.head=mine` then selects it, and `agent.head_options.<name>=<value>` sets its options.
"""

import copy
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from agent.common.errors import UserError, plain
from agent.common.foreign import OwnCodeError, is_stop, own_failure
from agent.config.algorithm import HEADS
from agent.networks.heads import categorical, expected, implicit_quantile, quantile
from agent.networks.heads.base import AnyHead, HeadFactory, HeadParts, gather_actions

_FACTORIES: dict[str, HeadFactory] = {
    "expected": expected.build,
    "categorical": categorical.build,
    "quantile": quantile.build,
    "implicit_quantile": implicit_quantile.build,
}
assert tuple(_FACTORIES) == HEADS


def register_head(name: str, factory: HeadFactory) -> None:
    """Registers `factory` as the head `agent.head=<name>`. Registering a name again replaces its factory.

    Raises:
        ValueError: if the name is not a plain word or is the name of a built-in head.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(f"{name!r} cannot name a head: the name must be a word of letters, digits, _ and -")
    if name in HEADS:
        raise ValueError(f"{name!r} is the name of a built-in head")
    _FACTORIES[name] = factory


def own_heads() -> dict[str, HeadFactory]:
    """The registered heads of users, by name. Actor processes register them as well."""
    return {name: factory for name, factory in _FACTORIES.items() if name not in HEADS}


def build_head(parts: HeadParts) -> AnyHead:
    """Builds the head that `agent.head` names.

    Raises:
        UserError: if the name is not registered, the head does not know the options, or it fails.
    """
    name = parts.config.head
    if name not in _FACTORIES:
        raise UserError(
            f"agent.head is {name!r:.80}: it must be one of {', '.join(_FACTORIES)}; one of your own is registered by "
            "the module that you name with imports="
        )
    try:
        head = _FACTORIES[name](parts)
        if name not in HEADS:
            _try(name, copy.deepcopy(head).eval(), parts)
            head.register_forward_hook(partial(_check_values, name, parts.sizes.actions))
        return head
    except BaseException as error:  # a head of the user's own may end the program by itself
        if is_stop(error):
            raise
        if isinstance(error, TypeError) and any(f"'{option}'" in str(error) for option in parts.options):
            raise UserError(f"agent.head_options={parts.options} do not go with agent.head={name}: {error}") from error
        if name in HEADS:
            raise
        raise own_failure(f"agent.head={name}", error) from error


def _try(name: str, head: AnyHead, parts: HeadParts) -> None:
    """Calls every method of a head of the user's own with two rows of zeros, and checks the shapes of its results."""
    rows, actions = torch.zeros(2), parts.sizes.actions
    levels = None if head.level_counts is None else torch.full((2, head.level_counts[0]), 0.5)
    with torch.no_grad():
        values = head(torch.zeros(2, parts.sizes.features), [None] * len(head.noise_sizes), levels)
        _check(name, "q_values", values.q_values, (2, actions))
        outcome = gather_actions(values.outcomes, rows.long())
        target = head.target(outcome, rows, rows, parts.config.target_range)
        loss = head.loss(values, rows.long(), target)
        _check(name, "loss", loss, (2,))
        _check(name, "priority", head.priority(values, rows.long(), target, loss), (2,))


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
