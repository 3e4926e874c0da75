"""Atari: frames as in the papers, counts of whole games, and changes of the game that only training sees."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from test_training import setup

from agent.replay.n_step import REWARD, TERMINATED
from agent.running.evaluation import Evaluation
from envs.atari import SCORES, Atari, area_weights, frame_stack, human_normalised
from envs.atari_vector import AtariVector
from envs.make import load_task
from envs.single import make_single
from envs.vector import make_vector


class Emulator(gym.Env[np.ndarray, np.int64]):
    """Shows the number of the frame on its left half, flickering, and loses a life every 10th frame."""

    observation_space = gym.spaces.Box(0, 255, (210, 160), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def _screen(self) -> np.ndarray:
        screen = np.zeros((210, 160), dtype=np.uint8)
        screen[:, :80] = self.frame
        screen[:, 80:] = 200 * (self.frame % 2)
        return screen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.frame = 0
        return self._screen(), {"lives": 5}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.frame += 1
        lives = 5 - self.frame // 10
        return self._screen(), float(action), lives == 0, False, {"lives": lives}


def test_steps_frames_rewards_and_lives() -> None:
    env = Atari(Emulator())
    observation, _ = env.reset(seed=0)
    idle = env.unwrapped.frame  # type: ignore[attr-defined]
    assert 1 <= idle <= 30
    assert (observation.shape, observation.dtype) == ((4, 84, 84), np.uint8)
    assert observation[:, :, :41].tolist() == np.full((4, 84, 41), idle).tolist()  # the first frame, four times
    numbers, ended = [idle] * 4, False
    while not ended:
        before = env.unwrapped.frame  # type: ignore[attr-defined]
        observation, reward, ended, _, info = env.step(np.int64(2))
        after = env.unwrapped.frame  # type: ignore[attr-defined]
        assert after == min(before + 4, 50)
        assert reward == 2 * (after - before)  # the sum, unclipped
        numbers.append(after)
        assert observation[:, 0, 0].tolist() == numbers[-4:]
        assert observation[-1, 0, -1] == 200 if after - before > 1 else True  # the brighter of two screens
        assert info["life_lost"] == (before // 10 < after // 10 < 5)


def test_the_seed_decides_the_idle_steps() -> None:
    env = Atari(Emulator())
    first = [int(env.reset(seed=seed)[0][0, 0, 0]) for seed in (0, 1, 2, 3, 0)]
    assert first[0] == first[-1]
    assert len(set(first)) > 2


@pytest.mark.parametrize(("source", "target"), [(210, 84), (160, 84), (84, 84), (7, 3)])
def test_areas_are_averaged_pixels_on_a_border_by_their_share(source: int, target: int) -> None:
    weights = area_weights(source, target)
    assert weights.sum(axis=1) == pytest.approx(np.ones(target), abs=1e-5)
    assert weights.sum(axis=0) == pytest.approx(np.full(source, target / source), abs=1e-5)
    fine = np.repeat(np.arange(source) ** 2 % 97, target).astype(float)  # each pixel `target` times
    assert weights @ fine[::target] == pytest.approx(fine.reshape(target, source).mean(axis=1), rel=1e-5)


def test_scores() -> None:
    assert len(SCORES) == 57
    assert all(human > random for random, human in SCORES.values())
    assert human_normalised("CartPole-v1", 500.0) is None
    assert human_normalised("Nowhere-v0", 500.0) is None


@pytest.fixture
def game() -> Iterator[str]:
    gym.register("Test/Game-v0", entry_point=lambda: Atari(Emulator()))
    yield "Test/Game-v0"
    gym.registry.pop("Test/Game-v0")


@pytest.mark.parametrize("clip_rewards", [False, True])
@pytest.mark.parametrize("life_loss", [False, True])
def test_clipped_rewards_and_lost_lives_are_for_learning_alone(
    tmp_path: Path, game: str, clip_rewards: bool, life_loss: bool
) -> None:
    """The replay holds the clipped rewards and the lost lives; logged and evaluated returns are those of the game."""
    changes = {"env.clip_rewards": clip_rewards, "env.life_loss": life_loss, "agent.network.encoder": "mlp"}
    run = setup(tmp_path, **{"env.id": game, "agent.replay_ratio": 0, "steps": 120}, **changes)
    outcome = run.run()
    assert run.trainer.replay._frames.observations.shape[1:] == (1, 84, 84)
    rewards, ends = (run.trainer.replay.scalars[:, column] for column in (REWARD, TERMINATED))
    assert float(rewards.max()) == (1.0 if clip_rewards else 8.0)
    returns = [value for _, value in run.tracker.series("train/episode_return")]
    assert len(returns) >= 4
    assert max(returns) > 20
    assert (float(ends.sum()) > len(returns) + 4) == life_loss
    assert outcome.evaluation is not None
    assert min(outcome.evaluation.lengths) >= 5  # 20 of the 50 frames or more: several lives


def test_other_environments_are_no_stacks() -> None:
    env = make_single("CartPole-v1", {})
    assert frame_stack(env) == 1
    env.close()


@pytest.fixture
def ale() -> None:
    pytest.importorskip("ale_py", reason="pip install -e '.[atari]'")


@pytest.mark.usefixtures("ale")
@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4", "ALE/Breakout"])
def test_games_of_every_version_are_played_the_same_way(env_id: str) -> None:
    task = load_task(env_id, {}, time_limit=40)
    assert (task.observation.shape, task.observation.dtype, task.observation.stack) == ((4, 84, 84), "uint8", 4)
    seen: list[list[np.ndarray]] = []
    for vectorization in ("sync", "sync", "async"):
        envs = make_vector(task, 2, vectorization)  # type: ignore[arg-type]
        row = [task.observe(envs.reset(seed=1)[0])]
        for t in range(50):
            observation, reward, terminated, truncated, info = envs.step(np.full(2, t % task.actions))
            row += [task.observe(observation), reward, terminated, truncated]
            assert t == 40 or info["life_lost"].dtype == bool
        envs.close()
        seen.append(row)
    assert all(np.array_equal(*rows) for rows in zip(*seen[:2], strict=True))
    assert all(np.array_equal(*rows) for rows in zip(*seen[1:], strict=True))
    assert [t for t, ended in enumerate(seen[0][4::4], 1) if ended.all()] == [40]
    assert seen[0][1 + 4 * 30].std() > 0


@pytest.mark.usefixtures("ale")
@pytest.mark.parametrize(
    ("env_id", "kwargs", "expected"),
    [
        ("ALE/Pong-v5", {}, 0.25),
        ("ALE/Pong-v5", {"repeat_action_probability": 0.0}, 0.0),
        ("PongNoFrameskip-v4", {}, 0.0),
        ("PongNoFrameskip-v4", {"repeat_action_probability": 0.5}, 0.5),
    ],
)
def test_actions_are_repeated_as_the_id_promises_or_a_person_asks(
    env_id: str, kwargs: dict[str, float], expected: float
) -> None:
    env = make_single(load_task(env_id, kwargs).id, kwargs)
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == expected  # type: ignore[attr-defined]
    env.close()
    task = load_task(env_id, kwargs)
    assert task.kwargs.get("repeat_action_probability") == kwargs.get("repeat_action_probability")
    spec, other = gym.spec("ALE/Pong-v5"), 0.75
    native = make_vector(task, 2, "native")
    assert isinstance(native, AtariVector)
    asked, others = (AtariVector(2, spec, {"repeat_action_probability": number}) for number in (expected, other))
    frames = [_frames(envs) for envs in (native, asked, others)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def _frames(envs: AtariVector) -> np.ndarray:
    """The newest frames of sixty steps with the same seed and actions; closes the games."""
    actions = np.random.default_rng(0).integers(0, 6, (60, 2))
    envs.reset(seed=3)
    frames = np.array([envs.step(row)[0][:, -1] for row in actions])
    envs.close()
    return frames


@pytest.mark.usefixtures("ale")
def test_a_person_may_ask_for_raw_observations() -> None:
    assert load_task("ALE/Pong-v5", {"obs_type": "ram"}).observation.shape == (128,)
    assert load_task("ALE/Pong-v5", {"frameskip": 4}).observation.shape == (3, 210, 160)


@pytest.mark.usefixtures("ale")
def test_a_human_is_one_and_random_play_zero() -> None:
    load_task("ALE/Pong-v5", {})
    assert [human_normalised("ALE/Pong-v5", score) for score in (14.6, -20.7)] == pytest.approx([1.0, 0.0])


@pytest.mark.usefixtures("ale")
def test_an_evaluation_of_a_game_is_human_normalised() -> None:
    load_task("ALE/Pong-v5", {})
    evaluation = Evaluation((14.6, -20.7), (900, 800))
    assert evaluation.statistics("ALE/Pong-v5")["human_normalised"] == pytest.approx(0.5)
    assert "human_normalised" not in evaluation.statistics("CartPole-v1")
    assert "human_normalised" not in evaluation.statistics()
