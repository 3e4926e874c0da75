"""One copy of training's vector environment, used as a single environment between two training episodes.

Some environments can exist only once. An evaluation then plays in training's own copy between two of its episodes. The
training episodes do not change, since each of them begins with its own seed.
"""

from typing import Any, Protocol

from agent.common.errors import UserError
from envs.failure import BrokenEnvironmentError
from envs.guarded import Guarded
from envs.kinds import Env, Info, Observation, Space


class CallableCopies(Protocol):
    """A vector class whose copies can be called one by one."""

    single_observation_space: Space
    single_action_space: Space

    def call_one(self, copy: int, name: str, *arguments: object) -> Any:
        """Calls a method of one copy, and returns its result."""


class SharedEnv(Env):
    """The first copy, without the wrapper that counts its training episodes. The vector environment closes it.

    Raises:
        UserError: from every method, if the environment fails or breaks a rule; it can be used again.
    """

    def __init__(self, envs: CallableCopies, env_id: str) -> None:
        self._envs, self._id = envs, env_id
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space

    def is_between_episodes(self) -> bool:
        """Whether no training episode is under way, so that it may be reset."""
        is_between_episodes: bool = self._envs.call_one(0, "is_between_episodes")
        return is_between_episodes

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Begins an episode; the info is empty."""
        return self._call("reset", seed), {}

    def step(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        """One step; the info is empty."""
        return (*self._call("step", action), {})

    def render(self) -> Any:
        """A picture, if the environment was made with a render mode."""
        return self._call("render")

    def _call(self, name: str, *arguments: object) -> Any:
        succeeded, result = self._envs.call_one(0, "call_aside", self._id, name, *arguments)
        if not succeeded:
            raise BrokenEnvironmentError(*result)
        return result


def call_guarded(env: Env, env_id: str, name: str, *arguments: Any) -> tuple[bool, object]:
    """Calls a method for `SharedEnv`: (True, result) or (False, (sentence, details)), as errors end a process."""
    guarded = Guarded(env, env_id)
    try:
        match name:
            case "reset":
                return True, guarded.reset(seed=arguments[0])[0]
            case "step":
                return True, guarded.step(*arguments)[:4]
            case _:
                return True, guarded.render()
    except UserError as error:
        return False, (str(error), error.detail)
