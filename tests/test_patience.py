"""Foreign code that may hang is called in a thread, which is abandoned after a time."""

import threading
import time

import pytest

from agent.common.patience import TooLongError, call_within


def test_a_call_ends_before_it_returns() -> None:
    calls: list[threading.Thread] = []
    call_within(10.0, lambda: calls.append(threading.current_thread()))
    assert len(calls) == 1
    assert calls[0] is not threading.current_thread()


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("a socket's own"), SystemExit(3)])
def test_an_error_of_the_call_is_its_own(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        call_within(10.0, fail)
    assert caught.value is error


@pytest.mark.parametrize("seconds", [0.05, -1.0])
def test_a_call_that_hangs_is_abandoned(seconds: float) -> None:
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(TooLongError):
        call_within(seconds, release.wait)
    assert time.monotonic() - began < 5.0
    release.set()
