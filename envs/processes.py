"""A process for each copy of an environment."""

import atexit
import errno
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, create_shared_memory, read_from_shared_memory

from agent.common.errors import UserError
from agent.common.notices import tell_once
from envs.closing import CLOSE_SECONDS
from envs.episodes import RepeatableCopies
from envs.failure import BrokenEnvironmentError
from envs.kinds import Env, Envs, Info, Observation, Space
from envs.worker import Copy, work


class Processes(RepeatableCopies, Envs):
    """Copies side by side with NEXT_STEP autoreset. Observations are a buffer that the next step overwrites.

    Infos hold `life_lost` alone. The trainer handles signals: at a first Ctrl-C it finishes the step and saves. The
    processes end with the trainer, however it ends.

    Args:
        env_id: the environment's id, for error messages.
        makers: one for each copy, which makes it in its process.
        space: the observation space of a copy.
        actions: the action space of a copy.

    Raises:
        UserError: from every method, if an environment fails or breaks a rule, or its process has died; no process
            is left then.
    """

    def __init__(
        self,
        env_id: str,
        makers: Sequence[Callable[[], Env]],
        space: Space,
        actions: gym.spaces.Discrete,
    ) -> None:
        self._id, self.num_envs = env_id, len(makers)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = space, actions
        self.observation_space, self.action_space = (batch_space(value, self.num_envs) for value in (space, actions))
        self._resets = np.zeros(self.num_envs, dtype=bool)
        self.parent_pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        # Runs before the exit handler of multiprocessing, which would wait for the processes forever.
        atexit.register(self.close)
        with self._process_deaths():
            try:
                self._start(makers)
            except OSError as error:
                self.close(terminate=True)
                raise _start_error(self.num_envs, error) from error
            self._results()

    def _start(self, makers: Sequence[Callable[[], Env]]) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # a fork is faster
        self._memory = create_shared_memory(self.single_observation_space, self.num_envs, context)
        for number, make in enumerate(makers):
            parent_end, child_end = context.Pipe()
            self.parent_pipes.append(parent_end)
            spaces = self.single_observation_space, self.single_action_space
            copy = Copy(number, self._id, make, *spaces, self._memory)
            inherited = list(self.parent_pipes) if sys.platform == "linux" else []
            process = context.Process(target=work, args=(copy, child_end, inherited, os.getpid()), daemon=True)
            process.start()
            self.processes.append(process)
            child_end.close()

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Resets all environments, the i-th with seed + i."""
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        self._resets = np.zeros(self.num_envs, dtype=bool)
        lost = self._call_all("reset", [(copy_seed, options) for copy_seed in seeds])
        return self._observed(), self._life_loss(lost)

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Steps all environments; one whose episode has ended is reset instead, with reward 0."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        """Makes all environments begin a step."""
        with self._process_deaths():
            for pipe, action, resets in zip(self.parent_pipes, actions, self._resets.tolist(), strict=True):
                pipe.send(("reset", (None, None)) if resets else ("step", (action,)))

    def step_wait(self) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """The result of that step."""
        with self._process_deaths():
            results = self._results()
        were_resets = self._resets.tolist()
        rows = [
            (0.0, False, False, result) if reset else result for reset, result in zip(were_resets, results, strict=True)
        ]
        rewards, terminated, truncated, lost = zip(*rows, strict=True)
        ended = np.array(terminated, dtype=bool), np.array(truncated, dtype=bool)
        self._resets = ended[0] | ended[1]
        return self._observed(), np.array(rewards), *ended, self._life_loss(lost)

    def call_each(self, name: str, arguments: Sequence[tuple[object, ...]]) -> list[object]:
        """Calls a method of every copy, each with its own arguments, at the same time; returns the results."""
        return self._call_all("call", [(name, call_arguments) for call_arguments in arguments])

    def call_one(self, copy: int, name: str, *arguments: object) -> object:
        """Calls a method of one copy, and returns its result."""
        with self._process_deaths():
            self.parent_pipes[copy].send(("call", (name, arguments)))
            return self._results([self.parent_pipes[copy]])[0]

    def _call_all(self, command: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        with self._process_deaths():
            for pipe, call_arguments in zip(self.parent_pipes, arguments, strict=True):
                pipe.send((command, call_arguments))
            return self._results()

    def _results(self, pipes: Sequence[Connection] | None = None) -> list[object]:
        """The answers of all processes, or of some.

        Raises:
            BrokenEnvironmentError: for the first failure among them.
        """
        answers = [pipe.recv() for pipe in pipes or self.parent_pipes]
        for succeeded, failure in answers:
            if not succeeded:
                self.close()
                raise BrokenEnvironmentError(*failure)
        return [result for _, result in answers]

    def _observed(self) -> object:
        return read_from_shared_memory(self.single_observation_space, self._memory, self.num_envs)

    def _life_loss(self, lost: Sequence[bool | None]) -> dict[str, object]:
        if all(value is None for value in lost):
            return {}
        return {"life_lost": np.array([bool(value) for value in lost])}

    @contextmanager
    def _process_deaths(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            time.sleep(0.05)  # until the system knows how it ended
            codes = {i: process.exitcode for i, process in enumerate(self.processes) if not process.is_alive()}
            self.close()
            raise UserError(
                f"the process of {_dead_environment(codes)} of {self._id} has died: the environment itself fails, or "
                "the memory is full; env.vectorization=sync shows more of it"
            ) from error

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Asks every process to close its environment, and kills those that do not."""
        atexit.unregister(self.close)
        for pipe in self.parent_pipes:
            with suppress(OSError):  # it is closed, or its process is gone
                pipe.send(("close", ()))
        deadline = time.monotonic() + (0.0 if terminate else CLOSE_SECONDS if timeout is None else timeout)
        for pipe, process in zip(self.parent_pipes, self.processes, strict=False):
            if message := _join_or_kill(pipe, process, deadline):
                tell_once(message)
        for pipe in self.parent_pipes:
            pipe.close()


def _join_or_kill(pipe: Connection, process: BaseProcess, deadline: float) -> str | None:
    """Waits for a process to end, and kills it at the deadline; returns its last message, if any."""
    message: str | None = None
    with suppress(EOFError, OSError):
        while pipe.poll(max(0.0, deadline - time.monotonic())):
            _, message = pipe.recv()  # the result of an unfinished command comes first
    process.join(max(0.0, deadline - time.monotonic()))
    if process.is_alive():
        process.kill()
        process.join()
    return message if isinstance(message, str) else None


def _dead_environment(codes: dict[int, int | None]) -> str:
    """Names the first environment whose process has ended, and the signal that killed it."""
    for i, code in codes.items():
        return f"environment {i}" + (f" (killed by signal {-code})" if code is not None and code < 0 else "")
    return "an environment"


def _start_error(count: int, error: OSError) -> UserError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        reason, advice = "the system allows too few open files", "raise the limit (ulimit -n), "
    else:
        reason, advice = f"the system refuses ({error.strerror})", ""
    advice += "lower num_envs, or use env.vectorization=sync"
    return UserError(f"{count} processes of environments cannot be started: {reason}; {advice}")
