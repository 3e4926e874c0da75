"""Evaluations that other processes play during training: none is lost, and results are those of evaluations in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from torch import Tensor

from agent.common.errors import UserError
from agent.common.interrupt import Interrupt
from agent.common.seeding import environment_seeds
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.metrics import JsonlSink, read_rows, truncate_jsonl
from agent.records.saved_agent import read_agent
from agent.running.background import with_tensors
from agent.running.build import build_agent, build_envs, build_replay
from agent.running.collector import Collector
from agent.running.evaluation import EncodedFilm, EvaluationResults, evaluate
from agent.running.outcome import Outcome
from agent.running.progress import evaluated_again, nothing_left, with_evaluation
from agent.running.resources import resolve_device
from agent.running.restoring import check_state
from agent.running.trainer import Trainer
from envs.make import load_task

ID = "Test/Drift-v0"
OPTIONS: dict[str, Any] = {
    "env": {"id": ID},
    "steps": 200,
    "num_envs": 1,
    "agent": {"network": {"hidden": [8]}, "batch_size": 8, "learning_starts": 20, "replay_size": 400},
    "eval": {"every": 50, "episodes": 3, "noisy": True, "video": False},
    "checkpoint": {"every": 60},
    "log": {"every": 50},
}


class Drift(gym.Env[np.ndarray, np.int64]):
    """Episodes of 3 to 7 steps; the reward is the action in some states, and its opposite in others."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(3, 8))
        return self._see(), {}

    def _see(self) -> np.ndarray:
        self._seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self._seen

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        reward = float(self._seen[0] * int(action))
        return self._see(), reward, self._left == 0, False, {}


@pytest.fixture(autouse=True, scope="module")
def _drift() -> Iterator[None]:
    entry_point: Any = Drift
    gym.register(ID, entry_point=entry_point)
    yield
    gym.registry.pop(ID)


class Later:
    """Plays an evaluation at once by the given parameters, but delivers it some steps later, or when the run waits."""

    def __init__(self, run: Run, steps: int) -> None:
        self.run, self.steps, self.begun, self.films = run, steps, list[int](), list[bool]()
        self.fails: Callable[[int], str | None] = lambda number: None  # the number of the evaluation, from 0
        self.on_look: Callable[[], None] = lambda: None

    def begin(self, tensors: Mapping[str, Tensor], films: bool) -> None:
        run, config = self.run, self.run.config
        self.begun.append(run.trainer.step)
        self.films.append(films)
        network = with_tensors(run.trainer.agent.network, tensors)
        seeds = environment_seeds(config.seed, "evaluation", config.eval.episodes)
        self.played = EvaluationResults(
            *(evaluate(run.task, network, seeds, noise) for noise in (None, run.trainer.agent.noise))
        )
        self.left = self.steps

    def result(self, wait: bool) -> EvaluationResults | None:
        self.on_look()
        self.left -= wait
        if self.left > 0 and self.run.trainer.step < self.begun[-1] + self.steps:
            return None
        if (failure := self.fails(len(self.begun) - 1)) is not None:
            raise UserError(failure)
        return self.played


class Run:
    """A run whose evaluations arrive `late` steps after their begin; None: training waits for each evaluation."""

    run_id = None

    def __init__(self, path: Path, late: int | None, **changes: Any) -> None:
        tree = {**OPTIONS, **{name: value for name, value in changes.items() if name != "eval"}}
        tree["eval"] = {**OPTIONS["eval"], **changes.get("eval", {})}
        self.config = parse(TrainConfig, tree)
        self.path, self.lines, self.console = path, list[str](), self
        self.task = load_task(ID, {})
        agent, plan = build_agent(self.config, self.task, resolve_device("cpu"))
        replay, self.envs = (
            build_replay(self.config, self.task, resolve_device("cpu"), plan),
            build_envs(self.config, self.task),
        )
        tracker: Any = self
        collector: Any = Collector(self.config, self.task, self.envs, agent, replay, tracker)
        if late is not None:
            self.later = Later(self, late)
            collector.evaluation_worker = lambda: self.later
        path.mkdir(exist_ok=True)
        begun = latest_checkpoint(path)
        step, state = (0, {}) if begun is None else load_checkpoint(begun)
        state = with_evaluation(path, step, state)
        truncate_jsonl(path / "metrics.jsonl", step, *evaluated_again(step, state))
        self.file = JsonlSink(path / "metrics.jsonl")
        self.trainer = Trainer(self.config, self.task, self.envs, agent, replay, tracker, path, plan, collector)
        if begun is not None:
            check_state(self.trainer, state)
            self.trainer.load_state(step, state)

    def __call__(self, interrupt: Interrupt | None = None) -> Outcome:
        try:
            return self.trainer.run(Interrupt() if interrupt is None else interrupt)
        finally:
            self.envs.close()
            self.file.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.file.log(step, metrics)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def update(self, step: int, **values: float) -> None: ...

    def rows(self) -> dict[int, dict[str, float]]:
        """The logged metrics of each evaluation by its step, without times; no step has two evaluations."""
        found: dict[int, dict[str, float]] = {}
        for step, row in read_rows(self.path / "metrics.jsonl"):
            if "eval/return_mean" in row:
                assert step not in found, "an evaluation is in the log twice"
                found[step] = {name: value for name, value in row.items() if not name.startswith("time/")}
        return found

    def left(self) -> str | None:
        step, state = load_checkpoint(latest_checkpoint(self.path) or self.path)
        return nothing_left(self.config, step, with_evaluation(self.path, step, state))


def agents(path: Path) -> list[Any]:
    found = [read_agent(path / which / "agent.safetensors") for which in ("best", "last")]
    return [({name: value.tolist() for name, value in agent.tensors.items()}, agent.description) for agent in found]


def test_the_same_evaluations_as_in_turn_under_their_own_steps(tmp_path: Path) -> None:
    """The best agent is also the same, and training goes on meanwhile."""
    turn, beside = Run(tmp_path / "turn", None), Run(tmp_path / "beside", 7)
    arrived, recorder = list[int](), beside.trainer._recorder

    def keep(*arguments: Any) -> None:
        arrived.append(beside.trainer.step - arguments[0])
        type(recorder).record(recorder, *arguments)

    recorder.record = keep  # type: ignore[method-assign]
    turn(), beside()
    assert arrived == [7, 7, 7, 0]
    assert list(beside.rows()) == [50, 100, 150, 200]
    assert beside.rows() == turn.rows()
    assert agents(tmp_path / "beside") == agents(tmp_path / "turn")
    assert beside.trainer.evaluator.state() == turn.trainer.evaluator.state()
    assert beside.left() == "complete"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """The evaluations of a run that evaluates at every step."""
    run = Run(tmp_path_factory.mktemp("every"), None, eval={"every": 1})
    run()
    return run.rows()


Expected = dict[int, dict[str, float]]


def test_one_that_is_due_too_early_begins_when_the_last_has_arrived(expected: Expected, tmp_path: Path) -> None:
    slow = Run(tmp_path / "slow", 70)
    slow()
    assert list(slow.rows()) == slow.later.begun == [50, 120, 190, 200]
    assert all(row == expected[step] for step, row in slow.rows().items())


@pytest.mark.parametrize("killed_at", [61, 69, 71, 119, 125, 199])
@pytest.mark.parametrize("late", [20, 65])
def test_a_run_that_is_killed_loses_no_evaluation_and_logs_none_twice(
    expected: Expected, tmp_path: Path, killed_at: int, late: int
) -> None:
    """The checkpoints are those of steps 60, 120 and 180; at each, an evaluation is under way or has just arrived."""
    killed = Run(tmp_path / "killed", late)

    def kill() -> None:
        if killed.trainer.step == killed_at:
            raise KeyboardInterrupt

    receive = killed.trainer.collector.receive

    def received(*arguments: Any) -> None:
        receive(*arguments)
        kill()

    killed.trainer.collector.receive = received  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed()
    resumed = Run(tmp_path / "killed", late)
    resumed()
    assert {50, 200} <= resumed.rows().keys()
    assert len(resumed.rows()) >= (4 if late == 20 else 3)
    assert all(row == expected[step] for step, row in resumed.rows().items())
    assert resumed.left() == "complete"
    best = max(resumed.rows().items(), key=lambda item: (item[1]["eval/return_mean"], item[0]))
    assert read_agent(tmp_path / "killed" / "best" / "agent.safetensors").description["global_step"] == best[0]


def test_one_whose_result_is_noted_is_not_played_again(tmp_path: Path) -> None:
    """The checkpoint of step 60 holds the agent of step 50, whose evaluation arrives at step 65."""
    run = Run(tmp_path, 15, steps=60, checkpoint={"every": 0})
    _, before = run(), load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)[1]
    assert before["under_way"]["step"] == 50
    assert run.left() == "complete", "both were waited for, and noted"
    noted = with_evaluation(tmp_path, 60, before)
    assert "under_way" not in noted
    assert noted["evaluation"][0] == 60
    assert nothing_left(run.config, 60, before) is None
    assert nothing_left(run.config, 60, {**before, "evaluation_due": False}) is None


@pytest.mark.parametrize("noted", [False, True])
def test_a_run_that_is_killed_around_the_note_of_a_late_one(expected: Expected, tmp_path: Path, noted: bool) -> None:
    """The evaluation of step 50 is logged at step 65, after the checkpoint of step 60, which gets the note."""
    run = Run(tmp_path, 15)
    recorder = run.trainer._recorder

    def note(*arguments: Any) -> None:
        if noted:
            type(recorder).save_note(recorder, *arguments)
        raise KeyboardInterrupt

    recorder.save_note = note  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(run.rows()) == [50]
    resumed = Run(tmp_path, 15)
    resumed()
    assert (resumed.later.begun[0] == 60) != noted
    assert all(row == expected[step] for step, row in resumed.rows().items())
    assert 50 in resumed.rows()


def test_a_signal_drops_the_wait_for_the_last_one_which_is_made_after_a_resume(tmp_path: Path) -> None:
    interrupt, run = Interrupt(), Run(tmp_path, 10**6, eval={"every": 0})
    run.later.on_look = lambda: setattr(interrupt, "signum", 2)
    outcome = run(interrupt)
    assert outcome.step == 200
    assert outcome.evaluation_due
    assert run.rows() == {}
    assert run.left() is None
    resumed = Run(tmp_path, 2, eval={"every": 0})
    resumed()
    assert list(resumed.rows()) == resumed.later.begun == [200]


def test_three_failures_in_a_row_end_a_run_and_the_third_is_made_again(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, checkpoint={"every": 0}, steps=1_000)
    run.later.fails = lambda number: "the wheel is off" if number != 1 else None
    outcome = run()
    assert [line for line in run.lines if "no evaluation" in line] == [
        f"no evaluation at step {step}: the wheel is off" for step in (50, 150, 200)
    ]
    assert "3 evaluations in a row failed at step 250 (the wheel is off)" in str(outcome.failure)
    assert outcome.step == 253 == load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)[0]
    resumed = Run(tmp_path, 3, checkpoint={"every": 0}, steps=300)
    assert resumed().failure is None
    assert list(resumed.rows()) == [100, 250, 300]


def test_the_last_one_that_fails_ends_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path, 60)
    run.later.fails = lambda number: "gone" if number > 1 else None  # the evaluations of steps 171 and 200
    outcome = run()
    assert "the last evaluation failed at step 200 (gone)" in str(outcome.failure)
    assert sum("no evaluation" in line for line in run.lines) == 1, "the one before it may fail"
    assert run.left() is None


def test_a_run_stops_where_an_evaluation_says_that_it_is_solved(tmp_path: Path) -> None:
    """The agent of the evaluated step is saved as the best and filmed, although training has gone on since then."""
    run = Run(tmp_path, 60, eval={"stop_at": -100.0, "stop_patience": 2})
    filmed = list[int]()
    run.trainer.evaluator.film = lambda step, *_: filmed.append(step)  # type: ignore[method-assign]
    outcome = run()
    assert outcome.solved
    assert not outcome.evaluation_due
    assert outcome.step == 110 + 60
    assert list(run.rows()) == [50, 110]
    assert filmed == [110]
    assert run.left() == "solved"


def test_a_film_is_kept_and_one_that_cannot_be_made_is_a_line(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, steps=100)
    films = iter([EncodedFilm(b"moving", ".gif"), EncodedFilm(failure="no screen")])
    kept, result = list[tuple[int, bytes]](), run.later.result
    run.later.result = lambda wait: EvaluationResults(result(wait).mean, film=next(films))  # type: ignore[union-attr, method-assign]
    run.video = lambda step, path: kept.append((step, path.read_bytes()))  # type: ignore[attr-defined]
    run()
    assert kept == [(50, b"moving")]
    assert run.lines.count("no video: no screen") == 1


def test_a_state_with_another_agent_under_way_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, 15, steps=60, checkpoint={"every": 0})
    _, state = run(), load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)[1]
    tensors = state["under_way"]["tensors"]
    check_state(run.trainer, state)
    first = next(iter(tensors))
    for wrong in ({first: tensors[first]}, {**tensors, first: tensors[first][:1]}, {**tensors, "more": tensors[first]}):
        with pytest.raises(ValueError, match=r"under_way|other layers"):
            check_state(run.trainer, {**state, "under_way": {**state["under_way"], "tensors": wrong}})
