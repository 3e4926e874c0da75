"""The noise for acting: a new draw at every step, or one draw that is held for longer."""

from typing import Literal

import numpy as np
import torch

from agent.common.arrays import Array, Place, choose
from agent.common.state import State
from agent.noise.distributions import NoiseModel
from agent.noise.streams import noise_stream

Hold = Literal["step", "update", "episode"]


class ActingNoise:
    """One row of noise for each environment; the rows of the first `mean_envs` environments are 0.

    Args:
        model: how noise is drawn.
        hold: how long a draw is held (`agent.noise.hold`): one step, until the next update, or one episode.
        mean_envs: how many environments act with the mean network.
        seed: the seed of the draws.
        device: the device that makes the draws.
        least_exploring: how many environments explore in any case.
    """

    def __init__(
        self,
        model: NoiseModel,
        hold: Hold,
        mean_envs: int,
        seed: np.random.SeedSequence,
        device: torch.device,
        least_exploring: int = 1,
    ) -> None:
        self._hold, self._mean_envs, self._place = hold, mean_envs, Place(device)
        self._least_exploring = least_exploring
        self._stream = noise_stream(model, seed, device)
        self.held: Array | None = None  # [E, size]
        self._drawn_at = -1  # the number of updates when `held` was drawn

    def __call__(self, begins: np.ndarray, updates: int) -> Array | None:
        """Returns the noise [E, size] for this step; None for a network without noise.

        Args:
            begins: bool [E], which environments begin an episode.
            updates: the number of updates so far.
        """
        hold, held = self._hold, self.held
        # Before the first update, each step takes a new draw.
        if hold == "update" and held is not None and updates > 0 and self._drawn_at == updates:
            return held
        if hold == "episode" and held is not None and not begins.any():
            return held
        drawn: Array | None = self._stream.draw(len(begins))
        mean_envs = self.mean_envs(len(begins))
        if drawn is not None and mean_envs:
            drawn[:mean_envs] = 0.0
        if hold == "episode" and held is not None and drawn is not None:
            drawn = choose(begins, drawn, held)
        self.held, self._drawn_at = drawn, updates
        return drawn

    def mean_envs(self, count: int) -> int:
        """How many of `count` environments act with the mean network; they are the first ones."""
        return min(self._mean_envs, count - self._least_exploring)

    def exploring(self, count: int, resets: np.ndarray | None = None) -> np.ndarray:
        """Which of `count` environments act with noise, bool [count]; `resets` [count] only reset, and do not act."""
        explores = np.arange(count) >= self.mean_envs(count)
        return explores if resets is None else explores & ~resets

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds."""
        return {"held": self.held, "since": self._drawn_at, "stream": self._stream.state()}

    def load_state(self, state: State) -> None:
        """Restores `state`, which may come from another device."""
        self.held = None if state["held"] is None else self._place.put(state["held"])
        self._drawn_at = state["since"]
        self._stream.load_state(state["stream"])
