"""Foreign text, made safe to show."""


def printable(text: str) -> str:
    """Escapes control characters, which a terminal would obey, and bytes that are not text."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
