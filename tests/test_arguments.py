"""The flags of both programs, which are Hydra's own: they are read in any order and on every Python."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from helpers import ROOT, plain_environment
from hydra._internal.utils import get_args_parser

from agent.command.arguments import hydra_parser


@contextmanager
def checked_as_by_python_3_14() -> Iterator[None]:
    """Adding an argument looks for a '%' in its help, as argparse of Python 3.14 does."""
    add = argparse.ArgumentParser.add_argument

    def checked(parser: argparse.ArgumentParser, *names: Any, **settings: Any) -> Any:
        action = add(parser, *names, **settings)
        if action.help:
            assert "%" not in action.help or action.help % vars(action)
        return action

    with patch.object(argparse.ArgumentParser, "add_argument", checked):
        yield


def test_python_3_14_takes_the_parser() -> None:
    with checked_as_by_python_3_14():
        parser = hydra_parser()
        with pytest.raises(TypeError):  # the check finds what it looks for, until Hydra mends it
            get_args_parser()
    assert {action.dest for action in parser._actions} == {action.dest for action in get_args_parser()._actions}


PROGRAM = """
import argparse, runpy, sys
sys.path.insert(0, {tests!r})
from test_arguments import checked_as_by_python_3_14
sys.argv = sys.argv[1:]
with checked_as_by_python_3_14():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_both_programs_start_on_python_3_14(program: str) -> None:
    code = PROGRAM.format(tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", code, str(ROOT / f"{program}.py")]
    shown = [
        subprocess.run([*command, flag], env=plain_environment(), cwd=ROOT, capture_output=True, text=True)
        for flag in ("--help", "--hydra-help")
    ]
    assert [result.returncode for result in shown] == [0, 0], shown
    assert f"python {program}.py" in shown[0].stdout
    assert "Install or Uninstall shell completion" in shown[1].stdout
