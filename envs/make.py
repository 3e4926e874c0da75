"""Finds a Gymnasium environment by its id, checks it for value learning, and makes it. NumPy in, NumPy out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError
from agent.common.kinds import PlainData
from agent.common.observation import ObservationSpec
from envs.actions import PlainActions, checked_actions
from envs.atari import frame_stack
from envs.bounds import check_bounds
from envs.channels import BoxChannels
from envs.first_step import find_masks, play_first_step
from envs.global_random import isolated, state_of_global_generators
from envs.guarded import Guarded, guarded
from envs.kinds import Env, Space
from envs.masks import AUTO, OFF, with_masks
from envs.observations import Observer
from envs.observed_parts import observer_for
from envs.packages import channels_of_package
from envs.rules import check_space
from envs.single import UnknownEnvironmentError, make_single
from envs.video import frames_per_second
from envs.wrapping import BARE, Wrapping


@dataclass(frozen=True)
class Task:
    """Everything that an agent has to know about an environment."""

    id: str
    kwargs: PlainData
    observe: Observer  # makes arrays of the environment's observations
    actions: int  # actions are first_action, first_action + 1, …
    first_action: int
    threshold: float | None  # the return at which Gymnasium calls the task solved
    fps: int
    render_modes: tuple[str, ...]  # rgb_array returns frames; human opens a window
    time_limit: int | None = None  # steps after which an episode is truncated; None: the environment's own limit
    action_dtype: np.dtype = np.dtype(np.int64)  # noqa: RUF009 (a dtype cannot be changed)
    plain_actions: bool = False  # it accepts only Python ints as actions
    action_mask: str = OFF  # the source of action masks, never `auto`; observations include the masks
    draws_globally: bool = False  # it draws from the global generators np.random or random
    wrapping: Wrapping = BARE  # the wrappers around it
    eval_kwargs: dict[str, object] = field(default_factory=dict)  # values of kwargs that differ in evaluations

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Its actions, as a space."""
        return gym.spaces.Discrete(self.actions, start=self.first_action, dtype=self.action_dtype.type)

    def make(self, render_mode: str | None = None, spec: gym.envs.registration.EnvSpec | None = None) -> Env:
        """One environment, to be stepped with actions from `to_environment`.

        Args:
            render_mode: Gymnasium's render mode; None: it draws nothing.
            spec: Gymnasium's entry of the environment, for a process without the registered ids.

        Raises:
            UserError: if it cannot be made.
        """
        source = self.id if spec is None else spec
        wrappers = self.wrapping, self.action_mask
        env = make_single(source, self.kwargs, render_mode, self.time_limit, *wrappers)
        return PlainActions(env) if self.plain_actions else env

    def make_guarded(self, render_mode: str | None = None) -> Guarded:
        """As `make`, with an environment whose errors and broken rules become one sentence."""
        return Guarded(self.make(render_mode), self.id)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """The agent's actions [n], which count from 0, as members of the environment's action space."""
        return (actions + self.first_action).astype(self.action_dtype, copy=False)

    def for_evaluation(self) -> "Task":
        """The task as evaluations play it."""
        return replace(self, kwargs={**self.kwargs, **self.eval_kwargs}) if self.eval_kwargs else self

    @property
    def renders(self) -> bool:
        """Whether it can return frames."""
        return "rgb_array" in self.render_modes

    @property
    def observation(self) -> ObservationSpec:
        """The form in which the agent stores an observation."""
        return self.observe.spec


def load_task(
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None = None,
    channels: BoxChannels = "auto",
    wrapping: Wrapping = BARE,
    action_mask: str = OFF,
) -> Task:
    """Makes the environment once, plays its first step, and checks that a value-based agent can play it.

    Args:
        env_id: as Gymnasium knows it.
        kwargs: the arguments of the environment's constructor.
        time_limit: steps after which an episode is truncated; None for the environment's own limit, if it has one.
        channels: the dimension of images that holds the channels, see `envs.channels`.
        wrapping: the wrappers around it.
        action_mask: the source of masks of its actions: off, info.<key>, observation.<key>, or auto, which finds it.

    Raises:
        UserError: the id is unknown (the nearest ids are named), an argument is wrong, a space is not supported, or the
            environment breaks a rule of Gymnasium.
    """
    with isolated(0):
        env = make_single(env_id, kwargs, None, time_limit, wrapping, action_mask)
        try:
            return _task(env, env_id, kwargs, time_limit, channels, wrapping, action_mask)
        finally:
            env.close()


def _task(
    env: Env,
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None,
    channels: BoxChannels,
    wrapping: Wrapping,
    action_mask: str,
) -> Task:
    spec = env.spec
    env_id = env_id if spec is None else spec.id
    action_space, observed = _spaces(env, env_id)
    with guarded(env_id, "action_space"):
        actions = checked_actions(action_space, env_id)
    before, first_observation = state_of_global_generators(), None
    if action_mask == AUTO:
        env, action_mask, first_observation = find_masks(env, env_id)
        observed = env.observation_space
    channels = channels_of_package(env_id) if channels == "auto" else channels
    stack = 1 if wrapping.changes_observations else frame_stack(env)
    inner = observed.spaces[0] if action_mask != OFF and isinstance(observed, gym.spaces.Tuple) else observed
    observe = observer_for(env_id, inner, stack, channels, wrapping.frames)
    observe = observe if action_mask == OFF else with_masks(observe, observed, int(actions.n))
    plain_actions = play_first_step(Guarded(env, env_id), observe, actions, first_observation)
    metadata = env.metadata if isinstance(env.metadata, Mapping) else {}
    return Task(
        id=env_id,
        kwargs=dict(kwargs),
        observe=observe,
        actions=int(actions.n),
        first_action=int(actions.start),
        threshold=None if spec is None else _threshold(spec.reward_threshold),
        fps=frames_per_second(metadata.get("render_fps")),
        render_modes=_render_modes(metadata.get("render_modes")),
        time_limit=time_limit,
        action_mask=action_mask,
        action_dtype=np.dtype(actions.dtype),
        plain_actions=plain_actions,
        draws_globally=state_of_global_generators() != before,
        wrapping=wrapping,
    )


def _spaces(env: Env, env_id: str) -> tuple[Space, Space]:
    """The action space and the observation space."""
    found: dict[str, Space] = {}
    for name in ("action_space", "observation_space"):
        with guarded(env_id, name):
            found[name] = check_space(name, getattr(env, name, None))
    return found["action_space"], found["observation_space"]


def _threshold(value: object) -> float | None:
    """The return at which a task counts as solved, if it is a finite number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _render_modes(modes: object) -> tuple[str, ...]:
    modes = [modes] if isinstance(modes, str) else modes
    return tuple(mode for mode in modes if isinstance(mode, str)) if isinstance(modes, Iterable) else ()


def load_saved_task(
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None = None,
    channels: BoxChannels = "auto",
    wrapping: Wrapping = BARE,
    action_mask: str = OFF,
) -> Task:
    """As `load_task`, for a task that a saved run or agent names. No package is imported: only the user may name one.

    Raises:
        UserError: as `load_task`, or an argument exceeds the bounds for files.
    """
    check_bounds(env_id, kwargs)
    try:
        return load_task(env_id, kwargs, time_limit, channels, wrapping, action_mask)
    except UnknownEnvironmentError as error:
        raise UserError(f"{error}; if it belongs to another package, name that with imports=<package>") from None
