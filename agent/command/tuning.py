"""The command line of tune.py: its options and those of train.py, the study that they ask for, and what is printed."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.command.composing import training_options
from agent.command.imports import import_named
from agent.command.overrides import gather_into_list, is_sweep, unfold, with_quotes
from agent.command.presets import CONF
from agent.common.errors import UserError
from agent.common.files import atomic_write_text, read_plain, why
from agent.common.quoting import quote_value
from agent.config.parsing import leaf_names, parse, to_plain
from agent.config.run import TrainConfig
from agent.config.tune import StudyConfig, TuneConfig
from agent.records.run_folder import RUNS, agent_name, new_folder, task_folder
from agent.running.tuning.space import (
    check_domains,
    default_space,
    first_settings,
    parse_space,
    read_space,
    select,
)

#: Of a study; bytes of it that are read.
FILE, MAX_BYTES = "study.json", 1 << 24
SPACES = CONF / "tune" / "spaces"
TRAIN_PROGRAM = CONF.parent / "train.py"
#: Options that may be named where a study goes on.
ON_RESUME = ("resume", "trials", "jobs")
#: Options of train.py that a preset does not hold.
NOT_IN_PRESETS = (
    *("device", "threads", "backend", "cuda_graphs", "overlap", "autocast", "collect", "eval", "checkpoint", "log"),
    *("wandb", "tensorboard", "seed", "imports"),
)


@dataclass(frozen=True)
class Request:
    """A study that a command line asks for.

    Attributes:
        folder: of the study.
        config: of the study.
        imports: the options that name modules of one's own.
        jobs: trials at the same time.
        show: only show what there is.
    """

    folder: Path
    config: StudyConfig
    imports: list[str]
    jobs: int
    show: bool


def train_options_to_override(arguments: Sequence[str]) -> list[str]:
    """A command line whose options of train.py have become one train=[…]; others and flags stay.

    Raises:
        UserError: where train= is there as well.
    """
    own_options = {*leaf_names(TuneConfig), "hydra"}

    def is_of_train(argument: str) -> bool:
        name = re.split(r"[=.@]", argument.lstrip("+~"), maxsplit=1)[0]
        return "=" in argument.lstrip("~") and name not in own_options

    return gather_into_list(
        arguments, "train", "options of train.py", is_of_train, lambda argument: quote_value(with_quotes(argument))
    )


def tuning_request(options: dict[str, Any], overrides: Iterable[str]) -> Request:
    """The study that the options ask for.

    Args:
        options: all of them, as Hydra composed them.
        overrides: of the command line: what a person asked for.

    Raises:
        UserError, HydraException, OmegaConfBaseException: for options that are wrong.
    """
    for name in ("space", "out", "resume"):
        options[name] = None if options[name] is None else str(options[name])
    config = parse(TuneConfig, options)
    if config.resume is not None:
        return _resumed(config, [override.lstrip("+~").partition("=")[0] for override in overrides])
    if config.trials == 0:
        raise UserError("trials=0 shows what a study has found: name its folder by resume=")
    study, imports, agent = new_study(config)
    folder = RUNS / task_folder(study.env) / f"tune_{datetime.now():%Y-%m-%d_%H-%M-%S}_{agent_name(agent)}"
    folder = _make(folder, config.out)
    atomic_write_text(folder / FILE, json.dumps(to_plain(study), indent=1, ensure_ascii=False))
    return Request(folder, study, imports, config.jobs, False)


def _make(folder: Path, out: str | None) -> Path:
    """The folder of a new study."""
    if out is None:
        return new_folder(folder)
    if (Path(out) / FILE).exists():
        raise UserError(f"out={out} holds a study already: go on with resume={out}, or name another folder")
    Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out)


# ---- a study that goes on


def _resumed(config: TuneConfig, named: Sequence[str]) -> Request:
    folder = Path(config.resume or "")
    overrides = [override for override in config.train if not override.startswith("imports=")]
    if unwanted := [*overrides, *(name for name in named if name not in (*ON_RESUME, "train"))]:
        raise UserError(
            f"a study goes on with the options that it was begun with: leave {unwanted[0]} out, or begin a new study "
            f"(only {', '.join(ON_RESUME[1:])} and imports may be named)"
        )
    study = read_study(folder)
    imports = []
    if config.train:
        imports = import_named(training_options(config.train))
    if "trials" in named and config.trials and config.trials != study.trials:
        study = replace(study, trials=config.trials)
        atomic_write_text(folder / FILE, json.dumps(to_plain(study), indent=1, ensure_ascii=False))
    return Request(folder, study, imports, config.jobs, "trials" in named and config.trials == 0)


def read_study(folder: Path) -> StudyConfig:
    """The study in a folder.

    Raises:
        UserError: where there is none, or its file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(f"resume={folder}: there is no study in it; name the folder of one, as tune.py printed it")
    try:
        mapping = json.loads(read_plain(path, MAX_BYTES))
        study = parse(StudyConfig, mapping)
        parse_space(study.space)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from error
    except (UserError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): begin a new study") from error
    return study


# ---- a new one


def new_study(config: TuneConfig) -> tuple[StudyConfig, list[str], str]:
    """A study, the options that name modules of one's own, and the agent's name.

    Raises:
        UserError, HydraException, OmegaConfBaseException: for options that are wrong, of the space as well.
    """
    for override in config.train:
        if is_sweep(override):
            raise UserError(
                f"{override} has several values: a space=<file> names values to try, and seeds= a number of seeds"
            )
    overrides = [override for override in config.train if _name(override) not in ("seed", "imports")]
    options = training_options(config.train)
    written_id = str(options["env"]["id"])
    imports = import_named(options)
    del options["resume"]
    training = parse(TrainConfig, options)
    if training.eval.episodes == 0:
        raise UserError("a trial's score is the return of its evaluations: leave eval.episodes above 0")
    if ":" in written_id:  # its module is named again where the study goes on
        overrides = [f"env={training.env.id}" if _name(override) == "env" else override for override in overrides]
    space = space_of(config, training, [_name(override) for override in unfold(overrides)])
    domains = parse_space(space)
    check_domains(domains, training)
    study = StudyConfig(
        words=tuple(overrides),
        beside=tuple(override for override in unfold(overrides) if not _belongs_to_preset(_name(override))),
        fixed={
            name: select(to_plain(training), name) for name in map(_name, unfold(overrides)) if _belongs_to_preset(name)
        },
        env=training.env.id,
        seeds=tuple(range(training.seed, training.seed + config.seeds)),
        trials=config.trials,
        score=config.score,
        pruner=config.pruner,
        startup=config.startup,
        steps=training.steps,
        every=training.eval.every,
        space=space,
        first=first_settings(space, domains, to_plain(training)),
    )
    agents = [override.partition("=")[2] for override in overrides if _name(override) == "agent"]
    return study, imports, (agents or ["noisy_dqn"])[-1]


def _name(override: str) -> str:
    """The option that an override sets."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _belongs_to_preset(name: str) -> bool:
    """Whether a preset holds the option: it has a value, and belongs to the algorithm or the task."""
    chooses_a_file = "." not in name and (name in ("env", "agent") or name not in leaf_names(TrainConfig))
    return not chooses_a_file and name.split(".")[0] not in NOT_IN_PRESETS


def space_of(config: TuneConfig, training: TrainConfig, overridden: Sequence[str]) -> dict[str, Any]:
    """The search space: a person's own, or that of the agent without the options that the command line gives.

    Raises:
        UserError: where there is nothing to search, or an option is in both.
    """
    if config.space is None:
        space = {name: node for name, node in default_space(SPACES, training).items() if name not in overridden}
        if not space:
            raise UserError("the command line gives all options of the search space: leave some out, or name a space=")
        return space
    space = read_space(Path(config.space))
    for name in space:
        if name in overridden:
            raise UserError(f"{name} is in space={config.space} and on the command line: leave one of them out")
    return space
