"""The names of the files that evaluations of saved agents are written to."""

from pathlib import Path

from agent.records.saved_agent import FILE_NAME


def label(file: Path) -> str:
    """An agent's name in tables: its folder's, or the file's own where it is not called agent.safetensors."""
    return str(file.parent) if file.name == FILE_NAME else str(file).removesuffix(".safetensors")


def results_path(file: Path) -> Path:
    """Where an agent's newest results go, without the suffix; a file with a name of its own has results of its own."""
    return file.with_name("evaluation" if file.name == FILE_NAME else f"{Path(label(file)).name}_evaluation")


def archived_results_path(file: Path, episodes: int, seed: int, noise: bool) -> Path:
    """Where these results stay, without the suffix, when the agent is evaluated again in another way."""
    newest = results_path(file)
    return newest.with_name(f"{newest.name}_{episodes}_episodes_seed{seed}{'_noise' if noise else ''}")
