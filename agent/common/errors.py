"""The one exception a person sees: a clear sentence that says what is wrong and what to do."""


class UserError(Exception):
    """Bad input or a bad surrounding (config, file, disk, device); shown without a traceback."""


LONGEST = 300  # characters of another library's message that are shown


def words_of(error: BaseException) -> str:
    """One line for an error of any kind, such as "ValueError: no such level"; control characters are escaped."""
    text = " ".join(str(error).split())
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} …"
    if isinstance(error, UserError):
        return shown
    if isinstance(error, SystemExit):
        return f"it ended the program, by sys.exit({error.code!r:.80})"
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
