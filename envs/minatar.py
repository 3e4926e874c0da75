"""MinAtar's games, without the state that the package carries from one episode to the next."""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.kinds import Info


class MinAtar(gym.Wrapper[np.ndarray, np.int64, np.ndarray, np.int64]):
    """A game of the package minatar whose sticky actions do not reach across episodes.

    The package keeps the last action over a reset, and one first step in ten repeats it: an episode would not be a
    function of its seed and its actions alone. The package also makes a new generator for each seed, which takes as
    long as fifty steps. This class seeds the existing generator instead, which then draws the same numbers.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, Info]:
        """Begins an episode, as if the action before it had been action 0, which does nothing."""
        game: Any = getattr(self.env.unwrapped, "game", None)
        if hasattr(game, "last_action"):
            game.last_action = 0
        generator = getattr(game, "random", None)
        if seed is not None and hasattr(generator, "seed") and game.env.random is generator:
            generator.seed(seed)
            seed = None
        return self.env.reset(seed=seed, options=options)


def is_minatar(spec: gym.envs.registration.EnvSpec | None) -> bool:
    """Whether an environment is of that package."""
    return spec is not None and str(spec.entry_point).startswith("minatar.")
