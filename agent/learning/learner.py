"""Samples batches and makes the updates that the replay ratio requires."""

from collections.abc import Iterator

from agent.common.seeding import Generator
from agent.learning.dqn import DQN
from agent.learning.gradient import UpdateMetrics
from agent.replay.rings import AnyReplay


class Learner:
    """Samples batches from the replay and updates the agent with them.

    Args:
        agent: the agent that learns.
        replay: holds the transitions.
        seed: the seed of the run, which determines the batches.
    """

    def __init__(self, agent: DQN, replay: AnyReplay, seed: int) -> None:
        self._agent, self._replay, self._config = agent, replay, agent.config
        self.generator: Generator = replay.place.generator(seed, "replay")

    def due(self, step: int) -> int:
        """The number of updates that are due at `step`: exactly replay_ratio for each step since learning started."""
        config, ratio = self._config, self._config.replay_ratio  # a Fraction, so that only the floor rounds
        return (step - config.learning_starts) * ratio.numerator // ratio.denominator - self._agent.updates

    def owes(self, step: int) -> bool:
        """Whether updates are due at `step` and can be made; none can while the replay is empty."""
        return self.due(step) > 0 and len(self._replay) > 0

    def __call__(self, step: int) -> Iterator[UpdateMetrics]:
        """Makes the updates that are due at `step`, one by one; none while the replay is empty."""
        if self.owes(step):
            yield from self._updates(self.due(step), self._config.priority.beta_at(step))

    def _updates(self, count: int, beta: float) -> Iterator[UpdateMetrics]:
        for batch, weight, rows in self._replay.samples(count, self._config.batch_size, beta, self.generator):
            metrics = self._agent.update(batch, weight)
            self._replay.update_priorities(rows, metrics.priority)
            yield metrics
