"""Turns a config that Hydra composed into a request: the options, the run's folder and the checkpoint to resume."""

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from agent.command.arguments import check_overrides
from agent.command.config_files import check_names, check_nodes
from agent.command.imports import import_named
from agent.command.overrides import unfold
from agent.command.presets import CONF, choices, register_presets
from agent.command.program import TRAIN
from agent.common.errors import NothingLeftError, UserError
from agent.common.state import Checkpoint
from agent.config.parsing import parse, parsed_singly, to_plain
from agent.config.resuming import merge_resumed
from agent.config.run import EvaluateConfig, TrainConfig, upgraded
from agent.config.share import ShareConfig
from agent.records.locking import is_own, remove_if_empty
from agent.records.names import RUNS
from agent.records.run_folder import (
    agent_name,
    folder_of_runs,
    open_run,
    run_folder,
    sweep_folder,
    sweep_time,
    task_folder,
)
from agent.running.progress import last_return, nothing_left, with_evaluation
from envs.bounds import full_id

_lock = threading.Lock()  # Hydra's state belongs to the whole process


@dataclass(frozen=True)
class Request:
    """A run that a command line requests.

    Attributes:
        config: the run's options; in a resumed run, the saved ones with the changes that are allowed.
        overrides: the command line's overrides, one for each option.
        imports: the options that name the user's own modules, for commands that are printed.
        checkpoint: the checkpoint to resume; None for a new run.
    """

    config: TrainConfig
    overrides: list[str]
    imports: list[str]
    checkpoint: Checkpoint | None


def register_resolvers() -> None:
    """Registers with OmegaConf the functions of conf/train.yaml: names of folders, and choices for --help."""
    for resolver in (choices, agent_name, run_folder, task_folder, folder_of_runs, sweep_time):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True, use_cache=True)  # one for all its jobs


def to_options(cfg: DictConfig) -> dict[str, object]:
    """Returns the options as plain data, with every interpolation resolved."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def compose_training(overrides: Sequence[str]) -> tuple[dict[str, object], Path]:
    """Composes the options of a run and its folder as train.py does, and restores Hydra's global state.

    Raises:
        UserError, HydraException, OmegaConfBaseException: the overrides cannot be composed.
    """
    with _composed(overrides) as cfg:
        return _without_hydra(cfg), _relative_folder(cfg.hydra.run.dir, cfg.get("resume"))


def training_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Composes the options of a run as `compose_training` does.

    Raises:
        UserError, HydraException, OmegaConfBaseException: the overrides cannot be composed.
    """
    with _composed(overrides) as cfg:
        return _without_hydra(cfg)


@contextmanager
def _composed(overrides: Sequence[str]) -> Iterator[DictConfig]:
    check_overrides(overrides, TRAIN)
    with _lock, _hydra_restored():
        register_resolvers()
        register_presets(overrides)
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # conf/train.yaml refers to it
        yield cfg


def _without_hydra(cfg: DictConfig) -> dict[str, Any]:
    return to_options(OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"]))


@contextmanager
def _hydra_restored() -> Iterator[None]:
    state = Singleton.get_state()
    try:
        yield
    finally:
        Singleton.set_state(state)


def checked_folder(composed: HydraConf, resume: object) -> Path:
    """Returns the run's folder, relative to the current one.

    Raises:
        UserError: Hydra's options name a folder that a run cannot use.
    """
    check_names(composed.runtime.config_sources)
    if composed.job.chdir or composed.output_subdir is not None:  # set in a user's own config file
        name = "hydra.job.chdir" if composed.job.chdir else "hydra.output_subdir"
        start_folder = Path(composed.runtime.cwd)  # Hydra has already changed to the run's folder or written to it
        folder = Path(os.path.normpath(start_folder / composed.runtime.output_dir))
        if is_own(folder):
            remove_if_empty(folder, start_folder / RUNS)
        raise UserError(f"{name} does not work here: leave it out of the config")
    if composed.mode is RunMode.MULTIRUN:
        check_sweep(composed, resume)
    return _relative_folder(composed.runtime.output_dir, resume)


def check_sweep(composed: HydraConf, resume: object) -> None:
    """Refuses options that only a single run can have.

    Raises:
        UserError: an option is refused; the message names it.
    """
    if resume is not None:
        raise UserError("resume does not go with -m: resume the runs one by one")
    if any(override.startswith("hydra.run.dir=") for override in composed.overrides.hydra):
        raise UserError("hydra.run.dir is for a single run: with -m, name the folder of all runs with hydra.sweep.dir")


def _relative_folder(folder: str, resume: object) -> Path:
    """Returns a run's folder as a path relative to the current one; the two must differ."""
    path = Path(os.path.relpath(folder or "."))
    if path == Path() and resume:
        raise UserError(f"resume={resume} is the folder that this was started in: name the run from another folder")
    if path == Path():
        raise UserError("hydra.run.dir is the folder that this was started in: name another one, or leave it out")
    return path


def training_request(options: dict[str, object], overrides: list[str], folder: Path) -> Request:
    """Builds the requested run: a new one, or a resumed one with its saved options.

    Args:
        options: all options, as Hydra composed them.
        overrides: the command line's overrides, which a person wrote.
        folder: the run's folder.

    Raises:
        UserError: an option is wrong or does not fit the run to resume, or that run is complete.
    """
    if any(re.match(r"\+*env\.id=", override) for override in overrides):
        raise UserError("env.id cannot be set: write env=<id>, which also applies the preset of the task")
    check_nodes(options)
    imports, resume = import_named(options), options.pop("resume", None)
    unfolded, resume_folder = list(unfold(overrides)), None if resume is None else str(resume)
    if resume_folder is None:  # an error in the options is reported before one in the folder
        parse(TrainConfig, options)
    checkpoint = open_run(folder, resume_folder)
    if checkpoint is not None:
        if resume_folder == "auto":
            print(f"resume=auto: going on with {folder} from step {checkpoint.step}", file=sys.stderr)
        return _resumed(folder, checkpoint, options, unfolded, imports)
    config = parse(TrainConfig, options)
    if resume_folder == "auto":
        task = f"{config.env.id} and seed={config.seed}"
        print(f"resume=auto: there is no run of {task} to go on with; beginning {folder}", file=sys.stderr)
    return Request(config, unfolded, imports, None)


def _resumed(
    folder: Path,
    checkpoint: Checkpoint,
    options: dict[str, object],
    overrides: list[str],
    imports: list[str],
) -> Request:
    """Builds the run to resume, with the changes that are allowed.

    Raises:
        UserError: an option does not fit the run, or the run is complete.
    """
    step, saved = checkpoint.step, to_plain(parse(TrainConfig, upgraded(checkpoint.state["config"])))
    requested = parsed_singly(TrainConfig, options)
    if full_id(str(_env_id(saved))) == full_id(str(_env_id(requested))):  # one of them may be without its version
        requested = {**requested, "env": {**requested["env"], "id": _env_id(saved)}}
    config = parse(TrainConfig, merge_resumed(saved, requested, overrides))
    state = {**with_evaluation(folder, *checkpoint), "config": saved}
    end_reason = nothing_left(config, step, state)
    if end_reason == "solved":
        reached = f"its evaluations have reached eval.stop_at={config.eval.stop_at}"
        advice = "go on with eval.stop_at=null or a higher one"
        raise NothingLeftError(f"{folder} is solved at step {step}: {reached}; {advice}", last_return(state))
    if step >= config.steps and config.steps < saved["steps"]:
        raise UserError(f"{folder} is at step {step} already, and steps={config.steps} was requested: request more")
    if end_reason == "complete":
        advice = f"ask for more with steps=<more than {step}>, or start a new run without resume"
        raise NothingLeftError(f"{folder} is complete at step {step}: {advice}", last_return(state))
    return Request(config, overrides, imports, Checkpoint(step, state))


def _env_id(options: Mapping[str, Any]) -> object:
    return options["env"]["id"] if isinstance(options.get("env"), Mapping) else None


def evaluation_request(options: dict[str, object]) -> EvaluateConfig:
    """Parses the options of an evaluation.

    Raises:
        UserError: an option is wrong.
    """
    import_named(options)
    paths = options.get("checkpoint")
    options["checkpoint"] = [] if paths is None else paths if isinstance(paths, list) else [paths]
    return parse(EvaluateConfig, options)


def sharing_request(options: dict[str, object]) -> ShareConfig:
    """Parses the options of share.py.

    Raises:
        UserError: an option is wrong.
    """
    import_named(options)
    return parse(ShareConfig, options)
