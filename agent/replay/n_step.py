"""n-step transitions, computed from the rows of a ring when they are sampled."""

import numpy as np

from agent.common.arrays import Array, Place, integer, take, take_round
from agent.replay.frames import Frames

# The columns of the scalars of a row.
ACTION, REWARD, TERMINATED, STOP = range(4)


class NStep:
    """Gathers windows of n steps. A window ends early at a row whose STOP is 1, and bootstraps there with γ^k.

    Args:
        frames: the observations of the ring.
        scalars: [rows·E, 4], the other columns of the ring.
        num_envs: E.
        n_step: n.
        gamma: γ.
        place: the place of the arrays.
    """

    def __init__(self, frames: Frames, scalars: Array, num_envs: int, n_step: int, gamma: float, place: Place) -> None:
        self._frames, self._scalars, self._num_envs = frames, scalars, num_envs
        self._n_step, self._gamma = n_step, gamma
        powers = gamma ** np.arange(n_step + 1, dtype=np.float64)  # γ^0 … γ^n
        self._powers = place.put(powers.astype(np.float32))

    def transitions(self, start: Array) -> tuple[Array, ...]:
        """The fields of a Batch: the transitions that begin at the flat rows `start` [B]."""
        at = start
        row = first = take(self._scalars, start)  # [B, 4]
        reward, terminated = row[:, REWARD], row[:, TERMINATED]
        if self._n_step == 1:
            discount, after = self._gamma * (1.0 - terminated), start + self._num_envs
        else:
            going = 1.0 - row[:, STOP]  # whether the next step belongs to the window
            steps: Array | float = 1.0  # k, an array after the first iteration
            for i in range(1, self._n_step):
                at = at + self._num_envs
                row = take_round(self._scalars, at)
                reward = reward + going * row[:, REWARD] * self._gamma**i
                terminated = terminated + going * row[:, TERMINATED]
                steps, going = steps + going, going * (1.0 - row[:, STOP])
            assert not isinstance(steps, float)
            length = integer(steps)
            discount, after = take(self._powers, length) * (1.0 - terminated), start + length * self._num_envs
        return self._frames.take(start), integer(first[:, ACTION]), reward, discount, self._frames.take(after)
