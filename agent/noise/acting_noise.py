"""The noise that acts: fresh at every step, or held until the next update or the end of an episode."""

from typing import Any

import numpy as np
import torch

from agent.common.arrays import as_array, choose
from agent.config.algorithm import NoiseConfig
from agent.noise.distributions import NoiseModel
from agent.noise.streams import noise_stream


class ActingNoise:
    """One row of noise for each environment, by `agent.noise.hold`; none of it for the first `mean_envs`.

    Args:
        model: how noise is drawn.
        config: how long it is held, and who does without.
        seed: of the draws.
        device: where they are made.
    """

    def __init__(
        self, model: NoiseModel, config: NoiseConfig, seed: np.random.SeedSequence, device: torch.device
    ) -> None:
        self._config, self._device = config, device
        self._stream = noise_stream(model, seed, device)
        self.held: Any = None  # [E, size]; on the CPU an array
        self._since = -1  # the number of updates when it was drawn

    def __call__(self, begins: np.ndarray, updates: int) -> Any:
        """The noise [E, size] of this step; None where there is none.

        Args:
            begins: bool [E], which environments begin an episode.
            updates: how many there have been.
        """
        hold, held = self._config.hold, self.held
        if hold == "update" and held is not None and self._since == updates > 0:
            return held
        if hold == "episode" and held is not None and not begins.any():
            return held
        drawn: Any = self._stream.draw_array(len(begins))
        mean_envs = min(self._config.mean_envs, len(begins) - 1)  # at least one explores
        if drawn is not None and mean_envs:
            drawn[:mean_envs] = 0.0
        if hold == "episode" and held is not None and drawn is not None:
            drawn = choose(begins, drawn, held)
        self.held, self._since = drawn, updates
        return drawn

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold."""
        held = None if self.held is None else torch.as_tensor(self.held)
        return {"held": held, "since": self._since, "stream": self._stream.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave, from whatever device."""
        self.held = None if state["held"] is None else as_array(state["held"].to(self._device))
        self._since = state["since"]
        self._stream.load_state(state["stream"])
