"""Trains a DQN that explores by learned noise: python train.py env=CartPole-v1 (--help for more)."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent import cli
from agent.config import TrainConfig
from agent.console import Console
from agent.dqn import DQN
from agent.errors import UserError
from agent.extensions import import_asked
from agent.files import truncate_jsonl
from agent.interrupt import Interrupt
from agent.network import build_network
from agent.numpy_network import NumpyNetwork
from agent.options import leaf_names, parse, to_plain
from agent.plots import plot_learning_curve
from agent.priorities import PrioritisedReplay, prioritised_bytes
from agent.replay import Replay, required_bytes
from agent.resources import check_replay_memory, prepare_cpu, resolve_device, threads_for_numpy
from agent.run_folder import merge_resumed, occupied, open_run, run_folder, write_config
from agent.saved_agent import check_env, load_agent
from agent.seeding import torch_generator
from agent.speed import choose_speed
from agent.tracking import Tracker
from agent.training import Outcome, Trainer
from envs.make import Task, load_task
from envs.vector import make_vector

OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


#: What `cli` needs to put errors into words: Hydra's exceptions, and every option that a person may misspell.
WORDS = (HydraException, OmegaConfBaseException), [*leaf_names(TrainConfig), "imports", "resume", "hydra.run.dir"]


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """One run: a new one, or the rest of one that was stopped."""
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    with cli.sentences(*WORDS), occupied(folder):
        run(cfg, folder)


def run(cfg: DictConfig, folder: Path) -> None:
    """Composes the config, with that of the run to resume where there is one, and trains."""
    asked: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    import_asked(asked)
    resume = asked.pop("resume")
    if resume is not None and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UserError("resume does not go with -m: resume the runs one by one")
    config = parse(TrainConfig, asked)
    begun = open_run(folder, None if resume is None else str(resume))
    if begun is not None:
        step, saved = begun[0], begun[1]["config"]
        overrides = list(HydraConfig.get().overrides.task)
        config = parse(TrainConfig, merge_resumed(saved, to_plain(config), overrides))
        if step >= config.steps:
            if config.steps < saved["steps"]:
                raise UserError(f"{folder} is at step {step} already, and steps={config.steps} was asked: ask for more")
            print(f"{folder} is complete at step {step}: ask for more with steps=<more than {step}>")
            return
    outcome = train(config, folder, begun)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def build_agent(config: TrainConfig, task: Task, device: torch.device) -> DQN:
    """The agent with its first parameters."""
    network = build_network(
        config.agent, task.observation, task.actions, torch_generator(config.seed, "initialisation")
    )
    if on_numpy := device.type == "cpu" and NumpyNetwork.fits(network):
        threads_for_numpy(config.threads)
    speed = choose_speed(config, on_numpy, device, sum(parameter.numel() for parameter in network.parameters()))
    return DQN(network, config.agent, task.actions, config.seed, device, speed)


def build_replay(config: TrainConfig, task: Task, device: torch.device) -> Replay:
    """The replay, where the config puts it, if it fits."""
    agent, sizes = config.agent, (config.agent.replay_size, config.num_envs, task.observation)
    where = device if agent.replay_device == "auto" else torch.device("cpu")
    if agent.priority.enabled and where.type == "mps":
        where = torch.device("cpu")  # priorities are float64, which Apple's GPU does not have
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": where, "batch_device": device}
    if agent.priority.enabled:
        check_replay_memory(prioritised_bytes(*sizes), where)
        return PrioritisedReplay(*sizes, exponent=agent.priority.exponent, **options)
    check_replay_memory(required_bytes(*sizes), where)
    return Replay(*sizes, **options)


def train(config: TrainConfig, folder: Path, begun: tuple[int, dict[str, Any]] | None = None) -> Outcome:
    """Builds everything, goes on from a checkpoint where there is one, trains, and says where the results are."""
    prepare_cpu(config.threads)
    device = resolve_device(config.device)
    task = load_task(config.env.id, config.env.kwargs, config.env.time_limit)
    try:
        check_env({"id": task.id, "kwargs": task.kwargs}, folder)
    except UserError as error:  # now, not when the first agent is saved
        raise UserError(
            f"env.kwargs={task.kwargs} cannot be saved with an agent: its values must be plain numbers, truth values "
            "or short words, and arguments of the environment itself, not of gymnasium.make"
        ) from error
    agent, replay = build_agent(config, task, device), build_replay(config, task, device)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    folder.mkdir(parents=True, exist_ok=True)
    step, state = begun if begun is not None else (0, {})
    truncate_jsonl(folder / "metrics.jsonl", step)
    console = Console(config.steps, step, enabled=config.log.progress)
    console.line(f"{task.id} · {device} · {agent.parameters.numel():,} parameters · {folder}")
    console.line(str(agent.network))
    console.line(agent.speed.line)
    if config.agent.learning_starts >= config.steps:
        console.line(f"it will not learn: agent.learning_starts={config.agent.learning_starts} is not below steps")
    tracker = Tracker(folder, to_plain(config), config.wandb, console, state.get("wandb_run_id"))
    try:
        write_config(folder, to_plain(config))  # from here on it holds a run
        trainer = Trainer(config, task, envs, agent, replay, tracker, folder)
        if begun is not None:
            trainer.load_state(step, state)
        with Interrupt() as interrupt:
            outcome = trainer.run(interrupt)
            console.close()
            report(outcome, config, task, folder, tracker)
            tracker.finish(outcome.exit_code)
    except BaseException:
        tracker.finish(1)
        raise
    finally:
        envs.close()
        console.close()
    return outcome


def report(outcome: Outcome, config: TrainConfig, task: Task, folder: Path, tracker: Tracker) -> None:
    """Draws the learning curve, hands the agents to the tracker and says where everything is."""
    curve = folder / "learning_curve.png"
    plot_learning_curve(folder / "metrics.jsonl", curve, f"{task.id}, seed {config.seed}", task.threshold)
    agents = {which: folder / which / "agent.safetensors" for which in ("best", "last")}
    agents = {which: path for which, path in agents.items() if path.exists()}
    for which, path in agents.items():
        tracker.save_agent(path, [which], {"global_step": load_agent(path).description["global_step"]})
    say = tracker.console.line
    if outcome.step < config.steps:
        say(f"stopped at step {outcome.step} and saved; go on with: python train.py {shlex.quote(f'resume={folder}')}")
    elif outcome.evaluation is not None:
        mean = outcome.evaluation.statistics()["return_mean"]
        say(f"done: evaluation return {mean:.1f} over {len(outcome.evaluation.returns)} episodes")
    say(f"agents:    {' and '.join(str(path.parent) for path in agents.values())}")
    say(f"curve:     {curve}")
    say(f"dashboard: {tracker.dashboard}")
    which = "" if "best" in agents else " which=last"
    say(f"evaluate:  python evaluate.py {shlex.quote(f'checkpoint={folder}')}{which}")


if __name__ == "__main__":
    cli.run(main, *WORDS)
