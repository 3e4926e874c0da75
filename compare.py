"""Compares runs over their seeds: python compare.py runs/CartPole-v1/* (--help for more)."""

from agent.common.interrupt import quit_at_once

if __name__ == "__main__":
    quit_at_once()  # first: the imports take a second

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from agent.command import errors
from agent.command.comparing import comparison_request, folder_of, paths_to_override, show_comparison
from agent.command.composing import to_options
from agent.config.compare import CompareConfig
from agent.config.parsing import leaf_names
from agent.records.comparison.comparing import compare, read_runs
from agent.records.comparison.finding import find_runs
from agent.records.comparison.reading import stamp
from agent.records.comparison.writing import write_comparison

OPTIONS = leaf_names(CompareConfig)


@hydra.main(version_base="1.3", config_path="conf/compare", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compares once, or again and again."""
    with errors.sentences(OPTIONS):
        run(comparison_request(to_options(cfg)))


def run(config: CompareConfig) -> None:
    """Prints the table, writes the page and says where it is; then follows the runs, if asked."""
    folder = folder_of(config)
    folders = find_runs(config.runs)
    state = [stamp(path) for path in folders]
    page = write(config, folders, folder)
    print(f"wrote {page}")
    while config.follow:
        time.sleep(config.every)
        folders = find_runs(config.runs)
        if (now := [stamp(path) for path in folders]) != state:
            state = now
            write(config, folders, folder, quiet=True)


def write(config: CompareConfig, folders: Sequence[Path], folder: Path, quiet: bool = False) -> Path:
    """Compares the runs as they are now and writes the page."""
    runs, faults = read_runs(folders, config.metric)
    found = compare(runs, config.metric, config.by, config.baseline)
    if not quiet:
        show_comparison(found)
        for fault in faults:
            print(fault, file=sys.stderr)
    return write_comparison(found, folder, config.every if config.follow else 0.0)


def start() -> None:
    """What the command line says, as Hydra reads it."""
    with errors.sentences(OPTIONS):
        sys.argv[1:] = paths_to_override(sys.argv[1:])
    errors.run(main, OPTIONS)


if __name__ == "__main__":
    start()
