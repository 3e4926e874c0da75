"""The command line as Hydra's parser reads it: flags in any place, sentences for what is refused, Python 3.14."""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException

from agent.command.overrides import unfold, with_quotes
from agent.common.errors import UserError


@dataclass(frozen=True)
class Program:
    """What a program's command line may hold.

    Attributes:
        name: of its file.
        options: the full names of all that it reads, to find the nearest to a misspelt one.
        example: of an option.
        several: how to name several things at once; empty for train.py, where -m makes several runs.
        other_program_options: options of another program, each with advice on what to write instead.
    """

    name: str
    options: Sequence[str]
    example: str
    several: str = ""
    other_program_options: Mapping[str, str] = field(default_factory=dict)


class _Help:
    """A help text that is made when it is shown, as Hydra means it; argparse of Python 3.14 asks for `'%' in help`."""

    def __init__(self, text: object) -> None:
        self._text = text

    def __contains__(self, part: str) -> bool:
        return False  # there is nothing to fill in

    def __repr__(self) -> str:
        return str(self._text)


class HydraParser(ArgumentParser):
    """Hydra's parser, which besides takes flags between options, refuses by a UserError, and suits Python 3.14."""

    check: Callable[[Namespace], None] = staticmethod(lambda flags: None)

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        """As argparse's, but the help may be an object that becomes text."""
        if not isinstance(settings.get("help", ""), str):
            settings["help"] = _Help(settings["help"])
        return super().add_argument(*names, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The flags and overrides, as argparse finds them, if the program takes them."""
        self._arguments = sys.argv[1:] if args is None else list(args)
        flags = self.parse_intermixed_args(self._arguments, namespace)
        flags.overrides = [with_quotes(override) for override in flags.overrides]
        self.check(flags)
        return flags

    def error(self, message: str) -> NoReturn:
        """Raises a UserError in place of printing the usage and exiting."""
        if message.startswith("unrecognized arguments: -"):
            flag = message.split()[2]
            option = _as_option(flag, self._arguments)
            raise UserError(f"there is no flag {flag.partition('=')[0]}: options have no dashes, {option}; see --help")
        raise UserError(f"{message}; see --help")


def _as_option(flag: str, arguments: Sequence[str]) -> str:
    """A flag of a command line, --seed=3 or --seed 3, as the option that was meant; an example where it is unclear."""
    name, _, value = flag.lstrip("-").partition("=")
    next_arguments = arguments[arguments.index(flag) + 1 :][:1]
    value = value or next((argument for argument in next_arguments if not re.search("^-|=", argument)), "")
    return f"{name}={value}" if value and flag.startswith("--") else "name=value"


def hydra_parser(check: Callable[[Namespace], None] | None = None) -> HydraParser:
    """The parser that Hydra makes, as a `HydraParser`.

    hydra-core 1.3.8 hands argparse an object of its own as the help of `--shell-completion`, and its function that
    makes the parser takes no class: its name for argparse stands for ours while it runs.

    Args:
        check: is called with what a command line says, and may refuse it.
    """
    module_globals = get_args_parser.__globals__
    argparse_module = module_globals["argparse"]
    module_globals["argparse"] = SimpleNamespace(ArgumentParser=HydraParser)
    try:
        parser = get_args_parser()
    finally:
        module_globals["argparse"] = argparse_module
    assert isinstance(parser, HydraParser)
    if check is not None:
        parser.check = check
    return parser


def install_parser(program: Program) -> None:
    """Makes `hydra.main` read the command line of a program with `hydra_parser`."""

    def check(flags: Namespace) -> None:
        check_flags(flags, program)
        check_overrides(flags.overrides, program)

    sys.modules[hydra.main.__module__].get_args_parser = lambda: hydra_parser(check)  # type: ignore[attr-defined]


def check_flags(flags: Namespace, program: Program) -> None:
    """Refuses flags of Hydra's that do not work here, or not together; Hydra raises ValueErrors or leaves them unread.

    Raises:
        UserError: naming the flag.
    """
    if flags.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which can run code: a run goes on by resume=<folder>")
    commands = ("run", "cfg", "multirun", "shell_completion", "info")
    given_flags = [f"--{name.replace('_', '-')}" for name in commands if getattr(flags, name) not in (None, False)]
    if len(given_flags) > 1:
        raise UserError(f"{given_flags[0]} does not go with {given_flags[1]}: leave one of them out")
    if flags.resolve and flags.cfg != "job" and not flags.help:
        raise UserError("--resolve goes with --cfg job or --help alone")
    if flags.package is not None and flags.cfg is None:
        raise UserError(f"--package goes with --cfg alone: python {program.name} --cfg job --package <node>")
    is_multirun = flags.multirun or "hydra.mode=MULTIRUN" in flags.overrides
    if not is_multirun and any(override.startswith("hydra.sweep.") for override in flags.overrides):
        raise UserError("hydra.sweep is of several runs: add -m, or name the folder of a single one by hydra.run.dir")
    if flags.multirun and program.several:
        raise UserError(f"-m is of train.py: {program.name} takes {program.several}")
    if flags.shell_completion and not re.search(r"\b(install|uninstall|query)=", " ".join(flags.overrides)):
        raise UserError("--shell-completion takes install=bash or uninstall=bash, or the same of zsh or fish")
    if flags.hydra_help:
        flags.overrides = []  # Hydra composes its own config alone for it, which knows no options of ours


def check_overrides(overrides: Sequence[str], program: Program) -> None:
    """Refuses options of Hydra's that do not work here, and options of the other program.

    Raises:
        UserError: naming the option.
    """
    own_options = {name.split(".")[0] for name in program.options}
    for override in _unfolded(overrides):
        name, _, value = override.lstrip("+~").partition("=")
        root = name.split(".")[0]
        if name in _REFUSED_OPTIONS and value.lower() not in ("false", "null"):
            raise UserError(f"{name} does not work here: {_REFUSED_OPTIONS[name]}")
        if root == "hydra" and program.several and re.match(r"hydra\.(run|sweep|mode|launcher|sweeper)\b", name):
            raise UserError(f"{name} is of train.py; leave it out")
        if name in program.other_program_options or (root in program.other_program_options and root not in own_options):
            advice = program.other_program_options.get(name) or program.other_program_options[root]
            raise UserError(f"{override} is not for {program.name}: {advice.format(value=value)}")


#: Options of Hydra's that would change where a run's files lie or what lies beside them.
_REFUSED_OPTIONS = {
    "hydra.job.chdir": "paths are read from the folder that the program was started in; leave it out",
    "hydra.output_subdir": "config.yaml of the run folder holds the whole config; leave it out",
}


def _unfolded(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        with suppress(HydraException):  # Hydra says what is wrong with it
            yield from unfold([override])
