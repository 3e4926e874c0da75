"""Restores a new run from a checkpoint, after checking it: a checkpoint may come from a stranger."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np

from agent.common.arrays import as_array
from agent.common.errors import UserError, one_line
from agent.common.state import State
from agent.config.parsing import to_plain
from agent.records.names import AGENT
from agent.records.saved_agent import read_header
from agent.records.schema import check_like
from agent.replay.n_step import ACTION, STOP, TERMINATED
from agent.running.trainer import Trainer

#: The largest number of draws that a stream of noise makes ahead.
MOST_DRAWS = 2**28
#: Keys of a monitor's state that checkpoints of version 2 lack.
ADDED_MONITOR_KEYS = {"last", "reported"}
#: Exceptions that a state of a wrong form may cause.
_MISFIT_ERRORS = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RuntimeError)


def load_state(trainer: Trainer, step: int, state: State) -> None:
    """Loads a checkpoint's state, after a comparison with the state of the new run.

    An agent in best/ that was saved after the checkpoint, under other options, is not of this run: the next evaluation
    then counts as the best.

    Raises:
        UserError: if it has another form, or the environment now has other observations or actions.
    """
    try:
        check_state(trainer, state)
        trainer.load_state(step, state)
    except _MISFIT_ERRORS as error:
        reason = str(error) if type(error) is ValueError else one_line(error)
        raise UserError(
            f"{trainer.folder} cannot be resumed: what it saved does not fit {trainer.task.id} ({reason}), which must "
            "be the version that it began with"
        ) from error
    later = step_of_best(trainer.folder.path)
    if later > step and state["config"] != to_plain(trainer.config):
        trainer.evaluator.best_return = -math.inf
        trainer.tracker.console.line(
            f"best/ holds an agent of step {later}, which other options have trained: the next evaluation replaces it"
        )


def step_of_best(run_dir: Path) -> int:
    """The step of the agent in best/; −1 if there is none that can be read."""
    with suppress(UserError):
        step = read_header(run_dir / "best" / AGENT).description.get("global_step")
        if type(step) is int:
            return step
    return -1


def check_state(trainer: Trainer, state: State) -> None:
    """Compares a state with that of the run that is to load it.

    Raises:
        ValueError: names the first difference.
    """
    expected = dict(trainer.state(episodes=False))
    added = ADDED_MONITOR_KEYS - state["monitor"].keys()
    expected["monitor"] = {name: value for name, value in expected["monitor"].items() if name not in added}
    for name in ("agent", "replay", "collector", "monitor"):
        if name in state or name != "collector":  # checkpoints of version 2 lack it
            check_like(state[name], expected[name], name)
    if (updates := state["agent"]["updates"]) < 0:
        raise ValueError(f"it has made {updates} updates")
    for replay in state["replay"].get("rings", [state["replay"]]):
        check_replay(replay, trainer.task.actions)
    if (under_way := state.get("under_way")) is not None:  # an evaluation
        tensors = trainer.agent.tensors()
        check_like(under_way, {"step": 0, "seconds": 0.0, "tensors": tensors}, "under_way")
        if under_way["tensors"].keys() != tensors.keys():
            raise ValueError("the agent that was evaluated has other layers")
    acting = state["agent"]["acting"]
    held_noise, shape = acting["held"], (trainer.config.num_envs, trainer.agent.noise.size)
    if held_noise is not None and getattr(held_noise, "shape", None) != shape:
        raise ValueError(f"the noise that acts is not of shape {shape}")
    for stream in (acting["stream"], state["agent"]["update"]):
        if stream.get("kind") == "table" and not 0 <= stream["taken"] <= stream["block"] <= MOST_DRAWS:
            raise ValueError(f"a stream of noise has drawn {stream['block']!r:.40} numbers ahead")


def check_replay(replay: State, actions: int) -> None:
    """Checks that a replay's counters agree; its arrays must have the right shapes.

    Raises:
        ValueError: if a sample could be out of bounds.
    """
    starts, rows = as_array(replay["starts"]), as_array(replay["starts_of_row"])
    head, first, count = (replay[name] for name in ("head", "first", "count"))
    inside = 0 <= head < len(rows) and 0 <= first < len(starts) and 0 <= count <= len(starts)
    if not inside or (rows < 0).any() or int(rows.sum()) != count or _is_outside(starts, len(starts)):
        raise ValueError("the replay's counters do not fit each other")
    scalars = as_array(replay["scalars"])
    if _is_outside(scalars[:, ACTION], actions):
        raise ValueError(f"the replay has actions that are not among {actions}")
    flags = (scalars[:, TERMINATED], scalars[:, STOP], as_array(replay["previous_stop"]))
    if not all(np.isin(values, (0.0, 1.0)).all() for values in flags):
        raise ValueError("the replay has endings that are neither 0 nor 1")
    priorities = [as_array(replay[name]) for name in ("priorities", "largest_priority") if name in replay]
    if any((values < 0).any() or not np.isfinite(values).all() for values in priorities):
        raise ValueError("the replay has priorities that are negative or not finite")


def _is_outside(values: np.ndarray, end: int) -> bool:
    """Whether any number is not among 0 … end − 1."""
    return not bool(((values >= 0) & (values < end)).all())
