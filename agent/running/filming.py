"""Episodes that are filmed, or played in a window."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from agent.common.errors import UserError, one_line
from agent.common.foreign import is_stop
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.running.apart import apart
from agent.running.evaluation import Evaluation, EvaluationPolicy, never, play
from agent.running.failures import Folder
from envs.kinds import Action, Env, Info, Observation, Wrapper
from envs.make import Task
from envs.video import Film


def draw_into_memory() -> None:
    """Makes pygame draw into memory unless SDL_VIDEODRIVER is set; otherwise it would need a screen."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def record_film(
    task: Task,
    network: QNetwork,
    seeds: Sequence[int],
    noise: NoiseModel | None = None,
    stop: Callable[[], bool] = never,
    env: Env | None = None,
) -> tuple[list[np.ndarray], Evaluation]:
    """Plays the episodes of `seeds` one after the other; returns frames (uint8 [H, W, 3]) and all results.

    Only as many frames are kept as a `Film` holds.

    Args:
        task: the task.
        network: the agent's Q-network.
        seeds: one per episode.
        noise: how to draw; None for the mean network.
        stop: called before each step; True ends the film without a result.
        env: an open environment that draws frames and stays open; None for a fresh one.

    Raises:
        UserError: if the task cannot be drawn on this machine, or draws no pictures.
        Stopped: `stop` returned True.
    """
    film = Film()
    draw_into_memory()
    screen = os.environ["SDL_VIDEODRIVER"] != "dummy"
    advice = "leave the video out" + (", or unset SDL_VIDEODRIVER, which asks for a screen" if screen else "")

    def on_step(env: Env) -> None:
        if not film.full:
            with _drawing_errors(f"{task.id} cannot be filmed", advice):
                film.add(env.render())

    context = nullcontext(env) if env is not None else closing(task.make_guarded("rgb_array"))
    with apart(network, seeds[0]), context as filmed_env:
        result = play([filmed_env], EvaluationPolicy(network, noise, seeds), seeds, task, on_step, stop)
    return film.frames, result


def film_of(folder: Folder, step: int) -> Path:
    """The path of a step's film in a run's folder, without its suffix."""
    return folder.path / "videos" / f"step_{step:012d}"


def watch(task: Task, network: QNetwork, seeds: Sequence[int], noise: NoiseModel | None = None) -> Evaluation:
    """Plays the episodes of `seeds` one after the other in a window.

    Raises:
        UserError: if the task cannot be shown, or there is no screen.
    """
    with apart(network, seeds[0]), closing(task.make_guarded("human")) as env:
        return play([_Window(env, task.id)], EvaluationPolicy(network, noise, seeds), seeds, task)


class _Window(Wrapper):
    """An environment that draws itself in a window at each reset and step, which may fail."""

    def __init__(self, env: Env, name: str) -> None:
        super().__init__(env)
        self._problem_and_advice = f"{name} cannot be shown", "leave render=human out; video=true needs no screen"

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        with _drawing_errors(*self._problem_and_advice):
            result = self.env.reset(seed=seed, options=options)
            if (driver := _invisible_driver()) is not None:
                raise UserError(f"there is no screen: pygame draws into memory, with its driver {driver!r}")
            return result

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, Info]:
        with _drawing_errors(*self._problem_and_advice):
            return self.env.step(action)


def _invisible_driver() -> str | None:
    """The name of pygame's display driver, if an environment opened a display that nobody can see; otherwise None."""
    display = getattr(sys.modules.get("pygame"), "display", None)
    if display is None or not display.get_init():
        return None
    driver = str(display.get_driver())
    return driver if driver in ("dummy", "offscreen") else None


@contextmanager
def _drawing_errors(problem: str, advice: str) -> Iterator[None]:
    """Turns any exception of a drawing library into one sentence; each library, or environment, has its own."""
    try:
        yield
    except BaseException as error:
        if is_stop(error):
            raise
        detail = error.detail if isinstance(error, UserError) else ""
        raise UserError(f"{problem} ({one_line(error)}): {advice}", detail) from error
