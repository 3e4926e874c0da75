"""The one exception a person sees: a clear sentence that says what is wrong and what to do."""

from agent.common.texts import printable

LONGEST = 300  # characters of a text from elsewhere that are shown


class UserError(Exception):
    """Bad input or a bad surrounding (config, file, disk, device); shown without a traceback.

    Args:
        sentence: what is wrong and what to do.
        detail: lines to show below the sentence, such as those of an environment's own code that failed.
    """

    def __init__(self, sentence: str, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail


def words_of(error: BaseException) -> str:
    """One line for an error of any kind, such as "ValueError: no such level"; control characters are escaped."""
    if isinstance(error, SystemExit):
        return f"it ended the program, by sys.exit({plain(error.code, 80)})"
    shown = plain(error) if _has_text(error) else ""
    if isinstance(error, UserError):
        return shown
    name = plain(type(error).__name__)
    return f"{name}: {shown}" if shown else name


def plain(text: object, longest: int = LONGEST) -> str:
    """A text from elsewhere as a part of a sentence: one line, short, and nothing in it that a terminal obeys.

    Of an object whose class cannot make a text of it, the name of its class is shown.
    """
    whole = str(text) if _has_text(text) else f"an object of class {type(text).__name__}"
    shown = printable(" ".join(whole[: 4 * longest].split()))
    return shown if len(shown) <= longest else f"{shown[:longest]} …"


def _has_text(value: object) -> bool:
    """Whether the methods of its author's make a text of it."""
    try:
        str(value)
    except Exception:
        return False
    return True


class NothingLeftError(UserError):
    """A run that was to go on has nothing left to do."""
