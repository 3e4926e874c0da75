"""Drawing with matplotlib's default settings, whatever the user's are; one sentence for a picture that fails."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from agent.common.errors import UserError
from agent.common.texts import printable


class DrawingError(UserError):
    """A picture could not be drawn. A file that cannot be written is a UserError of its own."""


@contextmanager
def drawing_errors(out: Path) -> Iterator[None]:
    """Draws with default settings, and turns any error of drawing into a sentence: a failed plot needs no traceback.

    Raises:
        DrawingError: the picture of the file `out` could not be drawn.
    """
    try:
        with default_settings():
            yield
    except UserError:
        raise
    except Exception as error:
        sentence = f"{out} could not be drawn ({type(error).__name__}: {printable(str(error)):.200})"
        raise DrawingError(sentence) from error


@contextmanager
def default_settings() -> Iterator[None]:
    """Draws with matplotlib's default settings and without its warnings; then the user's settings hold again.

    A `matplotlibrc` may ask for LaTeX, which is not installed, or for other colours than those of our legends.
    """
    _import_matplotlib()
    import matplotlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
        del defaults["backend"]
        with matplotlib.rc_context(defaults):
            yield


def _import_matplotlib() -> None:
    """Imports matplotlib, also where MPLBACKEND or a `matplotlibrc` of the user makes its import fail."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it tells of a home folder that cannot be written
    try:
        import matplotlib  # noqa: F401 (with the user's settings, which code of the user's may need)
    except ImportError:
        raise
    except Exception:
        _import_without_settings()


def _import_without_settings() -> None:
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[name]  # parts that the failed import left behind, and that do not fit the next one
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        with chdir(Path(found.origin).parent / "mpl-data"):  # the matplotlibrc of the current folder comes first
            import matplotlib  # noqa: F401
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
