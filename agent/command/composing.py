"""From what Hydra composed to what a run needs: its options, its folder, and the checkpoint to go on from."""

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
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
from agent.command.imports import import_named
from agent.command.overrides import unfold
from agent.command.presets import CONF, register_presets
from agent.command.program import TRAIN
from agent.common.errors import NothingLeftError, UserError
from agent.config.parsing import parse, parsed_singly, to_plain
from agent.config.resuming import merge_resumed
from agent.config.run import EvaluateConfig, TrainConfig, upgraded
from agent.config.share import ShareConfig
from agent.records.locking import RUNS, remove_if_empty
from agent.records.run_folder import agent_name, folder_of_runs, open_run, run_folder, task_folder
from agent.running.progress import nothing_left, with_evaluation

_lock = threading.Lock()  # Hydra's state belongs to the whole process


@dataclass(frozen=True)
class Request:
    """A run that a command line asks for.

    Attributes:
        config: of the run, with what its earlier parts were trained with where it is resumed.
        overrides: of the command line, with one for each option.
        imports: the options that name modules of one's own, for commands that are shown.
        checkpoint: step and state of the checkpoint to go on from.
    """

    config: TrainConfig
    overrides: list[str]
    imports: list[str]
    checkpoint: tuple[int, dict[str, object]] | None


def register_resolvers() -> None:
    """Makes known to OmegaConf the functions that conf/train.yaml names folders by."""
    for resolver in (agent_name, run_folder, task_folder, folder_of_runs):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def to_options(cfg: DictConfig) -> dict[str, object]:
    """The options as plain data, with every interpolation resolved."""
    options: dict[str, object] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return options


def compose_training(overrides: Sequence[str]) -> tuple[dict[str, object], Path]:
    """The options of a run and its folder, as train.py has them; Hydra's own state is left as it was.

    Raises:
        UserError, HydraException, OmegaConfBaseException: for overrides that cannot be composed.
    """
    with _composed(overrides) as cfg:
        options, folder = _without_hydra(cfg), _relative_folder(cfg.hydra.run.dir)
    folder.mkdir(parents=True, exist_ok=True)
    return options, folder


def training_options(overrides: Sequence[str]) -> dict[str, Any]:
    """The options of a run, as `compose_training` gives them; no folder is made.

    Raises:
        UserError, HydraException, OmegaConfBaseException: for overrides that cannot be composed.
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
    """The folder of the run, seen from the current one.

    Raises:
        UserError: where the options of Hydra name none that a run can have.
    """
    if composed.job.chdir or composed.output_subdir is not None:  # by a config file of one's own
        name = "hydra.job.chdir" if composed.job.chdir else "hydra.output_subdir"
        start_folder = Path(composed.runtime.cwd)  # Hydra has gone into the folder already, or has written there
        remove_if_empty(Path(os.path.normpath(start_folder / composed.runtime.output_dir)), start_folder / RUNS)
        raise UserError(f"{name} does not work here: leave it out of the config")
    if composed.mode is RunMode.MULTIRUN:
        check_sweep(composed, resume)
    return _relative_folder(composed.runtime.output_dir)


def check_sweep(composed: HydraConf, resume: object) -> None:
    """Refuses options of a single run.

    Raises:
        UserError: naming the option.
    """
    if resume is not None:
        raise UserError("resume does not go with -m: resume the runs one by one")
    if any(override.startswith("hydra.run.dir=") for override in composed.overrides.hydra):
        raise UserError("hydra.run.dir is of a single run: with -m name the folder of all by hydra.sweep.dir")


def _relative_folder(folder: str) -> Path:
    """A run's folder as a path from the current one, which it may not be."""
    path = Path(os.path.relpath(folder))
    if path == Path():
        raise UserError("hydra.run.dir is the folder that this was started in: name another one, or leave it out")
    return path


def training_request(options: dict[str, object], overrides: list[str], folder: Path) -> Request:
    """The run that the options ask for, with those of the run to resume where there is one.

    Args:
        options: all of them, as Hydra composed them.
        overrides: of the command line: what a person asked for.
        folder: of the run.

    Raises:
        UserError: for options that are wrong, or that do not fit the run to resume; for a run that is complete.
    """
    if any(re.match(r"\+*env\.id=", override) for override in overrides):
        raise UserError("env.id is not to be set: write env=<id>, which brings the preset of the task as well")
    imports = import_named(options)
    resume = options.pop("resume")
    unfolded, resume_folder = list(unfold(overrides)), None if resume is None else str(resume)
    if resume_folder is None:  # whatever is wrong with the options comes before what is wrong with the folder
        parse(TrainConfig, options)
    checkpoint = open_run(folder, resume_folder)
    if checkpoint is not None:
        if resume_folder == "auto":
            print(f"resume=auto: going on with {folder} from step {checkpoint[0]}", file=sys.stderr)
        return _resumed(folder, checkpoint, options, unfolded, imports)
    config = parse(TrainConfig, options)
    if resume_folder == "auto":
        task = f"{config.env.id} and seed={config.seed}"
        print(f"resume=auto: there is no run of {task} to go on with; beginning {folder}", file=sys.stderr)
    return Request(config, unfolded, imports, None)


def _resumed(
    folder: Path,
    checkpoint: tuple[int, dict[str, Any]],
    options: dict[str, object],
    overrides: list[str],
    imports: list[str],
) -> Request:
    """The run to resume, with those of the options that it may change.

    Raises:
        UserError: for options that do not fit it; for a run that is complete.
    """
    step, saved = checkpoint[0], to_plain(parse(TrainConfig, upgraded(checkpoint[1]["config"])))
    config = parse(TrainConfig, merge_resumed(saved, parsed_singly(TrainConfig, options), overrides))
    state = {**with_evaluation(folder, *checkpoint), "config": saved}
    end_reason = nothing_left(config, step, state)
    if end_reason == "solved":
        reached = f"its evaluations have reached eval.stop_at={config.eval.stop_at}"
        raise NothingLeftError(
            f"{folder} is solved at step {step}: {reached}; go on with eval.stop_at=null or a higher one"
        )
    if step >= config.steps and config.steps < saved["steps"]:
        raise UserError(f"{folder} is at step {step} already, and steps={config.steps} was asked: ask for more")
    if end_reason == "complete":
        advice = f"ask for more with steps=<more than {step}>, or start a new run without resume"
        raise NothingLeftError(f"{folder} is complete at step {step}: {advice}")
    return Request(config, overrides, imports, (step, state))


def evaluation_request(options: dict[str, object]) -> EvaluateConfig:
    """The evaluation that the options ask for.

    Raises:
        UserError: for options that are wrong.
    """
    import_named(options)
    paths = options["checkpoint"]
    options["checkpoint"] = [] if paths is None else [paths] if isinstance(paths, str) else paths
    return parse(EvaluateConfig, options)


def sharing_request(options: dict[str, object]) -> ShareConfig:
    """What the options ask to share, and how.

    Raises:
        UserError: for options that are wrong.
    """
    import_named(options)
    return parse(ShareConfig, options)
