"""Foreign text, made safe to show; the order of names."""

import re
from pathlib import Path


def printable(text: str) -> str:
    """Escapes control characters, which a terminal would obey, and bytes that are not text."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def natural_order(name: str | Path) -> list[tuple[int, str]]:
    """The key that sorts names in natural order: job 10 comes after job 9."""
    parts = re.split(r"(\d{1,18})", str(name))  # longer numbers would take long to read
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
