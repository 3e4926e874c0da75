"""Evaluations during training: the checkpoint before them, their consequences, and training that they do not change."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import agent.running.evaluator
from agent.common.errors import UserError
from agent.common.interrupt import Interrupt, Stopped
from agent.common.seeding import state_of
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.metrics import truncate_jsonl
from agent.records.saved_agent import read_agent
from agent.running.build import build_agent, build_envs, build_replay
from agent.running.evaluation import Evaluation
from agent.running.failures import Folder
from agent.running.outcome import Outcome
from agent.running.progress import NOTE, checkpoint_folder, note_evaluation, nothing_left, with_evaluation
from agent.running.resources import resolve_device
from agent.running.trainer import Trainer
from envs.make import load_task
from envs.shared_env import SharedEnv

SMALL: dict[str, Any] = {
    "env": {"id": "Test/Counted-v0"},
    "steps": 200,
    "num_envs": 1,
    "agent": {"network": {"hidden": [8]}, "batch_size": 8, "learning_starts": 20, "replay_size": 400},
    "eval": {"every": 50, "episodes": 3, "video": False},
    "checkpoint": {"every": 50},
    "log": {"every": 50},
}


class Counted(gym.Env[np.ndarray, np.int64]):
    """Has episodes of 3 to 7 steps, by their seed, counts its instances, and keeps the types of its actions."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(3, start=-1, dtype=np.int16)
    made = alive = most = 0
    kinds: set[type] = set()  # noqa: RUF012
    fails: Callable[["Counted"], None] = staticmethod(lambda env: None)
    limit = 10**9

    def __init__(self, render_mode: str | None = None) -> None:
        if Counted.alive >= Counted.limit:
            raise OSError(98, "Address already in use")
        Counted.made, Counted.alive = Counted.made + 1, Counted.alive + 1
        Counted.most = max(Counted.most, Counted.alive)
        self.render_mode, self.number, self.closed = render_mode, Counted.made, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 8))
        return self.np_random.random(3, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        Counted.fails(self)
        self.kinds.add(type(action))
        self.left -= 1
        return self.np_random.random(3, np.float32), float(action), self.left == 0, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((40, 40, 3), np.uint8)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            Counted.alive -= 1


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry_point: Any = Counted
    gym.register("Test/Counted-v0", entry_point=entry_point)
    for name in ("made", "alive", "most"):
        monkeypatch.setattr(Counted, name, 0)
    monkeypatch.setattr(Counted, "kinds", set())
    yield
    gym.registry.pop("Test/Counted-v0")


class Recorder:
    """A tracker and its console that keep metrics, lines and videos."""

    run_id = None

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.lines: list[str] = []
        self.videos: list[Path] = []
        self.console = self

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def video(self, step: int, path: Path) -> None:
        self.videos.append(path)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def update(self, step: int, **values: float) -> None: ...

    def evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """The logged metrics of evaluations, without times."""
        return [
            (step, {name: value for name, value in row.items() if not name.startswith("time/")})
            for step, row in self.rows
            if "eval/return_mean" in row
        ]


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(tree)
    for name, value in changes.items():
        *path, last = name.split(".")
        node = result
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return result


class Run:
    """A run in a folder, as train.py builds it. It goes on from the checkpoint of the folder, if there is one."""

    def __init__(self, path: Path, changes: dict[str, Any] | None = None) -> None:
        self.config = parse(TrainConfig, merged(SMALL, changes or {}))
        self.tracker, device, folder = Recorder(), resolve_device("cpu"), Folder(path)
        task = load_task(self.config.env.id, self.config.env.kwargs)
        dqn, plan = build_agent(self.config, task, device)
        replay = build_replay(self.config, task, device, plan)
        self.envs = build_envs(self.config, task)
        self.trainer = Trainer(self.config, task, self.envs, dqn, replay, self.tracker, folder, plan)  # type: ignore[arg-type]
        if (checkpoint := latest_checkpoint(path)) is not None:
            step, state = load_checkpoint(checkpoint)
            self.trainer.load_state(step, with_evaluation(path, step, state))

    def __call__(self, interrupt: Interrupt | None = None) -> Outcome:
        try:
            return self.trainer.run(Interrupt() if interrupt is None else interrupt)
        finally:
            self.envs.close()


def learned(trainer: Trainer) -> dict[str, Any]:
    generator = state_of(trainer._learner.generator)
    return {"agent": trainer.agent.state(), "replay": trainer.replay.state(), "generator": generator}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    return bool(np.array_equal(one, two))


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], BaseException | None]) -> list[int]:
    """Makes evaluations raise the error that `fails` returns for their number. The list gets the number of each."""
    played, real = list[int](), agent.running.evaluator.evaluate

    def evaluate(*arguments: Any) -> Evaluation:
        played.append(len(played))
        error = fails(played[-1])
        if error is not None:
            raise error
        return real(*arguments)

    monkeypatch.setattr(agent.running.evaluator, "evaluate", evaluate)
    return played


QUIET = {"eval.noisy": False}


# ---- the checkpoint before an evaluation


def test_the_checkpoint_that_is_due_is_there_before_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, saved = Run(tmp_path, QUIET), list[int]()

    def look(number: int) -> None:
        checkpoint = latest_checkpoint(tmp_path)
        assert checkpoint is not None
        saved.append(run.trainer.step - load_checkpoint(checkpoint)[0])

    failing(monkeypatch, look)
    run()
    assert saved == [0, 0, 0, 0]


@pytest.mark.parametrize("killed_at", range(4))
@pytest.mark.parametrize("where", ["before its result", "before it is noted", "after it is noted"])
def test_a_run_that_is_killed_around_an_evaluation_ends_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, where: str
) -> None:
    """Evaluations, best agent and state are those of a run without a kill, and no evaluation is logged twice."""
    whole = Run(tmp_path / "whole", QUIET)
    whole()
    killed = Run(tmp_path / "killed", QUIET)
    with monkeypatch.context() as patched:
        if where == "before its result":
            failing(patched, lambda number: KeyboardInterrupt() if number == killed_at else None)
        else:
            notes = list[int]()

            def note(*arguments: Any) -> None:
                notes.append(0)
                if len(notes) > killed_at and where == "before it is noted":
                    raise KeyboardInterrupt
                note_evaluation(*arguments)
                if len(notes) > killed_at:
                    raise KeyboardInterrupt

            patched.setattr("agent.running.saving.note_evaluation", note)
        with pytest.raises(KeyboardInterrupt):
            killed()
    rows = killed.tracker.evaluations()
    resumed = Run(tmp_path / "killed", QUIET)
    played = failing(monkeypatch, lambda number: None)
    again = resumed.trainer.evaluator.due
    resumed()
    assert len(played) == (3 if where == "after it is noted" else 4) - killed_at
    assert again == (where != "after it is noted")
    if where == "before it is noted":
        rows = rows[:-1]  # truncate_jsonl takes this row out of the file
    assert rows + resumed.tracker.evaluations() == whole.tracker.evaluations()
    assert same(learned(whole.trainer), learned(resumed.trainer))
    for which in ("best", "last"):
        one, two = (read_agent(tmp_path / name / which / "agent.safetensors") for name in ("whole", "killed"))
        assert same(one.tensors, two.tensors)
        assert one.description == two.description


def test_a_note_that_is_not_as_it_was_written_is_left_aside(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run()
    step, state = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    path = checkpoint_folder(tmp_path, step) / NOTE
    whole = json.loads(path.read_text())
    assert state["evaluation_due"]
    assert not with_evaluation(tmp_path, step, state)["evaluation_due"]
    bad: list[Any] = [
        {**whole, "best_return": "high"},
        {**whole, "more": 1},
        [],
        {**whole, "evaluation": [step, [1.0]]},
    ]
    bad += [{**whole, "evaluation": [step, [1.0], [True]]}, {**whole, "evaluation": [step, [float("nan")], [1]]}]
    bad += [{**whole, "evaluation": [-1]}, {**whole, "evaluation": [step + 1, [1.0], [1]]}, {**whole, "reached": 1.5}]
    for content in [json.dumps(entry) for entry in bad] + ["{", "[" * 10**5, "\0"]:
        path.write_text(content)
        assert with_evaluation(tmp_path, step, state) == state
    path.unlink()
    assert with_evaluation(tmp_path, step, state) == state


def test_what_is_left_to_do(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run()
    step, state = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    noted = with_evaluation(tmp_path, step, state)
    assert nothing_left(run.config, step, noted) == "complete"
    assert nothing_left(run.config, step, state) is None  # by this state its evaluation was not played
    for changes, found in (({"eval.episodes": 0}, "complete"), ({"steps": 300}, None)):
        assert nothing_left(parse(TrainConfig, merged(SMALL, changes)), step, state) == found


# ---- evaluations that fail


def test_an_evaluation_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two evaluations in a row may fail, and the run learns the same."""
    whole = Run(tmp_path / "whole", QUIET)
    whole()
    errors = {0: RuntimeError("no more\ncontexts"), 1: SystemExit(3)}
    failing(monkeypatch, errors.get)
    run = Run(tmp_path / "run", QUIET)
    outcome = run()
    assert outcome.failure is None
    assert [line for line in run.tracker.lines if "evaluation" in line] == [
        "no evaluation at step 50: RuntimeError: no more contexts",
        "no evaluation at step 100: it ended the program, by sys.exit(3)",
    ]
    assert [step for step, _ in run.tracker.evaluations()] == [150, 200]
    assert same(learned(whole.trainer), learned(run.trainer))


@pytest.mark.parametrize("first", [0, 1])
def test_three_failures_in_a_row_end_a_run_with_everything_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    failing(monkeypatch, lambda number: RuntimeError("gone") if number >= first else None)
    run = Run(tmp_path, {**QUIET, "steps": 1000, "checkpoint.every": 0, "eval.every": 40})
    outcome = run()
    step = 40 * (first + 3)
    assert outcome.step == step == load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)[0]
    assert str(outcome.failure).startswith(f"3 evaluations in a row failed at step {step} (RuntimeError: gone)")
    monkeypatch.undo()
    resumed = Run(tmp_path, {**QUIET, "steps": 240})
    assert resumed().failure is None
    assert resumed.tracker.evaluations()[0][0] == step  # the missing evaluation is played first


def test_the_last_evaluation_that_fails_ends_a_run_with_everything_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(tmp_path / "whole", QUIET)
    whole()
    with monkeypatch.context() as patched:
        failing(patched, lambda number: RuntimeError("gone") if number == 3 else None)
        outcome = Run(tmp_path / "run", QUIET)()
    assert "the last evaluation failed at step 200 (RuntimeError: gone)" in str(outcome.failure)
    assert "eval.share=true" in str(outcome.failure)
    step, state = load_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path)
    assert nothing_left(whole.config, step, with_evaluation(tmp_path / "run", step, state)) is None
    resumed = Run(tmp_path / "run", QUIET)
    assert resumed().evaluation == whole.trainer.evaluator.result
    one, two = (read_agent(tmp_path / name / "best" / "agent.safetensors") for name in ("whole", "run"))
    assert one.description == two.description


def test_returns_that_are_not_finite_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Evaluation((1.0, float("nan")), (1, 1))
    monkeypatch.setattr(agent.running.evaluator, "evaluate", lambda *_: result)
    run = Run(tmp_path, {**QUIET, "eval.every": 150})
    run()
    assert run.tracker.lines == ["no evaluation at step 150: Test/Counted-v0 gave rewards that are NaN or infinite"]


def test_no_episodes_are_no_evaluation_at_the_end_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = failing(monkeypatch, lambda number: None)
    run = Run(tmp_path, {"eval.episodes": 0, "eval.video": True})
    outcome = run()
    assert (played, outcome.evaluation, outcome.evaluation_due, outcome.failure) == ([], None, False, None)
    assert Counted.made == 2  # one for load_task, and one for training
    assert not (tmp_path / "best").exists()
    assert read_agent(tmp_path / "last" / "agent.safetensors").description["evaluation"] is None


# ---- the number of environments


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"num_envs": 1}, 2),
        ({"num_envs": 3}, 6),
        ({"num_envs": 5}, 8),  # an evaluation has 3 episodes
        ({"num_envs": 2, "eval.num_envs": 1}, 3),
        ({"num_envs": 1, "eval.num_envs": 2}, 3),
        ({"num_envs": 1, "eval.num_envs": 9}, 4),
        ({"num_envs": 1, "eval.share": True}, 1),
        ({"num_envs": 1, "eval.share": True, "eval.video": True}, 1),
        ({"num_envs": 2, "eval.share": True}, 2),
    ],
)
def test_no_more_environments_are_made_than_were_asked_for(tmp_path: Path, changes: dict[str, Any], most: int) -> None:
    run = Run(tmp_path, changes)
    assert run().failure is None
    assert Counted.most == most
    assert Counted.alive == 0
    assert len(run.tracker.videos) == ("eval.video" in changes)


def test_the_result_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    runs = [Run(tmp_path / str(n), {"eval.num_envs": n}) for n in (1, 2, 3)]
    rows = []
    for run in runs:
        run()
        rows.append(run.tracker.evaluations())
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 4


def test_an_environment_that_cannot_be_there_twice_is_trained_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "limit", 1)
    outcome = Run(tmp_path, {"num_envs": 1, "eval.every": 0})()
    assert "Address already in use" in str(outcome.failure)
    assert (tmp_path / "last" / "agent.safetensors").exists()
    assert Run(tmp_path, {"num_envs": 1, "eval.share": True})().failure is None  # the same run can go on
    assert read_agent(tmp_path / "best" / "agent.safetensors").description["global_step"] == 200


# ---- in the training's own environment


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_shared_environment_trains_as_without_evaluation(tmp_path: Path, vectorization: str, num_envs: int) -> None:
    """The evaluation is played between two episodes of training, which begin with their own seeds."""
    changes = {"num_envs": num_envs, "env.vectorization": vectorization, "steps": 300}
    quiet = Run(tmp_path / "quiet", {**changes, "eval.episodes": 0})
    quiet()
    shared = Run(tmp_path / "shared", {**changes, "eval.share": True, "eval.every": 40})
    shared()
    rows = shared.tracker.evaluations()
    assert len(rows) >= 6
    assert all(0 <= step % 40 <= 7 * num_envs for step, _ in rows[:-1])  # at the end of the first copy's episode
    assert same(learned(quiet.trainer), learned(shared.trainer))


def test_a_shared_environment_plays_what_a_fresh_one_plays(tmp_path: Path) -> None:
    changes = {"num_envs": 2, "eval.every": 0, "eval.episodes": 5}
    fresh, shared = Run(tmp_path / "fresh", changes), Run(tmp_path / "shared", {**changes, "eval.share": True})
    assert fresh().evaluation == shared().evaluation
    assert fresh.tracker.evaluations() == shared.tracker.evaluations()


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_shared_environment_is_gone_on_with_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    changes = {**QUIET, "num_envs": 2, "steps": 300, "eval.share": True, "eval.every": 60, "checkpoint.every": 30}
    whole = Run(tmp_path / "whole", changes)
    whole()
    killed = Run(tmp_path / "killed", changes)
    with monkeypatch.context() as patched:
        failing(patched, lambda number: KeyboardInterrupt() if number == killed_at else None)
        with pytest.raises(KeyboardInterrupt):
            killed()
    resumed = Run(tmp_path / "killed", changes)
    resumed()
    assert killed.tracker.evaluations() + resumed.tracker.evaluations() == whole.tracker.evaluations()
    assert same(learned(whole.trainer), learned(resumed.trainer))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_shared_environment_that_fails_in_an_evaluation_goes_on_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectorization: str
) -> None:
    """With async the environment is in a process, which an error would end."""
    changes = {"num_envs": 1, "env.vectorization": vectorization, **QUIET}
    quiet = Run(tmp_path / "quiet", {**changes, "eval.episodes": 0})
    quiet()
    seeds = set(Run(tmp_path / "seeds", changes).trainer.evaluator._seeds)

    def reset(env: Counted, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed in seeds:
            raise RuntimeError("only for training")
        return real(env, seed=seed)

    real = Counted.reset
    monkeypatch.setattr(Counted, "reset", reset)
    shared = Run(tmp_path / "shared", {**changes, "eval.share": True, "eval.every": 90})
    outcome = shared()
    assert next(line for line in shared.tracker.lines if "only for" in line).startswith("no evaluation at step")
    assert "the last evaluation failed at step 200" in str(outcome.failure)
    assert "eval.share" not in str(outcome.failure)
    assert same(learned(quiet.trainer), learned(shared.trainer))


def test_a_vector_class_has_no_copy_to_share(tmp_path: Path) -> None:
    changes = {"env.id": "CartPole-v1", "num_envs": 8, "eval.share": True}
    with pytest.raises(UserError, match=r"eval.share=true plays in a single copy, .*env.vectorization=sync or async"):
        Run(tmp_path, {**changes, "env.vectorization": "native"})
    Run(tmp_path, changes).envs.close()  # auto does not use the vector class


# ---- actions


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_gets_what_its_action_space_samples(tmp_path: Path, vectorization: str) -> None:
    """In training, evaluation and film, actions have the type that the space samples."""
    Run(tmp_path, {"env.vectorization": vectorization, "eval.video": True})()
    assert Counted.kinds == {type(Counted.action_space.sample())} == {np.int16}


# ---- the return at which a run stops


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, returns: list[float], **changes: Any) -> tuple[Run, Outcome]:
    values = iter(returns)
    monkeypatch.setattr(agent.running.evaluator, "evaluate", lambda *_: Evaluation((next(values),) * 2, (1, 1)))
    run = Run(folder, {**QUIET, "steps": 400, **changes})
    return run, run()


@pytest.mark.parametrize(
    ("returns", "patience", "step"),
    [
        ([1.0, 5.0, 9.0], 1, 100),
        ([5.0], 1, 50),
        ([5.0, 1.0, 5.0, 6.0, 0.0], 2, 200),
        ([5.0, 1.0, 5.0, 1.0, 5.0, 1.0, 5.0, 5.0], 2, 400),
        ([4.9] * 8, 1, 400),
    ],
)
def test_a_run_stops_when_enough_evaluations_in_a_row_reach_a_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returns: list[float], patience: int, step: int
) -> None:
    options = {"eval.stop_at": 5, "eval.stop_patience": patience, "checkpoint.every": 0}
    run, outcome = stopped(tmp_path, monkeypatch, returns, **options)
    solved = returns[0] != 4.9
    assert (outcome.step, outcome.solved, outcome.exit_code, outcome.failure) == (step, solved, 0, None)
    saved = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    assert saved[0] == step == read_agent(tmp_path / "last" / "agent.safetensors").description["global_step"]
    state = with_evaluation(tmp_path, *saved)
    assert nothing_left(run.config, step, state) == ("solved" if solved else "complete")
    if solved and step < 400:
        for changes in ({"eval.stop_at": None}, {"eval.stop_at": 6}, {"eval.stop_patience": patience + 1}):
            config = parse(TrainConfig, merged(SMALL, {**QUIET, "steps": 400, **options, **changes}))
            assert nothing_left(config, step, state) is None
        more = Run(tmp_path, {**QUIET, "steps": step + 100, "eval.stop_at": None})
        monkeypatch.setattr(agent.running.evaluator, "evaluate", lambda *_: Evaluation((1.0, 1.0), (1, 1)))
        assert more().step == step + 100


def test_another_goal_counts_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path, monkeypatch, [5.0], **{"eval.stop_at": 5})
    _, outcome = stopped(tmp_path, monkeypatch, [7.0, 8.0], **{"eval.stop_at": 7, "eval.stop_patience": 2})
    assert (outcome.step, outcome.solved) == (150, True)


def test_solved_is_the_threshold_that_gymnasium_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"eval.stop_at": "solved", "env.id": "CartPole-v1"}
    _, outcome = stopped(tmp_path / "cartpole", monkeypatch, [474.9, 475.0], **options)
    assert (outcome.step, outcome.solved) == (100, True)
    with pytest.raises(UserError, match=r"eval.stop_at=solved: .* does not say at which return Test/Counted-v0 is"):
        Run(tmp_path, {"eval.stop_at": "solved"})


@pytest.mark.parametrize("changes", [{"eval.every": 0}, {"eval.episodes": 0}])
def test_a_return_at_which_to_stop_needs_evaluations(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"eval.stop_at=5.0 needs evaluations while training"):
        parse(TrainConfig, merged(SMALL, {"eval.stop_at": 5, **changes}))


# ---- failures in training


def breaks(step: int, error: BaseException) -> Callable[[Counted], None]:
    """Raises at step number `step` of training, counted over all copies of a process."""
    count = iter(range(10**9))

    def fail(env: Counted) -> None:
        if env.number > 1 and next(count) == step:
            raise error

    return fail


@pytest.mark.parametrize("error", [RuntimeError("the server is gone"), SystemExit(0)], ids=["error", "exit"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectorization: str, error: BaseException
) -> None:
    """All steps before the failure are saved, with truncations for the episodes under way, and the run can go on."""
    changes = {"env.vectorization": vectorization, "eval.episodes": 0, "checkpoint.every": 50, "num_envs": 3}
    calls = 85 if vectorization == "sync" else 40  # with async each copy counts its own steps
    monkeypatch.setattr(Counted, "fails", staticmethod(breaks(calls, error)))
    outcome = Run(tmp_path, changes)()
    said = "sys.exit(0)" if isinstance(error, SystemExit) else "RuntimeError: the server is gone"
    assert said in str(outcome.failure)
    assert "Test/Counted-v0" in str(outcome.failure)
    step, _ = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    assert step == outcome.step > 60
    assert step % 50  # no checkpoint was due
    monkeypatch.setattr(Counted, "fails", staticmethod(lambda env: None))
    resumed = Run(tmp_path, changes)
    assert any("begins new episodes in 3 of 3 copies (they were left" in line for line in resumed.tracker.lines)
    replay = resumed.trainer.replay
    assert len(replay) <= step
    assert resumed().step >= 200
    assert resumed.trainer.agent.updates == (resumed.trainer.step - 20) * resumed.config.agent.replay_ratio // 1


def test_an_environment_that_fails_at_once_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr(Counted, "reset", lambda *_, **__: 1 / 0)
    outcome = run()
    assert "ZeroDivisionError" in str(outcome.failure)
    assert latest_checkpoint(tmp_path) is None


def test_a_defect_of_ours_is_no_environment_s(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trainer.collector._returns = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        run()


def test_a_folder_that_is_taken_away_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with one sentence, and does not make a new folder of that name."""
    folder, run = tmp_path / "run", Run(tmp_path / "run", {"eval.episodes": 0})

    def move(env: Counted) -> None:
        if folder.exists() and (folder / "checkpoints").exists():
            folder.rename(tmp_path / "elsewhere")

    monkeypatch.setattr(Counted, "fails", staticmethod(move))
    with pytest.raises(UserError, match="run was deleted or moved while the run wrote to it"):
        run()
    assert not folder.exists()
    assert (tmp_path / "elsewhere" / "checkpoints").exists()


def test_an_environment_that_changes_the_folder_does_not_split_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir(), (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(Counted, "fails", staticmethod(lambda env: __import__("os").chdir(tmp_path / "there")))
    assert Run(Path("run"))().failure is None
    assert list((tmp_path / "there").iterdir()) == []
    assert {path.name for path in (tmp_path / "here" / "run").iterdir()} == {"best", "checkpoints", "last"}


def test_statistics_of_very_many_episodes_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such statistics take seconds, and a stop must not wait for them while it saves."""
    computed, real = list[float](), Evaluation.statistics

    def statistics(self: Evaluation, env_id: str = "") -> dict[str, Any]:
        computed.append(time.monotonic())
        return real(self, env_id)

    monkeypatch.setattr(Evaluation, "statistics", statistics)
    Run(tmp_path, QUIET)()
    assert len(computed) == 4


def test_lines_of_an_evaluation_that_is_played_again_go(tmp_path: Path) -> None:
    """Lines of evaluations at the step of the resume are removed, and all other lines up to this step stay."""
    path = tmp_path / "metrics.jsonl"
    rows = [{"global_step": step, name: 1.0} for step in (50, 100, 150) for name in ("train/loss", "eval/return_mean")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    truncate_jsonl(path, 100)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows[:4]
    truncate_jsonl(path, 100, rewritten="eval/")
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows[:3]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_stop_in_a_shared_environment_leaves_its_own_episodes_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectorization: str
) -> None:
    """The stop may come between a question to the process and its answer, which is then still in the pipe."""
    changes = {**QUIET, "num_envs": 2, "eval.share": True, "eval.every": 60, "env.vectorization": vectorization}
    whole = Run(tmp_path / "whole", changes)
    whole()
    with monkeypatch.context() as patched:
        stopped = Run(tmp_path / "stopped", changes)

        def step(aside: SharedEnv, action: Any) -> Any:
            if vectorization == "async":
                arguments = ("call_aside", ("Test/Counted-v0", "step", action))
                stopped.envs.parent_pipes[0].send(("call", arguments))  # type: ignore[attr-defined]
            interrupt.signum = 15
            raise Stopped

        patched.setattr(SharedEnv, "step", step)
        interrupt = Interrupt()
        outcome = stopped(interrupt)
    assert (outcome.exit_code, outcome.evaluation_due) == (143, True)
    resumed = Run(tmp_path / "stopped", changes)
    assert resumed.trainer.step == outcome.step
    assert resumed.tracker.lines == []  # no episode was cut
    resumed()
    assert resumed.tracker.evaluations() == whole.tracker.evaluations()
    assert same(learned(whole.trainer), learned(resumed.trainer))
