"""Overrides of the command line: name=value in Hydra's grammar."""

import re
from collections.abc import Callable, Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from agent.common.errors import UserError
from agent.common.quoting import quote_override, quote_value

#: Flags of Hydra that take the next word.
WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info"),
}


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


def gathered(
    words: Sequence[str],
    option: str,
    named: str,
    belongs: Callable[[str], bool],
    as_item: Callable[[str], str] = quote_value,
) -> list[str]:
    """A command line whose words of one kind have become one `option=[…]`; other words and flags stay.

    Args:
        words: of the command line.
        option: that takes a list.
        named: those words, for the error.
        belongs: says whether a word, which is no flag and no flag's value, is one of them.
        as_item: writes such a word as an item of the list.

    Raises:
        UserError: where the option is there as well.
    """
    found: list[str] = []
    others: list[str] = []
    value = False
    for word in words:
        gathers = not value and not word.startswith("-") and belongs(word)
        value = word in WITH_VALUE
        (found if gathers else others).append(word)
    if not found:
        return others
    if any(re.match(rf"\+*{option}=", word) for word in others):
        raise UserError(f"{option}= and {named} without it do not go together: write one of them")
    return [*others, f"{option}=[{','.join(map(as_item, found))}]"]


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
