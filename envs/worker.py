"""A process that plays one copy of an environment: it answers the trainer's commands, and ends with the trainer."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import write_to_shared_memory

from agent.common.errors import UserError
from agent.common.interrupt import take_charge
from agent.common.notices import tell_through
from agent.common.signals import to_handle
from envs.guarded import Guarded, guarded
from envs.kinds import Env, Space
from envs.rules import check_equal, life_lost

#: From Linux's prctl.h: sets the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


Result = TypeVar("Result")


class Copy(NamedTuple):
    """The copy that a worker plays, and the memory for its observations."""

    number: int
    env_id: str
    make: Callable[[], Env]
    space: Space  # of its observations
    actions: Space
    memory: Any  # shared between processes, for all copies' observations


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # as in the trainer, which checks what it gets
def work(copy: Copy, pipe: Connection, inherited: Sequence[Connection], trainer: int) -> None:
    """Plays a copy until the trainer sends `close` or has ended.

    Every answer is (True, result) or (False, (sentence, details)), which can always be sent.

    Args:
        copy: the copy to play.
        pipe: the connection to the trainer.
        inherited: the trainer's ends of the pipes, which a fork copied.
        trainer: the trainer's process id.
    """
    for number in to_handle():  # the trainer gets them too, and ends this process
        signal.signal(number, signal.SIG_IGN)
    take_charge()
    end_with(trainer)
    for connection in inherited:
        connection.close()
    with suppress(EOFError, OSError):  # the trainer has ended, or the environment closed the pipe: nobody can be told
        env = _answer(pipe, _make, copy)
        while env is not None:
            command, arguments = pipe.recv()
            if command == "close":
                pipe.send((True, _close(env)))
                return
            _answer(pipe, _COMMANDS[command], copy, env, *arguments)


def _answer(pipe: Connection, call: Callable[..., Result], copy: Copy, *arguments: object) -> Result | None:
    """Calls a function, sends its result and returns it; an environment is not sent."""
    try:
        with guarded(copy.env_id, "its process"):
            result = call(copy, *arguments)
    except UserError as error:
        pipe.send((False, (str(error), error.detail)))
        return None
    pipe.send((True, None if isinstance(result, gym.Env) else result))
    return result


def _close(env: Env) -> str | None:
    """Closes the environment, and returns the notice that this gave, if any. The trainer shows it once."""
    lines: list[str] = []
    tell_through(lines.append)
    env.close()
    return lines[0] if lines else None


def _make(copy: Copy) -> Env:
    env = copy.make()
    for name, space in (("observation_space", copy.space), ("action_space", copy.actions)):
        with guarded(copy.env_id, name):
            check_equal(name, [space, getattr(env, name)])
    return Guarded(env, copy.env_id)


def _reset(copy: Copy, env: Env, seed: int | None, options: dict[str, object] | None) -> bool | None:
    observation, info = env.reset(seed=seed, options=options)
    write_to_shared_memory(copy.space, copy.number, observation, copy.memory)
    return life_lost(info)


def _step(copy: Copy, env: Env, action: int) -> tuple[float, bool, bool, bool | None]:
    observation, reward, terminated, truncated, info = env.step(action)
    write_to_shared_memory(copy.space, copy.number, observation, copy.memory)
    return float(reward), terminated, truncated, life_lost(info)


def _call(copy: Copy, env: Env, name: str, arguments: tuple[object, ...]) -> object:
    return env.get_wrapper_attr(name)(*arguments)


_COMMANDS: dict[str, Callable[..., object]] = {"reset": _reset, "step": _step, "call": _call}


def end_with(trainer: int) -> None:
    """Makes the system kill this process when the trainer ends, in whatever way and at whatever moment."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
                if os.getppid() != trainer:  # it ended before the call
                    os._exit(0)
                return
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
