"""The first step of an environment, which shows what its spaces alone do not."""

from contextlib import suppress

import gymnasium as gym
import numpy as np

from agent.common.errors import UserError
from envs.guarded import Guarded
from envs.kinds import Env, Observation
from envs.masks import OFF, known_mask_source, mask_source_in_info, with_observed_masks
from envs.observations import Observer


def find_masks(env: Env, env_id: str) -> tuple[Env, str, Observation]:
    """Resolves action_mask=auto: the environment with its masks, their source, and a reset's observation, if any."""
    if (found := known_mask_source(env)) is not None:
        return env, found, None
    observation, info = Guarded(env, env_id).reset(seed=0)
    found = mask_source_in_info(info)
    return with_observed_masks(env, found), found, observation if found == OFF else None


def play_first_step(
    env: Guarded, observe: Observer, actions: gym.spaces.Discrete, first_observation: Observation
) -> bool:
    """Plays a first step, which reveals most broken rules.

    Args:
        env: the environment.
        observe: its observer.
        actions: its actions.
        first_observation: the observation of its first reset; None if it was not reset.

    Returns:
        Whether the environment accepts only Python ints as actions, and not the NumPy integers that its action space
        samples.
    """
    action = np.dtype(actions.dtype).type(actions.start)
    plain_actions = False
    try:
        _play(env, observe, action, first_observation)
    except UserError:
        with suppress(UserError):
            _play(env, observe, int(action))
            plain_actions = True
        if not plain_actions:
            raise
    return plain_actions


def _play(env: Guarded, observe: Observer, action: np.integer | int, first_observation: Observation = None) -> None:
    observation = env.reset(seed=0)[0] if first_observation is None else first_observation
    observe(observe.stack([observation]))
    if observe.spec.mask:
        action = type(action)(action + observation[1].argmax())  # the first allowed action
    observation, *_ = env.step(action)
    observe(observe.stack([observation]))
