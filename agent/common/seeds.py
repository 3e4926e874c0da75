"""One seed, split once into independent streams, by NumPy alone: worker processes of environments need no torch."""

from typing import Final

import numpy as np

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
    "actors",  # of each incarnation of an actor: it splits its own seed into the streams above
)


def seed_sequence(seed: int, stream: str, *key: int) -> np.random.SeedSequence:
    """The SeedSequence of one stream; `key` (a step, say) splits it further."""
    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), *key))


def environment_seeds(seed: int, stream: str, count: int, *key: int) -> list[int]:
    """`count` seeds for Gymnasium's reset, below 2³¹; the first n do not depend on count."""
    numbers = seed_sequence(seed, stream, *key).generate_state(count, np.uint32)
    return [int(number) & 0x7FFF_FFFF for number in numbers]


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
