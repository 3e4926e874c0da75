"""A run, from its config to the files in its folder."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.common.errors import UserError, words_of
from agent.common.interrupt import Interrupt, Stopped
from agent.common.notices import tell_through
from agent.common.quoting import quote_override
from agent.compute.plan import Plan
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.networks.q_network import QNetwork
from agent.records.console import Console, shown
from agent.records.metrics import truncate_jsonl
from agent.records.plots import plot_learning_curve
from agent.records.run_folder import write_config
from agent.records.saved_agent import check_env, load_agent
from agent.records.tracking import Tracker
from agent.running.build import build_agent, build_envs, build_replay, build_tracker
from agent.running.distributed.collector import RayCollector
from agent.running.distributed.starting import rings_of, start_collector
from agent.running.failures import Folder
from agent.running.progress import evaluated_again
from agent.running.resources import check_open_files, prepare_cpu, resolve_device
from agent.running.taking_over import load_state
from agent.running.trainer import Outcome, Trainer
from envs.bounds import check_bounds
from envs.closing import close_quietly
from envs.make import Task, load_saved_task, load_task
from envs.vector import note_on_global_draws
from envs.wrapping import wrapping_of

#: A σ of independent noise above this is likely to be meant as the σ0 of the factorised form, which is σ·√(inputs).
LARGE_SIGMA = 0.05
CURVE = "learning_curve.png"


def train(
    config: TrainConfig,
    folder: Path,
    begun: tuple[int, dict[str, Any]] | None = None,
    imports: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Outcome:
    """Builds everything, loads the checkpoint if there is one, trains, and says where the results are.

    Args:
        config: of the run.
        folder: of the run.
        begun: step and state of the checkpoint to go on from.
        imports: the options that name modules of one's own, for the commands that are shown at the end.
        overrides: of the command line, for the head of config.yaml.
    """
    check_open_files(config.num_envs if config.env.vectorization == "async" else 0)
    prepare_cpu(config.threads)
    device = resolve_device(config.device)
    place = Folder(folder)  # now: an environment may change the current folder
    home = place.path
    task = task_of(config, folder, resumed=begun is not None)
    agent, plan = build_agent(config, task, device)
    by_actors = config.collect.engine == "ray"
    rings = rings_of(config, task) if by_actors else None
    replay = build_replay(config, task, device, plan) if rings is None else rings
    envs = None if by_actors else build_envs(config, task)
    home.mkdir(parents=True, exist_ok=True)
    step, state = begun if begun is not None else (0, {})
    truncate_jsonl(home / "metrics.jsonl", step, *evaluated_again(step, state))
    console = Console(config.steps, step, enabled=config.log.progress)
    tell_through(console.line)
    console.line(f"{task.id} · {device} · {folder}")
    introduce(config, agent.network, plan, console)
    if envs is not None and (note := note_on_global_draws(task, envs)) is not None:
        console.line(note)
    tracker = build_tracker(config, home, console, begun)
    collector: RayCollector | None = None
    try:
        write_config(home, to_plain(config), overrides)  # from here on it holds a run
        if rings is not None:
            collector = start_collector(config, task, agent, rings, tracker)
        trainer = Trainer(config, task, envs, agent, replay, tracker, place, plan, collector)
        if begun is not None:
            load_state(trainer, step, state)
        with Interrupt() as interrupt:
            outcome = trainer.run(interrupt)
            outcome = end(outcome, interrupt, config, task, folder, home, tracker, imports)
    except BaseException:
        tracker.finish(1)
        raise
    finally:
        if envs is not None:
            close_quietly(envs.close, task.id)
        if collector is not None:
            collector.close()
        console.close()
    return outcome


def end(
    outcome: Outcome,
    interrupt: Interrupt,
    config: TrainConfig,
    task: Task,
    folder: Path,
    home: Path,
    tracker: Tracker,
    imports: Sequence[str],
) -> Outcome:
    """Shows the results of a run, which are saved already, and closes its tracker; a signal skips the rest.

    Raises:
        UserError: the failure that ended the run, which has to be mended before it can go on.
    """
    tracker.console.close()
    try:
        with interrupt.droppable():
            draw_and_upload(config, task, home, tracker)
    except Stopped:
        pass
    tell(outcome, config, folder, home, tracker, imports)
    try:
        with interrupt.droppable():
            tracker.finish(interrupt.exit_code or int(outcome.failure is not None))
    except Stopped:
        pass
    if outcome.failure is not None and not interrupt:
        raise outcome.failure
    return replace(outcome, exit_code=interrupt.exit_code)


def introduce(config: TrainConfig, network: QNetwork, plan: Plan, console: Console) -> None:
    """Says what learns and how it is computed, and warns of options that are hardly meant."""
    console.line(network_line(network))
    if config.log.network:
        console.line(str(network))
    console.line(plan.line)
    warn(config, console)


def network_line(network: QNetwork) -> str:
    """The kinds of a network's encoder and head, and the number of its parameters."""
    kinds = f"{type(network.encoder).__name__} and {type(network.head).__name__}"
    return f"network: {kinds}, {sum(parameter.numel() for parameter in network.parameters()):,} parameters"


def task_of(config: TrainConfig, folder: Path, resumed: bool) -> Task:
    """The task of a run, which must be one that can be saved with its agents.

    Raises:
        UserError: where there is no such task, or where no file may hold its arguments.
    """
    env, wrapping = config.env, wrapping_of(config.env.observation, config.env.wrappers)
    named = env.id, env.kwargs, env.time_limit, env.channels, wrapping, env.action_mask
    if not resumed:
        check_bounds(env.id, env.kwargs)  # now, not when the agent is to be evaluated
        task = load_task(*named)
    else:  # it may be a stranger's: checked before anything that it names is made
        check_env({"id": env.id, "kwargs": env.kwargs, "eval_kwargs": env.eval_kwargs}, folder)
        task = load_saved_task(*named)
    both = {**task.kwargs, **env.eval_kwargs}
    try:
        check_env({"id": task.id, "kwargs": both}, folder)
    except UserError as error:  # now, not when the first agent is saved
        raise UserError(
            f"env.kwargs={both} cannot be saved with an agent: its values must be plain numbers, truth values "
            "or short words, and arguments of the environment itself, not of gymnasium.make"
        ) from error
    return with_eval_kwargs(task, env.eval_kwargs) if env.eval_kwargs else task


def with_eval_kwargs(task: Task, eval_kwargs: dict[str, Any]) -> Task:
    """The task, evaluated with other arguments of its environment.

    Raises:
        UserError: where they make another task of it, with other observations or actions.
    """
    evaluated = replace(task, eval_kwargs=eval_kwargs).for_evaluation()
    named = task.time_limit, task.observe.channels or "auto", task.wrapping, task.action_mask
    other = load_saved_task(task.id, evaluated.kwargs, *named)
    if (other.observe.description(), other.actions) != (task.observe.description(), task.actions):
        raise UserError(
            f"env.eval_kwargs={eval_kwargs} gives {task.id} other observations or actions than training has"
        )
    return replace(task, eval_kwargs=eval_kwargs)


def warn(config: TrainConfig, console: Console) -> None:
    """Warns of options that are allowed but hardly meant."""
    noise = config.agent.noise
    if noise.enabled and noise.form == "independent" and (noise.sigma0 or 0.0) > LARGE_SIGMA:
        console.line(
            f"agent.noise.sigma0={noise.sigma0:g} is σ itself in the independent form, where the paper has 0.017: "
            "agent.noise.sigma0=null takes that"
        )
    if config.agent.learning_starts >= config.steps:
        console.line(f"it will not learn: agent.learning_starts={config.agent.learning_starts} is not below steps")


def draw_and_upload(config: TrainConfig, task: Task, home: Path, tracker: Tracker) -> None:
    """Draws the learning curve and hands the agents to the tracker; a picture is never worth a run."""
    try:
        curve = home / CURVE
        plot_learning_curve(home / "metrics.jsonl", curve, f"{task.id}, seed {config.seed}", task.threshold)
    except Exception as error:
        tracker.console.line(f"no learning curve: {words_of(error)}")
    for which, path in agents_in(home).items():
        tracker.save_agent(path, [which], {"global_step": load_agent(path).description["global_step"]})


def agents_in(folder: Path) -> dict[str, Path]:
    """The saved agents of a run, by the names of their folders."""
    agents = {which: folder / which / "agent.safetensors" for which in ("best", "last")}
    return {which: path for which, path in agents.items() if path.exists()}


def tell(
    outcome: Outcome, config: TrainConfig, folder: Path, home: Path, tracker: Tracker, imports: Sequence[str]
) -> None:
    """Says how the run ended, where everything is, and how to go on."""
    agents, say = agents_in(home), tracker.console.line
    if (ending := _ending(outcome, config, folder, imports)) is not None:
        say(ending)
    if agents:
        say(f"agents:    {' and '.join(str(folder / which) for which in agents)}")
    if (home / CURVE).exists():
        say(f"curve:     {folder / CURVE}")
    say("\n".join(f"dashboard: {shown_at}" for shown_at in (tracker.dashboard, *tracker.dashboards)))
    if agents:
        overrides = [quote_override("checkpoint", folder), *([] if "best" in agents else ["which=last"]), *imports]
        say(f"evaluate:  python evaluate.py {shlex.join(overrides)}")


def _ending(outcome: Outcome, config: TrainConfig, folder: Path, imports: Sequence[str]) -> str | None:
    """How the run ended: with its last evaluation, or with the command that goes on."""
    if outcome.failure is not None:
        return str(outcome.failure) if outcome.exit_code else None  # else it is told at the very end
    command = f"python train.py {shlex.join([quote_override('resume', folder), *imports])}"
    mean = None if outcome.evaluation is None else shown(outcome.evaluation.statistics()["return_mean"])
    if outcome.solved:
        return (
            f"solved at step {outcome.step} after {outcome.seconds:.1f} s of training: evaluation return {mean}, for "
            f"eval.stop_at={config.eval.stop_at}; go on with: {command} eval.stop_at=null"
        )
    if outcome.step < config.steps or outcome.evaluation_due:
        before = ", before its last evaluation," if outcome.step >= config.steps else ""
        return f"stopped at step {outcome.step}{before} and saved; go on with: {command}"
    if outcome.evaluation is None:
        return f"done: {outcome.step} steps"
    return f"done: evaluation return {mean} over {len(outcome.evaluation.returns)} episodes"
