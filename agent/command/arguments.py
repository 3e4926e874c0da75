"""Hydra's command-line parser with three changes: flags may stand anywhere, errors are sentences, Python 3.14 works."""

import dataclasses
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn, get_type_hints

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.errors import HydraException

from agent.command.overrides import unfold, with_quotes
from agent.command.synonyms import OTHER_LIBRARIES, OTHER_UNITS
from agent.common.errors import UserError, check_text
from agent.common.quoting import override_name, reads_as_other, split_override


@dataclass(frozen=True)
class Program:
    """The command line that a program accepts.

    Attributes:
        name: the name of its file.
        options: the full names of all its options; the nearest to a misspelt name is suggested.
        example: an option with a value, for messages.
        texts: the options that take one text.
        lists: the options that take a list.
        several: how to name several things at once; empty for train.py, where -m makes several runs.
        other_program_options: options of another program, each with advice on what to write instead.
    """

    name: str
    options: Sequence[str]
    example: str
    texts: Sequence[str] = ()
    lists: Sequence[str] = ()
    several: str = ""
    other_program_options: Mapping[str, str] = field(default_factory=dict)


class _Help:
    """A help text that is built only when it is shown, as Hydra intends; Python 3.14 evaluates `'%' in help` on it."""

    def __init__(self, text: object) -> None:
        self._text = text

    def __contains__(self, part: str) -> bool:
        return False  # the text has no placeholders

    def __repr__(self) -> str:
        return str(self._text)


class HydraParser(ArgumentParser):
    """Hydra's parser, which also accepts flags between options, raises UserError, and works on Python 3.14."""

    check: Callable[[Namespace], None] = staticmethod(lambda flags: None)

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        """Adds an argument as argparse does; `help` may also be an object whose text is built later."""
        if not isinstance(settings.get("help", ""), str):
            settings["help"] = _Help(settings["help"])
        return super().add_argument(*names, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Returns the flags and overrides, once `check` has accepted them."""
        self._arguments = sys.argv[1:] if args is None else list(args)
        flags = self.parse_intermixed_args(self._arguments, namespace)
        flags.overrides = [with_quotes(override) for override in flags.overrides]
        self.check(flags)
        return flags

    def error(self, message: str) -> NoReturn:
        """Raises a UserError instead of printing the usage and exiting."""
        if message.startswith("unrecognized arguments: -"):
            flag = message.split()[2]
            option = _as_option(flag, self._arguments)
            raise UserError(f"there is no flag {flag.partition('=')[0]}: options have no dashes, {option}; see --help")
        raise UserError(f"{message}; see --help")


def _as_option(flag: str, arguments: Sequence[str]) -> str:
    """Turns a flag such as --seed=3 or --seed 3 into the option seed=3; into name=value where it has no value.

    The flags of other libraries become options as well, such as --total-timesteps 1000: steps=1000.
    """
    name, _, value = flag.lstrip("-").partition("=")
    name = name.replace("-", "_")
    name = OTHER_LIBRARIES.get(name, name)
    next_arguments = arguments[arguments.index(flag) + 1 :][:1]
    value = value or next((argument for argument in next_arguments if not re.search("^-|=", argument)), "")
    if not value or not flag.startswith("--"):
        return "name=value"
    return f"{name}=<value>" if name in OTHER_UNITS else f"{name}={value}"


def hydra_parser(check: Callable[[Namespace], None] | None = None) -> HydraParser:
    """Builds Hydra's parser as a `HydraParser`.

    hydra-core 1.3.8 gives `--shell-completion` a help that is no string, and its function that builds the parser does
    not take a class. While that function runs, its module's name `argparse` therefore refers to `HydraParser`.

    Args:
        check: called with the parsed command line; raises UserError to refuse it.
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
    """Makes `hydra.main` parse a program's command line with `hydra_parser`."""

    def check(flags: Namespace) -> None:
        check_flags(flags, program)
        check_overrides(flags.overrides, program)

    sys.modules[hydra.main.__module__].get_args_parser = lambda: hydra_parser(check)  # type: ignore[attr-defined]


def check_flags(flags: Namespace, program: Program) -> None:
    """Refuses Hydra's flags that do not work here or do not go together; Hydra would raise ValueError or ignore them.

    Raises:
        UserError: a flag is refused; the message names it.
    """
    if flags.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which can run code: resume a run with resume=<folder>")
    commands = ("run", "cfg", "multirun", "shell_completion", "info")
    given_flags = [f"--{name.replace('_', '-')}" for name in commands if getattr(flags, name) not in (None, False)]
    if len(given_flags) > 1:
        raise UserError(f"{given_flags[0]} does not go with {given_flags[1]}: leave one of them out")
    if flags.resolve and flags.cfg != "job" and not flags.help:
        raise UserError("--resolve goes with --cfg job or --help alone")
    if flags.package is not None and flags.cfg is None:
        raise UserError(f"--package goes with --cfg alone: python {program.name} --cfg job --package <node>")
    if flags.cfg == "job" and flags.package is not None and not _is_node(flags.package, program):
        nodes = dict.fromkeys(name.split(".")[0] for name in program.options)
        raise UserError(f"--package={flags.package}: there is no such option or node; the nodes are {', '.join(nodes)}")
    is_multirun = flags.multirun or "hydra.mode=MULTIRUN" in flags.overrides
    if not is_multirun and any(override.startswith("hydra.sweep.") for override in flags.overrides):
        raise UserError("hydra.sweep is for several runs: add -m, or name a single run's folder with hydra.run.dir")
    if flags.multirun and program.several:
        raise UserError(f"-m is for train.py: {program.name} takes {program.several}")
    if flags.shell_completion and not _is_completion(flags.overrides):
        raise UserError("--shell-completion takes install=bash or uninstall=bash, or the same for zsh or fish")
    if flags.hydra_help:
        flags.overrides = []  # for this flag Hydra composes only its own config, which has none of our options


def _is_node(package: str, program: Program) -> bool:
    """Whether a program's config has an option or a node of this name; arguments of an environment may be any."""
    names = [*program.options, "env.id", "_global_"]
    within = [name for name in names if "." in name]
    return any(f"{name}.".startswith(f"{package}.") for name in names) or package.startswith(
        tuple(f"{name}." for name in within)
    )


def _is_completion(overrides: Sequence[str]) -> bool:
    """Whether exactly one override says what --shell-completion is to do; a shell that asks sets COMP_LINE."""
    commands = [override for override in overrides if re.match(r"(install|uninstall|query)=", override)]
    pattern = r"(install|uninstall|query)=(bash|zsh|fish)"
    query_allowed = not commands or not commands[0].startswith("query") or "COMP_LINE" in os.environ
    return len(commands) == 1 and bool(re.fullmatch(pattern, commands[0])) and query_allowed


def check_overrides(overrides: Sequence[str], program: Program) -> None:
    """Refuses Hydra's options that do not work here, and options of another program.

    Raises:
        UserError: an option is refused; the message names it.
    """
    own_options = {name.split(".")[0] for name in program.options}
    names = [override_name(override) for override in overrides]
    for name, override in zip(names, overrides, strict=True):
        check_text(name, override)
    for name, one in (("checkpoint", ""), ("runs", ""), ("resume", "it once"), ("out", "it once")):
        if names.count(name) > 1:
            raise UserError(f"{name} is given twice, and the last alone would count: name {one or program.several}")
    for override in _unfolded(overrides):
        name, value = split_override(override)
        root = name.split(".")[0]
        if _RECORDS.match(name):
            raise UserError(f"{name} is what Hydra records of a run, not an option: leave it out")
        if root == "hydra" and not _is_of_hydra(name):
            raise UserError(f"there is no option {name}: leave it out; --cfg hydra shows all options of Hydra")
        if name in _REFUSED_OPTIONS and value.lower() not in ("false", "null"):
            raise UserError(f"{name} does not work here: {_REFUSED_OPTIONS[name]}")
        if root == "hydra" and program.several and re.match(r"hydra\.(run|sweep|mode|launcher|sweeper)\b", name):
            raise UserError(f"{name} is an option of train.py; leave it out")
        if name in ("hydra.run.dir", "hydra.sweep.dir"):
            _check_folder(name, value)
        if name in program.other_program_options or (root in program.other_program_options and root not in own_options):
            advice = program.other_program_options.get(name) or program.other_program_options[root]
            raise UserError(f"{override} is not for {program.name}: {advice.format(value=value)}")


def _check_folder(name: str, value: str) -> None:
    """Refuses a folder of a run or of a sweep that Hydra would not name as it is written."""
    text = value.strip("'\"")
    if re.match(r"~(/|$)", text):
        raise UserError(f"{name} is {text}: write $HOME in place of ~, which only a shell replaces")
    if not text.strip() and name == "hydra.sweep.dir":
        raise UserError(f"{name} names no folder: name one, or leave it out")
    if reads_as_other(value) and not re.fullmatch(r"0|[1-9]\d*|(?i:null)", value):
        raise UserError(f"{name}={value} reads as another value than this name: write '{name}=\"{value}\"'")


def _is_of_hydra(name: str) -> bool:
    """Whether Hydra's config has an option; Hydra itself accepts any name after a +, and `hydra.env`."""
    node: object = HydraConf
    for part in name.split(".")[1:]:
        if not (isinstance(node, type) and dataclasses.is_dataclass(node)):
            return True  # a plugin's options, or arguments of callbacks
        hints = get_type_hints(node)
        if part not in hints:
            return False
        node = hints[part]
    return True


#: Nodes of Hydra's config that it fills itself.
_RECORDS = re.compile(r"hydra\.(runtime|overrides|job\.(num|id|override_dirname|config_name))\b")
#: Options of Hydra that would move a run's files, or put other files beside them.
_REFUSED_OPTIONS = {
    "hydra.job.chdir": "paths are read from the folder that the program was started in; leave it out",
    "hydra.output_subdir": "config.yaml of the run folder holds the whole config; leave it out",
}


def _unfolded(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        with suppress(HydraException):  # Hydra reports the error itself
            yield from unfold([override])
