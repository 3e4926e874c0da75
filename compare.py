"""Compares runs over their seeds: python compare.py runs/CartPole-v1/* (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

import sys
from contextlib import nullcontext

import hydra
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.comparing import (
    compared,
    comparison_request,
    end_by_exception,
    folder_of,
    follow,
    last_page,
    paths_to_override,
    show_comparison,
    write,
)
from agent.command.composing import to_options
from agent.command.program import COMPARE
from agent.config.compare import CompareConfig
from agent.records.comparison.comparing import NothingYetError, Reader
from agent.records.comparison.finding import find_runs


@hydra.main(version_base="1.3", config_path="conf/compare", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compares the runs once, or repeatedly with follow=true."""
    with errors.sentences(COMPARE):
        run(comparison_request(to_options(cfg)))


def run(config: CompareConfig) -> None:
    """Prints the table, writes the page and prints its path; with follow=true, then follows the runs."""
    reader = Reader(config.metric)
    find_runs(config.runs)  # an error ends this before a folder is made
    end_by_exception()
    with folder_of(config) as folder, last_page(folder) if config.follow else nullcontext():
        try:
            comparison = compared(config, reader)
            show_comparison(comparison, reader.faults)  # first: the page may not be written, as on a full disk
            print(f"wrote {write(config, comparison, folder)}", flush=True)
        except NothingYetError as error:
            if not config.follow:
                raise
            print("\n".join([str(error), *reader.faults]), flush=True)
        if config.follow:
            follow(config, reader, folder)


def start() -> None:
    """Gathers the command line's paths into one override for Hydra, and runs the program."""
    with errors.sentences(COMPARE):
        sys.argv[1:] = paths_to_override(sys.argv[1:])
    program.run(main, COMPARE)


if __name__ == "__main__":
    start()
