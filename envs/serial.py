"""Copies of an environment one after the other in one process: Gymnasium's SyncVectorEnv with less work around them."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate

from agent.common.errors import UserError
from envs.episodes import RepeatableCopies
from envs.failure import RuleError, failed, is_stop
from envs.global_random import seed_global_generators
from envs.guarded import guarded
from envs.kinds import Env, Info
from envs.rules import NUMBERS, admitted, check_equal, life_lost, number_of, truth_of, unpacked


class Serial(RepeatableCopies, SyncVectorEnv):
    """A SyncVectorEnv with NEXT_STEP autoreset, which gives the same for actions that are numbers [E].

    Observations are a buffer that the next step overwrites. Of infos nothing is kept but `life_lost`, bool [E], in
    steps in which any environment says it.

    Args:
        makers: make one copy each.
        env_id: what they are, for what is said of them.

    Raises:
        UserError: from every method, where an environment fails or gives what Gymnasium does not allow.
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
        # With [i, ...] a single number is a place too.
        self._places = [buffer[i, ...] for i in range(self.num_envs)] if self._is_box else []

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, object] | None = None
    ) -> tuple[Any, Info]:
        """Resets all environments, the i-th with seed + i, and seeds the global generators with it as well."""
        if isinstance(seed, int):
            seed_global_generators(seed)
            seed = [seed + i for i in range(self.num_envs)]
        self._autoreset_envs = np.zeros(self.num_envs, bool)
        infos: dict[str, object] = {}
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

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Steps all environments; one whose episode has ended is reset instead, with reward 0."""
        rewards, infos = np.zeros(self.num_envs), {}  # type: ignore[var-annotated]
        terminations, truncations = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        observations, resets = self._env_obs, self._autoreset_envs.tolist()
        place, result = "step", None  # type: tuple[str, Any]
        try:
            for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
                if resets[i]:
                    place = "reset"
                    result = observations[i], info = env.reset()
                    place = "step"
                else:
                    result = observations[i], reward, terminated, truncated, info = env.step(action)
                    rewards[i] = reward if type(reward) in NUMBERS else number_of(reward)
                    if terminated is not False:
                        terminations[i] = truth_of("terminated", terminated)
                    if truncated is not False:
                        truncations[i] = truth_of("truncated", truncated)
                if type(info) is not dict or info:  # another kind may have no truth value
                    self._note_life(infos, info, i)
        except BaseException as error:
            if is_stop(error):
                raise
            raise self._failed(place, error, result) from error
        self._autoreset_envs = terminations | truncations
        return self._batch("step"), rewards, terminations, truncations, infos

    def begin_episodes(self, seed: int, number: int = 0) -> None:
        """The next reset begins stretch `number` of every copy; they share the global generators."""
        seed_global_generators(seed, number)
        super().begin_episodes(seed, number)

    def call_each(self, name: str, arguments: Sequence[tuple[object, ...]]) -> list[object]:
        """What a method of every copy gives for arguments of its own."""
        with guarded(self._id, "an episode that is played again"):
            return [getattr(env, name)(*given) for env, given in zip(self.envs, arguments, strict=True)]

    def call_one(self, copy: int, name: str, *arguments: object) -> object:
        """What a method of one copy gives."""
        return getattr(self.envs[copy], name)(*arguments)

    def _note_life(self, infos: dict[str, Any], info: object, i: int) -> None:
        lost = life_lost(info)
        if lost is not None:
            infos.setdefault("life_lost", np.zeros(self.num_envs, bool))[i] = lost

    def _batch(self, place: str) -> object:
        """The environments' observations side by side."""
        observations: Any = self._env_obs
        if self._has_parts:  # `concatenate` drops parts that are too many
            return self._batch_of_odd(place)
        try:
            if not self._is_box:
                self._observations = concatenate(self.single_observation_space, observations, self._observations)
                return self._observations
            for place_of, observation in zip(self._places, observations, strict=True):
                if observation.shape != self._shape:
                    break
                np.copyto(place_of, observation, casting="same_kind")
            else:
                return self._observations
        except Exception:  # `admitted` finds the reason
            pass
        return self._batch_of_odd(place)

    def _batch_of_odd(self, place: str) -> object:
        """Observations of which one is not as its space says: it does no harm, or is refused."""
        space = self.single_observation_space
        try:
            observations = [admitted(space, observation) for observation in self._env_obs]
            self._observations = concatenate(space, observations, self._observations)
        except Exception as error:
            raise failed(self._id, place, error) from error
        return self._observations

    def _failed(self, place: str, error: BaseException, result: object) -> UserError:
        """The error to raise; where it was raised here, `result` cannot be unpacked or holds no number."""
        if error.__traceback__ is not None and error.__traceback__.tb_next is None and result is not None:
            try:
                values = unpacked(place, result)
                if place == "step":
                    number_of(values[1])
            except RuleError as rule:
                error = rule
        return failed(self._id, place, error)
