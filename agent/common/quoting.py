"""Options as users write them on a command line: name=value in Hydra's grammar."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real

from agent.common.errors import UserError


def split_override(override: str) -> tuple[str, str]:
    """The name of the option that an override sets, and its value: agent.lr and 1e-3 of ++agent.lr=1e-3."""
    name, _, value = override.lstrip("+~").partition("=")
    return name.partition("@")[0], value  # noise@x=paper sets noise


def override_name(override: str) -> str:
    """The name of the option that an override sets; see `split_override`."""
    return split_override(override)[0]


def quote_override(name: str, value: object) -> str:
    """The override name=value. The value is quoted if Hydra would otherwise misread it."""
    text = str(value)
    return f"{name}={text}" if re.fullmatch(r"[A-Za-z0-9_./:+@%-]+", text) else f"{name}={quote_value(text)}"


def quote(text: str) -> str:
    """A text that Hydra reads as text, not as a number or a truth value: it is quoted unless it is a plain name."""
    plain = re.fullmatch(r"(\.{0,2}/)*[A-Za-z][A-Za-z0-9_./:@-]*", text)
    return text if plain and text.lower() not in ("true", "false", "null", "nan", "inf") else quote_value(text)


def quote_value(text: str) -> str:
    """A quoted text in Hydra's grammar, as a value or as an item of a list."""
    # Quotes inside get a backslash, and so does each backslash before a quote, including the closing quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def from_python(name: str, value: object) -> Iterator[str]:
    """The overrides that set an option to a Python value; a mapping gives one override for each option below it.

    Args:
        name: the name of the option, such as agent.lr.
        value: a number, text, path, None, a list or an array of these, or a mapping of names to these.

    Raises:
        UserError: the value is another object.
    """
    if name == "env" and not isinstance(value, str | Mapping | None):
        raise UserError(
            f"env is a {type(value).__name__}: it takes the id of a registered environment; call "
            "gymnasium.register(id, entry_point=<your class>) and pass the id"
        )
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from from_python(f"{name}.{key}", below)
    elif name.startswith(("env.kwargs.", "env.eval_kwargs.")):
        yield f"++{name}={_written(name, value)}"  # the preset may not name this argument of the environment
    else:
        yield f"{'env' if name == 'env.id' else name}={_written(name, value)}"


def _written(name: str, value: object) -> str:
    """The value of an option in Hydra's grammar."""
    if hasattr(value, "tolist"):  # NumPy's and torch's numbers, truth values and arrays
        value = value.tolist()
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
            return "{" + ",".join(f"{quote(str(key))}:{_written(name, below)}" for key, below in value.items()) + "}"
        case Sequence() if not isinstance(value, bytes):
            return "[" + ",".join(_written(name, item) for item in value) + "]"
        case os.PathLike():
            return quote(os.fsdecode(value))
    raise UserError(
        f"{name} is a {type(value).__name__}: it takes numbers, text, truth values, None, or lists of these"
    )
