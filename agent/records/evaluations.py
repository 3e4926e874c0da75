"""Evaluations of saved agents: the files beside an agent, and episodes that were cut."""

from collections.abc import Sequence
from pathlib import Path

from agent.records.names import AGENT

#: Episodes are cut after as many steps as 30 minutes of Atari have, since without a time limit they may never end.
EPISODE_CAP = 27_000


def cut_episodes(lengths: Sequence[int]) -> str:
    """A clause if episodes were cut at `EPISODE_CAP`; empty otherwise."""
    cut = sum(length >= EPISODE_CAP for length in lengths)
    return f"{cut} of {len(lengths)} episodes of the evaluation were cut after {EPISODE_CAP:,} steps" if cut else ""


def beside(file: Path, name: str) -> Path:
    """Returns the path of `name` beside an agent's file; of `<stem>_<name>` if that is not called agent.safetensors."""
    return file.with_name(name if file.name == AGENT else f"{file.name.removesuffix('.safetensors')}_{name}")


def label(file: Path) -> str:
    """Returns an agent's name in tables: its folder, or the file itself if it is not called agent.safetensors."""
    return str(file.parent) if file.name == AGENT else str(file).removesuffix(".safetensors")


def results_path(file: Path) -> Path:
    """Returns the path of an agent's newest results, without suffix."""
    return beside(file, "evaluation")


def archived_results_path(file: Path, episodes: int, seed: int, noise: bool) -> Path:
    """Returns the path, without suffix, where these results are kept once a different evaluation replaces them."""
    newest = results_path(file)
    return newest.with_name(f"{newest.name}_{episodes}_episodes_seed{seed}{'_noise' if noise else ''}")
