"""Overrides of the command line: name=value in Hydra's grammar."""

import re
from collections.abc import Callable, Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from agent.common.errors import UserError
from agent.common.quoting import quote_override, quote_value

#: Flags of Hydra whose value is the next argument.
WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info"),
}


def with_quotes(override: str) -> str:
    """Quotes an override's value where Hydra's grammar refuses a plain text: hydra.run.dir=ünder, name=a=b.

    Values that use the grammar do not change: quoted texts, lists, mappings, interpolations, functions, and several
    values with commas between them. A value that begins with ~ does not change either: quoted, it would name a folder.
    """
    name, _, value = override.partition("=")
    is_grammar = re.match(r"""['"\[{$~]|\w+\(""", value) or "," in value or not value
    if is_grammar or _is_parsable(override) or not _is_parsable(f"{name}=x"):
        return override
    return quote_override(name, value)


def _is_parsable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def is_sweep(override: str) -> bool:
    """Whether the override gives several values, as seed=0,1 does."""
    return OverridesParser.create().parse_override(override).is_sweep_override()


def gather_into_list(
    arguments: Sequence[str],
    option: str,
    kind: str,
    belongs: Callable[[str], bool],
    as_item: Callable[[str], str] = quote_value,
) -> list[str]:
    """Gathers the arguments of one kind into one `option=[…]`; other arguments and flags do not change.

    Args:
        arguments: the command line.
        option: the option that takes the list.
        kind: the name of this kind of argument, for the error.
        belongs: whether an argument, which is neither a flag nor a flag's value, is of this kind.
        as_item: writes such an argument as an item of the list.

    Raises:
        UserError: the command line has the option as well.
    """
    items: list[str] = []
    others: list[str] = []
    is_flag_value = False
    for argument in arguments:
        belongs_here = not is_flag_value and not argument.startswith("-") and belongs(argument)
        is_flag_value = argument in WITH_VALUE
        (items if belongs_here else others).append(argument)
    if not items:
        return others
    if any(re.match(rf"\+*{option}=", argument) for argument in others):
        raise UserError(f"{option}= and {kind} without it do not go together: write one of them")
    return [*others, f"{option}=[{','.join(map(as_item, items))}]"]


def unfold(overrides: Sequence[str]) -> Iterator[str]:
    """Splits overrides in braces, such as eval={every:100}, into one override for each option."""
    parser = OverridesParser.create()
    for override in overrides:
        yield from _leaf_overrides(override.partition("=")[0], parser.parse_override(override).value(), override)


def _leaf_overrides(key: str, node: object, override: str) -> Iterator[str]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaf_overrides(f"{key}.{name}", value, f"{key}.{name}={value}")
    else:
        yield override
