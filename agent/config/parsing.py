"""Builds frozen dataclasses from a plain mapping (YAML, JSON, Hydra), with one clear sentence for each mistake.

It is written by hand because a version with pydantic 2.14 was longer: its errors have to be converted into these
sentences. Its import takes 0.15 s more.
"""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from agent.common.errors import UserError, check_text, plain
from agent.config.paths import Texts
from agent.config.ranges import Range

T = TypeVar("T")

#: The most characters of a name or value in a sentence: in a file it may be a megabyte long.
MAX_SHOWN = 80
#: The kinds of values in words.
_KINDS: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def nearest(name: str, names: Sequence[str]) -> str:
    """Returns '; did you mean a, b?' with the names most like `name`, or an empty text if none is similar."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""


def parse(cls: type[T], mapping: Mapping[str, object], prefix: str = "") -> T:
    """Builds the dataclass `cls` from `mapping`, checking every key, type and range.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range; the message names it.
    """
    hints = _hints(cls, mapping, prefix)
    return cls(**{key: _value(hints[key], value, f"{prefix}{key}") for key, value in mapping.items()})


def parsed_singly(cls: type[object], mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Checks every option of a mapping by itself, without combinations; returns the mapping as `to_plain` writes it.

    It is for options of which only some will be used: `agent.epsilon.end=0.05` fits a run whose ε starts at 1, though
    not the defaults.

    Raises:
        UserError: as `parse`, except for combinations of options.
    """
    hints, plain = _hints(cls, mapping, prefix), {}
    for key, value in mapping.items():
        hint, name = hints[key], f"{prefix}{key}"
        is_node = dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping)
        plain[key] = parsed_singly(hint, value, f"{name}.") if is_node else to_plain(_value(hint, value, name))
    return plain


def _hints(cls: type[object], mapping: Mapping[str, object], prefix: str) -> dict[str, Any]:
    """Returns the types of a dataclass's options, by name; refuses a mapping with other keys."""
    hints = get_type_hints(cls, include_extras=True)
    unknown = [key for key in mapping if key not in hints]
    if unknown:
        known = ", ".join(hints)
        name = str(unknown[0])[:MAX_SHOWN]
        name = name if name.isprintable() else ascii(name)
        raise UserError(f"unknown option {prefix}{name}{nearest(name, list(hints))} (known here: {known})")
    return hints


def to_plain(config: object) -> Any:
    """Returns the mapping, of JSON types only, from which `parse` would build an equal config."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Fraction):
        return config.numerator if config.denominator == 1 else str(config)
    if isinstance(config, Mapping):
        return {key: to_plain(value) for key, value in config.items()}
    return [to_plain(item) for item in config] if isinstance(config, tuple) else config


def _value(hint: object, value: object, key: str) -> object:
    """Converts `value` to the annotated type `hint`; raises a UserError that names `key`."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(
                f"{key} is {value!r:.{MAX_SHOWN}}: it takes options of its own, such as {_example(hint, key)}"
            )
        return parse(hint, value, f"{key}.")
    bounds: tuple[Range | Texts, ...] = ()
    if get_origin(hint) is typing.Annotated:
        hint, *rest = get_args(hint)
        bounds = tuple(rest)
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None and type(None) in get_args(hint):
            return None
        options = [option for option in _options_of(hint) if option is not type(None)]
        literals = [option for option in options if get_origin(option) is Literal]
        if literals and value in get_args(literals[0]):
            return value
        (hint,) = (option for option in options if option not in literals)
        if literals and isinstance(value, str) and hint is not str:
            words = ", ".join(map(str, get_args(literals[0])))
            raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be {_KINDS[hint]}, or one of {words}")
    result = _leaf(hint, value, key)
    for bound in bounds:
        for item in result if isinstance(result, tuple) else (result,):
            if not bound.holds(item):
                shown = str(item if isinstance(bound, Texts) else value).strip() or "empty"
                raise UserError(f"{key} is {plain(shown, MAX_SHOWN)}: it must be {bound.text}")
    return result


def _leaf(hint: Any, value: object, key: str, listed: bool = False) -> object:
    """Converts `value`, an item of a list or a value of its own, to one of the types that are no dataclass."""
    if hint is object:
        return value
    if get_origin(hint) is Literal:
        if isinstance(value, bool) and "on" in get_args(hint):
            value = "on" if value else "off"  # YAML reads these words as truth values
        if value not in get_args(hint):
            raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be one of {', '.join(map(str, get_args(hint)))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            example = {int: "256,256", float: "-10,10"}.get(get_args(hint)[0], "a,b")
            raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be a list, such as [{example}]")
        return tuple(_leaf(get_args(hint)[0], item, key, listed=True) for item in value)
    if get_origin(hint) is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be a mapping, such as {{name: value}}")
        return dict(value)
    if hint is str and isinstance(value, str):
        check_text(key, value)
    if hint is Fraction:
        return _fraction(value, key)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # YAML reads 1e6 as a float, and people mean a whole number
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{key} is far too large")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        advice = ""
        if hint is str and isinstance(value, int | float):  # what looks like a number is one, unless it is quoted
            quoted = f'["{value}"]' if listed else f'"{value}"'
            advice = f": on a command line write '{quoted}', in both kinds of quotes"
        raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be {_KINDS[hint]}{advice}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} is {value}: it must be a finite number")
    return value


def _fraction(value: object, key: str) -> Fraction:
    """Converts `value` to an exact fraction: 0.1 means 1/10, not the nearest double."""
    try:
        text = str(value)  # through float, which turns 1e999999999 into inf instead of an integer of that size
        fraction = Fraction(text if "/" in text else repr(float(text)))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be a number or a fraction such as 1/4") from None
    if abs(fraction) > 10**15 or fraction.denominator > 10**15:
        raise UserError(f"{key} is {value!r:.{MAX_SHOWN}}: it must be a fraction of numbers below 10¹⁵")
    return fraction


def _example(cls: object, key: str) -> str:
    return f"{key}.{next(iter(get_type_hints(cls)))}=…"


def with_numbers(cls: type[object], name: str, value: object) -> object:
    """Turns texts into numbers where an option takes numbers. YAML reads 1e-3, without a point, as a text.

    Args:
        cls: the dataclass with the options.
        name: the full name of the option; with another name the value is returned as it is.
        value: a value, or a list of values.
    """
    hint: Any = cls
    for key in name.split("."):
        hint = get_type_hints(hint).get(key) if dataclasses.is_dataclass(hint) else None
    return _with_numbers(hint, value)


def _with_numbers(hint: Any, value: object) -> object:
    hints = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if isinstance(value, list):
        inner = next((get_args(option)[0] for option in hints if get_origin(option) is tuple), None)
        return [_with_numbers(inner, item) for item in value]
    if isinstance(value, str) and not {int, float}.isdisjoint(hints):
        with contextlib.suppress(ValueError):
            number = float(value)
            return int(number) if int in hints and number.is_integer() else number
    return value


def names_of(cls: type[object], kind: type[object]) -> list[str]:
    """Lists the full names of the options of a dataclass that take a text (`kind` is str) or a list (tuple)."""
    return [
        name for name, hint in _named(cls) if kind in {get_origin(option) or option for option in _options_of(hint)}
    ]


def _options_of(hint: object) -> tuple[object, ...]:
    """Returns the types of a union; of another type, itself."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def leaf_names(cls: type[object]) -> list[str]:
    """Lists the full names of all options of a dataclass, nodes included: agent, agent.lr, …"""
    return [name for name, _ in _named(cls)]


def _named(cls: type[object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields the full names and the types of all options of a dataclass, nodes included."""
    for key, hint in get_type_hints(cls).items():
        yield f"{prefix}{key}", hint
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _named(hint, f"{prefix}{key}.")
