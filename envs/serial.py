"""Steps copies of an environment one after the other in one process: Gymnasium's SyncVectorEnv with less overhead."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate

from agent.common.errors import UserError
from agent.common.foreign import is_stop
from envs.episodes import RepeatableCopies
from envs.failure import RuleError, failed
from envs.global_random import seed_global_generators
from envs.guarded import guarded
from envs.kinds import Env, Info, Observation
from envs.rules import NUMBER_TYPES, as_bool, as_number, check_equal, checked_observation, life_lost, unpacked


class Serial(RepeatableCopies, SyncVectorEnv):
    """A SyncVectorEnv with NEXT_STEP autoreset; for actions that are numbers [E], its results are the same.

    Observations are a buffer that the next step overwrites. Infos hold `life_lost` alone, bool [E], at steps at which
    any environment reports it.

    Args:
        makers: one for each copy, which makes it.
        env_id: the environment's id, for error messages.

    Raises:
        UserError: from every method, if an environment fails or breaks a rule of Gymnasium.
    """

    def __init__(self, makers: Sequence[Callable[[], Env]], env_id: str = "the environment") -> None:
        self._id = env_id
        copies: list[Env] = []
        try:
            for make in makers:
                copies.append(make())
            for name in ("observation_space", "action_space"):
                with guarded(env_id, name):
                    check_equal(name, [getattr(env, name) for env in copies])
            iterator = iter(copies)
            super().__init__([lambda: next(iterator)] * len(copies), copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        except BaseException:
            for env in copies:
                env.close()
            raise
        self._is_box = isinstance(self.single_observation_space, gym.spaces.Box)
        self._has_parts = isinstance(self.single_observation_space, gym.spaces.Dict | gym.spaces.Tuple)
        self._shape, buffer = self.single_observation_space.shape, self._observations
        # With [i, ...] a single number is a view, too.
        self._rows = [buffer[i, ...] for i in range(self.num_envs)] if self._is_box else []

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, object] | None = None
    ) -> tuple[Observation, Info]:
        """Resets all environments, the i-th with seed + i, and seeds the global generators with it as well."""
        if isinstance(seed, int):
            seed_global_generators(seed)
            seed = [seed + i for i in range(self.num_envs)]
        self._autoreset_envs = np.zeros(self.num_envs, bool)
        infos: Info = {}
        for i, (env, own_seed) in enumerate(zip(self.envs, seed or [None] * self.num_envs, strict=True)):
            result: object = None
            try:
                result = self._env_obs[i], info = env.reset(seed=own_seed, options=options)
            except BaseException as error:
                if is_stop(error):
                    raise
                raise self._failed("reset", error, result) from error
            self._note_life(infos, info, i)
        return self._batch("reset"), infos

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Steps all environments; one whose episode has ended is reset instead, with reward 0."""
        infos: Info = {}
        rewards = np.zeros(self.num_envs)
        terminations, truncations = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        observations, resets = self._env_obs, self._autoreset_envs.tolist()
        method, result = "step", None  # type: tuple[str, object]
        try:
            for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
                if resets[i]:
                    method = "reset"
                    result = observations[i], info = env.reset()
                    method = "step"
                else:
                    result = observations[i], reward, terminated, truncated, info = env.step(action)
                    rewards[i] = reward if type(reward) in NUMBER_TYPES else as_number(reward)
                    if terminated is not False:
                        terminations[i] = as_bool("terminated", terminated)
                    if truncated is not False:
                        truncations[i] = as_bool("truncated", truncated)
                if type(info) is not dict or info:  # other types may have no truth value
                    self._note_life(infos, info, i)
        except BaseException as error:
            if is_stop(error):
                raise
            raise self._failed(method, error, result) from error
        self._autoreset_envs = terminations | truncations
        return self._batch("step"), rewards, terminations, truncations, infos

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of every copy; they share the global generators."""
        seed_global_generators(seed, number)
        super().begin_episodes(seed, number)

    def call_each(self, name: str, arguments: Sequence[tuple[object, ...]]) -> list[object]:
        """Calls a method of every copy, each with its own arguments, and returns the results."""
        with guarded(self._id, "an episode that is played again"):
            return [
                getattr(env, name)(*call_arguments) for env, call_arguments in zip(self.envs, arguments, strict=True)
            ]

    def call_one(self, copy: int, name: str, *arguments: object) -> object:
        """Calls a method of one copy, and returns its result."""
        return getattr(self.envs[copy], name)(*arguments)

    def _note_life(self, infos: Info, info: object, i: int) -> None:
        life_was_lost = life_lost(info)
        if life_was_lost is not None:
            infos.setdefault("life_lost", np.zeros(self.num_envs, bool))[i] = life_was_lost

    def _batch(self, method: str) -> object:
        """The environments' observations as one batch."""
        observations: Sequence[Observation] = self._env_obs
        if self._has_parts:  # `concatenate` drops superfluous parts
            return self._checked_batch(method)
        try:
            if not self._is_box:
                self._observations = concatenate(self.single_observation_space, observations, self._observations)
                return self._observations
            for row, observation in zip(self._rows, observations, strict=True):
                if observation.shape != self._shape:
                    break
                np.copyto(row, observation, casting="same_kind")
            else:
                return self._observations
        except Exception:  # `checked_observation` finds the reason
            pass
        return self._checked_batch(method)

    def _checked_batch(self, method: str) -> object:
        """The batch if an observation deviates from its space: the deviation is harmless, or raises an error."""
        space = self.single_observation_space
        try:
            observations = [checked_observation(space, observation) for observation in self._env_obs]
            self._observations = concatenate(space, observations, self._observations)
        except Exception as error:
            raise failed(self._id, method, error) from error
        return self._observations

    def _failed(self, method: str, error: BaseException, result: object) -> UserError:
        """The error to raise; if it was raised in this file, `result` cannot be unpacked or holds no number."""
        if error.__traceback__ is not None and error.__traceback__.tb_next is None and result is not None:
            try:
                values = unpacked(method, result)
                if method == "step":
                    as_number(values[1])
            except RuleError as rule_error:
                error = rule_error
        return failed(self._id, method, error)
