"""Options as a person writes them on a command line: name=value in Hydra's grammar."""

import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any


def quote_override(name: str, value: object) -> str:
    """name=value as Hydra reads it: a value in quotes where it would be taken for something else."""
    text = str(value)
    return f"{name}={text}" if re.fullmatch(r"[A-Za-z0-9_./:+@%-]+", text) else f"{name}={quote_value(text)}"


def quote(text: str) -> str:
    """Text that Hydra reads as text, and not as a number or a truth value: in quotes unless it is a plain name."""
    plain = re.fullmatch(r"(\.{0,2}/)*[A-Za-z][A-Za-z0-9_./:@-]*", text)
    return text if plain and text.lower() not in ("true", "false", "null", "nan", "inf") else quote_value(text)


def quote_value(text: str) -> str:
    """A text in quotes, as Hydra reads it: by itself, or as an item of a list."""
    # Its grammar: a quote inside gets a backslash, and so do the backslashes before a quote, which the last one is too.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def from_python(name: str, value: Any) -> Iterator[str]:
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


def _written(value: Any) -> str:
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
