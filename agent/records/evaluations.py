"""The names of the files with the evaluations of saved agents."""

from pathlib import Path

from agent.records.saved_agent import FILE_NAME


def label(file: Path) -> str:
    """Returns an agent's name in tables: its folder, or the file itself if it is not called agent.safetensors."""
    return str(file.parent) if file.name == FILE_NAME else str(file).removesuffix(".safetensors")


def results_path(file: Path) -> Path:
    """Returns the path of an agent's newest results, without suffix; it contains the file's name if that is unusual."""
    return file.with_name("evaluation" if file.name == FILE_NAME else f"{Path(label(file)).name}_evaluation")


def archived_results_path(file: Path, episodes: int, seed: int, noise: bool) -> Path:
    """Returns the path, without suffix, where these results are kept once a different evaluation replaces them."""
    newest = results_path(file)
    return newest.with_name(f"{newest.name}_{episodes}_episodes_seed{seed}{'_noise' if noise else ''}")
