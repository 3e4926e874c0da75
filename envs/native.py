"""Vector classes that environments bring along, checked as single environments are."""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.closing import close_quietly
from envs.failure import RuleError, broken, described
from envs.guarded import guarded
from envs.kinds import Envs, EnvsWrapper, Info, Space
from envs.rules import unpacked


class GuardedVector(EnvsWrapper):
    """Passes on what a vector class gives where it has the shapes that Gymnasium asks for.

    Raises:
        UserError: from every method, where it fails or gives something else.
    """

    def __init__(self, env: Envs, env_id: str) -> None:
        super().__init__(env)
        self._id = env_id

    def reset(self, *, seed: Any = None, options: dict[str, object] | None = None) -> tuple[Any, Info]:
        """Resets all copies."""
        with guarded(self._id, "reset"):
            observation, info = unpacked("reset", self.env.reset(seed=seed, options=options))
            self._check(observation)
            return observation, _life_lost(info, self.num_envs)

    def step(self, actions: object) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Steps all copies."""
        with guarded(self._id, "step"):
            observation, reward, terminated, truncated, info = unpacked("step", self.env.step(actions))
            self._check(observation)
            reward = self._row("rewards", reward, "fiub").astype(np.float64, copy=False)
            ended = [self._row(*pair, "b") for pair in (("terminations", terminated), ("truncations", truncated))]
            return observation, reward, ended[0], ended[1], _life_lost(info, self.num_envs)

    def close(self, **options: object) -> None:
        """Closes it, and tells in a line where that fails."""
        close_quietly(self.env.close, self._id)

    def _row(self, name: str, values: object, kinds: str) -> np.ndarray:
        if not isinstance(values, np.ndarray) or values.shape != (self.num_envs,) or values.dtype.kind not in kinds:
            kind = "truth values" if kinds == "b" else "numbers"
            raise RuleError(f"{name} must be an array of {self.num_envs} {kind}", described(values))
        return values

    def _check(self, observation: object) -> None:
        space = self.single_observation_space
        if isinstance(space, gym.spaces.Box):
            wanted = (self.num_envs, *space.shape)
            if not isinstance(observation, np.ndarray) or observation.shape != wanted or observation.dtype.kind == "O":
                raise RuleError(f"observations must be an array of shape {wanted}", described(observation))


def _life_lost(info: object, count: int) -> dict[str, object]:
    """Of all that a step tells what is read."""
    lost = info.get("life_lost") if isinstance(info, dict) else None
    return {"life_lost": lost} if isinstance(lost, np.ndarray) and lost.shape == (count,) else {}


def _form(space: Space) -> tuple[object, ...]:
    """Which of Gymnasium's spaces it is, or derives from, and its size."""
    kind = next(kind for kind in type(space).__mro__ if kind.__module__.startswith("gymnasium."))
    return kind, space.shape, space.dtype, getattr(space, "n", None)


def check_copies(env_id: str, envs: Envs, space: Space, actions: Space) -> None:
    """Raises a UserError where copies side by side have other spaces than one of them alone."""
    pairs = (("observation", envs.single_observation_space, space), ("action", envs.single_action_space, actions))
    for name, found, wanted in pairs:
        if _form(found) != _form(wanted):
            raise broken(env_id, RuleError(f"every copy must have the {name} space {wanted}", str(found)))
