"""Environments of other packages: the sentence for a missing package, and runs with an installed one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.common.errors import UserError
from envs import packages
from envs.make import load_task
from envs.single import make_single
from envs.vector import make_vector

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


@pytest.mark.parametrize(
    ("env_id", "extra"),
    [
        ("MinAtar/Breakout-v1", "minatar"),
        ("MinAtar/Breakout-v9", "minatar"),
        ("ALE/Pong-v5", "atari"),
        ("LunarLander-v3", "box2d"),
    ],
)
def test_the_extra_of_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, env_id: str, extra: str) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: False)
    with pytest.raises(UserError, match=rf"{env_id} needs the extra {extra}: pip install -e '\.\[{extra}\]'$"):
        load_task(env_id, {})


def test_what_is_installed_is_known_without_importing_it() -> None:
    assert packages.is_installed("numpy")
    assert not packages.is_installed("nowhere_at_all")


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("version", [0, 1])
def test_minatar(game: str, version: int) -> None:
    pytest.importorskip("minatar", reason="pip install -e '.[minatar]'")
    task = load_task(f"MinAtar/{game}-v{version}", {}, time_limit=50)
    assert task.observation.shape[1:] == (10, 10)
    assert task.observation.dtype == "bool"
    assert task.actions == (
        6 if version == 0 else {"Breakout": 3, "Freeway": 3, "SpaceInvaders": 4}.get(game, task.actions)
    )
    rows: list[list[Any]] = []
    for _ in range(2):
        envs = make_vector(task, 2)
        row = [task.observe(envs.reset(seed=3)[0])]
        for t in range(120):
            observation, reward, terminated, truncated, _ = envs.step(np.full(2, t % task.actions))
            row += [task.observe(observation), reward, terminated, truncated]
        envs.close()
        rows.append(row)
    assert all(np.array_equal(one, two) for one, two in zip(*rows, strict=True))  # the seed determines all rows
    assert any(truncated.any() for truncated in rows[0][4::4]) or any(ended.any() for ended in rows[0][3::4])


def test_minatar_says_which_games_there_are() -> None:
    pytest.importorskip("minatar", reason="pip install -e '.[minatar]'")
    with pytest.raises(UserError, match=r"no environment 'MinAtar/Brekout-v1'.*MinAtar/Breakout-v1"):
        load_task("MinAtar/Brekout-v1", {})


def test_lunar_lander() -> None:
    pytest.importorskip("Box2D", reason="pip install -e '.[box2d]'")
    task = load_task("LunarLander-v3", {})
    assert (task.observation.shape, task.actions, task.threshold) == ((8,), 4, 200)
    env = make_single(task.id, {}, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    assert frame.dtype == np.uint8
    env.close()


def test_games_are_known_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ale_py" / "roms").mkdir(parents=True)
    (tmp_path / "ale_py" / "__init__.py").write_text("raise ImportError('it is not to be imported')")
    (tmp_path / "ale_py" / "roms" / "space_invaders.bin").touch()
    monkeypatch.delitem(sys.modules, "ale_py", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.is_atari_game("SpaceInvaders")
    assert not packages.is_atari_game("CartPole")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not packages.is_atari_game("SpaceInvaders")
