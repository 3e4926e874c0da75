"""An environment that does what Gymnasium asks, or ends in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envs.failure import failed, is_stop
from envs.kinds import Env, Info, Observation, Wrapper
from envs.rules import as_bool, as_number, checked_observation, unpacked


class Guarded(Wrapper):
    """Passes on what an environment gives where it is what Gymnasium asks for, or does no harm.

    Raises:
        UserError: from every method, where it fails or gives something else.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        super().__init__(env)
        self.env_id = env_id
        with guarded(env_id, "observation_space"):
            self._space = env.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode; info as it came."""
        with guarded(self.env_id, "reset"):
            observation, info = unpacked("reset", self.env.reset(seed=seed, options=options))
            return checked_observation(self._space, observation), info

    def step(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        """One step; info as it came."""
        with guarded(self.env_id, "step"):
            observation, reward, terminated, truncated, info = unpacked("step", self.env.step(action))
            ended = as_bool("terminated", terminated), as_bool("truncated", truncated)
            return checked_observation(self._space, observation), as_number(reward), *ended, info

    def render(self) -> Any:
        """A picture, or nothing."""
        with guarded(self.env_id, "render"):
            return self.env.render()


@contextmanager
def guarded(env_id: str, method: str) -> Iterator[None]:
    """Makes one sentence of whatever a call into an environment raises; Ctrl-C and a stop go through."""
    try:
        yield
    except BaseException as error:  # SystemExit too: an environment does not end a run
        if is_stop(error):
            raise
        raise failed(env_id, method, error) from error
