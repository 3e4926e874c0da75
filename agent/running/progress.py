"""The progress of a run, according to its checkpoint and the evaluation after it.

A checkpoint is saved before the evaluation of its step, which may fail or be stopped. The result of the evaluation goes
to a note beside the checkpoint's own files. A run that is resumed without this note plays the evaluation first.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from agent.common.files import atomic_write_text, read_plain
from agent.common.state import State
from agent.config.run import TrainConfig

NOTE = "evaluation.json"
#: The largest note that is read, in bytes: ten million episodes.
MAX_NOTE_BYTES = 256 << 20

_KINDS = {
    "best_return": float,
    "evaluations": int,
    "evaluation": list,
    "evaluation_due": bool,
    "failures": int,
    "reached": int,
}


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run_dir / "checkpoints" / f"step_{step:012d}"


def note_evaluation(checkpoint: Path, state: Mapping[str, object]) -> None:
    """Writes the state after an evaluation beside the checkpoint that was saved before it."""
    atomic_write_text(checkpoint / NOTE, json.dumps(dict(state)))


def with_evaluation(run_dir: Path, step: int, state: State) -> State:
    """A checkpoint's state, updated with the note on the evaluation of its step, if there is one.

    A damaged note is ignored: the evaluation is played again.
    """
    try:
        note = json.loads(read_plain(checkpoint_folder(run_dir, step) / NOTE, MAX_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return state
    if not _is_note(note, step):
        return state
    finished = {name: value for name, value in state.items() if name != "under_way"}
    return {**finished, **note}


def last_return(state: State) -> float | None:
    """The mean return of the newest evaluation in a checkpoint's state; None if it has none, or plays none."""
    if not state["config"]["eval"]["episodes"]:
        return None
    _, *results = state["evaluation"]
    return float(np.mean(results[0])) if results and len(results[0]) else None


def evaluated_again(step: int, state: State) -> tuple[str | None, int]:
    """The prefix of the metrics that a resumed run writes again, and the first step of these."""
    if (under_way := state.get("under_way")) is not None:
        return "eval/", under_way["step"]
    return "eval/" if state.get("evaluation_due") else None, step


def _is_note(note: object, step: int) -> bool:
    if not isinstance(note, dict) or {name: type(value) for name, value in note.items()} != _KINDS:
        return False
    evaluated_at, *results = note["evaluation"]
    if type(evaluated_at) is not int or not 0 <= evaluated_at <= step or len(results) not in (0, 2):
        return False
    returns, lengths = results or ([], [])
    return (
        isinstance(returns, list)
        and isinstance(lengths, list)
        and len(returns) == len(lengths)
        and all(type(value) is float and math.isfinite(value) for value in returns)
        and all(type(value) is int for value in lengths)
    )


def nothing_left(config: TrainConfig, step: int, state: State) -> Literal["complete", "solved"] | None:
    """Why a run with this config has nothing left to do at a checkpoint; None if it has something to do.

    Args:
        config: the config of the resumed run, with the requested changes.
        step: the step of the checkpoint.
        state: the state of the checkpoint, updated with its evaluation.
    """
    eval_config, pending = config.eval, state.get("evaluation_due", False) or "under_way" in state
    due = pending and config.eval.episodes > 0
    same_goal = eval_config.stop_at is not None and state["config"]["eval"].get("stop_at") == eval_config.stop_at
    if same_goal and state.get("reached", 0) >= eval_config.stop_patience and not due:
        return "solved"
    owes_updates = state.get("updates_due", False)  # an error or a signal came between the last step and its updates
    return "complete" if step >= config.steps and not (due or owes_updates) else None
