"""Vector classes that environments provide, checked as single environments are."""

from collections.abc import Mapping

import gymnasium as gym
import numpy as np

from agent.common.errors import plain
from envs.closing import close_quietly
from envs.failure import RuleError, broken, described
from envs.global_random import seed_global_generators
from envs.guarded import guarded
from envs.kinds import Envs, EnvsWrapper, Info, Observation, Space
from envs.leaves import ONE_HOT
from envs.rules import check_space, unpacked


class GuardedVector(EnvsWrapper):
    """Passes on values of a vector class that have the shapes that Gymnasium requires.

    Args:
        env: an instance of the class.
        env_id: the environment's id, for error messages.
        num_envs: the number of copies that it was made with.

    Raises:
        UserError: from every method, if the class fails, lacks an attribute or returns other values.
    """

    def __init__(self, env: Envs, env_id: str, num_envs: int) -> None:
        self._id, self._copies = env_id, num_envs
        with guarded(env_id, "vector_entry_point"):
            super().__init__(env)
        # Read once, so that a class that changes them later cannot change the size of anything.
        self.single_observation_space = self._space("single_observation_space")
        self.single_action_space = self._space("single_action_space")
        with guarded(env_id, "metadata"):
            metadata = getattr(env, "metadata", None)
            self.metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
        found = self._attribute("num_envs")
        if not isinstance(found, int | np.integer) or found != num_envs:
            rule = f"a vector class must have num_envs={num_envs}, the number of copies that it is made with"
            raise broken(env_id, RuleError(rule, described(found)))

    @property
    def num_envs(self) -> int:  # type: ignore[override]
        """The number of copies."""
        return self._copies

    def _space(self, name: str) -> Space:
        space = self._attribute(name)
        with guarded(self._id, name):
            return check_space(name, space)

    def _attribute(self, name: str) -> object:
        with guarded(self._id, name):
            if not hasattr(self.env, name):
                raise RuleError(f"a vector class must have {name}", "nothing at all")
            return getattr(self.env, name)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Resets all copies, and seeds the global generators with their seed as well."""
        if isinstance(seed, int):
            seed_global_generators(seed)
        with guarded(self._id, "reset"):
            observation, info = unpacked("reset", self.env.reset(seed=seed, options=options))
            self._check(self.single_observation_space, observation)
            return observation, _life_lost(info, self.num_envs)

    def step(self, actions: object) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Steps all copies."""
        with guarded(self._id, "step"):
            observation, reward, terminated, truncated, info = unpacked("step", self.env.step(actions))
            self._check(self.single_observation_space, observation)
            reward = self._row("rewards", reward, "fiub").astype(np.float64, copy=False)
            ended = [self._row(*pair, "b") for pair in (("terminations", terminated), ("truncations", truncated))]
            return observation, reward, ended[0], ended[1], _life_lost(info, self.num_envs)

    def close(self, **options: object) -> None:
        """Closes it; a failure is reported in one line."""
        close_quietly(self.env.close, self._id)

    def _row(self, name: str, values: object, kinds: str) -> np.ndarray:
        if not isinstance(values, np.ndarray) or values.shape != (self.num_envs,) or values.dtype.kind not in kinds:
            kind = "truth values" if kinds == "b" else "numbers"
            raise RuleError(f"{name} must be an array of {self.num_envs} {kind}", described(values))
        return values

    def _check(self, space: Space, observation: Observation, name: str = "observations") -> None:
        if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
            parts = space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces)
            for key, part in parts:
                self._check(part, observation[key], f"part {key!r} of {name}")
        elif isinstance(space, (gym.spaces.Box, *ONE_HOT)):
            expected = (self.num_envs, *(space.shape or ()))
            if (
                not isinstance(observation, np.ndarray)
                or observation.shape != expected
                or observation.dtype.kind == "O"
            ):
                raise RuleError(f"{name} must be an array of shape {expected}", described(observation))


def _life_lost(info: object, count: int) -> dict[str, object]:
    """The only part of an info that is used."""
    lost = info.get("life_lost") if isinstance(info, dict) else None
    return {"life_lost": lost} if isinstance(lost, np.ndarray) and lost.shape == (count,) else {}


def _signature(space: Space) -> tuple[object, ...]:
    """The space of Gymnasium's that it is or derives from, its size, and the values that it holds."""
    kind = next((kind for kind in type(space).__mro__ if kind.__module__.startswith("gymnasium.")), type(space))
    values = (getattr(space, name, None) for name in ("n", "start", "nvec", "low", "high"))
    return kind, space.shape, space.dtype, *(value if value is None else np.asarray(value).tolist() for value in values)


def check_copies(env_id: str, envs: Envs, space: Space, actions: Space) -> None:
    """Raises a UserError if the copies of a vector environment have other spaces than a single environment."""
    pairs = (("observation", envs.single_observation_space, space), ("action", envs.single_action_space, actions))
    for name, found, expected in pairs:
        with guarded(env_id, f"single_{name}_space"):
            if _signature(found) != _signature(expected):
                rule = f"every copy must have the {name} space {plain(expected, 80)}"
                raise RuleError(rule, plain(found, 80))
