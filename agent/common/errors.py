"""UserError, the one exception that users see: a sentence that says what is wrong and what to do."""

from agent.common.texts import printable

LONGEST = 300  # the most characters that are shown of a foreign text


class UserError(Exception):
    """An error in the input or in the machine (config, file, disk, device). It is shown without a traceback.

    Args:
        sentence: says what is wrong and what to do.
        detail: lines to show below the sentence, such as those lines of an environment's code that failed.
    """

    def __init__(self, sentence: str, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail


def words_of(error: BaseException) -> str:
    """One line for any exception, such as "ValueError: no such level". Control characters are escaped."""
    if isinstance(error, SystemExit):
        return f"it ended the program, by sys.exit({plain(error.code, 80)})"
    try:
        shown = plain(error)
    except Exception:  # from a __str__ of its author
        shown = ""
    if isinstance(error, UserError):
        return shown
    name = plain(type(error).__name__)
    return f"{name}: {shown}" if shown else name


def plain(text: object, longest: int = LONGEST) -> str:
    """A foreign text as part of a sentence: one short line without control characters."""
    shown = printable(" ".join(str(text)[: 4 * longest].split()))
    return shown if len(shown) <= longest else f"{shown[:longest]} …"


class NothingLeftError(UserError):
    """A run that was to be resumed is already complete."""
