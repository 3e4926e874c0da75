"""DeepSea against its definition, cell by cell, and by the optimal policy's return."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.deep_sea import DEEP_SEA, DeepSea, DeepSeaVector
from envs.make import load_task
from envs.returns import REFERENCES, solved_return
from envs.single import make_single
from envs.vector import make_vector


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("size", [2, 5])
def test_gymnasiums_checker_is_content(size: int, stochastic: bool) -> None:
    env = make_single(DEEP_SEA, {"size": size, "stochastic": stochastic})
    check_env(env.unwrapped, skip_render_check=True)


def test_a_grid_without_a_way_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 1"):
        DeepSea(1)


class Diver:
    """The definition of the paper, word for word, for one diver in the deterministic sea."""

    def __init__(self, size: int, right: np.ndarray) -> None:
        self.size, self.right, self.row, self.column = size, right, 0, 0

    def observe(self) -> list[list[int]]:
        return [[int((r, c) == (self.row, self.column)) for c in range(self.size)] for r in range(self.size)]

    def step(self, action: int) -> tuple[float, bool]:
        reward = 0.0
        if action == self.right[self.row][self.column]:
            if self.column == self.size - 1:
                reward += 1.0
            reward -= 0.01 / self.size
            self.column = min(self.column + 1, self.size - 1)
        else:
            self.column = max(self.column - 1, 0)
        self.row += 1
        return reward, self.row == self.size


@pytest.mark.parametrize("size", [2, 3, 7])
def test_random_dives_are_those_of_the_definition(size: int) -> None:
    envs, draw = DeepSeaVector(5, size, mapping_seed=3), rng()
    twins = [Diver(size, envs.right) for _ in range(5)]
    observation, _ = envs.reset(seed=0)
    resets = 0
    ended = [False] * 5
    for t in range(8 * size):
        expected = [np.array(twin.observe()).ravel() for twin in twins]
        assert np.array_equal(observation, expected)
        good = np.array([twin.right[twin.row % size][twin.column] for twin in twins])
        action = np.where(draw.random(5) < 0.2, 1 - good, good)  # divers often reach the treasure
        observation, reward, terminated, truncated, _ = envs.step(action)
        for e in range(5):
            if ended[e]:
                twins[e], resets, ended[e] = Diver(size, envs.right), resets + 1, False
                assert (reward[e], terminated[e]) == (0.0, False)
            else:
                value, ended[e] = twins[e].step(int(action[e]))
                assert (reward[e], terminated[e]) == (pytest.approx(value), ended[e])
        assert not truncated.any()
        assert t < size or resets


@pytest.mark.parametrize("size", [2, 10, 40])
def test_one_sequence_in_two_to_the_n_has_the_best_return(size: int) -> None:
    env = DeepSea(size, mapping_seed=1)
    right = DeepSeaVector(1, size, mapping_seed=1).right

    def dive(wrong_at: int | None) -> float:
        env.reset(seed=0)
        total, column = 0.0, 0
        for row in range(size):
            go = row != wrong_at
            action = right[row, column] if go else 1 - right[row, column]
            _, reward, terminated, _, _ = env.step(np.int64(action))
            column = min(column + 1, size - 1) if go else max(column - 1, 0)
            total += reward
            assert terminated == (row == size - 1)
        return total

    assert dive(None) == pytest.approx(0.99)
    assert max(dive(row) for row in range(size)) <= 0.0


def test_the_mapping_is_of_its_seed_alone_and_fair() -> None:
    one, again, other = (DeepSeaVector(2, 50, mapping_seed=seed).right for seed in (4, 4, 5))
    assert np.array_equal(one, again)
    assert 0.4 < (one == other).mean() < 0.6
    assert 0.45 < one.mean() < 0.55
    env = DeepSeaVector(2, 50, mapping_seed=4)
    env.reset(seed=9)
    assert np.array_equal(env.right, one)


def test_the_stochastic_sea_fails_to_the_right_and_has_noisy_ends() -> None:
    """1/N of the best actions fail, within five standard errors; only both ends have noise, of variance 1."""
    size, count = 4, 20_000
    envs = DeepSeaVector(count, size, stochastic=True)
    observation, _ = envs.reset(seed=2)
    for row in range(size):
        column = observation.argmax(axis=1) % size
        observation, reward, *_ = envs.step(envs.right[row, column])
        assert abs((reward[column == row] + 0.01 / size).mean() - (row == size - 1)) < 5 / 1.3e2
        after = observation.argmax(axis=1) % size
        if row < size - 1:
            failed = (after[column == row] == row).mean()
            assert abs(failed - 1 / size) < 5 * np.sqrt(0.25 * 0.75 / (count * 0.4))
            assert np.ptp(reward) == 0.0
        else:
            for c in range(size):
                values = reward[column == c]
                assert (
                    abs(values.std() - 1) < 5 / np.sqrt(2 * len(values)) if c in (0, size - 1) else np.ptp(values) == 0
                )
    stays = (1 - 1 / size) ** (size - 1)
    assert abs((column == size - 1).mean() - stays) < 5 * np.sqrt(stays * (1 - stays) / count)


@pytest.mark.parametrize("stochastic", [False, True])
def test_every_vectorisation_is_the_same_sea(stochastic: bool) -> None:
    """Vectorisations of the deterministic sea agree bit for bit; others agree in shapes, seeds and endings."""
    task = load_task(DEEP_SEA, {"size": 5, "stochastic": stochastic, "mapping_seed": 2})
    assert (task.observation.shape, task.observation.dtype, task.actions) == ((25,), "bool", 2)

    def rows(vectorization: Any, seed: int) -> list[np.ndarray]:
        envs, draw = make_vector(task, 4, vectorization), rng(1)
        seen: list[np.ndarray] = [task.observe(envs.reset(seed=seed)[0])]
        for _ in range(20):
            observation, reward, terminated, truncated, _ = envs.step(draw.integers(2, size=4))
            seen += [task.observe(observation), reward, terminated, truncated]
        envs.close()
        return seen

    native, again, other, sync = rows("native", 0), rows("native", 0), rows("native", 1), rows("sync", 0)
    assert all(np.array_equal(one, two) for one, two in zip(native, again, strict=True))
    agree = all(np.array_equal(one, two) for one, two in zip(native, sync, strict=True))
    assert agree != stochastic
    assert all(np.array_equal(one, two) for one, two in zip(native, other, strict=True)) != stochastic
    assert all(np.array_equal(native[i], sync[i]) for i in range(3, len(native), 4))


def test_gymnasium_knows_it() -> None:
    load_task(DEEP_SEA, {})
    assert isinstance(gym.make(DEEP_SEA, size=3).unwrapped, DeepSea)
    assert isinstance(make_vector(load_task(DEEP_SEA, {}), 8), DeepSeaVector)


@pytest.mark.parametrize("env_id", REFERENCES)
def test_a_task_is_solved_at_the_return_that_is_registered(env_id: str) -> None:
    """Comparisons draw a line at this return, and runs may stop at it."""
    load_task(DEEP_SEA, {})
    assert gym.spec(env_id).reward_threshold == pytest.approx(solved_return(env_id))
