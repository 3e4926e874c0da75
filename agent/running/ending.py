"""The end of a run: draws its results, hands them to the trackers, and reports them."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.common.errors import one_line
from agent.common.interrupt import Interrupt, Stopped
from agent.common.quoting import quote_override
from agent.config.run import TrainConfig
from agent.records.console import format_return
from agent.records.names import AGENT, CURVE, METRICS
from agent.records.plots import plot_learning_curve
from agent.records.saved_agent import read_agent
from agent.records.tracking import Tracker
from agent.running.outcome import Outcome
from envs.make import Task


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
    """Reports the results of a run, which are saved already, and closes its tracker; a signal skips the rest.

    Raises:
        UserError: the failure that ended the run; the user has to fix it before the run can continue.
    """
    tracker.console.close()
    is_drawn = False
    try:
        with interrupt.droppable():
            draw_and_upload(config, task, home, tracker)
            is_drawn = True
    except Stopped:
        pass
    report(outcome, config, folder, home, tracker, imports)
    if not is_drawn and outcome.failure is None and not goes_on(outcome, config):  # nothing draws it later
        tracker.console.line(f"the curve was left out: python compare.py {shlex.quote(str(folder))} draws it")
    try:
        with interrupt.droppable():
            tracker.finish(interrupt.exit_code or int(outcome.failure is not None))
    except Stopped:
        pass
    if outcome.failure is not None and not interrupt:
        raise outcome.failure
    return replace(outcome, exit_code=interrupt.exit_code)


def draw_and_upload(config: TrainConfig, task: Task, home: Path, tracker: Tracker) -> None:
    """Draws the learning curve and hands the agents to the tracker; a failure to draw never fails the run."""
    try:
        curve = home / CURVE
        plot_learning_curve(home / METRICS, curve, f"{task.id}, seed {config.seed}", task.threshold)
    except Exception as error:
        tracker.console.line(f"no learning curve: {one_line(error)}")
    for which, path in agents_in(home).items():
        tracker.save_agent(path, [which], {"global_step": read_agent(path).description["global_step"]})


def agents_in(folder: Path) -> dict[str, Path]:
    """The saved agents of a run, by the names of their folders."""
    agents = {which: folder / which / AGENT for which in ("best", "last")}
    return {which: path for which, path in agents.items() if path.exists()}


def report(
    outcome: Outcome, config: TrainConfig, folder: Path, home: Path, tracker: Tracker, imports: Sequence[str]
) -> None:
    """Prints how the run ended, where its files are, and how to continue."""
    agents, print_line = agents_in(home), tracker.console.line
    if (ending := _ending(outcome, config, folder, imports)) is not None:
        print_line(ending)
    if agents:
        print_line(f"agents:    {' and '.join(str(folder / which) for which in agents)}")
    if (home / CURVE).exists():
        print_line(f"curve:     {folder / CURVE}")
    print_line("\n".join(f"dashboard: {address}" for address in (tracker.dashboard, *tracker.dashboards)))
    if agents:
        overrides = [quote_override("checkpoint", folder), *([] if "best" in agents else ["which=last"]), *imports]
        print_line(f"evaluate:  python evaluate.py {shlex.join(overrides)}")


def goes_on(outcome: Outcome, config: TrainConfig) -> bool:
    """Whether a resumed run has more to do, with the same options."""
    return not outcome.solved and (outcome.step < config.steps or outcome.evaluation_due)


def _ending(outcome: Outcome, config: TrainConfig, folder: Path, imports: Sequence[str]) -> str | None:
    """A line on the end of the run: its last evaluation, or the command that continues it."""
    if outcome.failure is not None:
        return str(outcome.failure) if outcome.exit_code else None  # otherwise it is raised at the very end
    command = f"python train.py {shlex.join([quote_override('resume', folder), *imports])}"
    mean = None if outcome.evaluation is None else format_return(outcome.evaluation.statistics()["return_mean"])
    if outcome.solved:
        return (
            f"solved at step {outcome.step} after {outcome.seconds:.1f} s of training: evaluation return {mean}, for "
            f"eval.stop_at={config.eval.stop_at}; go on with: {command} eval.stop_at=null"
        )
    if goes_on(outcome, config):
        before = ", before its last evaluation," if outcome.step >= config.steps else ""
        return f"stopped at step {outcome.step}{before} and saved; go on with: {command}"
    if outcome.evaluation is None:
        return f"done: {outcome.step} steps"
    return f"done: evaluation return {mean} over {len(outcome.evaluation.returns)} episodes"
