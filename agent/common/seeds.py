"""One seed, split once into independent streams. Worker processes of environments import this without torch."""

from typing import Final

import numpy as np

#: The streams of a run. The order is fixed: new streams are appended, so that older runs keep theirs.
STREAMS: Final = (
    "initialisation",  # the initial parameters
    "acting",  # noise of the acting network
    "update",  # noise of the learning network
    "replay",  # which transitions are sampled
    "exploration",  # warm-up actions and the coins of ε-greedy
    "environments",  # seeds of the training's episodes
    "evaluation",  # seeds of the evaluation episodes
    "diagnostics",  # noise and batches of metrics
    "test",  # seeds of the episodes of evaluate.py, which differ from those that chose the best agent
    "quantiles",  # the levels of implicit quantiles in updates
    "actors",  # seeds of the actors: each incarnation splits its seed into the streams above
    "global",  # torch's global generator, from which encoders, heads and environments of a user's own may draw
)


def seed_sequence(seed: int, stream: str, *key: int) -> np.random.SeedSequence:
    """The SeedSequence of one stream. `key`, such as a step, splits it further."""
    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), *key))


def environment_seeds(seed: int, stream: str, count: int, *key: int) -> list[int]:
    """`count` seeds below 2³¹ for Gymnasium's reset; the first n do not depend on count."""
    numbers = seed_sequence(seed, stream, *key).generate_state(count, np.uint32)
    return [int(number) & 0x7FFF_FFFF for number in numbers]


class EpisodeSeeds:
    """The seeds of the episodes of one copy of an environment. The n-th one depends only on (seed, copy, n).

    Args:
        seed: the seed of the run.
        copy: the index of the copy among those of a vector environment.
    """

    BLOCK = 64  # seeds that are made at once: making one alone takes as long as a short episode

    def __init__(self, seed: int, copy: int) -> None:
        self._key, self._block, self._seeds = (seed, copy), -1, list[int]()

    def __call__(self, number: int) -> int:
        """The seed of episode `number`, below 2³¹."""
        block, place = divmod(number, self.BLOCK)
        if block != self._block:
            seed, copy = self._key
            self._block, self._seeds = block, environment_seeds(seed, "environments", self.BLOCK, copy, block)
        return self._seeds[place]
