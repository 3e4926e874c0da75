"""The loop: its counts, the schedule of updates, the content of the replay, and evaluations that change nothing."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch

import agent.running.evaluator
from agent.common.errors import UserError
from agent.common.interrupt import Interrupt
from agent.common.schedule import Every
from agent.common.seeding import environment_seeds, state_of, torch_generator
from agent.compute.numpy.network import NumpyNetwork
from agent.compute.plan import choose_plan
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.build import build_network
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.replay.prioritised import PrioritisedReplay
from agent.running.build import build_replay
from agent.running.evaluation import Evaluation
from agent.running.outcome import Outcome
from agent.running.player import load_player
from agent.running.trainer import Trainer
from envs.make import load_task
from envs.vector import make_vector

SMALL: dict[str, Any] = {
    "env.id": "CartPole-v1",
    "steps": 300,
    "num_envs": 2,
    "agent.network.hidden": [16, 16],
    "agent.batch_size": 8,
    "agent.learning_starts": 20,
    "agent.replay_size": 2000,
    "agent.target_every": 10,
    "eval.every": 0,
    "eval.episodes": 2,
    "eval.video": False,
    "checkpoint.every": 0,
    "log.every": 50,
}
JOURNAL = {"env.id": "Test/Journal-v0"}


class Recorder:
    """A tracker and its console that keep metrics, lines and videos; `check` is called at every regular log."""

    run_id = None

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.lines: list[str] = []
        self.videos: list[tuple[int, Path]] = []
        self.console, self.at = self, 0
        self.check: Callable[[int], None] = lambda step: None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.rows.append((step, dict(metrics)))
        if "train/updates" in metrics:
            self.check(step)

    def video(self, step: int, path: Path) -> None:
        self.videos.append((step, path))

    def line(self, text: str) -> None:
        self.lines.append(text)

    def update(self, step: int, **values: float) -> None:
        self.at = step

    def series(self, name: str) -> list[tuple[int, float]]:
        return [(step, metrics[name]) for step, metrics in self.rows if name in metrics]


class Setup(NamedTuple):
    trainer: Trainer
    tracker: Recorder

    def run(self) -> Outcome:
        outcome = self.trainer.run(Interrupt())
        self.trainer.collector.envs.close()
        return outcome

    def learned(self) -> dict[str, Any]:
        """The state of learning: parameters, optimiser, replay and random streams."""
        trainer = self.trainer  # the whole state would ask the environments, which are closed
        generator = state_of(trainer._learner.generator)
        return {"agent": trainer.agent.state(), "replay": trainer.replay.state(), "sampling_generator": generator}


def setup(folder: Path, **changes: Any) -> Setup:
    tree: dict[str, Any] = {}
    for key, value in (SMALL | {name.replace("__", "."): value for name, value in changes.items()}).items():
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    config, tracker = parse(TrainConfig, tree), Recorder()
    task, options = load_task(config.env.id, config.env.kwargs, config.env.time_limit), config.agent
    Journal.steps.clear()  # load_task has made a step
    network = build_network(options, task.observation, task.actions, torch_generator(config.seed, "initialisation"))
    plan = choose_plan(config, NumpyNetwork.fits(network), torch.device("cpu"))
    dqn = DQN(network, options, task.actions, config.seed, "cpu", plan.policy, plan.gradient)
    replay = build_replay(config, task, torch.device("cpu"), plan)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    return Setup(Trainer(config, task, envs, dqn, replay, tracker, folder, plan), tracker)  # type: ignore[arg-type]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    return bool(np.array_equal(one, two))


class Step(NamedTuple):
    observation: tuple[float, ...]  # (environment, episode, time)
    action: int
    reward: float
    terminated: bool
    ended: bool
    following: tuple[float, ...]


class Journal(gym.Env[np.ndarray, np.int64]):
    """Observes (environment, episode, time), ends after 1 … `longest` steps in every way, and records all steps."""

    steps: list[Step] = []  # noqa: RUF012
    made = 0
    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(3, start=2)

    def __init__(self, longest: int = 6) -> None:
        Journal.made += 1
        self.serial, self.longest, self.episode = Journal.made, longest, 0

    def _observe(self) -> np.ndarray:
        return np.array([self.serial, self.episode, self.time], dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        self.end = int(self.np_random.integers(1, self.longest + 1))
        self.kind = int(self.np_random.integers(3))
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action in (2, 3, 4)
        observation = tuple(self._observe().tolist())
        self.time += 1
        assert self.time <= self.end, "stepped after its end"
        ended, reward = self.time == self.end, float(self.np_random.integers(-8, 9))
        terminated, truncated = ended and self.kind != 0, ended and self.kind != 1
        following = self._observe()
        self.steps.append(Step(observation, int(action), reward, terminated, ended, tuple(following.tolist())))
        return following, reward, terminated, truncated, {}


@pytest.fixture(autouse=True)
def _journal() -> Iterator[None]:
    entry_point: Any = Journal
    gym.register("Test/Journal-v0", entry_point=entry_point)
    Journal.steps.clear()
    yield
    gym.registry.pop("Test/Journal-v0")


# ---- counts


def test_every_fires_once_for_each_multiple_that_is_reached_or_passed() -> None:
    every = Every(10)
    assert [step for step in (1, 9, 10, 11, 19, 23, 29, 30, 31, 65, 69, 70) if every(step)] == [10, 23, 30, 65, 70]
    assert not any(Every(0)(step) for step in range(100))
    resumed = Every(10, last=30)
    assert [step for step in (31, 39, 44) if resumed(step)] == [44]


@pytest.mark.parametrize("num_envs", [1, 5])
@pytest.mark.parametrize("longest", [1, 6])
def test_steps_are_real_transitions(tmp_path: Path, num_envs: int, longest: int) -> None:
    """Reset rows do not count; with episodes of one step they are every second row."""
    changes: Any = {
        **JOURNAL,
        "env.kwargs": {"longest": longest},
        "log.every": 1,
        "agent.replay_ratio": 0,
        "steps": 203,
    }
    run = setup(tmp_path, num_envs=num_envs, **changes)
    counted: list[tuple[int, int]] = []
    run.tracker.check = lambda step: counted.append((step, len(Journal.steps)))
    outcome = run.run()
    assert all(step == taken for step, taken in counted)
    assert 203 <= outcome.step == counted[-1][0] < 203 + num_envs
    assert outcome.exit_code == 0
    assert len(counted) > outcome.step / num_envs * 0.6


def test_episodes_are_reported_as_they_were(tmp_path: Path) -> None:
    """Saving does not change the reports."""
    changes: Any = {"checkpoint.every": 40, **JOURNAL}
    run = setup(tmp_path, num_envs=3, **changes)
    seen: list[Step] = []
    run.tracker.check = lambda step: seen.__setitem__(slice(None), Journal.steps)
    run.run()
    episodes: dict[tuple[float, ...], list[Step]] = {}
    for step in seen:
        episodes.setdefault(step.observation[:2], []).append(step)
    finished = [steps for steps in episodes.values() if steps[-1].ended]
    reported = zip(run.tracker.series("train/episode_return"), run.tracker.series("train/episode_length"), strict=True)
    assert Counter((value, length) for (_, value), (_, length) in reported) == Counter(
        (sum(step.reward for step in steps), len(steps)) for steps in finished
    )
    assert len(finished) > 50
    at = [step for step, _ in run.tracker.series("train/episode_return")]
    assert at == sorted(at)


# ---- the content of the replay


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_replay_holds_what_happened(tmp_path: Path, num_envs: int, n_step: int) -> None:
    """From the environment to the batch, every transition follows from the environment's own records."""
    changes: Any = {"agent.n_step": n_step, "agent.gamma": 0.5, "checkpoint.every": 70, **JOURNAL}
    run = setup(tmp_path, num_envs=num_envs, **changes)
    notes: list[Step] = []
    run.tracker.check = lambda step: notes.__setitem__(slice(None), Journal.steps)
    step = run.run().step
    episodes: dict[tuple[float, ...], list[Step]] = {}
    for note in notes:
        episodes.setdefault(note.observation[:2], []).append(note)
    expected = set()
    for steps in episodes.values():
        for i in range(len(steps)):
            window = steps[i : i + n_step]
            value = sum(0.5**j * note.reward for j, note in enumerate(window))
            discount = 0.0 if window[-1].terminated else 0.5 ** len(window)
            expected.add((steps[i].observation, steps[i].action - 2, value, discount, window[-1].following))
    replay = run.trainer.replay
    assert len(replay) == len(expected) == step
    batch = replay.sample(40 * step, torch.Generator().manual_seed(0))  # a transition is missing once in 10¹⁵
    columns = [field.tolist() for field in batch]
    assert {(tuple(s), a, r, d, tuple(t)) for s, a, r, d, t in zip(*columns, strict=True)} == expected


# ---- the schedule of acting and learning


@pytest.mark.parametrize("num_envs", [1, 5])
@pytest.mark.parametrize("ratio", ["1/10", "1/3", 0.25, 0.1, 1, 2, 0])
def test_replay_ratio_is_exact_over_time(tmp_path: Path, num_envs: int, ratio: Any) -> None:
    """After every vector step the number of updates is ⌊ratio · (steps since learning started)⌋, and 0 before."""
    changes: Any = {"agent.replay_ratio": ratio, "log.every": 1, "steps": 120, **JOURNAL}
    run = setup(tmp_path, num_envs=num_envs, **changes)
    run.run()
    updates = run.tracker.series("train/updates")
    assert len(updates) >= 120 / num_envs
    for step, count in updates:
        assert count == int(max(0, step - 20) * Fraction(str(ratio)))
    assert run.trainer.agent.updates == updates[-1][1]


@pytest.mark.parametrize("warmup", ["random", "policy"])
def test_warm_up_ends_where_learning_starts(tmp_path: Path, warmup: str) -> None:
    changes: Any = {
        "agent.warmup": warmup,
        "agent.learning_starts": 100,
        "steps": 200,
        "checkpoint.every": 30,
        **JOURNAL,
    }
    run = setup(tmp_path, num_envs=4, **changes)
    trainer, dqn = run.trainer, run.trainer.agent
    calls: list[tuple[str, int]] = []
    act, random_actions, update, initial = dqn.act, dqn.random_actions, dqn.update, dqn.parameters.clone()

    def acting(
        observation: np.ndarray, begins: np.ndarray, epsilon: float, change: float | None, resets: np.ndarray
    ) -> np.ndarray:
        calls.append(("policy", trainer.step))
        assert np.array_equal(begins, observation[:, 2] == 0)  # time 0 is that of an episode's first observation
        assert observation.dtype == np.float32
        return act(observation, begins, epsilon, change, resets)

    def drawing(count: int, observation: np.ndarray) -> np.ndarray:
        calls.append(("random", trainer.step))
        return random_actions(count, observation)

    def learning(batch: Any, weight: None) -> Any:
        assert trainer.step > 100
        if not dqn.updates:
            assert torch.equal(dqn.parameters, initial)
        return update(batch)

    dqn.act, dqn.random_actions, dqn.update = acting, drawing, learning  # type: ignore[method-assign]
    run.run()
    assert {kind for kind, step in calls if step >= 100} == {"policy"}
    assert {kind for kind, step in calls if step < 100} == {warmup}
    assert not torch.equal(dqn.parameters, initial)


def test_random_warm_up_is_uniform(tmp_path: Path) -> None:
    """Of 2000 actions each of the three has a third, within 4 standard errors."""
    changes: Any = {"agent.learning_starts": 2000, "steps": 2000, **JOURNAL}
    setup(tmp_path, num_envs=8, **changes).run()
    counts = Counter(step.action for step in Journal.steps[:2000])
    assert all(abs(counts[action] - 2000 / 3) < 4 * (2000 * 2 / 9) ** 0.5 for action in (2, 3, 4))


# ---- equal runs


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    """The runs agree bit for bit, with any state of the global generators. Another seed gives another run."""
    runs = []
    for i, seed in enumerate((1, 1, 2)):
        np.random.seed(i)  # noqa: NPY002
        torch.manual_seed(i)
        random.seed(i)
        run = setup(tmp_path / str(i), seed=seed)
        run.run()
        runs.append(run)
    one, again, other = runs
    assert same(one.learned(), again.learned())
    assert not torch.equal(one.trainer.agent.parameters, other.trainer.agent.parameters)
    timed = ("speed/", "time/")
    rows = [
        [(step, {k: v for k, v in row.items() if not k.startswith(timed)}) for step, row in run.tracker.rows]
        for run in runs
    ]
    assert rows[0] == rows[1] != rows[2]


HEADS = ["expected", "categorical", "quantile", "implicit_quantile"]


@pytest.mark.parametrize("head", HEADS)
def test_priorities_are_written_back_and_logged(tmp_path: Path, head: str) -> None:
    """After every update the rows of its batch have the new priorities, and β follows the environment steps."""
    beta = {"agent.priority.beta": 0.5, "agent.priority.beta_steps": 200}
    one = setup(tmp_path, agent__head=head, agent__priority__enabled=True, **beta)
    replay = one.trainer.replay
    assert isinstance(replay, PrioritisedReplay)
    written: list[float] = []
    kept = replay.update_priorities

    def update_priorities(rows: Any, priority: Any) -> None:
        kept(rows, priority)
        leaves, given = replay._tree.leaves[rows], (np.asarray(priority, dtype=float).clip(0) + 1e-6) ** 0.5
        assert (leaves >= given * (1 - 1e-9)).all()  # a row that was drawn twice has the greater priority
        assert np.isclose(leaves, given, rtol=1e-9).sum() >= len(set(rows.tolist()))
        written.append(float(given.mean()))

    replay.update_priorities = update_priorities  # type: ignore[method-assign]
    one.run()
    assert len(written) == one.trainer.agent.updates == 140
    assert sum(value for _, value in one.tracker.series("train/priority")) > 0
    seen = one.tracker.series("replay/beta")
    assert [value for _, value in seen] == pytest.approx([min(1.0, 0.5 + step / 400) for step, _ in seen])
    assert one.tracker.series("replay/priority_mean")[-1][1] > 0
    largest = [value for _, value in one.tracker.series("replay/priority_largest")]
    assert largest == sorted(largest)
    assert largest[0] >= 1.0


def test_uniform_replay_knows_no_priorities(tmp_path: Path) -> None:
    one = setup(tmp_path)
    assert not isinstance(one.trainer.replay, PrioritisedReplay)
    one.run()
    assert not [name for _, row in one.tracker.rows for name in row if "priority" in name or "beta" in name]


@pytest.mark.parametrize("vectorization", ["sync", "native"])
@pytest.mark.parametrize("hold", ["step", "episode"])
def test_training_with_and_without_evaluation_gives_the_same_agent(
    tmp_path: Path, vectorization: str, hold: str
) -> None:
    shared: Any = {"env.vectorization": vectorization, "agent.noise.hold": hold, "checkpoint.every": 120, "steps": 200}
    quiet = setup(tmp_path / "quiet", **shared)
    quiet.run()
    looking: Any = {"eval.every": 40, "eval.episodes": 3, "log.every": 7, "checkpoint.keep": 5}
    watched = setup(tmp_path / "watched", **shared, **looking)
    watched.run()
    assert len(watched.tracker.series("eval/return_mean")) == 5
    assert len(watched.tracker.series("eval_noisy/return_mean")) == 5
    assert len(quiet.tracker.series("eval/return_mean")) == 1
    assert same(quiet.learned(), watched.learned())


def test_videos_do_not_change_the_agent_and_are_made_when_asked(tmp_path: Path) -> None:
    quiet = setup(tmp_path / "quiet", steps=100, num_envs=1)
    quiet.run()
    filming: Any = {"eval.every": 25, "eval.video": True, "eval.video_every": 2}
    filmed = setup(tmp_path / "filmed", steps=100, num_envs=1, **filming)
    filmed.run()
    assert [step for step, _ in filmed.tracker.videos] == [50, 100]
    assert all(path.stat().st_size > 1000 for _, path in filmed.tracker.videos)
    assert same(quiet.learned(), filmed.learned())


def test_a_machine_that_cannot_render_finishes_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no screen")

    monkeypatch.setattr(agent.running.evaluator, "record_film", broken)
    changes: Any = {"eval.video": True}
    run = setup(tmp_path, steps=50, **changes)
    assert run.run().exit_code == 0
    assert any("no screen" in line for line in run.tracker.lines)


def test_a_run_that_is_killed_while_it_films_has_saved_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video takes much memory, so that the checkpoint of its step is written before."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(agent.running.evaluator, "record_film", killed)
    changes: Any = {"eval.video": True}
    run = setup(tmp_path, steps=50, **changes)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    step, state = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    assert step == run.trainer.step >= 50
    assert same(state["agent"], run.trainer.state()["agent"])
    assert load_player(tmp_path / "last" / "agent.safetensors").description["global_step"] == step


# ---- evaluation and saving


def test_episodes_that_the_evaluation_cuts_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("running.evaluation", "records.evaluations"):
        monkeypatch.setattr(f"agent.{module}.EPISODE_CAP", 5)
    world = setup(tmp_path, **{"eval.every": 40})
    world.run()
    assert len(world.tracker.series("eval/return_mean")) > 1
    told = [line for line in world.tracker.lines if "were cut" in line]
    assert told == [
        "2 of 2 episodes of the evaluation were cut after 5 steps: env.time_limit=<steps> cuts them earlier"
    ]


def test_the_best_agent_is_kept_and_the_last_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equally good agents the later one is kept, and every evaluation plays the same seeds."""
    values, seeds = iter([1.0, 5.0, 3.0, 5.0, 4.0]), []
    parameters: dict[int, Any] = {}

    def evaluated(task: Any, network: Any, asked: list[int], noise: Any, *_: Any) -> Evaluation:
        seeds.append(asked)
        if noise is not None:
            return Evaluation((0.0, 0.0), (1, 1))
        parameters[run.trainer.step] = copy.deepcopy(network.state_dict())
        value = next(values)
        return Evaluation((value, value), (1, 1))

    monkeypatch.setattr(agent.running.evaluator, "evaluate", evaluated)
    changes: Any = {"eval.every": 60}
    run = setup(tmp_path, steps=300, num_envs=1, **changes)
    outcome = run.run()
    best, last = (load_player(tmp_path / which / "agent.safetensors") for which in ("best", "last"))
    assert (best.description["global_step"], last.description["global_step"]) == (240, 300)
    assert best.description["evaluation"]["return_mean"] == 5.0
    assert same(dict(best.network.state_dict()), dict(parameters[240]))
    assert same(dict(last.network.state_dict()), dict(parameters[300]))
    assert outcome.evaluation is not None
    assert outcome.evaluation.returns == (4.0, 4.0)
    assert seeds == [environment_seeds(0, "evaluation", 2)] * 10


@pytest.mark.parametrize("seen_by", ["log.every", "eval.every", "checkpoint.every"])
def test_what_is_not_finite_stops_the_run_and_is_not_saved(tmp_path: Path, seen_by: str) -> None:
    changes: Any = {"agent.lr": 1e30, "checkpoint.every": 20, "log.every": 1000, "eval.every": 0}
    changes[seen_by] = changes["checkpoint.every"] if seen_by == "checkpoint.every" else 15
    run = setup(tmp_path, **changes)
    with pytest.raises(UserError, match=r"training stopped at step \d+ because .*; the last good checkpoint is .*20"):
        run.run()
    assert all(step <= 20 for step, _ in run.tracker.series("eval/return_mean"))  # the first update is at step 22
    player = load_player(tmp_path / "last" / "agent.safetensors")
    assert all(bool(torch.isfinite(p).all()) for p in player.network.parameters())


def test_huge_rewards_end_a_run_in_a_sentence_about_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = setup(tmp_path)
    add = run.trainer.replay.add
    monkeypatch.setattr(run.trainer.replay, "add", lambda action, reward, *rest: add(action, reward * 1e38, *rest))
    with pytest.raises(
        UserError, match=r"because .*; rewards that CartPole-v1 gave reach 1e38: scale them, or"
    ) as told:
        run.run()
    assert "agent.lr" not in str(told.value)


# ---- learning while the environments step


def overlapped(folder: Path, **changes: Any) -> Setup:
    return setup(folder, **{"overlap": "on", "env.vectorization": "async", **changes})


class Watched:
    """Records the order of steps, updates and additions to the replay."""

    def __init__(self, trainer: Trainer) -> None:
        self.events: list[str] = []
        for owner, name in (
            (trainer.collector.envs, "step_async"),
            (trainer.collector.envs, "step_wait"),
            (trainer.agent, "update"),
        ):
            setattr(owner, name, self.noted(name, getattr(owner, name)))
        replay, add = trainer.replay, trainer.replay.add

        def counted(*values: Any) -> None:
            self.events.append("add")
            add(*values)

        replay.add = counted  # type: ignore[method-assign]

    def noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            self.events.append(name)
            return function(*values)

        return call


def test_updates_happen_while_the_step_is_under_way(tmp_path: Path) -> None:
    trainer = overlapped(tmp_path).trainer
    trainer.begin()
    watched = Watched(trainer)
    for _ in range(30):
        trainer.iterate()
    trainer.collector.envs.close()
    rounds = " ".join(watched.events).split("step_async ")[1:]
    assert {words.strip() for words in rounds} == {"step_wait add", "update step_wait add"}  # 2 environments, ratio 1/2


@pytest.mark.parametrize("ratio", ["1/2", "3", "1/5"])
def test_overlapping_updates_keep_to_the_ratio_at_every_step(ratio: str, tmp_path: Path) -> None:
    changes = {"agent.replay_ratio": ratio, "env.vectorization": "sync"}
    one, two = overlapped(tmp_path, **changes).trainer, setup(tmp_path, **changes).trainer
    one.begin(), two.begin()
    for _ in range(100):
        one.iterate()
        expected = max(0, int((one.step - 20) * Fraction(ratio)))
        assert one.agent.updates == expected
        two.iterate()
    assert two.agent.updates == max(0, int((two.step - 20) * Fraction(ratio)))
    assert not torch.equal(one.agent.parameters, two.agent.parameters)  # one learns the newest step a round later


def test_overlapping_runs_are_the_same_again_in_processes_and_in_one(tmp_path: Path) -> None:
    kinds = ["async", "async", "sync"]
    runs = [overlapped(tmp_path / str(i), **{"env.vectorization": kind}) for i, kind in enumerate(kinds)]
    for run in runs:
        run.run()
    first, second, third = (run.learned() for run in runs)
    assert same(first, second)
    assert same(first, third)


def test_overlap_learns_nothing_before_there_is_a_transition(tmp_path: Path) -> None:
    trainer = overlapped(tmp_path, **{"num_envs": 30, "env.vectorization": "sync"}).trainer
    trainer.begin()
    trainer.iterate()  # 5 updates are due while the first transitions are under way
    assert trainer.agent.updates == 5
