"""Trains a DQN that explores by learned noise: python train.py env=CartPole-v1 (--help for more)."""

from agent.common.interrupt import quit_at_once

if __name__ == "__main__":
    quit_at_once()  # first: the imports take a second

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.command import errors as cli
from agent.command.imports import import_asked
from agent.command.overrides import word
from agent.common.errors import UserError
from agent.common.files import truncate_jsonl
from agent.common.interrupt import Interrupt
from agent.config.checks import without_effect
from agent.config.parsing import leaf_names, parse, to_plain
from agent.config.run import TrainConfig
from agent.records.console import Console, shown
from agent.records.plots import plot_learning_curve
from agent.records.run_folder import (
    folder_of_runs,
    merge_resumed,
    occupied,
    open_run,
    run_folder,
    task_folder,
    write_config,
)
from agent.records.saved_agent import check_env, load_agent
from agent.records.tracking import Tracker
from agent.running.build import build_agent, build_replay
from agent.running.resources import prepare_cpu, resolve_device
from agent.running.trainer import Outcome, Trainer
from envs.make import Task, load_saved_task, load_task
from envs.packages import is_atari_game
from envs.vector import make_vector

OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("task_folder", task_folder, replace=True)
OmegaConf.register_new_resolver("folder_of_runs", folder_of_runs, replace=True)


#: What `cli` needs to put errors into words: Hydra's exceptions, and every option that a person may misspell.
OPTIONS = [*leaf_names(TrainConfig), "imports", "resume", "hydra.run.dir"]
OPTIONS.remove("env.id")  # env= names it
WORDS = (HydraException, OmegaConfBaseException), OPTIONS
#: A σ of independent noise above this is likely to be meant as the σ0 of the factorised form, which is σ·√(inputs).
LARGE_SIGMA = 0.05


def presets(options: Sequence[str]) -> None:
    """Makes known to Hydra what `env=…` among the options stands for where conf/env has no file of that name.

    An id without its version is the newest that has a preset; conf/task/atari.yaml is the one of all of Atari's games.
    """
    folder = Path(__file__).parent / "conf" / "env"
    known = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    for env_id in dict.fromkeys(_asked(options)):
        if env_id in known:
            continue
        versions = [name for name in known if re.fullmatch(rf"{re.escape(env_id)}-v\d+", name)]
        node: dict[str, Any] = {}
        if versions:
            newest = max(versions, key=lambda name: int(name.rpartition("-v")[2]))
            node = {"defaults": [f"/env/{newest}@_global_"], "env": {"id": newest}}
        elif game := re.fullmatch(r"(ALE/)?(\w+?)(NoFrameskip|Deterministic)?(-v\d+)?", env_id):
            _, name, kind, version = game.groups()
            played = game[1] or (kind == "NoFrameskip" and version) or is_atari_game(name)
            if not played or (kind and not version):
                continue
            # Sticky actions (Machado et al. 2018); the ids -v4 stand for the older protocol.
            kwargs = {"repeat_action_probability": 0.0 if version == "-v4" else 0.25}
            env = {"kwargs": kwargs} if version else {"kwargs": kwargs, "id": f"ALE/{name}-v5"}
            node = {"defaults": [{"override /task": "atari"}], "env": env}
        if node:
            group, _, name = f"env/{env_id}".rpartition("/")
            ConfigStore.instance().store(name, node, group, "_global_")


def _asked(options: Sequence[str]) -> Iterator[str]:
    """The ids that `env=…` names, by Hydra's own grammar: in quotes, as a list for a sweep, in choice(…)."""
    parser = OverridesParser.create()
    for option in options:
        if not re.match(r"\+*env=", option):
            continue
        try:
            value = parser.parse_override(option).value()
        except HydraException:  # Hydra says what is wrong with it
            continue
        yield from map(str, value.list if isinstance(value, ChoiceSweep) else [value])


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """One run: a new one, or the rest of one that was stopped."""
    hydra_config = HydraConfig.get()
    folder = Path(os.path.relpath(hydra_config.runtime.output_dir))
    sweep = hydra_config.mode is RunMode.MULTIRUN
    with cli.sentences(*WORDS):
        if sweep and cfg.resume is not None:
            raise UserError("resume does not go with -m: resume the runs one by one")
        if sweep and any(word.startswith("hydra.run.dir=") for word in hydra_config.overrides.hydra):
            raise UserError("hydra.run.dir is of a single run: with -m name the folder of all by hydra.sweep.dir")
        if folder == Path():
            raise UserError("hydra.run.dir is the folder that this was started in: name another one, or leave it out")
    words = " ".join(hydra_config.overrides.task) if sweep else None
    if words is not None:
        print(f"job {hydra_config.job.num}: {words}", file=sys.stderr)
    with cli.job(words), cli.sentences(*WORDS), occupied(folder):
        run(cfg, folder)


def run(cfg: DictConfig, folder: Path) -> None:
    """Composes the config, with that of the run to resume where there is one, and trains."""
    asked: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    overrides = list(HydraConfig.get().overrides.task)
    if any(re.match(r"\+*env\.id=", override) for override in overrides):
        raise UserError("env.id is not to be set: write env=<id>, which brings the preset of the task as well")
    imports = import_asked(asked)
    resume = asked.pop("resume")
    config, words = parse(TrainConfig, asked), list(unfolded(overrides))
    begun = open_run(folder, None if resume is None else str(resume))
    if begun is not None:
        step, saved = begun[0], begun[1]["config"]
        config = parse(TrainConfig, merge_resumed(saved, to_plain(config), words))
        if step >= config.steps:
            if config.steps < saved["steps"]:
                raise UserError(f"{folder} is at step {step} already, and steps={config.steps} was asked: ask for more")
            print(f"{folder} is complete at step {step}: ask for more with steps=<more than {step}>")
            return
    for sentence in without_effect(config, words):
        print(sentence, file=sys.stderr)
    outcome = train(config, folder, begun, imports, overrides)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def unfolded(overrides: Sequence[str]) -> Iterator[str]:
    """The words of the command line, where one for each option is made of those in braces, as eval={every:100}."""

    def below(key: str, node: Any, word: str) -> Iterator[str]:
        if isinstance(node, dict) and node:
            for name, value in node.items():
                yield from below(f"{key}.{name}", value, f"{key}.{name}={value}")
        else:
            yield word

    parser = OverridesParser.create()
    for override in overrides:
        yield from below(override.partition("=")[0], parser.parse_override(override).value(), override)


def train(
    config: TrainConfig,
    folder: Path,
    begun: tuple[int, dict[str, Any]] | None = None,
    imports: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Outcome:
    """Builds everything, goes on from a checkpoint where there is one, trains, and says where the results are.

    Args:
        config: of the run.
        folder: of the run.
        begun: step and state of the checkpoint to go on from.
        imports: the options that name modules of one's own, for the commands that are shown at the end.
        words: of the command line, for the head of config.yaml.
    """
    prepare_cpu(config.threads)
    device = resolve_device(config.device)
    if begun is not None:  # before anything that it names is made: it may be a stranger's
        check_env({"id": config.env.id, "kwargs": config.env.kwargs}, folder)
    make_task = load_task if begun is None else load_saved_task
    task = make_task(config.env.id, config.env.kwargs, config.env.time_limit)
    try:
        check_env({"id": task.id, "kwargs": task.kwargs}, folder)
    except UserError as error:  # now, not when the first agent is saved
        raise UserError(
            f"env.kwargs={task.kwargs} cannot be saved with an agent: its values must be plain numbers, truth values "
            "or short words, and arguments of the environment itself, not of gymnasium.make"
        ) from error
    agent, plan = build_agent(config, task, device)
    replay = build_replay(config, task, device, plan)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    folder.mkdir(parents=True, exist_ok=True)
    step, state = begun if begun is not None else (0, {})
    truncate_jsonl(folder / "metrics.jsonl", step)
    console = Console(config.steps, step, enabled=config.log.progress)
    console.line(f"{task.id} · {device} · {agent.parameters.numel():,} parameters · {folder}")
    console.line(str(agent.network))
    console.line(plan.line)
    noise = config.agent.noise
    if noise.enabled and noise.form == "independent" and (noise.sigma0 or 0.0) > LARGE_SIGMA:
        console.line(
            f"agent.noise.sigma0={noise.sigma0:g} is σ itself in the independent form, where the paper has 0.017: "
            "agent.noise.sigma0=null takes that"
        )
    if config.agent.learning_starts >= config.steps:
        console.line(f"it will not learn: agent.learning_starts={config.agent.learning_starts} is not below steps")
    tracker = Tracker(folder, to_plain(config), config.wandb, console, state.get("wandb_run_id"))
    try:
        write_config(folder, to_plain(config), words)  # from here on it holds a run
        trainer = Trainer(config, task, envs, agent, replay, tracker, folder, plan)
        if begun is not None:
            load_state(trainer, step, state)
        with Interrupt() as interrupt:
            outcome = trainer.run(interrupt)
            console.close()
            report(outcome, config, task, folder, tracker, imports)
            tracker.finish(outcome.exit_code)
    except BaseException:
        tracker.finish(1)
        raise
    finally:
        envs.close()
        console.close()
    return outcome


def load_state(trainer: Trainer, step: int, state: dict[str, Any]) -> None:
    """Takes over a checkpoint's state.

    Raises:
        UserError: where it is of other observations or actions than the environment has now.
    """
    try:
        trainer.load_state(step, state)
    except ValueError as error:
        raise UserError(
            f"{trainer.run_dir} cannot be resumed: what it saved does not fit {trainer.task.id} ({error}), which must "
            "be the version that it began with"
        ) from error


def report(
    outcome: Outcome, config: TrainConfig, task: Task, folder: Path, tracker: Tracker, imports: Sequence[str]
) -> None:
    """Draws the learning curve, hands the agents to the tracker and says where everything is."""
    curve = folder / "learning_curve.png"
    plot_learning_curve(folder / "metrics.jsonl", curve, f"{task.id}, seed {config.seed}", task.threshold)
    agents = {which: folder / which / "agent.safetensors" for which in ("best", "last")}
    agents = {which: path for which, path in agents.items() if path.exists()}
    for which, path in agents.items():
        tracker.save_agent(path, [which], {"global_step": load_agent(path).description["global_step"]})
    say = tracker.console.line
    if outcome.step < config.steps:
        command = shlex.join([word("resume", folder), *imports])
        say(f"stopped at step {outcome.step} and saved; go on with: python train.py {command}")
    elif outcome.evaluation is not None:
        mean = outcome.evaluation.statistics()["return_mean"]
        say(f"done: evaluation return {shown(mean)} over {len(outcome.evaluation.returns)} episodes")
    say(f"agents:    {' and '.join(str(path.parent) for path in agents.values())}")
    say(f"curve:     {curve}")
    say(f"dashboard: {tracker.dashboard}")
    words = [word("checkpoint", folder), *([] if "best" in agents else ["which=last"]), *imports]
    say(f"evaluate:  python evaluate.py {shlex.join(words)}")


if __name__ == "__main__":
    presets(sys.argv[1:])
    cli.run(main, *WORDS)
