"""The registry of heads. `agent.head` names one of them.

To add a head of your own, call this in any module that is imported before the agent is built::

    register_head("mine", lambda parts: MyHead(parts.sizes, **parts.options))

`agent.head=mine` then selects it, and `agent.head_options.<name>=<value>` sets its options.
"""

import re

from agent.common.errors import UserError
from agent.config.algorithm import HEADS
from agent.networks.heads import categorical, expected, implicit_quantile, quantile
from agent.networks.heads.base import AnyHead, HeadFactory, HeadParts

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
        UserError: if the name is not registered or the head does not know the options.
    """
    name = parts.config.head
    if name not in _FACTORIES:
        raise UserError(
            f"agent.head is {name!r:.80}: it must be one of {', '.join(_FACTORIES)}; one of your own is registered by "
            "the module that you name with imports="
        )
    try:
        return _FACTORIES[name](parts)
    except TypeError as error:
        if not parts.options:
            raise
        raise UserError(f"agent.head_options={parts.options} do not go with agent.head={name}: {error}") from error
