"""The noise that acts: fresh at every step, or held until the next update or the end of an episode."""

from typing import Any, Literal

import numpy as np
import torch

from agent.common.arrays import Array, Place, choose
from agent.noise.distributions import NoiseModel
from agent.noise.streams import noise_stream

Hold = Literal["step", "update", "episode"]


class ActingNoise:
    """One row of noise for each environment, by `agent.noise.hold`; none of it for the first `mean_envs`.

    Args:
        model: how noise is drawn.
        hold: how long a draw is held: one step, until the next update, or an episode.
        mean_envs: how many environments act by the mean network; at least one always explores.
        seed: of the draws.
        device: where they are made.
    """

    def __init__(
        self, model: NoiseModel, hold: Hold, mean_envs: int, seed: np.random.SeedSequence, device: torch.device
    ) -> None:
        self._hold, self._mean_envs, self._place = hold, mean_envs, Place(device)
        self._stream = noise_stream(model, seed, device)
        self.held: Array | None = None  # [E, size]
        self._since = -1  # the number of updates when it was drawn

    def __call__(self, begins: np.ndarray, updates: int) -> Array | None:
        """The noise [E, size] of this step; None where there is none.

        Args:
            begins: bool [E], which environments begin an episode.
            updates: how many there have been.
        """
        hold, held = self._hold, self.held
        if hold == "update" and held is not None and self._since == updates > 0:
            return held
        if hold == "episode" and held is not None and not begins.any():
            return held
        drawn: Array | None = self._stream.draw(len(begins))
        mean_envs = min(self._mean_envs, len(begins) - 1)
        if drawn is not None and mean_envs:
            drawn[:mean_envs] = 0.0
        if hold == "episode" and held is not None and drawn is not None:
            drawn = choose(begins, drawn, held)
        self.held, self._since = drawn, updates
        return drawn

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        return {"held": self.held, "since": self._since, "stream": self._stream.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, which may come from another device."""
        self.held = None if state["held"] is None else self._place.put(state["held"])
        self._since = state["since"]
        self._stream.load_state(state["stream"])
