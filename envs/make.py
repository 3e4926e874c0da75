"""Gymnasium environments for value learning: found by id, checked, vectorised. NumPy in, NumPy out."""

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agent.errors import UserError

Vectorization = Literal["auto", "sync", "native"]

#: From this many copies on, one NumPy environment of many is faster than many of one (25 µs a step, whatever the size).
NATIVE_FROM = 4


@dataclass(frozen=True)
class Task:
    """What an agent has to know of an environment."""

    id: str
    kwargs: dict[str, Any]
    inputs: int  # length of an observation
    actions: int  # actions are first_action, first_action + 1, …
    first_action: int
    threshold: float | None  # the return at which Gymnasium calls the task solved
    fps: int
    renders: bool  # whether it can give frames
    shift: np.ndarray  # [inputs] and
    scale: np.ndarray  # [inputs]: (observation − shift)·scale, which stretches what is narrower than [−1, 1]

    def observe(self, observation: Any) -> np.ndarray:
        """Observations [E, inputs] as the networks take them: float32, narrow components stretched to [−1, 1]."""
        if not self.stretched:
            return np.array(observation, dtype=np.float32)
        return np.asarray((observation - self.shift) * self.scale, dtype=np.float32)

    @cached_property
    def stretched(self) -> bool:
        """Whether shift and scale do anything."""
        return bool(self.shift.any() or (self.scale != 1.0).any())


def load_task(env_id: str, kwargs: Mapping[str, Any]) -> Task:
    """Makes the environment once and checks that a value-based agent can play it.

    Raises:
        UserError: for an unknown id (with the nearest ones), wrong arguments, or spaces that are not supported.
    """
    env = make_single(env_id, kwargs)
    try:
        actions, observations = env.action_space, env.observation_space
        if not isinstance(actions, gym.spaces.Discrete):
            raise UserError(
                f"{env_id} has actions {actions}: this agent chooses among Discrete actions; "
                "for continuous ones use a policy-gradient or actor-critic library"
            )
        if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
            raise UserError(
                f"{env_id} has observations {observations}: only vectors (Box with one dimension) are supported yet"
            )
        spec = env.spec
        shift, scale = _stretch(observations)
        return Task(
            id=env_id if spec is None else spec.id,
            kwargs=dict(kwargs),
            inputs=int(observations.shape[0]),
            actions=int(actions.n),
            first_action=int(actions.start),
            threshold=None if spec is None else spec.reward_threshold,
            fps=int(env.metadata.get("render_fps") or 30),
            renders="rgb_array" in (env.metadata.get("render_modes") or ()),
            shift=shift,
            scale=scale,
        )
    finally:
        env.close()


def make_single(
    env_id: str, kwargs: Mapping[str, Any], render_mode: str | None = None, checked: bool = True
) -> gym.Env[Any, Any]:
    """One environment, without vectorisation; `checked` by Gymnasium's wrapper, which costs time at every step.

    Raises:
        UserError: where Gymnasium does not know the id or cannot make it.
    """
    options = dict(kwargs) if render_mode is None else {**kwargs, "render_mode": render_mode}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on newer versions; what is wrong comes as an exception
        try:
            return gym.make(env_id, **options, **({} if checked else {"disable_env_checker": True}))
        except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound) as error:
            raise UserError(f"there is no environment {env_id!r}{_nearest_ids(env_id)}") from error
        except gym.error.DependencyNotInstalled as error:
            raise UserError(f"{env_id} needs a package that is not installed: {error}") from error
        except Exception as error:
            raise UserError(f"{env_id} could not be made with {options}: {type(error).__name__}: {error}") from error


def _nearest_ids(env_id: str) -> str:
    by_lower = {known.lower(): known for known in gym.registry}
    close = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.5)
    return f"; the nearest are {', '.join(by_lower[name] for name in close)}" if close else ""


def make_vector(task: Task, num_envs: int, vectorization: Vectorization = "auto") -> VectorEnv[Any, Any, Any]:
    """`num_envs` copies of the task side by side, with NEXT_STEP autoreset; each step may overwrite its observations.

    Raises:
        UserError: where `native` is asked for and Gymnasium has no vector class of this environment, or its
            autoreset is of another kind.
    """
    spec = gym.spec(task.id)
    native = spec.vector_entry_point is not None and not task.id.startswith("phys2d/")  # those need JAX
    if vectorization == "native" and not native:
        raise UserError(f"{task.id} has no vector class of its own: use env.vectorization=sync")
    if vectorization == "native" or (vectorization == "auto" and native and num_envs >= NATIVE_FROM):
        envs = _make_native(task, num_envs)
    else:
        makers = [lambda: make_single(task.id, task.kwargs, checked=False)] * num_envs
        envs = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)  # observe copies
    mode = envs.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        envs.close()
        raise UserError(f"{task.id} resets by {mode}: only NEXT_STEP is supported; use env.vectorization=sync")
    return envs


def _make_native(task: Task, num_envs: int) -> VectorEnv[Any, Any, Any]:
    try:
        return gym.make_vec(task.id, num_envs, vectorization_mode="vector_entry_point", **task.kwargs)
    except Exception as error:
        raise UserError(
            f"the vector class of {task.id} could not be made with {task.kwargs}: {type(error).__name__}: {error}; "
            "use env.vectorization=sync"
        ) from error


def _stretch(space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale [inputs] that stretch the components narrower than [−1, 1] to it and leave the others alone.

    MountainCar's velocity stays within ±0.07: unstretched, a network with unit-scale weights would hardly see it.
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore"):  # some bounds are the largest float
        width = high - low
    narrow = (width > 0) & (width < 2)
    low, width = np.where(narrow, low, 0.0), np.where(narrow, width, 2.0)
    return np.where(narrow, low + width / 2, 0.0), 2.0 / width
