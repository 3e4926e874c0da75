"""Gymnasium's types. An environment has its own kinds of observations and actions, known only once it is made."""

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

#: An array, a number or a text, or a dict or tuple of observations; of one environment, or of a batch.
Observation: TypeAlias = Any
#: A member of an action space, or a batch of them.
Action: TypeAlias = Any
#: Further values that an environment reports after a reset or a step.
Info: TypeAlias = dict[str, Any]

#: Observations, rewards, terminations, truncations and infos of a vector step.
StepResult: TypeAlias = tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Info]

Env: TypeAlias = gym.Env[Observation, Action]
Envs: TypeAlias = VectorEnv[Observation, Action, Any]
Space: TypeAlias = gym.Space[Observation]
Wrapper: TypeAlias = gym.Wrapper[Observation, Action, Observation, Action]
ObservationWrapper: TypeAlias = gym.ObservationWrapper[Observation, Action, Observation]
ActionWrapper: TypeAlias = gym.ActionWrapper[Observation, Action, Action]
EnvsWrapper: TypeAlias = VectorWrapper[Observation, Action, Any]
