"""ale-py's C++ class: the same games, frames, lives and endings as the wrapper's, one by one."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agent.common.arrays import Place
from agent.common.errors import UserError
from agent.replay.frames import Frames
from envs.atari import EMULATOR, Atari
from envs.make import load_task
from envs.vector import ATARI_FROM, make_vector

pytest.importorskip("ale_py", reason="pip install -e '.[atari]'")

from envs.atari_vector import AtariVector

GAME = "ALE/Breakout-v5"


class NeverIdle:
    def integers(self, low: int, high: int) -> int:
        return 0


def alone() -> Atari:
    """A game in our wrapper, without sticky actions and idle steps."""
    env = Atari(gym.make(GAME, repeat_action_probability=0.0, **EMULATOR))
    env.env.reset(seed=0)
    env.unwrapped._np_random = NeverIdle()  # type: ignore[assignment]
    return env


def native(num_envs: int, time_limit: int | None = None, **kwargs: Any) -> AtariVector:
    envs = make_vector(load_task(GAME, kwargs, time_limit), num_envs, "native")
    assert isinstance(envs, AtariVector)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    return envs


def test_whole_games_are_those_of_the_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards, lost lives and endings are equal, and stacks agree within one grey level, also after a reset."""
    monkeypatch.setattr("envs.atari_vector.NOOP_MAX", 0)
    envs, games = native(2, repeat_action_probability=0.0), [alone(), alone()]
    stacks, _ = envs.reset(seed=4)
    ended, endings, lost, total = [False, False], 0, 0, 0.0
    expected = [game.reset()[0] for game in games]
    rng = np.random.default_rng(1)
    for _ in range(450):
        assert stacks.dtype == np.uint8
        for stack, other, over in zip(stacks, expected, ended, strict=True):
            known = 3 if over else 4  # where a game ends within a step, its last frame comes from other screens
            difference = stack[:known].astype(int) - other[:known]
            assert abs(difference).max() <= 1
            assert (difference != 0).mean() < 0.01
        actions = rng.integers(4, size=2)
        stacks, rewards, terminated, truncated, info = envs.step(actions)
        assert rewards.dtype == np.float64
        for i, game in enumerate(games):
            if ended[i]:
                expected[i], ended[i] = game.reset()[0], False
                assert (rewards[i], terminated[i], info["life_lost"][i]) == (0.0, False, False)
                assert (stacks[i] == stacks[i, -1]).all()
                continue
            expected[i], reward, ended[i], _, said = game.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, ended[i], False)
            assert info["life_lost"][i] == said["life_lost"]
            lost, endings, total = lost + said["life_lost"], endings + ended[i], total + float(reward)
    assert endings >= 2
    assert lost >= 4 * endings
    assert total > 1


def test_stored_frames_make_the_stacks_that_were_shown() -> None:
    envs = native(3, time_limit=11)
    frames = Frames(load_task(GAME, {}).observation, 60, 3, Place("cpu"))
    begins, shown = np.ones(3, dtype=bool), [envs.reset(seed=1)[0]]
    frames.put(0, shown[0], begins)
    ended = np.zeros(3, dtype=bool)
    for row in range(1, 60):
        stacks, _, terminated, truncated, _ = envs.step(np.full(3, row % 4))
        frames.put(row, stacks, ended)
        shown.append(stacks)
        ended = terminated | truncated
    rebuilt = np.asarray(frames.take(np.arange(60 * 3)))
    assert np.array_equal(rebuilt, np.concatenate(shown))


def test_seeds_decide_everything_and_copies_differ() -> None:
    def played(envs: AtariVector, seed: int) -> list[np.ndarray]:
        rows = [envs.reset(seed=seed)[0]]
        return rows + [envs.step(np.full(4, 1 + t % 3))[0] for t in range(40)]

    envs = native(4)  # with sticky actions
    first, other, again, larger = played(envs, 5), played(envs, 6), played(envs, 5), native(4)
    assert all(map(np.array_equal, first, again))
    assert all(map(np.array_equal, first, played(larger, 5)))
    assert not all(map(np.array_equal, first, other))
    assert not np.array_equal(first[-1][0], first[-1][1])


def test_sending_and_receiving_is_a_step() -> None:
    one, two = native(2), native(2)
    assert np.array_equal(one.reset(seed=3)[0], two.reset(seed=3)[0])
    for t in range(30):
        actions = np.array([t % 4, 1])
        two.step_async(actions)
        for mine, other in zip(one.step(actions)[:4], two.step_wait()[:4], strict=True):
            assert np.array_equal(mine, other)


def test_a_limit_is_a_truncation_after_as_many_steps() -> None:
    envs = native(2, time_limit=7)
    envs.reset(seed=0)
    rows = [envs.step(np.zeros(2, dtype=np.int64))[2:4] for _ in range(16)]
    assert [t for t, (_, truncated) in enumerate(rows, 1) if truncated.all()] == [7, 15]  # step 8 is the reset
    assert not any(terminated.any() for terminated, _ in rows)


@pytest.mark.parametrize("frames", [0, -1, None])
@pytest.mark.parametrize("time_limit", [None, 7, 10**9])
def test_no_limit_of_frames_is_none(frames: int | None, time_limit: int | None) -> None:
    """As in the emulator alone."""
    envs = native(2, time_limit, max_num_frames_per_episode=frames)
    envs.reset(seed=0)
    ends = [t for t in range(1, 20) if envs.step(np.zeros(2, dtype=np.int64))[3].any()]
    assert ends == ([7, 15] if time_limit == 7 else [])
    envs.close()


def test_idle_steps_are_up_to_thirty() -> None:
    envs = native(4)
    envs.reset(seed=0)
    seen = [envs._games.reset()[1]["episode_frame_number"] for _ in range(60)]  # 240 draws
    assert (np.min(seen), np.max(seen)) == (0, 30)


@pytest.mark.parametrize("kwargs", [{"mode": 0}, {"difficulty": 0}])
def test_what_the_class_does_not_know_is_refused_and_played_in_one_process(kwargs: dict[str, int]) -> None:
    task = load_task(GAME, kwargs)
    with pytest.raises(UserError, match=rf"no vector class of its own that knows env.kwargs.{next(iter(kwargs))}: use"):
        make_vector(task, ATARI_FROM, "native")
    assert isinstance(make_vector(task, ATARI_FROM), SyncVectorEnv)


@pytest.mark.parametrize("kwargs", [{"obs_type": "ram"}, {"frameskip": 4}])
def test_frames_of_ones_own_choice_have_no_vector_class(kwargs: dict[str, Any]) -> None:
    task = load_task(GAME, kwargs)
    with pytest.raises(UserError, match="no vector class of its own: use"):
        make_vector(task, ATARI_FROM, "native")
    assert isinstance(make_vector(task, ATARI_FROM), SyncVectorEnv)


def test_auto_takes_it_where_it_pays_and_actions_are_the_same() -> None:
    task = load_task(GAME, {"full_action_space": True})
    envs = make_vector(task, ATARI_FROM)
    assert isinstance(envs, AtariVector)
    assert envs.single_action_space == gym.spaces.Discrete(18)
    assert task.actions == 18
    assert isinstance(make_vector(task, ATARI_FROM - 1), SyncVectorEnv)
