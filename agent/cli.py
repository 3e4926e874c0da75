"""How the two programs end: one clear sentence and a non-zero exit for whatever a person can mend."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence

from agent.errors import UserError

#: Exit code of a run that ended for a reason that a person can mend.
FAILED = 2


def run(main: Callable[[], object], config_errors: tuple[type[Exception], ...], options: Sequence[str]) -> None:
    """Runs a Hydra program; ends the process with 2 and one sentence where the fault is not in the code.

    Args:
        main: the function that Hydra made of the program.
        config_errors: what Hydra raises for a config that it cannot compose.
        options: all options by their full names, to find the nearest to a misspelt one.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on, and we word them
    try:
        main()
    except UserError as error:
        _fail(str(error))
    except config_errors as error:
        _fail(_config_sentence(str(error), options))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except RuntimeError as error:  # torch's, of a device; everything else is a defect and keeps its traceback
        sentence = _device_sentence(error)
        if sentence is None:
            raise
        _fail(sentence)


def _fail(sentence: str) -> None:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(FAILED)


def _config_sentence(message: str, options: Sequence[str]) -> str:
    """Hydra's message in one sentence, with the nearest option where a name is unknown."""
    match = re.search(r"Could not override '([^']+)'", message)
    if match is None:
        return message
    close = difflib.get_close_matches(match[1], options, n=3, cutoff=0.5)
    return f"unknown option {match[1]}" + (f"; did you mean {', '.join(close)}?" if close else "; see --help")


def _device_sentence(error: RuntimeError) -> str | None:
    """What to do about an accelerator that is full or gone; None where the error is of another kind."""
    text = str(error).splitlines()[0] if str(error) else ""
    if type(error).__name__ == "OutOfMemoryError":
        return f"the device ran out of memory ({text}); lower agent.batch_size or use device=cpu, then resume the run"
    if "CUDA error" in text or "MPS" in text:
        return f"the device failed ({text}); go on with resume=<run folder>, on another one with device=cpu"
    return None
