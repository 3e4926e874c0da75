"""Overrides of the command line: name=value in Hydra's grammar."""

import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from agent.common.quoting import quote_override


def with_quotes(override: str) -> str:
    """The override with its value in quotes where Hydra's grammar refuses a plain text: hydra.run.dir=ünder, name=a=b.

    Values that are meant for the grammar stay as they are: in quotes, lists, mappings, interpolations, functions, and
    several values with commas between them. So does one that begins with ~, which would be a folder of that name.
    """
    name, _, value = override.partition("=")
    for_the_grammar = re.match(r"""['"\[{$~]|\w+\(""", value) or "," in value or not value
    if for_the_grammar or _readable(override) or not _readable(f"{name}=x"):
        return override
    return quote_override(name, value)


def _readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def is_sweep(override: str) -> bool:
    """Whether the override names several values, as seed=0,1 does."""
    return OverridesParser.create().parse_override(override).is_sweep_override()


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
