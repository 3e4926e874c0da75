"""Overrides of the command line: name=value in Hydra's grammar."""

import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from agent.common.quoting import quote, quote_override


def with_quotes(override: str) -> str:
    """The override with its value in quotes where Hydra's grammar refuses a plain text: hydra.run.dir=ünder, name=a=b.

    Values that are meant for the grammar stay as they are: in quotes, lists, mappings, interpolations, functions, and
    several values with commas between them.
    """
    name, _, value = override.partition("=")
    for_the_grammar = re.match(r"""['"\[{$]|\w+\(""", value) or "," in value or not value
    if for_the_grammar or _readable(override) or not _readable(f"{name}=x"):
        return override
    return quote_override(name, value)


def _readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unfold(overrides: Sequence[str]) -> Iterator[str]:
    """The overrides, with one for each option in place of those in braces, such as eval={every:100}."""
    parser = OverridesParser.create()
    for override in overrides:
        yield from _below(override.partition("=")[0], parser.parse_override(override).value(), override)


def _below(key: str, node: object, override: str) -> Iterator[str]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _below(f"{key}.{name}", value, f"{key}.{name}={value}")
    else:
        yield override


def from_python(name: str, value: object) -> Iterator[str]:
    """The overrides that give an option a value of Python's; a mapping gives one for each option below it.

    Args:
        name: of the option, such as agent.lr.
        value: a number, text, None, a list of such, or a mapping of names to such.
    """
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from from_python(f"{name}.{key}", below)
    elif name.startswith(("env.kwargs.", "env.eval_kwargs.")):
        yield f"++{name}={_written(value)}"  # the preset need not know the environment's arguments
    else:
        yield f"{'env' if name == 'env.id' else name}={_written(value)}"


def _written(value: object) -> str:
    """A value of Python's in Hydra's grammar."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Integral():
            return str(int(value))
        case Real():
            return str(value)
        case str():
            return quote(value)
        case Mapping():
            return "{" + ",".join(f"{quote(str(key))}:{_written(below)}" for key, below in value.items()) + "}"
        case Sequence():
            return "[" + ",".join(map(_written, value)) + "]"
    return quote(str(value))
