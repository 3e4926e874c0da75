"""Checks of config files of the user's own: those of --config-dir, and nodes that they replace by a word."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.command.presets import CONF
from agent.common.errors import UserError


def check_nodes(options: Mapping[str, Any]) -> None:
    """Refuses a config file that sets `agent` or `env` itself, whose options would then be lost.

    Raises:
        UserError: the message says how a file selects an agent or a task.
    """
    for name in ("agent", "env"):
        if name in options and not (isinstance(options[name], Mapping) and options[name]):
            raise UserError(
                f"a config file sets {name}, which has options of its own: it selects one of them with "
                f"defaults: [override /{name}: <name>]"
            )


def check_names(sources: Iterable[Any]) -> None:
    """Refuses a file of --config-dir that has the name of a file in conf/, which Hydra reads in its place.

    Args:
        sources: Hydra's folders of config files, each with a provider and a path.

    Raises:
        UserError: the message names both files.
    """
    for source in sources:
        folder = Path(source.path)
        if source.provider != "command-line" or not folder.is_dir() or folder.resolve() == CONF.resolve():
            continue
        for file in sorted(folder.rglob("*.yaml")):
            other = CONF / file.relative_to(folder)
            if other.is_file() and other.read_bytes() != file.read_bytes():
                raise UserError(f"{file} has the name of {other}, which is read in its place: give it another name")
