"""The command line of tune.py: its own options, those of train.py, and the study that they request."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agent.command.composing import training_options
from agent.command.imports import import_named
from agent.command.overrides import gather_into_list, is_sweep, unfold, with_quotes
from agent.command.presets import CONF
from agent.common.errors import UserError
from agent.common.files import atomic_write_text, read_plain, why
from agent.common.quoting import override_name, quote_value
from agent.config.parsing import leaf_names, parse, to_plain
from agent.config.ranges import SEED
from agent.config.run import TrainConfig
from agent.config.tune import StudyConfig, TuneConfig
from agent.records.names import RUNS
from agent.records.run_folder import agent_name, check_folder_of_study, new_folder, task_folder
from agent.running.tuning.results import OUTPUTS
from agent.running.tuning.space import check_domains, first_settings, parse_space, select
from agent.running.tuning.space_file import default_space, read_space
from envs.make import load_task

#: The file of a study, and its greatest size in bytes.
FILE, MAX_BYTES = "study.json", 1 << 24
SPACES = CONF / "tune" / "spaces"
TRAIN_PROGRAM = CONF.parent / "train.py"
#: Options that are allowed when a study is resumed.
ON_RESUME = ("resume", "trials", "jobs")
#: Options of train.py that no preset contains.
NOT_IN_PRESETS = (
    *("device", "threads", "backend", "cuda_graphs", "overlap", "autocast", "collect", "eval", "checkpoint", "log"),
    *("wandb", "tensorboard", "seed", "imports"),
)


@dataclass(frozen=True)
class Request:
    """A study that a command line requests.

    Attributes:
        folder: the study's folder.
        config: the study's options.
        imports: the options that name the user's own modules.
        jobs: the number of trials that are trained at the same time.
        show: print the results so far and train nothing.
    """

    folder: Path
    config: StudyConfig
    imports: list[str]
    jobs: int
    show: bool


def train_options_to_override(arguments: Sequence[str]) -> list[str]:
    """Gathers a command line's options of train.py into one train=[…]; other options and flags do not change.

    Raises:
        UserError: the command line also has train=.
    """
    own_options = {*leaf_names(TuneConfig), "hydra"}

    def is_of_train(argument: str) -> bool:
        name = override_name(argument).partition(".")[0]
        return "=" in argument.lstrip("~") and name not in own_options

    return gather_into_list(
        arguments, "train", "options of train.py", is_of_train, lambda argument: quote_value(with_quotes(argument))
    )


def tuning_request(options: dict[str, object], overrides: Iterable[str]) -> Request:
    """Builds the requested study: a new one, whose file is written, or a resumed one.

    Args:
        options: all options, as Hydra composed them.
        overrides: the command line's overrides, which a person wrote.

    Raises:
        UserError, HydraException, OmegaConfBaseException: an option is wrong.
    """
    for name in ("space", "out", "resume"):
        value = options.get(name)  # missing after space=mine.yaml ~space
        options[name] = None if value is None else str(value)
    config = parse(TuneConfig, options)
    if config.resume is not None:
        return _resumed(config, [override_name(override) for override in overrides])
    if config.trials == 0:
        raise UserError("trials=0 shows what a study has found: name its folder with resume=")
    study, imports, agent = new_study(config)
    folder = RUNS / task_folder(study.env) / f"tune_{datetime.now():%Y-%m-%d_%H-%M-%S}_{agent_name(agent)}"
    folder = _make(folder, config.out)
    atomic_write_text(folder / FILE, json.dumps(to_plain(study), indent=1, ensure_ascii=False))
    return Request(folder, study, imports, config.jobs, False)


def _make(folder: Path, out: str | None) -> Path:
    """Makes the folder of a new study.

    Raises:
        UserError: `out` holds a study, a run, or files that a study would replace.
    """
    if out is None:
        return new_folder(folder)
    if (Path(out) / FILE).exists():
        raise UserError(f"out={out} holds a study already: go on with resume={out}, or name another folder")
    check_folder_of_study(Path(out), OUTPUTS)
    Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out)


# ---- a resumed study


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
    """Reads the study in a folder.

    Raises:
        UserError: there is no study, or its file is damaged.
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


# ---- a new study


def new_study(config: TuneConfig) -> tuple[StudyConfig, list[str], str]:
    """Builds a study; also returns the options that name the user's own modules, and the agent's name.

    Raises:
        UserError, HydraException, OmegaConfBaseException: an option or the search space is wrong.
    """
    for override in config.train:
        if is_sweep(override):
            raise UserError(
                f"{override} has several values: a space=<file> names values to try, and seeds= a number of seeds"
            )
    overrides = [override for override in config.train if override_name(override) not in ("seed", "imports")]
    options = training_options(config.train)
    written_id = str(options["env"]["id"])
    imports = import_named(options)
    options.pop("resume", None)
    training = parse(TrainConfig, options)
    load_task(training.env.id, training.env.kwargs)  # an error ends this here, not in each trial
    if training.eval.episodes == 0:
        raise UserError("a trial's score is the return of its evaluations: leave eval.episodes above 0")
    if ":" in written_id:  # on resume the user names its module again
        overrides = [
            f"env={training.env.id}" if override_name(override) == "env" else override for override in overrides
        ]
    space = space_of(config, training, [override_name(override) for override in unfold(overrides)])
    domains = parse_space(space)
    check_domains(domains, training)
    seeds = tuple(range(training.seed, training.seed + config.seeds))
    if not SEED.holds(seeds[-1]):
        raise UserError(f"seed={training.seed} and seeds={config.seeds}: the last seed must be {SEED.text}")
    study = StudyConfig(
        overrides=tuple(overrides),
        not_in_preset=tuple(
            override for override in unfold(overrides) if not _belongs_to_preset(override_name(override))
        ),
        preset_values={
            name: select(to_plain(training), name)
            for name in map(override_name, unfold(overrides))
            if _belongs_to_preset(name)
        },
        env=training.env.id,
        seeds=seeds,
        trials=config.trials,
        score=config.score,
        pruner=config.pruner,
        startup_trials=config.startup,
        steps=training.steps,
        eval_every=training.eval.every,
        space=space,
        first=first_settings(space, domains, to_plain(training)),
    )
    agents = [override.partition("=")[2] for override in overrides if override_name(override) == "agent"]
    return study, imports, (agents or ["noisy_dqn"])[-1]


def _belongs_to_preset(name: str) -> bool:
    """Whether presets contain the option: it sets a value of the algorithm or the task, and chooses no file."""
    chooses_a_file = "." not in name and (name in ("env", "agent") or name not in leaf_names(TrainConfig))
    return not chooses_a_file and name.split(".")[0] not in NOT_IN_PRESETS


def space_of(config: TuneConfig, training: TrainConfig, overridden: Sequence[str]) -> dict[str, object]:
    """Returns the search space: the user's own, or the agent's default without the options that the command line sets.

    Raises:
        UserError: the space is empty, or an option is both in the user's space and on the command line.
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
