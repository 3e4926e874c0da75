"""The environment variables of Weights & Biases, corrected before W&B reads them."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "WANDB_"
#: Variables whose values are words of W&B's, which it accepts in lower case only.
_WORDS = ("WANDB_MODE", "WANDB_CONSOLE", "WANDB_RESUME")
_CACHE = "WANDB_CACHE_DIR"
_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def correct_variables() -> list[str]:
    """Corrects the variables in place: an empty one counts as not set, and a mode may be in upper case.

    Returns:
        The names of variables whose bytes are not text; these are removed, since W&B fails on them.
    """
    ignored = []
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        value = os.environ[name].strip()  # a key that was read from a file often ends in a newline
        if not _is_text(value):
            ignored.append(name)
        if not value or not _is_text(value):
            del os.environ[name]
        elif name in _WORDS:
            os.environ[name] = value.lower()
        elif name == "WANDB_API_KEY":
            os.environ[name] = value
    return ignored


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def use_cache(folder: Path) -> None:
    """Lets W&B keep its caches and logs in `folder`, or in a temporary folder if it cannot write there.

    The user of a container may have no home. W&B would then print its whole log.
    """
    if not _is_writable(folder / "logs"):
        with suppress(OSError):  # there is no folder for temporary files either
            _folders.append(tempfile.TemporaryDirectory(prefix="wandb-cache-", ignore_cleanup_errors=True))
            folder = Path(_folders[-1].name)
    os.environ[_CACHE] = str(folder)


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, which is made as well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
