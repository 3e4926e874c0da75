"""Options as users write them on a command line: name=value in Hydra's grammar."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real

from agent.common.errors import UserError, one_line, plain

#: The most lists and mappings in each other that are read.
DEEPEST = 32


def split_override(override: str) -> tuple[str, str]:
    """The name of the option that an override sets, and its value: agent.lr and 1e-3 of ++agent.lr=1e-3."""
    name, _, value = override.lstrip("+~").partition("=")
    return name.partition("@")[0], value  # noise@x=paper sets noise


def override_name(override: str) -> str:
    """The name of the option that an override sets; see `split_override`."""
    return split_override(override)[0]


def quote_override(name: str, value: object) -> str:
    """The override name=value of a text, which is quoted if Hydra would otherwise misread it, such as a number."""
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z0-9_./:+@%-]+", text) and not reads_as_other(text)
    return f"{name}={text if plain else quote_value(text)}"


def reads_as_other(text: str) -> bool:
    """Whether Hydra reads a text as a number, a truth value or null."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false", "null")
    return True


def quote(text: str) -> str:
    """A text that Hydra reads as text, not as a number or a truth value: it is quoted unless it is a plain name."""
    plain = re.fullmatch(r"(\.{0,2}/)*[A-Za-z][A-Za-z0-9_./:@-]*", text)
    return text if plain and not reads_as_other(text) else quote_value(text)


def quote_value(text: str) -> str:
    """A quoted text in Hydra's grammar, as a value or as an item of a list."""
    # Quotes inside get a backslash, and so does each backslash before a quote, including the closing quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def from_python(name: str, value: object, depth: int = 0) -> Iterator[str]:
    """The overrides that set an option to a Python value; a mapping gives one override for each option below it.

    Args:
        name: the name of the option, such as agent.lr.
        value: a number, text, path, None, a list or an array of these, or a mapping of names to these.
        depth: the number of mappings that the value lies in.

    Raises:
        UserError: the value is another object, holds itself, or a method of its own fails.
    """
    if name == "env" and not isinstance(value, str | Mapping | None):
        raise UserError(
            f"env is a {type(value).__name__}: it takes the id of a registered environment; call "
            "gymnasium.register(id, entry_point=<your class>) and pass the id"
        )
    try:
        below = [(f"{name}.{key}", item) for key, item in value.items()] if isinstance(value, Mapping) else []
        written = "" if below else _written(name, value, depth)
    except UserError:
        raise
    except Exception as error:  # of a method of its own, such as `tolist`
        raise _refused(name, value, f", which cannot be read ({one_line(error)})") from error
    if below:
        _check_depth(name, value, depth)
        for key, item in below:
            yield from from_python(key, item, depth + 1)
    elif name.startswith(("env.kwargs.", "env.eval_kwargs.")):
        yield f"++{name}={written}"  # the preset may not name this argument of the environment
    else:
        yield f"{'env' if name == 'env.id' else name}={written}"


def _written(name: str, value: object, depth: int) -> str:
    """The value of an option in Hydra's grammar."""
    _check_depth(name, value, depth)
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
            return quote(str.__str__(value))  # a class of its own, such as an enumeration, may write itself otherwise
        case Mapping():
            items = (f"{quote(str(key))}:{_written(name, below, depth + 1)}" for key, below in value.items())
            return "{" + ",".join(items) + "}"
        case Sequence() if not isinstance(value, bytes):
            return "[" + ",".join(_written(name, item, depth + 1) for item in value) + "]"
        case os.PathLike():
            return quote(os.fsdecode(value))
    raise _refused(name, value)


def _check_depth(name: str, value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise _refused(name, value, f" {DEEPEST} deep in others, or in itself")


def _refused(name: str, value: object, why: str = "") -> UserError:
    takes = "it takes numbers, text, truth values, None, or lists of these"
    return UserError(f"{plain(name, 80)} is a {type(value).__name__}{why}: {takes}")
