"""Options as a person writes them on a command line: name=value in Hydra's grammar."""

import re


def quote_override(name: str, value: object) -> str:
    """name=value as Hydra reads it: a value in quotes where it would be taken for something else."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./:+@%-]+", text):
        return f"{name}={text}"
    return f"{name}={quote_value(text)}"


def quote_value(text: str) -> str:
    """A text in quotes, as Hydra reads it: by itself, or as an item of a list."""
    # Its grammar: a quote inside gets a backslash, and so do the backslashes before a quote, which the last one is too.
    quoted = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{quoted}'"
