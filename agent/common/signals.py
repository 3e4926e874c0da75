"""The signals that ask a run to save and stop."""

import os
import signal
from contextlib import suppress

#: A person or a batch system sends these; a second one of them stops the process at once.
ASKED = (signal.SIGINT, signal.SIGTERM)
#: A closed terminal or a lost connection, Slurm's warning before a time limit, and a limit on CPU time. The system may
#: send these several times, so that a further one is no wish to stop at once.
WARNINGS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name))


def to_handle() -> tuple[signal.Signals, ...]:
    """The signals to handle now. A warning that nohup, submitit or a user's own code handles is theirs."""
    return (*ASKED, *(number for number in WARNINGS if signal.getsignal(number) is signal.SIG_DFL))


def tell(line: str) -> None:
    """Writes a line to the standard error, whose terminal may be closed; a signal may have interrupted a print()."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
