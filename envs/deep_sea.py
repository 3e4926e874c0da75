"""DeepSea, a measure of exploration (Osband et al. 2019, arXiv 1703.07608).

It is the same as in bsuite (arXiv 1908.03568), except that a mapping_seed draws another assignment of the actions.

A diver starts at the top left of an N×N grid and sinks one row per step, left or right: one sequence of actions in 2^N
reaches the treasure at the bottom right. Each move right costs 0.01/N, so that the reward leads away from the treasure.
"""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.kinds import Info

DEEP_SEA = "DeepSea-v0"
MOVE_COST = 0.01
TREASURE = 1.0
#: Allowed numbers of rows: bsuite has up to 50. A network's first layer has weights for each of the N² cells.
SIZES = range(2, 201)


class DeepSeaVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` divers in NumPy, with NEXT_STEP autoreset.

    Observations are one-hot, bool [N²], row by row; all zero after the last step. Which of the two actions means right
    is drawn once for each cell, by `mapping_seed` alone. An episode has N steps and ends by termination.

    Args:
        num_envs: number of divers.
        size: N, rows and columns.
        stochastic: a move right fails with probability 1/N, and N(0, 1) is added to the reward of a last step in
            the first or the last column.
        mapping_seed: seed of the actions' meanings.
    """

    metadata: dict[str, object] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    state_attributes = ("_row", "_column", "_ended")  # the whole state, besides np_random

    def __init__(self, num_envs: int = 1, size: int = 10, stochastic: bool = False, mapping_seed: int = 0) -> None:
        if not isinstance(size, int | np.integer) or size not in SIZES:
            raise ValueError(f"size is {size!r}: DeepSea has from {SIZES[0]} to {SIZES[-1]} rows, a whole number")
        self.num_envs, self.size, self.stochastic = num_envs, int(size), bool(stochastic)
        self.single_observation_space = gym.spaces.Box(0, 1, (self.size**2,), np.bool_)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        mapping = np.random.Generator(np.random.PCG64(mapping_seed))
        self.right = mapping.integers(2, size=(self.size, self.size))  # which action means right, by row and column
        self._row = np.zeros(num_envs, dtype=np.int64)
        self._column = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, Info]:
        """Puts all divers at the top left; `seed` is for the random moves and rewards, if there are any."""
        super().reset(seed=seed, options=options)
        self._row[:], self._column[:], self._ended[:] = 0, 0, False
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Moves each diver a row down; one whose episode has ended is put at the top left instead."""
        size, fresh = self.size, self._ended
        row, column = np.where(fresh, 0, self._row), np.where(fresh, 0, self._column)
        right = np.asarray(actions) == self.right[row, column]
        last = row == size - 1
        reward = np.where(right, -MOVE_COST / size, 0.0) + TREASURE * (right & (column == size - 1))
        moves = right
        if self.stochastic:
            noise = self.np_random.standard_normal(self.num_envs)
            reward += noise * (last & ((column == 0) | (column == size - 1)))
            moves = right & (self.np_random.random(self.num_envs) > 1.0 / size)
        step = np.where(moves, 1, np.where(right, 0, -1))
        self._row = np.where(fresh, 0, row + 1)
        self._column = np.where(fresh, 0, (column + step).clip(0, size - 1))
        self._ended = last & ~fresh
        reward[fresh] = 0.0
        return self._observe(), reward, self._ended.copy(), np.zeros(self.num_envs, dtype=bool), {}

    def _observe(self) -> np.ndarray:
        hot: np.ndarray = (self._row * self.size + self._column)[:, None] == np.arange(self.size**2)
        return hot & (self._row < self.size)[:, None]


class DeepSea(gym.Env[np.ndarray, np.int64]):
    """One diver: see DeepSeaVector."""

    metadata: dict[str, object] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, size: int = 10, stochastic: bool = False, mapping_seed: int = 0, render_mode: str | None = None
    ) -> None:
        self._sea = DeepSeaVector(1, size, stochastic, mapping_seed)
        self.observation_space, self.action_space = self._sea.single_observation_space, self._sea.single_action_space
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, Info]:
        """Puts the diver at the top left."""
        super().reset(seed=seed)
        observation, info = self._sea.reset()
        self._sea.np_random = self.np_random
        return observation[0], info

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Moves the diver a row down."""
        observation, reward, terminated, truncated, info = self._sea.step(np.array([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


def register() -> None:
    """Makes the id known to Gymnasium."""
    if DEEP_SEA not in gym.registry:
        gym.register(
            DEEP_SEA,
            entry_point="envs.deep_sea:DeepSea",
            vector_entry_point="envs.deep_sea:DeepSeaVector",
            reward_threshold=TREASURE - MOVE_COST,
        )
