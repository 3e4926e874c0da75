"""The start of a program, before its imports, which take a second. This module imports nothing heavy."""

import os
import sys

TYPE_CHECKING = False  # that of typing takes longer to import than the rest

if TYPE_CHECKING:
    import signal
    from types import FrameType
else:  # `signal` itself makes enumerations, and takes a quarter of the time until Ctrl-C is handled
    import _signal as signal

is_program = False  # whether this process is a program of the project, and may therefore be ended
ctrl_c_came = False  # whether Ctrl-C came while `by_exception` was the handler


def begin() -> None:
    """Prepares the process: Ctrl-C without a traceback, open standard streams, UTF-8, a current folder."""
    global is_program
    is_program = True
    quit_at_once()
    open_streams()
    use_utf8()
    check_folder()


def at_once(signum: int, frame: "FrameType | None") -> None:
    """The handler of Ctrl-C for a program that has nothing to save, at its start and at its end."""
    os._exit(128 + signum)


def quit_at_once() -> None:
    """Lets Ctrl-C end the process without a traceback, until `quit_by_exception`."""
    handlers = (signal.SIG_DFL, signal.default_int_handler, by_exception)  # else Ctrl-C is ignored, as by nohup
    if signal.getsignal(signal.SIGINT) in handlers:
        signal.signal(signal.SIGINT, at_once)


def by_exception(signum: int, frame: "FrameType | None") -> None:
    """Raises KeyboardInterrupt, as Python's handler does, and records Ctrl-C; an environment may raise one of its own.

    Raises:
        KeyboardInterrupt: always.
    """
    global ctrl_c_came
    ctrl_c_came = True
    signal.default_int_handler(signum, frame)


def quit_by_exception() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is at_once:
        signal.signal(signal.SIGINT, by_exception)


def is_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt may come from a person; under Python's own handler it always may."""
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or (handler is by_exception and ctrl_c_came)


def open_streams() -> None:
    """Connects standard streams that are closed, as after `2>&-`, to the null device.

    Otherwise the next file to be opened would get the number of the closed stream, and with it the output of other
    libraries; and print() to a stream that is None writes to the standard output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) == number:  # the lowest free number
                stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)


def check_folder() -> None:
    """Ends the process with one sentence if its current folder has been deleted: libraries cannot be loaded there."""
    try:
        os.getcwd()  # noqa: PTH109 (pathlib takes longer to import than the rest)
    except OSError:
        sys.stderr.write("error: the current folder has been deleted: go to another one, by cd for example\n")
        sys.exit(2)


def use_utf8() -> None:
    """Restarts the program in UTF-8 mode if the locale is ASCII and that mode is off: LC_ALL=C PYTHONUTF8=0.

    Arguments of the command line would otherwise hold surrogates, which cannot be written to UTF-8 files.
    """
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
