"""Streams of draws: an accelerator uses its own generator, and the CPU uses a table of quantiles."""

from math import prod

import numpy as np
import torch
from torch import Tensor

from agent.common.state import State
from agent.noise.distributions import NoiseModel, quantile, signed_sqrt


class DeviceNoise:
    """A stream of draws from the generator of an accelerator."""

    def __init__(self, model: NoiseModel, seed: np.random.SeedSequence, device: torch.device | str) -> None:
        self.model, self._device = model, torch.device(device)
        self._generator = torch.Generator(device=self._device)
        self._generator.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    def draw(self, *shape: int) -> Tensor | None:
        """The next draw [*shape, model.size]; None if the model has no noise."""
        return self.model.draw(*shape, generator=self._generator, device=self._device)

    def generators(self) -> list[torch.Generator]:
        """The generators on the device, for CUDA graphs."""
        return [self._generator]

    def state(self) -> dict[str, object]:
        """The position of the stream, for a checkpoint."""
        return {"kind": self._device.type, "generator": self._generator.get_state()}

    def load_state(self, state: State) -> None:
        """Restores `state`. A state from another kind of device is ignored: the stream starts anew from its seed."""
        if state["kind"] == self._device.type:
            self._generator.set_state(state["generator"])


class TableNoise:
    """A stream of draws on the CPU: 16 random bits select one of 2¹⁶ quantiles, several times as fast as torch draws.

    The table holds the quantiles at (i + ½)/2¹⁶, scaled to variance 1, with f already applied. The Kolmogorov distance
    to the continuous distribution is at most 2⁻¹⁵.
    """

    SIZE = 2**16
    BLOCK = 2**14  # how many numbers are drawn ahead; small draws are slices of the block

    def __init__(self, model: NoiseModel, seed: np.random.SeedSequence) -> None:
        self.model = model
        self._bits = np.random.SFC64(seed)
        self._before = self._bits.state  # the state of the generator before it drew the block
        self._block, self._used = np.empty(0, dtype=np.float32), 0
        middles = (torch.arange(self.SIZE, dtype=torch.float64, device="cpu") + 0.5) / self.SIZE
        values = quantile(middles, model.distribution)
        values /= values.square().mean().sqrt()
        self._table = (signed_sqrt(values) if model.factorised else values).float().numpy()

    def draw(self, *shape: int) -> np.ndarray | None:
        """The next draw [*shape, model.size]; None if the model has no noise."""
        count = prod(shape) * self.model.size
        if count == 0:
            return None
        if self._used + count > len(self._block):
            self._draw_block(self.BLOCK if 4 * count < self.BLOCK else count)
        self._used += count
        return self._block[self._used - count : self._used].reshape(*shape, self.model.size)

    def _draw_block(self, count: int) -> None:
        self._before = self._bits.state
        picks = self._bits.random_raw(-(-count // 4)).view(np.uint16)[:count]  # four to a 64-bit word
        self._block, self._used = self._table.take(picks, mode="wrap"), 0  # the fastest mode; no pick is out of range

    def generators(self) -> list[torch.Generator]:
        """An empty list: this stream does not use torch's generators."""
        return []

    def state(self) -> dict[str, object]:
        """The position of the stream, for a checkpoint."""
        return {"kind": "table", "bits": self._before, "block": len(self._block), "taken": self._used}

    def load_state(self, state: State) -> None:
        """Restores `state`. A state from an accelerator is ignored: the stream starts anew from its seed."""
        if state["kind"] == "table":
            self._bits.state = state["bits"]
            self._draw_block(state["block"])
            self._used = state["taken"]


NoiseStream = DeviceNoise | TableNoise


def noise_stream(model: NoiseModel, seed: np.random.SeedSequence, device: torch.device | str) -> NoiseStream:
    """The fastest stream of draws for a device."""
    return TableNoise(model, seed) if torch.device(device).type == "cpu" else DeviceNoise(model, seed, device)
