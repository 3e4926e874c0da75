"""Gymnasium's types, of any observations and actions: which ones an environment has is known only when it is made."""

from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

Env: TypeAlias = gym.Env[Any, Any]
Envs: TypeAlias = VectorEnv[Any, Any, Any]
Space: TypeAlias = gym.Space[Any]
Wrapper: TypeAlias = gym.Wrapper[Any, Any, Any, Any]
ObservationWrapper: TypeAlias = gym.ObservationWrapper[Any, Any, Any]
Info: TypeAlias = dict[str, object]
ActionWrapper: TypeAlias = gym.ActionWrapper[Any, Any, Any]
EnvsWrapper: TypeAlias = VectorWrapper[Any, Any, Any]
