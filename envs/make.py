"""Gymnasium environments for value learning: found by id, checked, and made. NumPy in, NumPy out."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from envs.actions import PlainActions, checked_actions
from envs.atari import frame_stack
from envs.bounds import check_bounds
from envs.global_random import apart, state_of_global_generators
from envs.guarded import Guarded, guarded
from envs.kinds import Env, Space
from envs.masks import AUTO, OFF, found_masks, in_info, observing_masks, with_masks
from envs.observations import Observer
from envs.observed_parts import Where, observer_for
from envs.packages import channels_of_package
from envs.rules import check_space
from envs.single import UnknownEnvironmentError, make_single
from envs.video import frames_per_second
from envs.wrapping import BARE, Wrapping


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
    time_limit: int | None = None  # steps after which an episode is cut; None: the environment's own limit
    action_dtype: np.dtype = np.dtype(np.int64)  # noqa: RUF009 (a dtype cannot be changed)
    plain_actions: bool = False  # it takes Python's own whole numbers alone
    action_mask: str = OFF  # where masks of actions are found, `auto` no more; they are then observed, too
    draws_globally: bool = False  # it draws from np.random or random, which belong to nobody
    wrapping: Wrapping = BARE  # what is put around it
    eval_kwargs: dict[str, object] = field(default_factory=dict)  # other values of kwargs, for evaluations

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Its actions, as a space."""
        return gym.spaces.Discrete(self.actions, start=self.first_action, dtype=self.action_dtype.type)

    def make(self, render_mode: str | None = None, spec: gym.envs.registration.EnvSpec | None = None) -> Env:
        """One environment, to be stepped with what `to_environment` gives.

        Args:
            render_mode: None: it draws nothing.
            spec: of the environment, for a process that knows no registered ids.

        Raises:
            UserError: where it cannot be made.
        """
        made_of = self.id if spec is None else spec
        around = self.wrapping, self.action_mask
        env = make_single(made_of, self.kwargs, render_mode, False, self.time_limit, *around)
        return PlainActions(env) if self.plain_actions else env

    def make_guarded(self, render_mode: str | None = None) -> Guarded:
        """`make`, of one that gives what Gymnasium asks for or ends in one sentence."""
        return Guarded(self.make(render_mode), self.id)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """The agent's actions [n], which count from 0, as the numbers that its action space samples."""
        return (actions + self.first_action).astype(self.action_dtype, copy=False)

    def for_evaluation(self) -> "Task":
        """The task as evaluations play it."""
        return replace(self, kwargs={**self.kwargs, **self.eval_kwargs}) if self.eval_kwargs else self

    @property
    def renders(self) -> bool:
        """Whether it can give frames."""
        return "rgb_array" in self.render_modes

    @property
    def observation(self) -> ObservationSpec:
        """What the agent stores of an observation."""
        return self.observe.spec


def load_task(
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None = None,
    channels: Where = "auto",
    wrapping: Wrapping = BARE,
    action_mask: str = OFF,
) -> Task:
    """Makes the environment once, plays its first step, and checks that a value-based agent can play it.

    Args:
        env_id: as Gymnasium knows it.
        kwargs: of the environment's constructor.
        time_limit: steps after which an episode is cut; None for the environment's own limit, if it has one.
        channels: where its images have their channels, see `envs.channels`.
        wrapping: what is put around it.
        action_mask: where masks of its actions are found: off, info.<key>, observation.<key>, or auto, which finds out.

    Raises:
        UserError: for an unknown id (with the nearest ones), wrong arguments, spaces that are not supported, or what
            breaks a rule of Gymnasium.
    """
    with apart(0):
        env = make_single(env_id, kwargs, None, False, time_limit, wrapping, action_mask)
        try:
            return _task(env, env_id, kwargs, time_limit, channels, wrapping, action_mask)
        finally:
            env.close()


def _task(
    env: Env,
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None,
    channels: Any,
    wrapping: Wrapping,
    action_mask: str,
) -> Task:
    spec = env.spec
    env_id = env_id if spec is None else spec.id
    found, observed = _spaces(env, env_id)
    with guarded(env_id, "action_space"):
        actions = checked_actions(found, env_id)
    before, begun = state_of_global_generators(), None
    if action_mask == AUTO:
        env, action_mask, begun = _find_masks(env, env_id)
        observed = env.observation_space
    channels = channels_of_package(env_id) if channels == "auto" else channels
    stack = 1 if wrapping.observes else frame_stack(env)
    inner = observed.spaces[0] if action_mask != OFF and isinstance(observed, gym.spaces.Tuple) else observed
    observe = observer_for(env_id, inner, stack, channels, wrapping.frames)
    observe = observe if action_mask == OFF else with_masks(observe, observed, int(actions.n))
    plain_actions = _first_step(Guarded(env, env_id), observe, actions, begun)
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
    """The spaces of actions and of observations, which are spaces."""
    found: dict[str, Any] = {}
    for name in ("action_space", "observation_space"):
        with guarded(env_id, name):
            found[name] = getattr(env, name, None)
            check_space(name, found[name])
    return found["action_space"], found["observation_space"]


def _find_masks(env: Env, env_id: str) -> tuple[Env, str, Any]:
    """What action_mask=auto stands for: the environment with its masks, their place, and what a reset gave, if any."""
    if (found := found_masks(env)) is not None:
        return env, found, None
    observation, info = Guarded(env, env_id).reset(seed=0)
    found = in_info(info)
    return observing_masks(env, found), found, observation if found == OFF else None


def _first_step(env: Guarded, observe: Observer, actions: gym.spaces.Discrete, begun: Any) -> bool:
    """Plays a first step, which finds most of what breaks a rule.

    Args:
        env: the environment.
        observe: its observer.
        actions: its actions.
        begun: the observation of its first reset; None where there was none.

    Returns:
        Whether the environment takes only Python's own whole numbers as actions, and not NumPy's, which its action
        space samples.
    """
    action = np.dtype(actions.dtype).type(actions.start)
    plain_actions = False
    try:
        _play(env, observe, action, begun)
    except UserError:
        with suppress(UserError):
            _play(env, observe, int(action))
            plain_actions = True
        if not plain_actions:
            raise
    return plain_actions


def _play(env: Guarded, observe: Observer, action: Any, begun: Any = None) -> None:
    observation = env.reset(seed=0)[0] if begun is None else begun
    observe(observe.stack([observation]))
    if observe.spec.mask:
        action = type(action)(action + observation[1].argmax())  # the first that is allowed
    observation, *_ = env.step(action)
    observe(observe.stack([observation]))


def _threshold(named: object) -> float | None:
    """The return at which a task counts as solved, where that is a number."""
    return float(named) if isinstance(named, int | float) and math.isfinite(named) else None


def _render_modes(modes: object) -> tuple[str, ...]:
    modes = [modes] if isinstance(modes, str) else modes
    return tuple(mode for mode in modes if isinstance(mode, str)) if isinstance(modes, Iterable) else ()


def load_saved_task(
    env_id: str,
    kwargs: Mapping[str, object],
    time_limit: int | None = None,
    channels: Where = "auto",
    wrapping: Wrapping = BARE,
    action_mask: str = OFF,
) -> Task:
    """`load_task` of what a saved run or agent names; its package is for a person to name, not for a file.

    Raises:
        UserError: also where the arguments ask for more than a file may.
    """
    check_bounds(env_id, kwargs)
    try:
        return load_task(env_id, kwargs, time_limit, channels, wrapping, action_mask)
    except UnknownEnvironmentError as error:
        raise UserError(f"{error}; if it belongs to another package, name that with imports=<package>") from None
