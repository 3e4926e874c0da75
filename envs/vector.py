"""Many copies of a task side by side: in one process, in many, or in a NumPy class of the environment's own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from agent.common.errors import UserError, words_of
from envs.atari import is_played_as_in_the_papers
from envs.atari_vector import KNOWN, STRETCH, AtariVector
from envs.episodes import Repeatable
from envs.failure import BrokenEnvironmentError, authors_lines, is_stop
from envs.global_random import SeedsGlobalGenerators, seed_global_generators
from envs.kinds import Env, Envs
from envs.make import Task
from envs.masks import OFF
from envs.native import GuardedVector, check_copies
from envs.processes import Processes
from envs.serial import Serial
from envs.wrapping import BARE

Vectorization = Literal["auto", "sync", "async", "native"]

#: From this many copies on, one NumPy environment of many is faster than many of one (25 µs a step, whatever the size).
NATIVE_FROM = 4
#: The same of Atari's games, in C++: 0.38 ms of CPU a step, against 0.46 one by one and 0.8 in processes.
ATARI_FROM = 2
#: Where vector classes come from that need no checks.
TRUSTED = ("gymnasium.", "envs.")


def make_vector(
    task: Task,
    num_envs: int,
    vectorization: Vectorization = "auto",
    seed: int = 0,
    render_mode: str | None = None,
) -> Envs:
    """`num_envs` copies of the task side by side, with NEXT_STEP autoreset; each step may overwrite its observations.

    `auto` is the environment's own vector class, or ale-py's for Atari as the papers play it, where there is one and it
    pays, else one process. Processes pay where a step of one environment takes longer than about 0.1 ms; what they play
    is the same, bit for bit, but for numbers that environments draw from `np.random` and `random`: `seed` is of these,
    for each process on its own. With a render mode, which no vector class has, copies draw when they are asked to.

    Raises:
        UserError: where `native` is asked for and there is no vector class of this environment, or its autoreset is of
            another kind, or a process dies while its environment is made.
    """
    obstacle = _obstacle(task)
    if vectorization == "native" and obstacle is not None:
        raise UserError(f"{task.id} has no vector class of its own{obstacle}: use env.vectorization=sync or async")
    enough = ATARI_FROM if is_played_as_in_the_papers(gym.spec(task.id), task.kwargs) else NATIVE_FROM
    if vectorization != "async":  # they play in this process
        seed_global_generators(seed)
    if vectorization == "native" or (vectorization == "auto" and obstacle is None and num_envs >= enough):
        envs = _make_native(task, num_envs)
    elif vectorization == "async":
        processes = [_Maker(gym.spec(task.id), task, seed, copy, render_mode) for copy in range(num_envs)]
        envs = Processes(task.id, processes, task.observe.space, task.action_space)
    else:
        envs = Serial([partial(_make_copy, task, render_mode=render_mode)] * num_envs, task.id)
    try:
        check_copies(task.id, envs, task.observe.space, task.action_space)
        mode = (envs.metadata or {}).get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise UserError(f"{task.id} resets by {mode}: only NEXT_STEP is supported; use env.vectorization=sync")
    except UserError:
        envs.close()
        raise
    return envs


def note_on_global_draws(task: Task, envs: Envs) -> str | None:
    """What a person should know where environments draw from generators that belong to nobody, and share a process."""
    return draws_of(task, envs) if task.draws_globally else None


def draws_of(task: Task, envs: Envs) -> str | None:
    """`note_on_global_draws` of environments that were found to draw so later."""
    if isinstance(envs, Processes):
        return None
    return (
        f"{task.id} draws from np.random or random, whose numbers its copies share: they are seeded, but not the same "
        "after a resume; with its own self.np_random, or with env.vectorization=async, they are"
    )


def begin_step(envs: Envs, actions: np.ndarray) -> Callable[[], tuple[object, ...]]:
    """Begins a step where environments can step by themselves; what is returned ends it and gives what `step` gives."""
    if not hasattr(envs, "step_async"):
        return partial(envs.step, actions)
    envs.step_async(actions)
    wait: Callable[[], tuple[object, ...]] = envs.step_wait  # type: ignore[attr-defined]
    return wait


def _obstacle(task: Task) -> str | None:
    """What keeps a task from a vector class of its own, in words, none where it has none at all; None: nothing does."""
    spec = gym.spec(task.id)
    if task.action_mask != OFF:
        return " with env.action_mask"
    if task.wrapping != BARE and (spec.vector_entry_point is not None or is_played_as_in_the_papers(spec, task.kwargs)):
        return f" with {task.wrapping.first}"
    if is_played_as_in_the_papers(spec, task.kwargs):
        others = sorted(task.kwargs.keys() - KNOWN)
        return f" that knows env.kwargs.{others[0]}" if others else None
    if spec.vector_entry_point is None or spec.namespace in ("phys2d", "ALE"):  # which needs JAX; frames of one's own
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
            f"the vector class of {task.id} could not be made with {task.kwargs}: {words_of(error)}; "
            "use env.vectorization=sync",
            authors_lines(error),
        ) from error
    return made if type(made).__module__.startswith(TRUSTED) else GuardedVector(made, task.id)


def _make_copy(
    task: Task,
    spec: gym.envs.registration.EnvSpec | None = None,
    alone: bool = False,
    render_mode: str | None = None,
) -> Repeatable:
    """A copy of the task, made by its id or by its spec, which can be brought back to where it was.

    It is without Gymnasium's wrapper that looks at each step whether there was a reset: 0.2 µs, and there always was.
    """
    made = outer = task.make(render_mode, spec)
    emulator = made.spec is not None and str(made.spec.entry_point).startswith("ale_py")
    while isinstance(outer, gym.Wrapper):
        if isinstance(outer.env, gym.wrappers.OrderEnforcing):
            outer.env = outer.env.env
        outer = outer.env
    return Repeatable(SeedsGlobalGenerators(made) if alone else made, STRETCH if emulator else 0)


@dataclass(frozen=True)
class _Maker:
    """Makes one copy in a process of its own."""

    spec: gym.envs.registration.EnvSpec  # with it, a process that knows no registered ids can make one
    task: Task
    seed: int
    copy: int
    render_mode: str | None = None

    def __call__(self) -> Env:
        seed_global_generators(self.seed, self.copy)
        return _make_copy(self.task, self.spec, True, self.render_mode)
