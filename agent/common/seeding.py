"""One seed, split once into independent streams: no two parts of a run share randomness, and none uses a global RNG."""

from typing import Any, Final

import numpy as np
import torch

Generator = torch.Generator | np.random.Generator

#: The streams of a run, in a fixed order: a new one is appended, so that old runs keep theirs.
STREAMS: Final = (
    "initialisation",  # the first parameters
    "acting",  # noise of the acting network
    "update",  # noise of the learning network
    "replay",  # which transitions are sampled
    "exploration",  # warm-up actions and the coins of ε-greedy
    "environments",  # seeds of the training's episodes
    "evaluation",  # seeds of the evaluation episodes
    "diagnostics",  # noise and batches that are only looked at
    "test",  # seeds of evaluate.py's episodes: never those by which training chose its best agent
    "quantiles",  # the levels of implicit quantiles that are learned
)


def seed_sequence(seed: int, stream: str, *key: int) -> np.random.SeedSequence:
    """The SeedSequence of one stream; `key` (a step, say) splits it further."""
    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), *key))


def torch_generator(seed: int, stream: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of one stream on a device."""
    state = seed_sequence(seed, stream, *key).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state))


def state_of(generator: Generator) -> Any:
    """Where a generator stands, as a checkpoint holds it."""
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def restore(generator: Generator, state: Any) -> None:
    """Goes on where `state` stood; a state of another kind of generator is left alone, and the stream begins anew."""
    if isinstance(generator, np.random.Generator):
        if isinstance(state, dict):
            generator.bit_generator.state = state
    elif isinstance(state, torch.Tensor) and len(state) == len(generator.get_state()):
        generator.set_state(state)


def uniform(size: int, generator: Generator | None) -> np.ndarray:
    """Numbers [size] in [0, 1), float64 of 53 bits, drawn on the CPU; None: by torch's default generator."""
    if isinstance(generator, np.random.Generator):
        return generator.random(size)
    drawn: np.ndarray = torch.rand(size, dtype=torch.float64, generator=generator).numpy()
    return drawn


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """A NumPy generator of one stream."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, stream)))


def environment_seeds(seed: int, stream: str, count: int, *key: int) -> list[int]:
    """`count` seeds for Gymnasium's reset, below 2³¹; the first n do not depend on count."""
    words = seed_sequence(seed, stream, *key).generate_state(count, np.uint32)
    return [int(word) & 0x7FFF_FFFF for word in words]


class EpisodeSeeds:
    """The seeds of the episodes of one copy of an environment: the n-th depends on (seed, copy, n) alone.

    Args:
        seed: of the run.
        copy: the number of the environment among those that are played side by side.
    """

    BLOCK = 64  # seeds that are made at once: one alone takes as long as a short episode

    def __init__(self, seed: int, copy: int) -> None:
        self._key, self._block, self._seeds = (seed, copy), -1, list[int]()

    def __call__(self, number: int) -> int:
        """The seed of episode `number`, below 2³¹."""
        block, place = divmod(number, self.BLOCK)
        if block != self._block:
            seed, copy = self._key
            self._block, self._seeds = block, environment_seeds(seed, "environments", self.BLOCK, copy, block)
        return self._seeds[place]
