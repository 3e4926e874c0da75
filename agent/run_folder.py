"""Where a run lives, and whether it may be started, resumed or has to be refused."""

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from agent.checkpoint import has_checkpoint, latest_checkpoint, load_checkpoint
from agent.errors import UserError
from agent.files import atomic_write_text

RUNS = Path("runs")
#: What may differ between a run and its resumption: nothing of these changes what is learned at a given step.
FREE = ("steps", "device", "threads", "eval", "checkpoint", "log", "wandb", "resume")


def run_folder(resume: str | None, env_id: str, seed: int) -> str:
    """The folder of this run: the resumed one, or a new runs/<env>/<time>_seed<k>."""
    if resume == "auto":
        found = _newest(RUNS / env_id, seed)
        if found is not None:
            return str(found)
    elif resume:
        return resume
    return str(RUNS / env_id / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_seed{seed}")


def _newest(folder: Path, seed: int) -> Path | None:
    """The newest run of a seed that has a checkpoint; run folders sort by their time."""
    runs = [path for path in sorted(folder.glob(f"*_seed{seed}")) if has_checkpoint(path)]
    return runs[-1] if runs else None


def open_run(folder: Path, resume: str | None) -> tuple[int, dict[str, Any]] | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        UserError: where `resume` names a folder without a checkpoint, or a new run would write into an old one.
    """
    if resume and resume != "auto" and not folder.is_dir():
        raise UserError(f"resume={resume}: there is no such folder")
    latest = latest_checkpoint(folder)
    if resume and latest is not None:
        return load_checkpoint(latest)
    if resume and resume != "auto":
        raise UserError(f"resume={resume}: there is no checkpoint in it; start a new run without resume")
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run already: go on with resume={folder}, or choose another hydra.run.dir")
    return None


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the resolved config beside the run.

    Raises:
        UserError: where the folder cannot be written.
    """
    atomic_write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def merge_resumed(saved: Mapping[str, Any], asked: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a resumed run: the saved one, with what was asked on the command line and may change.

    Args:
        saved: the config in the checkpoint.
        asked: the config that the command line composed.
        overrides: the command line's own words, `key=value`.

    Raises:
        UserError: where an option was asked that differs from the run's and changes what is learned.
    """
    merged = copy.deepcopy(dict(saved))
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        path = ("env", "id") if key == "env" else tuple(key.split("."))
        if path[0] in FREE:
            _assign(merged, path, _select(asked, path))
            continue
        difference = first_difference(_select(saved, path), _select(asked, path), ".".join(path))
        if difference is not None:
            name, was, now = difference
            raise UserError(
                f"the run to resume has {name}={was}, and {name}={now} was asked: "
                "leave it out, or start a new run without resume"
            )
    merged.pop("resume", None)
    return merged


def first_difference(saved: Any, asked: Any, name: str) -> tuple[str, Any, Any] | None:
    """Name and both values of the first leaf in which two configs differ; None where they agree."""
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        for key in [*saved, *(key for key in asked if key not in saved)]:
            difference = first_difference(saved.get(key), asked.get(key), f"{name}.{key}")
            if difference is not None:
                return difference
        return None
    return None if saved == asked else (name, saved, asked)


def _assign(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _select(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
