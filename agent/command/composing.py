"""From what Hydra composed to what a run needs: its options, its folder, and the checkpoint to go on from."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from agent.command.imports import import_named
from agent.command.overrides import unfold
from agent.common.errors import UserError
from agent.config.parsing import parse, to_plain
from agent.config.run import EvaluateConfig, TrainConfig
from agent.records.run_folder import folder_of_runs, merge_resumed, open_run, run_folder, task_folder


@dataclass(frozen=True)
class Request:
    """A run that a command line asks for.

    Attributes:
        config: of the run, with what its earlier parts were trained with where it is resumed.
        overrides: of the command line, with one for each option.
        imports: the options that name modules of one's own, for commands that are shown.
        begun: step and state of the checkpoint to go on from.
    """

    config: TrainConfig
    overrides: list[str]
    imports: list[str]
    begun: tuple[int, dict[str, Any]] | None


def register_resolvers() -> None:
    """Makes known to OmegaConf the functions that conf/train.yaml names folders by."""
    for resolver in (run_folder, task_folder, folder_of_runs):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def to_options(cfg: DictConfig) -> dict[str, Any]:
    """The options as plain data, with every interpolation resolved."""
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return options


def checked_folder(composed: HydraConf, resume: object) -> Path:
    """The folder of the run, seen from the current one.

    Raises:
        UserError: where the options of Hydra name none that a run can have.
    """
    folder = Path(os.path.relpath(composed.runtime.output_dir))
    if composed.mode is RunMode.MULTIRUN:
        if resume is not None:
            raise UserError("resume does not go with -m: resume the runs one by one")
        if any(override.startswith("hydra.run.dir=") for override in composed.overrides.hydra):
            raise UserError("hydra.run.dir is of a single run: with -m name the folder of all by hydra.sweep.dir")
    if folder == Path():
        raise UserError("hydra.run.dir is the folder that this was started in: name another one, or leave it out")
    return folder


def training_request(options: dict[str, Any], overrides: list[str], folder: Path) -> Request | None:
    """The run that the options ask for, with those of the run to resume where there is one; None if it is complete.

    Args:
        options: all of them, as Hydra composed them.
        overrides: of the command line: what a person asked for.
        folder: of the run.

    Raises:
        UserError: for options that are wrong, or that do not fit the run to resume.
    """
    if any(re.match(r"\+*env\.id=", override) for override in overrides):
        raise UserError("env.id is not to be set: write env=<id>, which brings the preset of the task as well")
    imports = import_named(options)
    resume = options.pop("resume")
    config, unfolded = parse(TrainConfig, options), list(unfold(overrides))
    begun = open_run(folder, None if resume is None else str(resume))
    if begun is None:
        return Request(config, unfolded, imports, None)
    step, saved = begun[0], begun[1]["config"]
    config = parse(TrainConfig, merge_resumed(saved, to_plain(config), unfolded))
    if step < config.steps:
        return Request(config, unfolded, imports, begun)
    if config.steps < saved["steps"]:
        raise UserError(f"{folder} is at step {step} already, and steps={config.steps} was asked: ask for more")
    print(f"{folder} is complete at step {step}: ask for more with steps=<more than {step}>")
    return None


def evaluation_request(options: dict[str, Any]) -> EvaluateConfig:
    """The evaluation that the options ask for.

    Raises:
        UserError: for options that are wrong.
    """
    import_named(options)
    paths = options["checkpoint"]
    options["checkpoint"] = [] if paths is None else [paths] if isinstance(paths, str) else paths
    return parse(EvaluateConfig, options)
