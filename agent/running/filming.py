"""Episodes to look at: filmed, or played in a window."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.running.evaluation import Evaluation, EvaluationPolicy, play
from envs.global_random import own_global_generators
from envs.make import Task, make_guarded
from envs.video import Film


def record(
    task: Task, network: QNetwork, seeds: Sequence[int], noise: NoiseModel | None = None
) -> tuple[list[np.ndarray], Evaluation]:
    """Plays the episodes of `seeds` one after the other; their first frames (uint8 [H, W, 3]) and all results.

    No more frames are kept than a `Film` holds.

    Raises:
        UserError: where the task cannot be drawn here, or draws no pictures.
    """
    film = Film()
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws into memory; without it, it asks for a screen
    screen = os.environ["SDL_VIDEODRIVER"] != "dummy"
    advice = "leave the video out" + (", or unset SDL_VIDEODRIVER, which asks for a screen" if screen else "")

    def look(env: gym.Env[Any, Any]) -> None:
        if not film.full:
            with _refused(f"{task.id} cannot be filmed", advice):
                film.add(env.render())

    with own_global_generators(seeds[0]):
        env = make_guarded(task, "rgb_array")
        try:
            result = play([env], EvaluationPolicy(network, noise, seeds), seeds, task, look)
        finally:
            env.close()
    return film.frames, result


def watch(task: Task, network: QNetwork, seeds: Sequence[int], noise: NoiseModel | None = None) -> Evaluation:
    """Plays the episodes of `seeds` one after the other in a window.

    Raises:
        UserError: where the task cannot be shown, or there is no screen.
    """
    with own_global_generators(seeds[0]):
        env = make_guarded(task, "human")
        try:
            return play([_Window(env, task.id)], EvaluationPolicy(network, noise, seeds), seeds, task)
        finally:
            env.close()


class _Window(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that draws itself whenever it is reset or stepped, and may fail in it."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._failed = f"{name} cannot be shown", "leave render=human out; video=true needs no screen"

    def reset(self, **options: Any) -> Any:
        with _refused(*self._failed):
            return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        with _refused(*self._failed):
            return self.env.step(action)


@contextmanager
def _refused(what: str, advice: str) -> Iterator[None]:
    """Makes a sentence of whatever a library that draws raises: each has exceptions of its own."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        detail = error.detail if isinstance(error, UserError) else ""
        raise UserError(f"{what} ({reason}): {advice}", detail) from error
