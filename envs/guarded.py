"""An environment that does what Gymnasium asks, or ends in one sentence; and closing, which never ends anything."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import gymnasium as gym

from agent.common.notices import tell_once
from envs.failure import failed, text
from envs.rules import admitted, number_of, truth_of, unpacked

#: How long environments are given to close, all of one kind together.
CLOSE_SECONDS = 5.0
TOO_LONG = f"it takes longer than {CLOSE_SECONDS:.0f} s"


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """Passes on what an environment gives where it is what Gymnasium asks for, or does no harm.

    Raises:
        UserError: from every method, where it fails or gives something else.
    """

    def __init__(self, env: gym.Env[Any, Any], env_id: str) -> None:
        super().__init__(env)
        self.env_id = env_id
        with guarded(env_id, "observation_space"):
            self._space = env.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; info as it came."""
        with guarded(self.env_id, "reset"):
            observation, info = unpacked("reset", self.env.reset(seed=seed, options=options))
            return admitted(self._space, observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; info as it came."""
        with guarded(self.env_id, "step"):
            observation, reward, terminated, truncated, info = unpacked("step", self.env.step(action))
            ended = truth_of("terminated", terminated), truth_of("truncated", truncated)
            return admitted(self._space, observation), number_of(reward), *ended, info

    def render(self) -> Any:
        """A picture, or nothing."""
        with guarded(self.env_id, "render"):
            return self.env.render()

    def close(self) -> None:
        """Closes it, and tells in a line where that fails."""
        close_all([self.env], self.env_id)


@contextmanager
def guarded(env_id: str, place: str) -> Iterator[None]:
    """Makes one sentence of whatever a call into an environment raises; Ctrl-C goes through."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: an environment does not end a run
        raise failed(env_id, place, error) from error


def close_all(envs: Iterable[Any], env_id: str) -> None:
    """Closes environments; those that fail or hang are told of in one line, and nothing ends."""
    deadline = time.monotonic() + CLOSE_SECONDS
    for env in envs:
        if failure := failure_of_closing(env, max(0.05, deadline - time.monotonic())):
            tell_once(f"{env_id} failed in close: {failure}")


def failure_of_closing(env: Any, seconds: float | None = None) -> str | None:
    """Closes an environment, and says in words what went wrong; it is left alone when the time is up."""
    try:
        with _limit(seconds):
            env.close()
    except KeyboardInterrupt:
        raise
    except _TimeUpError:
        return TOO_LONG
    except BaseException as error:
        return text(error)
    return None


class _TimeUpError(BaseException):
    """No Exception: an environment that hangs may catch these."""


@contextmanager
def _limit(seconds: float | None) -> Iterator[None]:
    """Raises an error in what is done inside when it takes too long, where the system has such alarms."""
    alarms = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not alarms:
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # again, should it be caught
        raise _TimeUpError

    before, left = signal.signal(signal.SIGALRM, ring), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
