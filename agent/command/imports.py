"""Imports of a user's own modules, which the command line names: environments, encoders, heads.

This is the only place where a name becomes an import, and the names come from the person at the command line alone:
they are taken out of the config before it is used, so that no run folder, checkpoint or saved agent ever holds one.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from agent.common.errors import UserError

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def import_named(options: dict[str, Any]) -> list[str]:
    """Imports what `imports` names, and the module of an `env` that is written module:Id; takes both out of `options`.

    Returns:
        The options that name them again, for commands that are shown: none, or imports=….

    Raises:
        UserError: where there is no such module, or it fails.
    """
    names = options.pop("imports")
    if isinstance(names, str):
        names = [names]
    if names is not None and (not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names)):
        raise UserError(f"imports is {names!r}: it must be the name of a module, or a list of them")
    named = list(names or ())
    for name in named:
        import_module(name, f"imports={name}")
    if "env" in options and ":" in str(options["env"]["id"]):
        module, _, options["env"]["id"] = str(options["env"]["id"]).partition(":")
        import_module(module, f"env={module}:{options['env']['id']}")
        named.append(module)
    return [f"imports=[{','.join(dict.fromkeys(named))}]"] if named else []


def import_module(name: str, option: str) -> None:
    """Imports a module that is installed, or that lies in the folder where the program was started.

    Raises:
        UserError: naming `option`, where that does not work.
    """
    if not _MODULE.fullmatch(name):
        raise UserError(f"{option}: {name!r} is not the name of a module")
    here = os.getcwd()  # noqa: PTH109 (as sys.path holds it)
    if here not in sys.path:
        sys.path.append(here)  # last: nothing that is installed is hidden
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        what = "there is no such module" if name.split(".")[0] == missing or name == missing else f"it needs {missing}"
        raise UserError(f"{option}: {what}; it must be installed, or lie in {here}") from error
    except (Exception, SystemExit) as error:  # a script may end the program by itself
        raise UserError(f"{option}: importing it failed: {type(error).__name__}: {error}") from error
