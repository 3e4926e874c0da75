"""Gymnasium environments for value learning: found by id, checked, and made. NumPy in, NumPy out."""

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from envs.actions import PlainActions, needs_plain_actions
from envs.atari import EMULATOR, Atari, frame_stack, is_played_as_in_the_papers
from envs.closing import guard_close
from envs.minatar import MinAtar, is_minatar
from envs.observations import Observer, observer_of
from envs.packages import register
from envs.video import frames_per_second


class UnknownEnvironmentError(UserError):
    """There is no environment of this id."""


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
    render_modes: tuple[str, ...]  # rgb_array: it gives frames; human: it opens a window
    time_limit: int | None = None  # steps after which an episode is cut, besides the environment's own limit
    action_dtype: np.dtype[Any] = np.dtype(np.int64)  # noqa: RUF009 (a dtype cannot be changed)
    plain_actions: bool = False  # it takes Python's own whole numbers alone

    def make(
        self, render_mode: str | None = None, spec: gym.envs.registration.EnvSpec | None = None
    ) -> gym.Env[Any, Any]:
        """One environment, to be stepped with what `to_environment` gives.

        Args:
            render_mode: None: it draws nothing.
            spec: of the environment, for a process that knows no registered ids.

        Raises:
            UserError: where it cannot be made.
        """
        env = make_single(self.id if spec is None else spec, self.kwargs, render_mode, False, self.time_limit)
        return PlainActions(env) if self.plain_actions else env

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """The agent's actions [n], which count from 0, as the numbers that its action space samples."""
        return (actions + self.first_action).astype(self.action_dtype, copy=False)

    @property
    def renders(self) -> bool:
        """Whether it can give frames."""
        return "rgb_array" in self.render_modes

    @property
    def observation(self) -> ObservationSpec:
        """What the agent stores of an observation."""
        return self.observe.spec


def load_task(env_id: str, kwargs: Mapping[str, Any], time_limit: int | None = None) -> Task:
    """Makes the environment once and checks that a value-based agent can play it.

    Args:
        env_id: as Gymnasium knows it.
        kwargs: of the environment's constructor.
        time_limit: steps after which an episode is cut; None for the environment's own limit, if it has one.

    Raises:
        UserError: for an unknown id (with the nearest ones), wrong arguments, or spaces that are not supported.
    """
    env = make_single(env_id, kwargs, time_limit=time_limit)
    try:
        actions = env.action_space
        if not isinstance(actions, gym.spaces.Discrete):
            raise UserError(
                f"{env_id} has actions {actions}: this agent chooses among Discrete actions; "
                "for continuous ones, or several at once, use a policy-gradient or actor-critic library"
            )
        spec, metadata = env.spec, env.metadata if isinstance(env.metadata, Mapping) else {}
        return Task(
            id=env_id if spec is None else spec.id,
            kwargs=dict(kwargs),
            observe=observer_of(env_id, env.observation_space, frame_stack(env)),
            actions=int(actions.n),
            first_action=int(actions.start),
            threshold=None if spec is None else spec.reward_threshold,
            fps=frames_per_second(metadata.get("render_fps")),
            render_modes=_render_modes(metadata.get("render_modes")),
            time_limit=time_limit,
            action_dtype=actions.dtype,
            plain_actions=needs_plain_actions(env),
        )
    finally:
        env.close()


def load_saved_task(env_id: str, kwargs: Mapping[str, Any], time_limit: int | None = None) -> Task:
    """`load_task` of what a saved run or agent names; its package is for a person to name, not for a file."""
    try:
        return load_task(env_id, kwargs, time_limit)
    except UnknownEnvironmentError as error:
        raise UserError(f"{error}; if it belongs to another package, name that with imports=<package>") from None


def make_single(
    env: str | gym.envs.registration.EnvSpec,
    kwargs: Mapping[str, Any],
    render_mode: str | None = None,
    checked: bool = True,
    time_limit: int | None = None,
) -> gym.Env[Any, Any]:
    """One environment, without vectorisation; `checked` by Gymnasium's wrapper, which costs time at every step.

    Raises:
        UserError: where Gymnasium does not know the id or cannot make it.
    """
    env_id = env if isinstance(env, str) else env.id
    if not env_id:
        raise UserError("env= names no environment: write env=<id>, such as env=CartPole-v1")
    options: dict[str, Any] = dict(kwargs)
    options |= {} if render_mode is None else {"render_mode": render_mode}
    options |= {} if checked else {"disable_env_checker": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on newer versions; what is wrong comes as an exception
        register(env_id)
        try:
            made = gym.make(env, **options)
            if made.spec is not None and is_played_as_in_the_papers(made.spec, kwargs):
                made.close()
                made = Atari(gym.make(made.spec.id, **{**EMULATOR, **options}))
            elif is_minatar(made.spec):
                made = MinAtar(made)
            return guard_close(made if time_limit is None else gym.wrappers.TimeLimit(made, time_limit), env_id)
        except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound) as error:
            raise UnknownEnvironmentError(f"there is no environment {env_id!r}{_nearest_ids(env_id)}") from error
        except gym.error.DependencyNotInstalled as error:
            raise UserError(f"{env_id} needs a package that is not installed: {error}") from error
        except Exception as error:
            raise UserError(
                f"{env_id} could not be made with {dict(kwargs)}: {type(error).__name__}: {error}"
            ) from error


def _render_modes(named: Any) -> tuple[str, ...]:
    """The modes that an environment's metadata names: one, several, or anything else for none."""
    if isinstance(named, str):
        return (named,)
    return tuple(mode for mode in named if isinstance(mode, str)) if isinstance(named, Iterable) else ()


def _nearest_ids(env_id: str) -> str:
    by_lower = {known.lower(): known for known in gym.registry}
    close = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.5)
    return f"; the nearest are {', '.join(by_lower[name] for name in close)}" if close else ""
