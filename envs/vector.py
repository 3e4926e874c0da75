"""Many copies of a task side by side: in one process, in many, or in a NumPy class of the environment's own."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from agent.common.errors import UserError
from envs.atari import is_played_as_in_the_papers
from envs.atari_vector import KNOWN, STRETCH, AtariVector
from envs.episodes import Repeatable, RepeatableCopies
from envs.make import Task
from envs.serial import Serial

Vectorization = Literal["auto", "sync", "async", "native"]

#: From this many copies on, one NumPy environment of many is faster than many of one (25 µs a step, whatever the size).
NATIVE_FROM = 4
#: The same of Atari's games, in C++: 0.38 ms of CPU a step, against 0.46 one by one and 0.8 in processes.
ATARI_FROM = 2
#: How long worker processes are given to close their environments before they are killed.
CLOSE_SECONDS = 5.0


def make_vector(task: Task, num_envs: int, vectorization: Vectorization = "auto") -> VectorEnv[Any, Any, Any]:
    """`num_envs` copies of the task side by side, with NEXT_STEP autoreset; each step may overwrite its observations.

    `auto` is the environment's own vector class, or ale-py's for Atari as the papers play it, where there is one and it
    pays, else one process. Processes pay where a step of one environment takes longer than about 0.1 ms; what they play
    is the same, bit for bit.

    Raises:
        UserError: where `native` is asked for and there is no vector class of this environment, or its autoreset is of
            another kind, or a process dies while its environment is made.
    """
    obstacle = _obstacle(task)
    if vectorization == "native" and obstacle is not None:
        raise UserError(f"{task.id} has no vector class of its own{obstacle}: use env.vectorization=sync or async")
    enough = ATARI_FROM if is_played_as_in_the_papers(gym.spec(task.id), task.kwargs) else NATIVE_FROM
    if vectorization == "native" or (vectorization == "auto" and obstacle is None and num_envs >= enough):
        envs = _make_native(task, num_envs)
    elif vectorization == "async":
        envs = Processes(task, num_envs)
    else:
        envs = Serial([partial(_make_copy, task)] * num_envs)
    mode = envs.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        envs.close()
        raise UserError(f"{task.id} resets by {mode}: only NEXT_STEP is supported; use env.vectorization=sync")
    return envs


def begin_step(envs: VectorEnv[Any, Any, Any], actions: np.ndarray) -> Callable[[], tuple[Any, ...]]:
    """Begins a step where environments can step by themselves; what is returned ends it and gives what `step` gives."""
    if not hasattr(envs, "step_async"):
        return partial(envs.step, actions)
    envs.step_async(actions)
    wait: Callable[[], tuple[Any, ...]] = envs.step_wait  # type: ignore[attr-defined]
    return wait


def _obstacle(task: Task) -> str | None:
    """What keeps a task from a vector class of its own, in words, none where it has none at all; None: nothing does."""
    spec = gym.spec(task.id)
    if is_played_as_in_the_papers(spec, task.kwargs):
        others = sorted(task.kwargs.keys() - KNOWN)
        return f" that knows env.kwargs.{others[0]}" if others else None
    if spec.vector_entry_point is None or spec.namespace in ("phys2d", "ALE"):  # which needs JAX; frames of one's own
        return ""
    return None if task.time_limit is None else " with env.time_limit"


def _make_native(task: Task, num_envs: int) -> VectorEnv[Any, Any, Any]:
    spec = gym.spec(task.id)
    try:
        if is_played_as_in_the_papers(spec, task.kwargs):
            return AtariVector(num_envs, spec, task.kwargs, task.time_limit)
        return gym.make_vec(task.id, num_envs, vectorization_mode="vector_entry_point", **task.kwargs)
    except Exception as error:
        raise UserError(
            f"the vector class of {task.id} could not be made with {task.kwargs}: {type(error).__name__}: {error}; "
            "use env.vectorization=sync"
        ) from error


@dataclass(frozen=True)
class _Maker:
    """Makes one copy; in a worker process, which Ctrl-C and SIGTERM reach too, it leaves the ending to the trainer."""

    spec: gym.envs.registration.EnvSpec  # with it, a process that knows no registered ids can make one
    task: Task
    trainer: int  # process id

    def __call__(self) -> gym.Env[Any, Any]:
        if os.getpid() != self.trainer:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
        return _make_copy(self.task, self.spec)


def _make_copy(task: Task, spec: gym.envs.registration.EnvSpec | None = None) -> Repeatable:
    """A copy of the task, made by its id or by its spec, which can be brought back to where it was."""
    made = task.make(spec=spec)
    emulator = made.spec is not None and str(made.spec.entry_point).startswith("ale_py")
    return Repeatable(made, STRETCH if emulator else 0)


def _work(*arguments: Any) -> None:
    """Gymnasium's worker; where the trainer is gone, there is nobody to tell of the pipe that broke."""
    with suppress(BrokenPipeError):
        _async_worker(*arguments)


class Processes(RepeatableCopies, AsyncVectorEnv):
    """A process for each copy. It ends in one sentence when one of them dies, and leaves none of them behind.

    Signals are the trainer's: a first Ctrl-C lets it finish the step and save. However it ends, the processes end with
    it: they are closed at its exit, and where it is killed their pipes close.

    Raises:
        UserError: from every method, where a process has died.
    """

    def __init__(self, task: Task, num_envs: int) -> None:
        self._id = task.id
        maker = _Maker(gym.spec(task.id), task, os.getpid())
        context = "fork" if sys.platform == "linux" else "spawn"  # a fork does not import everything again
        atexit.register(self.close)  # before the exit handler of multiprocessing, which would wait for them for ever
        with self._deaths():
            options: dict[str, Any] = {"context": context, "worker": _work, "autoreset_mode": AutoresetMode.NEXT_STEP}
            super().__init__([maker] * num_envs, copy=False, **options)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all environments, the i-th with seed + i."""
        with self._deaths():
            return super().reset(seed=seed, options=options)

    def step_async(self, actions: np.ndarray) -> None:
        """Has all environments begin a step."""
        with self._deaths():
            super().step_async(actions)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """What that step gave."""
        with self._deaths():
            return super().step_wait(timeout)

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What a method of every copy gives for arguments of its own; all work at the same time."""
        with self._deaths():
            for pipe, given in zip(self.parent_pipes, arguments, strict=True):
                pipe.send(("_call", (name, given, {})))
            results, successes = zip(*[pipe.recv() for pipe in self.parent_pipes], strict=True)
            self._raise_if_errors(successes)
        return list(results)

    @contextmanager
    def _deaths(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            time.sleep(0.05)  # for the system to say how it ended
            codes = {i: p.exitcode for i, p in enumerate(self.processes) if not p.is_alive()}
            self.close()
            raise UserError(
                f"the process of {_which(codes)} of {self._id} has died: the environment itself fails, or the memory "
                "is full; env.vectorization=sync shows more of it"
            ) from error

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Asks every process to close its environment, and kills those that do not."""
        atexit.unregister(self.close)
        pipes, processes = getattr(self, "parent_pipes", ()), getattr(self, "processes", ())
        for pipe in pipes:
            with suppress(OSError, AttributeError):  # it is closed, or gone since its environment failed
                pipe.send(("close", None))
        deadline = time.monotonic() + (0.0 if terminate else CLOSE_SECONDS if timeout is None else timeout)
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in pipes:
            if pipe is not None:
                pipe.close()


def _which(codes: dict[int, int | None]) -> str:
    """The first environment whose process has ended, and by what, in words."""
    for i, code in codes.items():
        return f"environment {i}" + (f" (killed by signal {-code})" if code is not None and code < 0 else "")
    return "an environment"
