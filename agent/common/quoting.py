"""Options as a person writes them on a command line: name=value in Hydra's grammar."""

import re


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
