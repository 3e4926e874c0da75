"""A run that ends between a step and its updates: they, the row of that step and its evaluation are made later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import Setup, same, setup

from agent.common.foreign import OwnCodeError
from agent.common.interrupt import Interrupt, Stopped
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.saved_agent import read_header, save_agent
from agent.running import restoring
from agent.running.progress import last_return, nothing_left, with_evaluation

#: Updates are due at the steps 100, 150, 200, 250 and 300, or at the later of them.
CHANGES = {
    "agent.learning_starts": 50,
    "agent.replay_ratio": 0.02,
    "log.every": 50,
    "eval.every": 100,
    "env.vectorization": "sync",
}
CLOCK = ("time/", "speed/")


class Interrupted(Interrupt):
    """Pretends that a signal has come, as soon as `now` is set."""

    exit_code = 130  # type: ignore[assignment]
    now = False

    def __bool__(self) -> bool:
        return self.now


def begin(folder: Path, **changes: Any) -> Setup:
    return setup(folder, **(CHANGES | {name.replace("__", "."): value for name, value in changes.items()}))


def end_at_update(run: Setup, number: int, error: Exception) -> Interrupted:
    """Lets the update with this number, counted from 1, raise an error; only the first is ended by a signal."""
    interrupt, trainer, update = Interrupted(), run.trainer, run.trainer.agent.update
    trainer._compiles_next = isinstance(error, Stopped)

    def failing(batch: Any, weight: Any = None) -> Any:
        if trainer.agent.updates + 1 < number:
            return update(batch, weight)
        interrupt.now = isinstance(error, Stopped)
        raise error

    trainer.agent.update = failing  # type: ignore[method-assign]
    return interrupt


def state_in(folder: Path) -> tuple[int, dict[str, Any]]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    step, state = load_checkpoint(checkpoint)
    return step, dict(with_evaluation(folder, step, state))


def resumed(folder: Path, **changes: Any) -> Setup:
    run = begin(folder, **changes)
    restoring.load_state(run.trainer, *state_in(folder))
    return run


def rows(*runs: Setup) -> list[tuple[int, Mapping[str, float]]]:
    """The metrics of one run, or of its parts, without times and speeds."""
    found = [row for run in runs for row in run.tracker.rows]
    kept = [(step, {name: x for name, x in row.items() if not name.startswith(CLOCK)}) for step, row in found]
    return sorted(kept, key=lambda row: row[0])  # stable


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.running.trainer.is_foreign", lambda error: isinstance(error, OwnCodeError))


@pytest.mark.parametrize("at", [100, 200, 250, 300])
@pytest.mark.parametrize("episodes", [0, 2])
def test_a_signal_while_the_first_update_compiles_changes_nothing(tmp_path: Path, at: int, episodes: int) -> None:
    changes = {"agent.learning_starts": at - 50, "eval.episodes": episodes}
    whole = begin(tmp_path / "whole", **changes)
    whole.run()
    first = begin(tmp_path / "run", **changes)
    outcome = first.trainer.run(end_at_update(first, 1, Stopped()))
    assert outcome.exit_code == 130
    step, state = state_in(tmp_path / "run")
    assert step == outcome.step
    assert round(step, -1) == at  # a row that only resets counts as no step
    assert state["updates_due"]
    assert nothing_left(first.trainer.config, step, state) is None
    second = resumed(tmp_path / "run", **changes)
    second.run()
    assert rows(first, second) == rows(whole)
    assert same(second.learned(), whole.learned())
    step, state = state_in(tmp_path / "run")
    assert nothing_left(second.trainer.config, step, state) == "complete"
    assert [*state["evaluation"]] == [*state_in(tmp_path / "whole")[1]["evaluation"]]


@pytest.mark.parametrize("number", [1, 3, 5], ids=["at 100", "at 200", "at the end"])
@pytest.mark.parametrize("episodes", [0, 2])
def test_an_error_in_an_update_loses_no_row_and_no_evaluation(tmp_path: Path, number: int, episodes: int) -> None:
    first = begin(tmp_path, eval__episodes=episodes)
    outcome = first.trainer.run(end_at_update(first, number, OwnCodeError("it failed")))
    assert outcome.failure is not None
    assert nothing_left(first.trainer.config, *state_in(tmp_path)) is None
    second = resumed(tmp_path, eval__episodes=episodes)
    second.run()
    for name, steps in {"train/updates": range(50, 301, 50), "eval/return_mean": range(100, 301, 100)}.items():
        found = [step for run in (first, second) for step, _ in run.tracker.series(name)]
        wanted = [*steps] if episodes or name == "train/updates" else []
        assert [round(step, -1) for step in found] == wanted
    assert second.trainer.agent.updates == 5
    assert nothing_left(second.trainer.config, *state_in(tmp_path)) == "complete"


@pytest.mark.parametrize("kill", [False, True])
def test_a_run_that_makes_the_updates_that_it_owed_writes_their_row_once(tmp_path: Path, kill: bool) -> None:
    first = begin(tmp_path)
    first.trainer.run(end_at_update(first, 1, Stopped()))
    second, interrupt = resumed(tmp_path), Interrupted()
    if kill:  # right after its first save
        second.trainer._evaluations.poll = lambda *_: _killed()  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            second.trainer.run(interrupt)
    else:
        interrupt.now = True
        second.trainer.run(interrupt)
    third = resumed(tmp_path)
    third.run()
    logged = [step for run in (first, second, third) for step, _ in run.tracker.series("train/updates")]
    assert [round(step, -1) for step in logged] == [50, 100, 150, 200, 250, 300]
    assert third.trainer.agent.updates == 5


def _killed() -> None:
    raise SystemExit(9)


def test_a_signal_ends_updates_without_end(tmp_path: Path) -> None:
    """A strange checkpoint may owe more updates than anyone waits for."""
    run = begin(tmp_path)
    run.run()
    step, state = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    save_checkpoint(tmp_path, step, {**state, "agent": {**state["agent"], "updates": -(2**50)}}, 1)
    with pytest.raises(Exception, match=r"it has made -\d+ updates"):
        resumed(tmp_path)
    save_checkpoint(tmp_path, 10**11, state, 1)
    endless, interrupt = resumed(tmp_path, steps=10**12), Interrupted()
    interrupt.now = True
    assert endless.trainer.run(interrupt).exit_code == 130
    assert endless.trainer.agent.updates == 6


# ---- options that change, and the best agent


def test_a_run_without_evaluations_does_not_report_an_earlier_one(tmp_path: Path) -> None:
    before = begin(tmp_path, steps=100).run()
    assert before.evaluation is not None
    after = resumed(tmp_path, steps=150, eval__episodes=0).run()
    assert after.evaluation is None
    _, state = state_in(tmp_path)
    assert len(state["evaluation"]) == 3, "it is kept for a run that evaluates again"
    assert last_return(state) is None
    assert last_return({**state, "config": {"eval": {"episodes": 2}}}) == np.mean(before.evaluation.returns)


@pytest.mark.parametrize("at", [150, 300])
def test_changed_options_are_saved_without_a_new_step(tmp_path: Path, at: int) -> None:
    begin(tmp_path, steps=at).run()
    changed, interrupt = resumed(tmp_path, steps=500, agent__lr=0.0123), Interrupted()
    interrupt.now = True
    assert changed.trainer.run(interrupt).step == at
    step, state = state_in(tmp_path)
    assert (step, state["config"]["steps"], state["config"]["agent"]["lr"]) == (at, 500, 0.0123)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.json")}
    same_again, interrupt = resumed(tmp_path, steps=500, agent__lr=0.0123), Interrupted()
    interrupt.now = True
    same_again.trainer.run(interrupt)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.json")} == files  # nothing has changed


@pytest.mark.parametrize("lr", [None, 1e-9])
def test_the_best_agent_is_none_of_an_abandoned_continuation(tmp_path: Path, lr: float | None) -> None:
    begin(tmp_path, steps=150).run()
    step, state = state_in(tmp_path)
    save_checkpoint(tmp_path, step, {**state, "best_return": 490.0}, 1)
    path, tensors = tmp_path / "best" / "agent.safetensors", resumed(tmp_path, steps=300).trainer.agent.tensors()
    ended = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    save_agent(path, ended, {**read_header(path).description, "global_step": 222})  # then it was killed
    changes = {"steps": 150} if lr is None else {"steps": 300, "agent__lr": lr}
    run = resumed(tmp_path, **changes)
    told = [line for line in run.tracker.lines if "best/" in line]
    if lr is None:  # the same options reach that step again
        assert not told
        assert run.trainer.evaluator.best_return == 490.0
    else:
        assert told == [
            "best/ holds an agent of step 222, which other options have trained: the next evaluation replaces it"
        ]
        run.run()
        assert read_header(path).description["global_step"] in (200, 300)
