"""The parser of Hydra's own flags, made so that Python 3.14 takes it."""

import sys
from argparse import ArgumentParser
from types import SimpleNamespace
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser


class _Help:
    """A help text that is made when it is shown, as Hydra means it; argparse of Python 3.14 asks for `'%' in help`."""

    def __init__(self, text: object) -> None:
        self._text = text

    def __contains__(self, part: str) -> bool:
        return False  # there is nothing to fill in

    def __repr__(self) -> str:
        return str(self._text)


class HydraParser(ArgumentParser):
    """Hydra's parser: every help of it can be searched for a '%', as Python 3.14 does when an argument is added."""

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        """As argparse's, but the help may be an object that becomes text."""
        if not isinstance(settings.get("help", ""), str):
            settings["help"] = _Help(settings["help"])
        return super().add_argument(*names, **settings)


def hydra_parser() -> ArgumentParser:
    """The parser that Hydra makes, as a `HydraParser`.

    hydra-core 1.3.8 hands argparse an object of its own as the help of `--shell-completion`, and its function that
    makes the parser takes no class: its name for argparse stands for ours while it runs.
    """
    names = get_args_parser.__globals__
    theirs = names["argparse"]
    names["argparse"] = SimpleNamespace(ArgumentParser=HydraParser)
    try:
        return get_args_parser()
    finally:
        names["argparse"] = theirs


def install_parser() -> None:
    """Has the function that `hydra.main` makes of a program use `hydra_parser`."""
    sys.modules[hydra.main.__module__].get_args_parser = hydra_parser  # type: ignore[attr-defined]
