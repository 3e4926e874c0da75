"""Imports of a user's own modules, which the command line names: environments, encoders, heads.

Only here does a name become an import, and only the command line supplies such names. They are removed from the config
before it is used, so that no run folder, checkpoint or saved agent ever holds one.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from agent.common.errors import UserError, plain
from agent.common.foreign import is_stop
from agent.common.quoting import quote

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
#: Modules of this project, which are no modules of a user's own.
_PROJECT_MODULES = {"agent", "envs", "train", "evaluate", "compare", "share", "tune"}


def import_named(options: dict[str, Any]) -> list[str]:
    """Imports the modules in `imports`, and the module of an `env` written as module:Id; removes both from `options`.

    Returns:
        The option imports=… that names all of them, for commands that are printed; an empty list if there are none.

    Raises:
        UserError: a module does not exist, or its import fails.
    """
    names = options.pop("imports", None)
    if isinstance(names, str):
        names = [names]
    if names is not None and (not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names)):
        raise UserError(f"imports is {names!r}: it must be the name of a module, or a list of them")
    modules = list(names or ())
    for name in modules:
        import_module(name, f"imports={name}")
    if "env" in options and ":" in str(options["env"]["id"]):
        module, _, options["env"]["id"] = str(options["env"]["id"]).partition(":")
        import_module(module, f"env={module}:{options['env']['id']}")
        modules.append(module)
    return [f"imports=[{','.join(map(quote, dict.fromkeys(modules)))}]"] if modules else []


def import_module(name: str, option: str) -> None:
    """Imports an installed module, one in the folder where the program was started, or one at a path.

    Args:
        name: the module's name, or the path of its file or folder: my_encoder, ./my_encoder.py, ../mine/games.
        option: the option that names it, for messages.

    Raises:
        UserError: the import fails; the message names `option`.
    """
    if "/" in name or os.sep in name or name.endswith(".py"):
        _import_file(Path(name), option)
        return
    if not _MODULE.fullmatch(name):
        raise UserError(f"{option}: {name!r} is not the name of a module")
    start_folder = os.getcwd()  # noqa: PTH109 (a string, as in sys.path)
    _add_to_path(start_folder)
    _check_name(name.split(".")[0], Path(start_folder), option)
    with _import_errors(name, option, start_folder):
        importlib.import_module(name)


def _import_file(path: Path, option: str) -> None:
    """Imports a file, or a folder with an __init__.py, once, under a name that no other module has."""
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{option}: there is no file {file}")
    file = file.resolve()
    folder = file.parent.parent if path.is_dir() else file.parent
    importlib.invalidate_caches()
    _add_to_path(str(folder))  # so that the module can import its neighbours
    name = file.parent.name if path.is_dir() else file.stem
    if not _MODULE.fullmatch(name) or _file_of(name) != file:
        name = f"imported_{crc32(str(file).encode()):08x}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{option}: {file} is not a module: a module's file ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _import_errors(name, option, str(folder)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _add_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that it hides no installed module


def _check_name(name: str, start_folder: Path, option: str) -> None:
    """Refuses a name under which Python would import another module than the user's own."""
    file = _file_of(name)
    own_file = next(
        (path for path in (start_folder / f"{name}.py", start_folder / name / "__init__.py") if path.is_file()), None
    )
    if name in _PROJECT_MODULES:
        owner = "of this program"
    elif own_file is not None and file != own_file.resolve():
        owner = "of Python itself" if name in sys.stdlib_module_names else f"that is installed in {file or 'Python'}"
    else:
        return
    path = (
        f"./{own_file.relative_to(start_folder)}".removesuffix("/__init__.py")
        if own_file is not None
        else "./my_module.py"
    )
    raise UserError(
        f"{option}: {name} is the name of a module {owner}: rename yours, or write its path, such as {path}"
    )


def _file_of(name: str) -> Path | None:
    """Finds the file that a module of this name is imported from."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin else None


@contextmanager
def _import_errors(name: str, option: str, folder: str) -> Iterator[None]:
    """Turns any error of an import into a UserError, and restores the current folder."""
    start_folder = os.getcwd()  # noqa: PTH109
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name.split(".")[0] == missing or name == missing:
            reason = f"there is no such module; it must be installed, lie in {folder}, or be a path, ./{missing}.py"
        else:
            reason = f"it needs {missing}; it must be installed, or lie in {folder}"
        raise UserError(f"{option}: {reason}") from error
    except BaseException as error:  # a script may end the program by itself
        if is_stop(error):
            raise
        raise UserError(f"{option}: importing it failed: {type(error).__name__}: {plain(error)}") from error
    finally:
        os.chdir(start_folder)
