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


def one_line(error: BaseException) -> str:
    """One line for any exception, such as "ValueError: no such level". Control characters are escaped."""
    if isinstance(error, SystemExit):
        return f"it ended the program, by sys.exit({plain(error.code, 80)})"
    shown = plain(error) if _has_text(error) else ""
    if isinstance(error, UserError):
        return shown
    name = plain(type(error).__name__)
    return f"{name}: {shown}" if shown else name


def plain(text: object, longest: int = LONGEST) -> str:
    """A foreign text as part of a sentence: one short line without control characters.

    An object whose class cannot make a text of it is named by that class.
    """
    whole = str(text) if _has_text(text) else f"an object of class {type(text).__name__}"
    shown = printable(" ".join(whole[: 4 * longest].split()))
    return shown if len(shown) <= longest else f"{shown[:longest]} …"


def _has_text(value: object) -> bool:
    """Whether str(value) works; a foreign class may raise anything, even SystemExit."""
    try:
        str(value)
    except BaseException:
        return False
    return True


def memory_is_full(error: BaseException) -> bool:
    """Whether an operation found no memory, on an accelerator or in the machine. Torch has its own errors for both."""
    of_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )
    return of_torch or isinstance(error, MemoryError)


def device_failed(error: BaseException) -> bool:
    """Whether an accelerator failed, according to torch."""
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("CUDA error", "MPS"))


def check_text(name: str, text: str) -> None:
    """Refuses a text of an option that no file and no path can hold.

    Python reads bytes of file names that are no text as surrogates; those are written as the same bytes.

    Raises:
        UserError: the text has a NUL, or half a character (another surrogate).
    """
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        refused = text[error.start]
    else:
        if "\0" not in text:
            return
        refused = "\0"
    raise UserError(f"{plain(name, 80)} has the character {printable(refused)}, which no file can hold: leave it out")


class NothingLeftError(UserError):
    """A run that was to be resumed is already complete; `score` is the mean return of its last evaluation, if any."""

    def __init__(self, message: str, score: float | None = None) -> None:
        super().__init__(message)
        self.score = score
