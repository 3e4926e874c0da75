"""Serial against the SyncVectorEnv that it replaces, step by step. Of infos it keeps lost lives only."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agent.common.errors import UserError
from envs.make import load_task
from envs.serial import Serial
from envs.single import make_single
from envs.vector import make_vector


class Talkative(gym.Env[np.ndarray, np.int64]):
    """Observes float64 in a space of float32, and has other infos at every step."""

    observation_space = gym.spaces.Box(-9, 9, (2, 3), np.float32)
    action_space = gym.spaces.Discrete(3, start=-1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.normal(size=(2, 3)), {"lives": 3, "where": {"x": 0.5}}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        die, stop, say = self.np_random.random(3) < (0.1, 0.1, 0.5)
        info = {"life_lost": bool(stop), "name": "abc", "where": {"y": np.arange(3) * int(action)}} if say else {}
        return self.np_random.normal(size=(2, 3)), float(action), bool(die), bool(stop and not die), info


@pytest.fixture(autouse=True)
def talkative() -> Iterator[None]:
    gym.register("Test/Talkative-v0", entry_point=Talkative)
    yield
    gym.registry.pop("Test/Talkative-v0")


#: Time limits of tasks: vectors, a number with masks in its infos, a tuple, truth values, and one with many infos.
TASKS = {
    "CartPole-v1": None,
    "Acrobot-v1": 9,
    "Taxi-v4": None,
    "Blackjack-v1": None,
    "DeepSea-v0": None,
    "Test/Talkative-v0": 7,
}


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_everything_it_gives_is_what_gymnasium_gives(env_id: str, num_envs: int) -> None:
    task = load_task(env_id, {}, TASKS[env_id])
    makers = [lambda: make_single(task.id, {}, time_limit=task.time_limit)] * num_envs
    ours, theirs = Serial(makers), SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    generator, endings = np.random.Generator(np.random.PCG64(1)), 0
    for seed in (5, 6):  # the second reset comes in the middle of episodes
        np.testing.assert_equal(deepcopy(ours.reset(seed=seed)[0]), theirs.reset(seed=seed)[0])
        for _ in range(100):
            action = task.first_action + generator.integers(task.actions, size=num_envs)
            mine, wanted = ours.step(action), theirs.step(action)
            np.testing.assert_equal(mine[:4], wanted[:4])
            np.testing.assert_equal(mine[4], {name: wanted[4][name] for name in ("life_lost",) if name in wanted[4]})
            assert [x.dtype for x in mine[1:4]] == [x.dtype for x in wanted[1:4]]
            endings += int((mine[2] | mine[3]).sum())
    assert endings > 3 or env_id == "Taxi-v4"  # Taxi has no ending within 100 steps


def test_what_it_gave_is_not_changed_by_the_next_step() -> None:
    """This holds for all results but the observations, which their users copy."""
    envs = make_vector(load_task("Test/Talkative-v0", {}), 4)
    assert isinstance(envs, Serial)
    envs.reset(seed=0)
    before = envs.step(np.ones(4, dtype=np.int64))[1:]
    kept = deepcopy(before)
    for _ in range(20):
        envs.step(np.zeros(4, dtype=np.int64))
    np.testing.assert_equal(before, kept)


class Single(Talkative):
    """Observes a number, and no vector of one number."""

    observation_space = gym.spaces.Box(-9, 9, (), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        return np.float32(observation[0, 0]), info

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest = super().step(action)
        return np.float32(observation[0, 0]), *rest


def test_observations_may_be_single_numbers() -> None:
    ours, theirs = Serial([Single] * 3), SyncVectorEnv([Single] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    np.testing.assert_equal(deepcopy(ours.reset(seed=0)[0]), theirs.reset(seed=0)[0])
    for _ in range(20):
        np.testing.assert_equal(ours.step(np.ones(3, dtype=np.int64))[:4], theirs.step(np.ones(3, dtype=np.int64))[:4])


def test_an_observation_of_another_kind_is_refused() -> None:
    envs = Serial([lambda: make_single("Test/Talkative-v0", {})], "Test/Talkative-v0")
    envs.single_observation_space = gym.spaces.Box(0, 9, (2, 3), np.uint8)
    envs._observations = np.zeros((1, 2, 3), dtype=np.uint8)
    envs._rows = [envs._observations[0]]
    envs.envs[0].reset(seed=0)
    with pytest.raises(UserError, match=r"must have shape \(2, 3\) and uint8, .*, not an array of .* float64"):
        envs.step(np.zeros(1, dtype=np.int64))
