"""Calls foreign code that may hang."""

from collections.abc import Callable
from threading import Thread


class TooLongError(BaseException):
    """A call took too long. It is a BaseException, since foreign code may swallow an Exception."""


def call_within(seconds: float, action: Callable[[], object]) -> None:
    """Calls `action` in a thread of its own, which is abandoned if it takes longer than `seconds`.

    Raises:
        TooLongError: it takes longer.
        BaseException: the error of `action`.
    """
    errors: list[BaseException] = []

    def call() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(max(seconds, 0.0))
    if thread.is_alive():
        raise TooLongError
    if errors:
        raise errors[0]
