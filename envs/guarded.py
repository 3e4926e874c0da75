"""Checks the values of an environment: it obeys Gymnasium's rules, or one sentence says how it does not."""

from typing import Any

from agent.common.foreign import is_stop
from envs.failure import failed
from envs.kinds import Env, Info, Observation, Wrapper
from envs.rules import as_bool, as_number, checked_observation, unpacked


class Guarded(Wrapper):
    """Passes on values of an environment that obey Gymnasium's rules, or break them harmlessly.

    Raises:
        UserError: from every method, if the environment fails or returns other values.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        super().__init__(env)
        self.env_id = env_id
        with guarded(env_id, "observation_space"):
            self._space = env.observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode; the info is not checked."""
        with guarded(self.env_id, "reset"):
            observation, info = unpacked("reset", self.env.reset(seed=seed, options=options))
            return checked_observation(self._space, observation), info

    def step(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        """One step; the info is not checked."""
        with guarded(self.env_id, "step"):
            observation, reward, terminated, truncated, info = unpacked("step", self.env.step(action))
            ended = as_bool("terminated", terminated), as_bool("truncated", truncated)
            return checked_observation(self._space, observation), as_number(reward), *ended, info

    def render(self) -> Any:
        """A picture, or nothing."""
        with guarded(self.env_id, "render"):
            return self.env.render()


class guarded:
    """Turns any exception of a call into an environment into one sentence, except those of Ctrl-C and a stop."""

    def __init__(self, env_id: str, method: str) -> None:
        self._env_id, self._method = env_id, method

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not is_stop(error):  # SystemExit too: an environment must not end a run
            raise failed(self._env_id, self._method, error) from error
