"""Episodes that are shown or filmed: every frame, in bounded memory, and one sentence if a task cannot be drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import envs.video
from agent.common.errors import UserError
from agent.common.seeding import environment_seeds
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network
from agent.networks.q_network import QNetwork
from agent.running.evaluation import evaluate
from agent.running.filming import record_film, watch
from envs.make import Task, load_task

SEEDS = environment_seeds(0, "evaluation", 2)


def raising(error: Exception) -> Callable[[], Any]:
    def draw() -> Any:
        raise error

    return draw


class StopDrawing(BaseException):
    """An error of an author's own that is no Exception."""


class Undrawn:
    """A picture of an author's own class that cannot be read."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise StopDrawing("no surface")


#: Results and errors of an environment's render.
DRAWINGS: dict[str, Callable[[], Any]] = {
    "picture": lambda: np.zeros((40, 50, 3), np.uint8),
    "brightness": lambda: np.full((10, 10, 3), 0.5),
    "nothing": lambda: None,
    "grey": lambda: np.zeros((40, 50), np.uint8),
    "float": lambda: np.full((40, 50, 3), 200.0),
    "empty": lambda: np.zeros((0, 0, 3), np.uint8),
    "alpha": lambda: np.zeros((40, 50, 4), np.uint8),
    "text": lambda: "a picture",
    "own": lambda: Undrawn(),
    "no package": raising(gym.error.DependencyNotInstalled("pygame is not installed, run `pip install x`")),
    "no screen": raising(RuntimeError("x11 not available")),
}


class Canvas(gym.Env[np.ndarray, np.int64]):
    """Has episodes of ten steps, and draws by the named function; with render_mode=human it draws at each step."""

    metadata = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, drawing: str = "picture", render_mode: str | None = None) -> None:
        self.drawing, self.render_mode, self.time, self.drawn = drawing, render_mode, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.seen(), 1.0, self.time == 10, False, {}

    def seen(self) -> np.ndarray:
        if self.render_mode == "human":
            self.render()
        return np.array([self.time, 0.0])

    def render(self) -> Any:
        self.drawn += 1
        return DRAWINGS[self.drawing]()


@pytest.fixture
def canvas() -> Iterator[Callable[[str], Task]]:
    entry_point: Any = Canvas
    gym.register("Test/Canvas-v0", entry_point=entry_point)
    yield lambda drawing: load_task("Test/Canvas-v0", {"drawing": drawing})
    gym.registry.pop("Test/Canvas-v0")


def network_of(task: Task) -> QNetwork:
    config = parse(AgentConfig, {"network": {"hidden": [8]}})
    return build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))


def test_every_frame_of_a_recording() -> None:
    """There is one frame for the reset and one per step, and the episodes are those of evaluate."""
    task = load_task("CartPole-v1", {})
    network = network_of(task)
    frames, result = record_film(task, network, SEEDS)
    assert result == evaluate(task, network, SEEDS)
    assert len(frames) == sum(result.lengths) + 2
    assert all(frame.shape == (400, 600, 3) and frame.dtype == np.uint8 for frame in frames)
    assert not np.array_equal(frames[0], frames[8])


@pytest.mark.parametrize(("drawing", "size"), [("picture", 40 * 50 * 3), ("brightness", 160 * 160 * 3)])
def test_a_film_that_is_full_takes_no_more_frames(
    canvas: Callable[[str], Task], drawing: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The film keeps as many frames as fit in their stored size, and the episodes are played to their ends."""
    drawn = []
    monkeypatch.setattr(Canvas, "close", lambda env: drawn.append(env.drawn))
    task = canvas(drawing)
    monkeypatch.setattr(envs.video, "MAX_BYTES", 13 * size)
    frames, result = record_film(task, network_of(task), SEEDS)
    assert len(frames) == drawn[-1] == 13
    assert result.lengths == (10, 10)


@pytest.mark.parametrize(
    ("drawing", "reason"),
    [
        ("nothing", "not nothing"),
        ("grey", "[40, 50] of uint8"),
        ("float", "[40, 50, 3] of float64"),
        ("empty", "[0, 0, 3] of uint8"),
        ("alpha", "[40, 50, 4] of uint8"),
        ("text", "[] of <U9"),
        ("own", "StopDrawing: no surface"),
        ("no package", "pygame is not installed"),
        ("no screen", "RuntimeError: x11 not available"),
    ],
)
def test_what_draws_no_pictures_is_not_filmed(canvas: Callable[[str], Task], drawing: str, reason: str) -> None:
    task = canvas(drawing)
    with pytest.raises(UserError) as caught:
        record_film(task, network_of(task), SEEDS)
    assert str(caught.value).startswith("Test/Canvas-v0 cannot be filmed (")
    assert reason in str(caught.value)
    assert "leave the video out" in str(caught.value)


@pytest.mark.parametrize(("drawing", "reason"), [("no package", "pygame is not installed"), ("no screen", "x11")])
def test_where_there_is_no_screen_there_is_no_window(canvas: Callable[[str], Task], drawing: str, reason: str) -> None:
    shown = canvas("nothing")  # rendering into a window returns no frames
    assert watch(shown, network_of(shown), SEEDS) == evaluate(shown, network_of(shown), SEEDS)
    task = canvas(drawing)
    with pytest.raises(UserError, match=f"Test/Canvas-v0 cannot be shown .*{reason}.*leave render=human out"):
        watch(task, network_of(task), SEEDS)


@pytest.mark.parametrize(("driver", "visible"), [("offscreen", False), ("dummy", False), ("x11", True)])
def test_a_window_that_nobody_sees_is_none(
    canvas: Callable[[str], Task], monkeypatch: pytest.MonkeyPatch, driver: str, visible: bool
) -> None:
    """Without a screen pygame silently draws into memory."""
    task = canvas("nothing")
    display = SimpleNamespace(get_init=lambda: True, get_driver=lambda: driver)
    monkeypatch.setitem(sys.modules, "pygame", SimpleNamespace(display=display))  # type: ignore[arg-type]
    if visible:
        assert watch(task, network_of(task), SEEDS).lengths == (10, 10)
        return
    with pytest.raises(UserError, match=f"there is no screen: .*'{driver}'.*leave render=human out"):
        watch(task, network_of(task), SEEDS)


def test_a_film_has_frames_of_one_size() -> None:
    film = envs.video.Film()
    film.add(np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(UserError, match=r"one size, not \(40, 50\) and \(40, 51\)"):
        film.add(np.zeros((40, 51, 3), np.uint8))
