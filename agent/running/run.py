"""Runs training, from the config to the files in the run's folder."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from agent.common.errors import UserError
from agent.common.interrupt import Interrupt
from agent.common.notices import tell_through
from agent.common.state import Checkpoint
from agent.compute.plan import Plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.networks.q_network import QNetwork
from agent.records.console import Console
from agent.records.metrics import truncate_jsonl
from agent.records.names import METRICS
from agent.records.run_folder import note_on_edits, write_config
from agent.records.saved_env import check_env
from agent.records.tracking import Tracker
from agent.running.build import build_agent, build_envs, build_replay, build_tracker
from agent.running.distributed.collector import RayCollector
from agent.running.distributed.starting import rings_of, start_collector
from agent.running.ending import end
from agent.running.evaluator import stop_return
from agent.running.failures import Folder
from agent.running.outcome import Outcome
from agent.running.progress import evaluated_again
from agent.running.resources import check_open_files, cores, prepare_cpu, resolve_device
from agent.running.restoring import load_state
from agent.running.trainer import Trainer
from envs.bounds import check_bounds
from envs.channels import BoxChannels
from envs.closing import close_quietly
from envs.make import Task, load_saved_task, load_task
from envs.shapes import check_shapes, note_on_shapes
from envs.vector import note_on_global_draws
from envs.wrapping import wrapping_of

#: A larger σ of independent noise is probably meant as σ0 of the factorised form, which is σ·√(inputs).
LARGE_SIGMA = 0.05


def train(
    config: TrainConfig,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    imports: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Outcome:
    """Builds everything, loads the checkpoint if there is one, trains, and prints where the results are.

    Args:
        config: the config of the run.
        folder: the folder of the run.
        checkpoint: the checkpoint to resume from; None for a new run.
        imports: the options that name the user's modules, for the commands that are shown at the end.
        overrides: the options of the command line, for the head of config.yaml.
    """
    check_open_files(config.num_envs if config.env.vectorization == "async" else 0)
    prepare_cpu(config.threads)
    device = resolve_device(config.device)
    run_dir = Folder(folder)  # made first, as an environment may change the current folder
    task = task_of(config, folder, resumed=checkpoint is not None)
    stop_return(config.eval, task)  # raises before anything is built
    config = replace(config, env=replace(config.env, action_mask=task.action_mask))  # `auto` is resolved
    agent, plan = build_agent(config, task, device)
    by_actors = config.collect.engine == "ray"
    rings = rings_of(config, task) if by_actors else None
    replay = build_replay(config, task, device, plan) if rings is None else rings
    envs = None if by_actors else build_envs(config, task)
    with ExitStack() as opened:
        console = open_console(config, 0 if checkpoint is None else checkpoint.step)
        opened.callback(console.close)
        if envs is not None:
            opened.callback(close_quietly, envs.close, task.id)
        console.line(f"{task.id} · {device} · {folder}")
        introduce(config, agent.network, plan, console)
        notes = [note_on_shapes(task.observe), None if envs is None else note_on_global_draws(task, envs)]
        if checkpoint is not None:
            notes.append(note_on_edits(folder, checkpoint.state["config"]))
        for note in filter(None, notes):
            console.line(note)
        tracker = build_tracker(config, run_dir.path, console, checkpoint)
        collector: RayCollector | None = None
        if rings is not None:
            collector = start_collector(config, task, agent, rings, tracker)
            opened.callback(collector.close)
        trainer = Trainer(config, task, envs, agent, replay, tracker, run_dir, plan, collector)
        if checkpoint is not None:
            load_state(trainer, *checkpoint)  # nothing is written before: a refusal leaves the folder as it is
        with finished_on_error(tracker):
            open_files(config, run_dir.path, checkpoint, overrides, tracker)
            with Interrupt() as interrupt:
                outcome = trainer.run(interrupt)
                return end(outcome, interrupt, config, task, folder, run_dir.path, tracker, imports)


def open_console(config: TrainConfig, step: int) -> Console:
    """Opens the console of a run at `step`; notices of all modules go through it."""
    console = Console(config.steps, step, enabled=config.log.progress)
    tell_through(console.line)
    return console


def open_files(
    config: TrainConfig, home: Path, checkpoint: Checkpoint | None, overrides: Sequence[str], tracker: Tracker
) -> None:
    """Creates the folder, drops the metrics after the checkpoint to resume from, and opens the tracker."""
    step, state = checkpoint or Checkpoint(0, {})
    home.mkdir(parents=True, exist_ok=True)
    truncate_jsonl(home / METRICS, step, *evaluated_again(step, state))
    tracker.open()
    write_config(home, to_plain(config), overrides)  # from here on the folder holds a run


@contextmanager
def finished_on_error(tracker: Tracker) -> Iterator[None]:
    """Finishes the tracker if an error ends the block."""
    try:
        yield
    except BaseException:
        tracker.finish(1)
        raise


def introduce(config: TrainConfig, network: QNetwork, plan: Plan, console: Console) -> None:
    """Prints the network and the plan, and warns of options that are probably mistakes."""
    console.line(network_line(network))
    if config.log.network:
        console.line(str(network))
    console.line(plan.line)
    warn(config, console)


def network_line(network: QNetwork) -> str:
    """The classes of a network's encoder and head, and the number of its parameters."""
    kinds = f"{type(network.encoder).__name__} and {type(network.head).__name__}"
    return f"network: {kinds}, {sum(parameter.numel() for parameter in network.parameters()):,} parameters"


def task_of(config: TrainConfig, folder: Path, resumed: bool) -> Task:
    """The task of a run, which must be one that can be saved with its agents.

    Raises:
        UserError: if there is no such task, or a file may not hold its arguments.
    """
    env, wrapping = config.env, wrapping_of(config.env.observation, config.env.wrappers)
    arguments = env.id, env.kwargs, env.time_limit, env.channels, wrapping, env.action_mask
    if not resumed:
        check_bounds(env.id, env.kwargs)  # here, not only when the agent is evaluated
        task = load_task(*arguments)
        check_shapes(task.observe)
    else:  # it may come from a stranger: it is checked before anything in it is made
        check_env({"id": env.id, "kwargs": env.kwargs, "eval_kwargs": env.eval_kwargs}, folder)
        task = load_saved_task(*arguments)
    for option, kwargs in (("env.kwargs", task.kwargs), ("env.eval_kwargs", env.eval_kwargs)):
        try:
            check_env({"id": task.id, "kwargs": kwargs}, folder)
        except UserError as error:  # here, not only when the first agent is saved
            raise UserError(
                f"{option}={kwargs} cannot be saved with an agent: its values must be plain numbers, truth values "
                "or short words, no lists or mappings, and arguments of the environment itself, not of gymnasium.make; "
                "a module of your own, which imports= names, can register an environment that has the others"
            ) from error
    return with_eval_kwargs(task, env.eval_kwargs, env.channels) if env.eval_kwargs else task


def with_eval_kwargs(task: Task, eval_kwargs: dict[str, object], channels: BoxChannels = "auto") -> Task:
    """The task, evaluated with other arguments of its environment.

    Args:
        task: as training plays it.
        eval_kwargs: the arguments that differ.
        channels: where its images have them, as a person said it.

    Raises:
        UserError: if they change its observations or actions.
    """
    evaluated = replace(task, eval_kwargs=eval_kwargs).for_evaluation()
    arguments = task.time_limit, task.observe.channels or channels, task.wrapping, task.action_mask
    other = load_saved_task(task.id, evaluated.kwargs, *arguments)
    if (other.observe.description(), other.actions) != (task.observe.description(), task.actions):
        raise UserError(
            f"env.eval_kwargs={eval_kwargs} gives {task.id} other observations or actions than training has"
        )
    return replace(task, eval_kwargs=eval_kwargs)


def warn(config: TrainConfig, console: Console) -> None:
    """Warns of options that are allowed but probably mistakes."""
    noise = config.agent.noise
    if noise.enabled and noise.form == "independent" and (noise.sigma0 or 0.0) > LARGE_SIGMA:
        console.line(
            f"agent.noise.sigma0={noise.sigma0:g} is σ itself in the independent form, where the paper has 0.017: "
            "agent.noise.sigma0=null takes that"
        )
    if config.threads > (count := cores()):
        console.line(
            f"threads={config.threads} is more than the {count} cores that this process may use, and slows it down: "
            f"use threads={count} or fewer"
        )
    starts, ratio = config.agent.learning_starts, config.agent.replay_ratio
    if starts >= config.steps:
        console.line(f"it will not learn: agent.learning_starts={starts} is not below steps")
    elif 0 < ratio * (config.steps + config.num_envs - starts) < 1:  # the last vector step may pass `steps`
        line = f"agent.replay_ratio={to_plain(ratio)} makes no update within steps={config.steps}"
        console.line(f"it will not learn: {line}")
