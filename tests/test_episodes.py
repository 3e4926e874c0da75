"""Environments that a resume brings back into the middle of their episodes, and environments for which it cannot."""

import itertools
import json
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from test_training import Setup, same, setup

import envs.atari_vector
import envs.vector
from agent.common.seeds import EpisodeSeeds
from agent.records.checkpoint import load_checkpoint, save_checkpoint
from agent.records.schema import LATER_PARTS, check_parts
from agent.replay.batch import Batch
from agent.replay.ring import Replay
from agent.running.restoring import ADDED_MONITOR_KEYS, load_state
from envs import episodes, resuming
from envs.episodes import ActionLog, checksum
from envs.make import Task, load_task
from envs.vector import make_vector

# ---- vector environments


class Trail:
    """Plays random actions in copies of a task, and records their observations, rewards and endings."""

    def __init__(self, task: Task, num_envs: int, vectorization: Any, seed: int = 0) -> None:
        self.task, self.num_envs, self.vectorization = task, num_envs, vectorization
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.envs = make_vector(task, num_envs, vectorization)

    def play(self, *all_envs: VectorEnv[Any, Any, Any], steps: int) -> list[list[Any]]:
        """The results of the same `steps` actions in each of the given vector environments."""
        given: list[list[Any]] = [[] for _ in all_envs]
        for _ in range(steps):
            actions = self.task.first_action + self.rng.integers(self.task.actions, size=self.num_envs)
            for seen, vector in zip(given, all_envs, strict=True):
                observation, reward, terminated, truncated, _ = vector.step(actions)
                seen.append((self.task.observe(observation), np.array(reward), terminated.copy(), truncated.copy()))
        return given

    def check(self, steps: int, more: int = 200) -> dict[str, Any]:
        """After `steps`, new environments come back into the episodes of these, in all copies, and go on like these."""
        resuming.begin(self.envs, 5)
        self.games = sum(int((ending | limit).sum()) for *_, ending, limit in self.play(self.envs, steps=steps)[0])
        saved = resuming.saved(self.envs)
        again = make_vector(self.task, self.num_envs, self.vectorization)
        restored = resuming.restore(again, 5, saved)
        assert restored is not None
        assert restored.all()
        assert saved is not None
        np.testing.assert_equal(resuming.saved(again), saved)
        one, two = self.play(self.envs, again, steps=more)
        np.testing.assert_equal(one, two)
        self.envs.close()
        again.close()
        return saved


TASKS: dict[str, int | None] = {
    "CartPole-v1": None,
    "Acrobot-v1": 50,
    "FrozenLake-v1": None,
    "Taxi-v4": None,
    "CliffWalking-v1": 30,
    "Blackjack-v1": None,
    "DeepSea-v0": None,
    "MountainCar-v0": None,
}


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_copies_come_back_into_the_middle_of_their_episodes(env_id: str, num_envs: int) -> None:
    task = load_task(env_id, {}, TASKS[env_id])
    for seed, steps in enumerate((0, 1, 49, 50, 51, 307)):  # at 50 a limit has ended an episode; a reset is next
        Trail(task, num_envs, "sync", seed).check(steps)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_processes_come_back_as_well(env_id: str) -> None:
    task = load_task(env_id, {}, TASKS[env_id])
    for seed, steps in enumerate((0, 50, 123)):
        Trail(task, 3, "async", seed).check(steps)


@pytest.mark.parametrize(("env_id", "kwargs"), [("CartPole-v1", {}), ("DeepSea-v0", {"stochastic": True, "size": 5})])
def test_vector_classes_of_numpy_come_back_as_well(env_id: str, kwargs: dict[str, Any]) -> None:
    for seed, steps in enumerate((0, 1, 5, 123)):  # after 5 steps each diver is at the bottom of the sea
        saved = Trail(load_task(env_id, kwargs), 8, "native", seed).check(steps)
        assert set(saved) == {"attributes", "generator"}


def test_a_vector_class_of_numpy_knows_how_old_its_episodes_are() -> None:
    one, two = (make_vector(load_task("CartPole-v1", {}), 4, "native") for _ in range(2))
    one.max_episode_steps = two.max_episode_steps = 7  # type: ignore[attr-defined]
    two = gym.vector.VectorWrapper(two)
    resuming.begin(one, 0)
    for _ in range(5):
        one.step(np.array([0, 1, 0, 1]))
    resuming.restore(two, 0, resuming.saved(one))
    for _ in range(20):
        np.testing.assert_equal(one.step(np.array([0, 1, 1, 0])), two.step(np.array([0, 1, 1, 0])))


@pytest.mark.parametrize("game", ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"])
def test_games_of_minatar_come_back(game: str) -> None:
    pytest.importorskip("minatar")
    task = load_task(f"MinAtar/{game}-v1", {})
    for seed in range(8):  # a value that a game kept over resets would show in one of ten first steps
        Trail(task, 8, "sync", seed).check(37 * seed, more=60)


@pytest.mark.parametrize("game", ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"])
def test_an_episode_of_minatar_is_the_one_of_its_seed_in_a_new_game(game: str) -> None:
    minatar = pytest.importorskip("minatar.gym")
    task, rng = load_task(f"MinAtar/{game}-v1", {}), np.random.Generator(np.random.PCG64(0))
    used = task.make()
    for seed in range(6):
        new = minatar.BaseEnv(task.make().spec.kwargs["game"], use_minimal_action_set=True)
        np.testing.assert_equal(used.reset(seed=seed)[0], new.reset(seed=seed)[0])
        for action in rng.integers(task.actions, size=80):
            one, two = used.step(action), new.step(action)
            np.testing.assert_equal(one[:4], two[:4])
            if one[2]:
                break


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_games_of_atari_come_back(vectorization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    for module in (envs.vector, envs.atari_vector):
        monkeypatch.setattr(module, "STRETCH_STEPS", 200)  # several games have one seed, and there are several seeds
    task = load_task("ALE/Breakout-v5", {"repeat_action_probability": 0.25})
    games, seeds = 0, 0
    for seed, steps in enumerate((0, 170, 240, 330, 390)):
        trail = Trail(task, 3, vectorization, seed)
        seeds += int(trail.check(steps, more=120)["numbers"].sum())
        games += trail.games
    assert 0 < seeds < games  # more games than seeds have ended


def test_one_process_and_many_play_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("FrozenLake-v1", {})
    trail, other = Trail(task, 3, "sync"), make_vector(task, 3, "async")
    np.testing.assert_equal(resuming.begin(trail.envs, 1), resuming.begin(other, 1))
    one, two = trail.play(trail.envs, other, steps=100)
    np.testing.assert_equal(one, two)
    np.testing.assert_equal(resuming.saved(trail.envs), resuming.saved(other))
    other.close()


def test_each_episode_of_each_copy_has_a_seed_of_its_own() -> None:
    seen: list[list[int]] = []

    class Seeded(gym.Wrapper[Any, Any, Any, Any]):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            assert seed is not None
            seen[-1].append(seed)
            return self.env.reset(seed=seed)

    def played(num_envs: int, seed: int) -> list[int]:
        seen.append([])
        vector = envs.vector.Serial([lambda: episodes.Repeatable(Seeded(gym.make("FrozenLake-v1")))] * num_envs)
        resuming.begin(vector, seed)
        Trail(load_task("FrozenLake-v1", {}), num_envs, "sync").play(vector, steps=200)
        assert len(set(seen[-1])) == len(seen[-1]) > 20
        return seen[-1]

    one, many, other = played(1, 0), played(4, 0), played(4, 1)
    common = [seed for seed in many if seed in one]
    assert one[: len(common)] == common  # a copy's seeds do not depend on how many copies there are
    assert len(common) > 10
    assert not set(many) & set(other)
    twin = EpisodeSeeds(0, 0)
    assert [EpisodeSeeds(0, 0)(i) for i in range(len(one))] == one == [twin(i) for i in range(len(one))]
    twin(1000)
    assert [twin(i) for i in reversed(range(len(one)))] == one[::-1]


# ---- the log of actions


def test_the_log_of_actions_holds_what_is_asked_for() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    for actions, code in ((2, "B"), (256, "B"), (257, "H"), (70_000, "i")):
        log, rows, begun = ActionLog(3, actions), [], np.zeros(3, dtype=np.int64)
        for t in range(5000):
            rows.append(rng.integers(actions, size=3))
            log.add(rows[-1], keep=int((t - begun).max()))
            begun = np.where(rng.random(3) < (0.001, 0.1, 0.0 if t < 2500 else 0.01), t + 1, begun)
            if t % 97 == 0:
                for copy in range(3):
                    kept = log.last(copy, int(t + 1 - begun[copy]))
                    assert kept.dtype == np.dtype(code)
                    assert kept.tolist() == [int(row[copy]) for row in rows[begun[copy] :]]
        assert len(log._rows) <= 8192  # twice the longest episode, and not all steps


def test_a_checksum_sees_every_part_of_an_observation() -> None:
    observation = {"a": (np.zeros((2, 3), np.float32), 5), "b": "west", "c": np.ones((2, 4), bool)[:, ::2]}
    others = [
        {**observation, "a": (np.full((2, 3), -0.0, np.float32), 5)},
        {**observation, "a": (np.zeros((2, 3), np.float32), 6)},
        {**observation, "b": "east"},
        {**observation, "c": np.array([[True, True], [True, False]])},
    ]
    sums = [checksum(shown, before) for shown in (observation, *others) for before in (0, 1)]
    assert len(set(sums)) == len(sums)
    assert checksum(observation) == sums[0]


# ---- whole runs


def stopped_and_resumed(folder: Path, at: int, stop: Callable[[Setup], bool], **changes: Any) -> tuple[Setup, Setup]:
    """A run that is never stopped, and one that is saved and resumed where `stop` says so, from step `at` on."""
    whole, first, second = (setup(folder / name, **changes) for name in ("whole", "first", "second"))
    whole.run()
    first.trainer.begin()
    while first.trainer.step < at or not stop(first):
        first.trainer.iterate()
    saved = save_checkpoint(folder, first.trainer.step, first.trainer.state(), 1)
    second.trainer.load_state(*load_checkpoint(saved))
    first.trainer.collector.envs.close()
    second.run()
    return whole, second


ANY: Callable[[Setup], bool] = lambda run: True  # noqa: E731
RESETS: Callable[[Setup], bool] = lambda run: bool(run.trainer.collector._resets.any())  # noqa: E731
BEGINS: Callable[[Setup], bool] = lambda run: bool(run.trainer.collector._begins.any())  # noqa: E731
AGENTS: dict[str, dict[str, Any]] = {
    "held per episode": {"agent.noise.hold": "episode"},
    "5 steps, priorities": {"agent.n_step": 5, "agent.priority.enabled": True, "agent.replay_size": 120},
    "plain": {"agent.noise.enabled": False, "agent.epsilon.steps": 200},
    "by the target network": {"agent.act_with": "target", "agent.target_every": 30},
    "learning while they step": {"overlap": "on"},
}


@pytest.mark.parametrize("stop", [ANY, RESETS, BEGINS], ids=["any", "before a reset", "after a reset"])
@pytest.mark.parametrize("vectorization", ["sync", "native", "async"])
@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, num_envs: int, vectorization: str, stop: Callable[[Setup], bool]
) -> None:
    for (name, changes), at in zip(AGENTS.items(), (37, 111, 150, 175, 202), strict=True):
        options: Any = {"env.vectorization": vectorization, **changes}
        whole, resumed = stopped_and_resumed(tmp_path / name, at, stop, num_envs=num_envs, **options)
        assert same(whole.learned(), resumed.learned()), name
        assert not [line for line in resumed.tracker.lines if "bit-equal" in line]


@pytest.mark.parametrize(
    ("env_id", "num_envs"), [("Acrobot-v1", 3), ("MinAtar/Breakout-v1", 2), ("ALE/Pong-v5", 1), ("ALE/Pong-v5", 3)]
)
def test_runs_of_other_tasks_go_on_where_they_stopped(tmp_path: Path, env_id: str, num_envs: int) -> None:
    """The tasks have a time limit, images, and stacks of frames in one process and in the vector class."""
    if "/" in env_id:
        pytest.importorskip("minatar" if env_id[0] == "M" else "ale_py")
    changes: Any = {"env.id": env_id, "agent.learning_starts": 40, "agent.n_step": 3, "steps": 90}
    changes |= {"env.time_limit": 25, "agent.replay_ratio": "1/8", "agent.noise.hold": "episode", "eval.episodes": 0}
    whole, resumed = stopped_and_resumed(tmp_path, 60, ANY, num_envs=num_envs, **changes)
    assert same(whole.learned(), resumed.learned())
    assert not [line for line in resumed.tracker.lines if "bit-equal" in line]


@pytest.mark.parametrize("vectorization", ["sync", "native"])
def test_how_often_a_run_is_saved_changes_nothing(tmp_path: Path, vectorization: str) -> None:
    runs = {}
    for every in (0, 500, 1000, 7):
        changes: Any = {"checkpoint.every": every, "env.vectorization": vectorization, "steps": 2100}
        runs[every] = setup(tmp_path / str(every), **changes)
        runs[every].run()
    for every in (500, 1000, 7):
        assert same(runs[0].learned(), runs[every].learned())
        for name in ("train/episode_return", "train/episode_length"):
            assert runs[0].tracker.series(name) == runs[every].tracker.series(name)


class Long(gym.Env[np.ndarray, np.int64]):
    """Has episodes of 150 steps, with a reward at the end."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.full(3, self.time / 150, np.float32), float(self.time == 150), self.time == 150, False, {}


def test_an_episode_may_be_longer_than_what_lies_between_two_checkpoints(tmp_path: Path) -> None:
    gym.register("Test/Long-v0", entry_point=Long)
    changes: Any = {"env.id": "Test/Long-v0", "checkpoint.every": 50, "agent.replay_ratio": 0, "steps": 1300}
    run = setup(tmp_path, num_envs=8, **changes)
    run.run()
    gym.registry.pop("Test/Long-v0")
    assert run.tracker.series("train/episode_length") == [(1200, 150)] * 8
    assert run.tracker.series("train/episode_return") == [(1200, 1.0)] * 8


@pytest.mark.parametrize(("long", "told"), [(1, True), (100, False)])
def test_a_long_way_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: int, told: bool) -> None:
    monkeypatch.setattr("agent.running.collector.LONG_EPISODE", long)
    inside: Callable[[Setup], bool] = lambda run: int(run.trainer.collector._lengths.max()) >= 5  # noqa: E731
    _, resumed = stopped_and_resumed(tmp_path, 40, inside, steps=60)
    line = "playing the episodes under way again: the longest has "
    assert any(text.startswith(line) for text in resumed.tracker.lines) == told


# ---- environments that cannot come back


def everything(replay: Replay) -> Batch:
    """All transitions that can be sampled, as tensors."""
    starts = replay.starts[(replay.first + torch.arange(len(replay))) % len(replay.starts)]
    return Batch(*map(torch.as_tensor, replay.gather(starts)))


class Elsewhere(gym.Env[np.ndarray, np.int64]):
    """Observes (copy mod 2, episode, time, a draw). Odd copies draw from `source`, and even ones from their seed."""

    source: Callable[[], float]
    made = itertools.count(1)  # the first instance is that of load_task
    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self) -> None:
        self.copy = next(Elsewhere.made)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.episode = 0, float(self.np_random.random())
        return self._shown(), {}

    def _shown(self) -> np.ndarray:
        drawn = Elsewhere.source() if self.copy % 2 else self.np_random.random()
        return np.array([self.copy % 2, self.episode, self.time, drawn], dtype=np.float32)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._shown(), 1.0, False, self.time == 40, {}


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def from_a_file() -> float:
        path = tmp_path / "drawn"
        number = int(path.read_text()) + 1 if path.exists() else 0
        path.write_text(str(number))
        return number / 1000

    drawn = random.Random(3)
    sources = {"random": drawn.random, "clock": lambda: time.perf_counter() % 1, "file": from_a_file}
    monkeypatch.setattr(Elsewhere, "source", staticmethod(sources[request.param]), raising=False)
    gym.register("Test/Elsewhere-v0", entry_point=Elsewhere)
    yield
    gym.registry.pop("Test/Elsewhere-v0")


@pytest.mark.parametrize("elsewhere", ["random", "clock", "file"], indirect=True)
def test_a_copy_that_does_not_come_back_is_cut_alone(tmp_path: Path, elsewhere: None) -> None:
    changes: Any = {"env.id": "Test/Elsewhere-v0", "agent.n_step": 4, "agent.gamma": 0.5, "agent.replay_ratio": 0}
    runs = []
    for name in ("first", "second"):
        Elsewhere.made = itertools.count(1)  # numbers 2, 3, 4, …: copies 0 and 2 draw from their seeds
        runs.append(setup(tmp_path / name, num_envs=4, **changes))
    first, second = (run.trainer for run in runs)
    first.begin()
    for _ in range(55):
        first.iterate()
    second.load_state(*load_checkpoint(save_checkpoint(tmp_path, first.step, first.state(), 1)))
    assert second.collector._resets.tolist() == [False, True, False, True]
    (line,) = [line for line in runs[1].tracker.lines if "bit-equal" in line]
    assert line.startswith(
        "Test/Elsewhere-v0 begins new episodes in 2 of 4 copies (a replay of the episode gave other "
    )
    assert len(second.replay) == len(first.replay)
    for _ in range(20):
        first.iterate()
        second.iterate()
    lengths = [first.step - 55 * 4, second.step - 55 * 4]
    assert lengths[0] - lengths[1] == 2  # two rows only reset
    batch = everything(second.replay)
    assert torch.equal(batch.observation[:, :2], batch.next_observation[:, :2])  # both are of one copy and one episode
    assert batch.discount.min() == 0.5**4  # no ending is a termination
    steps = batch.next_observation[:, 2] - batch.observation[:, 2]
    assert torch.equal(batch.discount, 0.5**steps)
    assert torch.equal(batch.reward, 2 - 2 * 0.5**steps)
    kept = batch.observation[:, 0] == 0
    assert sorted(batch.observation[kept, 2].tolist()) == sorted(
        [*range(40), *range(34)] * 2  # 75 vector steps, one of which resets: no episode of these copies was cut
    )
    odd = [length for _, length in runs[1].tracker.series("train/episode_length")]
    assert odd == []  # the two episodes that were cut after 14 steps are not reported
    for _ in range(30):
        second.iterate()
    for name, value in (("train/episode_length", 40), ("train/episode_return", 40.0)):
        assert [seen for _, seen in runs[1].tracker.series(name)] == [value] * 4
    for run in runs:
        run.trainer.collector.envs.close()


class Fickle(Elsewhere):
    """Observes draws of its seed. `named` names a part that is random (reward), changes (limit) or fails (refusal)."""

    named, limit, drawn = "reward", 40, random.SystemRandom()

    def _shown(self) -> np.ndarray:
        return np.array([0, self.episode, self.time, 0], dtype=np.float32)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        shown, reward, *_ = super().step(action)
        if self.named == "refusal" and self.time == 5:
            raise ValueError("not now")
        return shown, self.drawn.random() if self.named == "reward" else reward, False, self.time == self.limit, {}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("named", ["reward", "limit", "refusal"])
def test_rewards_endings_and_refusals_that_differ_are_noticed(
    named: str, vectorization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fickle, "named", "reward" if named == "reward" else "")
    gym.register("Test/Fickle-v0", entry_point=Fickle)
    trail = Trail(load_task("Test/Fickle-v0", {}), 2, vectorization)
    resuming.begin(trail.envs, 0)
    trail.play(trail.envs, steps=30)
    monkeypatch.setattr(Fickle, "named", named)
    monkeypatch.setattr(Fickle, "limit", 10 if named == "limit" else 40)
    again = make_vector(trail.task, 2, vectorization)
    gym.registry.pop("Test/Fickle-v0")
    restored = resuming.restore(again, 0, resuming.saved(trail.envs))
    assert restored is not None
    assert restored.tolist() == [False, False]
    monkeypatch.setattr(Fickle, "named", "")
    observation, reward, terminated, truncated = trail.play(again, steps=1)[0][0]
    assert observation[:, 2].tolist() == [0, 0]  # the step has only reset
    assert not np.any([reward, terminated, truncated])
    saved = resuming.saved(again)
    assert saved is not None
    assert saved["numbers"].tolist() == [1, 1]  # this is the seed of the next episode
    trail.envs.close()
    again.close()


class Common(Elsewhere):
    """Draws from the global generators of NumPy and Python."""

    def _shown(self) -> np.ndarray:
        drawn = np.random.random(), random.random()  # noqa: NPY002
        return np.array([self.episode, self.time, *drawn], dtype=np.float32)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_what_is_drawn_from_common_generators_comes_back_in_a_process_of_its_own(vectorization: Any) -> None:
    """Copies in one process share these generators, and do not come back."""
    gym.register("Test/Common-v0", entry_point=Common)
    trail = Trail(load_task("Test/Common-v0", {}), 3, vectorization)
    if vectorization == "async":
        trail.check(55)
    else:
        resuming.begin(trail.envs, 5)
        trail.play(trail.envs, steps=55)
        restored = resuming.restore(make_vector(trail.task, 3, vectorization), 5, resuming.saved(trail.envs))
        assert restored is not None
        assert restored.tolist() == [False] * 3
    gym.registry.pop("Test/Common-v0")


class Unknown(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A vector class that a resume cannot bring back."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self._time, self._ended = np.zeros(num_envs), np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.number = self.np_random.random()
        self._time[:] = 0
        return self._shown(), {}

    def _shown(self) -> np.ndarray:
        copies = np.arange(self.num_envs)
        return np.stack([copies, np.full(self.num_envs, self.number), self._time], axis=1).astype(np.float32)

    def step(self, actions: np.ndarray) -> Any:
        self._time += 1
        nothing = np.zeros(self.num_envs, bool)
        return self._shown(), np.ones(self.num_envs), nothing, nothing, {}


def test_a_vector_class_that_cannot_come_back_begins_anew(tmp_path: Path) -> None:
    changes: Any = {"env.id": "Test/Long-v0", "agent.n_step": 4, "agent.replay_ratio": 0}
    gym.register("Test/Long-v0", entry_point=Long)
    runs = [setup(tmp_path / name, num_envs=3, **changes) for name in ("first", "second")]
    gym.registry.pop("Test/Long-v0")
    first, second = (run.trainer for run in runs)
    for trainer in (first, second):
        trainer.collector.envs = Unknown(3)
    first.begin()
    for _ in range(9):
        first.iterate()
    second.load_state(*load_checkpoint(save_checkpoint(tmp_path, first.step, first.state(), 1)))
    (line,) = [line for line in runs[1].tracker.lines if "bit-equal" in line]
    assert "3 of 3 copies (its vector class cannot bring them back" in line
    for _ in range(9):
        second.iterate()
    assert second.step == 54  # no step was lost
    batch = everything(second.replay)
    assert torch.equal(batch.observation[:, :2], batch.next_observation[:, :2])
    assert len(batch.observation) == 54
    assert len(batch.observation[:, 1].unique()) == 2


@pytest.mark.parametrize("vectorization", ["sync", "native"])
def test_a_run_of_the_version_before_goes_on_with_new_episodes(tmp_path: Path, vectorization: str) -> None:
    """The replay of such a run was cut, and ends with the first observations of episodes that cannot be continued."""
    changes: Any = {"env.vectorization": vectorization, "agent.n_step": 3}
    first, second = (setup(tmp_path / name, num_envs=3, **changes) for name in ("first", "second"))
    old, new = first.trainer, second.trainer
    old.begin()
    while old.step < 70:
        old.iterate()
    old.replay.cut(np.ones(3, dtype=bool))
    nothing = np.zeros(3)
    old.replay.add(nothing, nothing, nothing > 0, nothing > 0, np.full((3, 4), 9.0, np.float32))
    state = old.state()
    for name in LATER_PARTS:
        state.pop(name, None)
    for name in ADDED_MONITOR_KEYS:
        del state["monitor"][name]
    saved = save_checkpoint(tmp_path, old.step, state, 1)
    manifest = json.loads((saved / "state.json").read_text())  # as version 2 wrote it
    del manifest["number"]
    checksum = zlib.crc32(json.dumps([manifest["step"], manifest["state"]]).encode())
    (saved / "state.json").write_text(json.dumps({**manifest, "version": 2, "state_crc32": checksum}))
    step, read = load_checkpoint(saved)
    load_state(new, step, check_parts(read))
    assert "3 of 3 copies (its checkpoint is of a version" in second.tracker.lines[-1]
    second.run()
    assert new.step >= 300
    assert len(new.replay) == new.step
    assert float(new.replay._frames.observations.max()) < 9.0
    old.collector.envs.close()


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "fewer copies": lambda saved: saved.update(numbers=saved["numbers"][:1]),
    "fewer actions": lambda saved: saved.update(actions=saved["actions"][1:]),
    "an action that there is not": lambda saved: saved.update(actions=saved["actions"] + np.uint8(7)),
    "actions of another kind": lambda saved: saved.update(actions=saved["actions"].astype(np.float64)),
    "no actions": lambda saved: saved.pop("actions"),
    "a negative length": lambda saved: saved.update(lengths=saved["lengths"] * -1),
    "a length without end": lambda saved: saved.update(lengths=saved["lengths"] + 2**62),
    "a negative number": lambda saved: saved.update(numbers=saved["numbers"] - 9),
    "a word": lambda saved: saved.update(ended="no"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_episodes_of_other_environments_are_refused(damage: Callable[[dict[str, Any]], Any]) -> None:
    trail = Trail(load_task("CartPole-v1", {}), 3, "sync")
    resuming.begin(trail.envs, 0)
    trail.play(trail.envs, steps=20)
    saved = resuming.saved(trail.envs)
    assert saved is not None
    damage(saved)
    with pytest.raises(ValueError, match=r"episodes|expected \(3,\)|expected \(\d+,\) uint8"):
        resuming.restore(make_vector(trail.task, 3, "sync"), 0, saved)


@pytest.mark.parametrize(
    "damage",
    [{"attributes": {"state": 3, "steps": 1, "prev_done": None}}, {"generator": {"state": 1}}, {"generator": "PCG64"}],
)
def test_a_state_of_another_vector_class_is_refused(damage: dict[str, Any]) -> None:
    one, two = (make_vector(load_task("CartPole-v1", {}), 4, "native") for _ in range(2))
    resuming.begin(one, 0)
    with pytest.raises(ValueError, match=r"state of None int, expected \(4, 4\)|an invalid random generator"):
        resuming.restore(two, 0, {**(resuming.saved(one) or {}), **damage})
