"""The first moments of a program, before it imports what it needs, which takes a second: nothing heavy is used here."""

import os
import signal
import sys
from types import FrameType

is_program = False  # this process is a program of the project, which may be ended as a whole
ctrl_c_came = False  # since `by_exception` handles it


def begin() -> None:
    """Makes sure of what the rest of a program takes for granted: a quiet Ctrl-C, streams that are open, UTF-8."""
    global is_program
    is_program = True
    quit_at_once()
    open_streams()
    use_utf8()


def at_once(signum: int, frame: FrameType | None) -> None:
    """The handler of a program that has nothing to save: it begins, or has ended."""
    os._exit(128 + signum)


def quit_at_once() -> None:
    """Ends the process at Ctrl-C without a traceback, until `quit_by_exception`."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, by_exception):  # not ignored, as behind nohup
        signal.signal(signal.SIGINT, at_once)


def by_exception(signum: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt as Python's handler does, and notes that it was Ctrl-C: environments raise some, too.

    Raises:
        KeyboardInterrupt: always.
    """
    global ctrl_c_came
    ctrl_c_came = True
    signal.default_int_handler(signum, frame)


def quit_by_exception() -> None:
    """Makes Ctrl-C a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is at_once:
        signal.signal(signal.SIGINT, by_exception)


def is_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt may be that of a person: always where Python's own handler makes it of a signal."""
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or (handler is by_exception and ctrl_c_came)


def open_streams() -> None:
    """Opens the standard streams that are closed, as behind `2>&-`, to nowhere.

    The next file that is opened would take a closed one's number, and get what other libraries print; and print() to a
    stream that is None goes to the standard output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) == number:  # the lowest number that is free
                stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)


def use_utf8() -> None:
    """Starts again in UTF-8 where the locale is C and Python was told to do without: LC_ALL=C PYTHONUTF8=0.

    Text of the command line would hold half characters there, which no file of ours can hold.
    """
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
