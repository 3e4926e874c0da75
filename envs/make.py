"""Gymnasium environments for value learning: found by id, checked, vectorised. NumPy in, NumPy out."""

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agent.errors import UserError
from agent.observation import ObservationSpec
from envs.observations import Observer, observer_of

Vectorization = Literal["auto", "sync", "native"]

#: From this many copies on, one NumPy environment of many is faster than many of one (25 µs a step, whatever the size).
NATIVE_FROM = 4


@dataclass(frozen=True)
class Task:
    """What an agent has to know of an environment."""

    id: str
    kwargs: dict[str, Any]
    observe: Observer  # makes arrays of what the environment observes
    actions: int  # actions are first_action, first_action + 1, …
    first_action: int
    threshold: float | None  # the return at which Gymnasium calls the task solved
    fps: int
    renders: bool  # whether it can give frames

    @property
    def observation(self) -> ObservationSpec:
        """What the agent stores of an observation."""
        return self.observe.spec


def load_task(env_id: str, kwargs: Mapping[str, Any]) -> Task:
    """Makes the environment once and checks that a value-based agent can play it.

    Raises:
        UserError: for an unknown id (with the nearest ones), wrong arguments, or spaces that are not supported.
    """
    env = make_single(env_id, kwargs)
    try:
        actions = env.action_space
        if not isinstance(actions, gym.spaces.Discrete):
            raise UserError(
                f"{env_id} has actions {actions}: this agent chooses among Discrete actions; "
                "for continuous ones use a policy-gradient or actor-critic library"
            )
        spec = env.spec
        return Task(
            id=env_id if spec is None else spec.id,
            kwargs=dict(kwargs),
            observe=observer_of(env_id, env.observation_space),
            actions=int(actions.n),
            first_action=int(actions.start),
            threshold=None if spec is None else spec.reward_threshold,
            fps=int(env.metadata.get("render_fps") or 30),
            renders="rgb_array" in (env.metadata.get("render_modes") or ()),
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
