"""Makes many copies of a task: in one process, in many processes, or in the environment's own vector class."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from agent.common.errors import UserError, one_line
from agent.common.foreign import is_stop
from envs.atari import is_ale, is_played_as_in_the_papers
from envs.atari_vector import STRETCH_STEPS, SUPPORTED_KWARGS, AtariVector
from envs.closing import close_quietly
from envs.episodes import Repeatable
from envs.failure import BrokenEnvironmentError, authors_lines
from envs.global_random import SeedsGlobalGenerators, seed_global_generators
from envs.kinds import Env, Envs, StepResult
from envs.make import Task
from envs.masks import OFF
from envs.native import GuardedVector, check_copies
from envs.processes import Processes
from envs.serial import Serial
from envs.wrapping import BARE

Vectorization = Literal["auto", "sync", "async", "native"]

#: From this many copies on, a vector class in NumPy is faster than single environments (25 µs a step at any size).
NATIVE_FROM = 4
#: The same for Atari's C++ class: 0.38 ms of CPU a step, against 0.46 one by one and 0.8 in processes.
ATARI_FROM = 2
#: Modules whose vector classes need no checks.
TRUSTED_MODULES = ("gymnasium.", "envs.")


def make_vector(
    task: Task,
    num_envs: int,
    vectorization: Vectorization = "auto",
    seed: int = 0,
    render_mode: str | None = None,
) -> Envs:
    """`num_envs` copies of the task side by side, with NEXT_STEP autoreset; each step may overwrite its observations.

    `auto` uses the environment's own vector class (ale-py's for Atari as the papers play it) if there is one and it is
    faster, otherwise one process. Processes pay off if a step of one environment takes longer than about 0.1 ms. They
    play the same, bit for bit, except for numbers that environments draw from `np.random` and `random`, which `seed`
    seeds in each process. Copies with a render mode, which no vector class has, draw when they are asked to.

    Raises:
        UserError: if `native` is requested and there is no vector class for this environment, its autoreset mode is
            another one, or a process dies while its environment is made.
    """
    obstacle = _obstacle(task)
    if vectorization == "native" and obstacle is not None:
        raise UserError(f"{task.id} has no vector class of its own{obstacle}: use env.vectorization=sync or async")
    native_from = ATARI_FROM if is_played_as_in_the_papers(gym.spec(task.id), task.kwargs) else NATIVE_FROM
    if vectorization != "async":  # they play in this process
        seed_global_generators(seed)
    if vectorization == "native" or (vectorization == "auto" and obstacle is None and num_envs >= native_from):
        envs = _make_native(task, num_envs)
    elif vectorization == "async":
        processes = [_Maker(gym.spec(task.id), task, seed, copy, render_mode) for copy in range(num_envs)]
        envs = Processes(task.id, processes, task.observe.space, task.action_space)
    else:
        envs = Serial([partial(_make_copy, task, render_mode=render_mode)] * num_envs, task.id)
    try:
        check_copies(task.id, envs, task.observe.space, task.action_space)
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise UserError(f"{task.id} resets by {mode}: only NEXT_STEP is supported; use env.vectorization=sync")
    except UserError:
        envs.close()
        raise
    return envs


def note_on_global_draws(task: Task, envs: Envs) -> str | None:
    """A note for the user if environments draw from the global generators and share a process; otherwise None."""
    return draws_of(task, envs) if task.draws_globally else None


def draws_of(task: Task, envs: Envs) -> str | None:
    """The note on environments that draw from the global generators; None if each has a process of its own."""
    if isinstance(envs, Processes):
        return None
    return (
        f"{task.id} draws from np.random or random, whose numbers its copies share: a resumed run draws other "
        "numbers; its own self.np_random, or env.vectorization=async, avoids this"
    )


def begin_step(envs: Envs, actions: np.ndarray) -> Callable[[], StepResult]:
    """Begins a step, if the environments can step in the background; the function returned waits for its result."""
    if not hasattr(envs, "step_async"):
        return partial(envs.step, actions)
    envs.step_async(actions)
    wait: Callable[[], StepResult] = envs.step_wait  # type: ignore[attr-defined]
    return wait


def _obstacle(task: Task) -> str | None:
    """Why a task cannot use its own vector class; "" if it has none, None if it can."""
    spec = gym.spec(task.id)
    if task.action_mask != OFF:
        return " with env.action_mask"
    if task.wrapping != BARE and (spec.vector_entry_point is not None or is_played_as_in_the_papers(spec, task.kwargs)):
        return f" with {task.wrapping.first_option}"
    if is_played_as_in_the_papers(spec, task.kwargs):
        unsupported = sorted(task.kwargs.keys() - SUPPORTED_KWARGS)
        return f" that knows env.kwargs.{unsupported[0]}" if unsupported else None
    if spec.vector_entry_point is None or spec.namespace in (
        "phys2d",
        "ALE",
    ):  # these need JAX; the user chose other frames
        return ""
    return None if task.time_limit is None else " with env.time_limit"


def _make_native(task: Task, num_envs: int) -> Envs:
    spec = gym.spec(task.id)
    try:
        if is_played_as_in_the_papers(spec, task.kwargs):
            return AtariVector(num_envs, spec, task.kwargs, task.time_limit)
        made = gym.make_vec(task.id, num_envs, vectorization_mode="vector_entry_point", **task.kwargs)
    except BaseException as error:  # SystemExit too
        if is_stop(error):
            raise
        raise BrokenEnvironmentError(
            f"the vector class of {task.id} could not be made with {task.kwargs}: {one_line(error)}; "
            "use env.vectorization=sync",
            authors_lines(error),
        ) from error
    if type(made).__module__.startswith(TRUSTED_MODULES):
        return made
    try:
        return GuardedVector(made, task.id, num_envs)
    except UserError as error:
        close_quietly(made.close, task.id)
        raise BrokenEnvironmentError(f"{error}; use env.vectorization=sync", error.detail) from error


def _make_copy(
    task: Task,
    spec: gym.envs.registration.EnvSpec | None = None,
    own_process: bool = False,
    render_mode: str | None = None,
) -> Repeatable:
    """A copy of the task, made from its id or its spec, which can replay its episodes.

    It lacks Gymnasium's wrapper that checks at each step for an earlier reset, which takes 0.2 µs and never fails here.
    """
    made = wrapper = task.make(render_mode, spec)
    emulator = made.spec is not None and is_ale(made.spec)
    while isinstance(wrapper, gym.Wrapper):
        if isinstance(wrapper.env, gym.wrappers.OrderEnforcing):
            wrapper.env = wrapper.env.env
        wrapper = wrapper.env
    return Repeatable(SeedsGlobalGenerators(made) if own_process else made, STRETCH_STEPS if emulator else 0)


@dataclass(frozen=True)
class _Maker:
    """Makes one copy in its own process."""

    spec: gym.envs.registration.EnvSpec  # for a process without the registered ids
    task: Task
    seed: int
    copy: int
    render_mode: str | None = None

    def __call__(self) -> Env:
        seed_global_generators(self.seed, self.copy)
        return _make_copy(self.task, self.spec, True, self.render_mode)
