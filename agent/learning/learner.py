"""When the agent learns, and from what: batches of the replay, as many as the replay ratio says."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from agent.common.seeding import Generator, numpy_generator, torch_generator
from agent.compute.cuda_graphs import Graph
from agent.learning.dqn import DQN, UpdateMetrics
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.ring import Replay

#: Bytes of the batches that are gathered from a replay in one piece.
AT_ONCE = 64 * 2**20


class Learner:
    """Draws batches and updates the agent by them.

    On a device all from the draw of a batch to its new priorities is one piece of work, `_step`, which reads what
    changes from one update to the next (the step size, β, how many transitions there are) from the device: it can be
    recorded as a CUDA graph, and is the same work with and without one.

    Args:
        agent: what learns.
        replay: what it learns from.
        seed: of the draws.
    """

    def __init__(self, agent: DQN, replay: Replay, seed: int) -> None:
        self._agent, self._replay, self._config = agent, replay, agent.config
        #: On a CPU NumPy's: it draws a batch in a third of the time.
        self.generator: Generator = numpy_generator(seed, "replay")
        if not replay.by_numpy:
            self.generator = torch_generator(seed, "replay", device=replay.device)
        self._beta = torch.zeros((), device=replay.device)
        if agent.speed.compiled and not replay.by_numpy:
            replay.compile(agent.config.batch_size, agent.speed.strict)
        self._work: Callable[[], Tensor] = self._step
        if agent.speed.graphs:
            assert isinstance(self.generator, torch.Generator)
            self._work = Graph(self._step, [self.generator, *agent.generators()], "the update")

    def due(self, step: int) -> int:
        """How many updates are due at `step`: exactly replay_ratio per step since learning started."""
        config, ratio = self._config, self._config.replay_ratio  # exact: integers all the way
        return (step - config.learning_starts) * ratio.numerator // ratio.denominator - self._agent.updates

    def __call__(self, step: int) -> Iterator[UpdateMetrics]:
        """The updates that are due at `step`, one after the other, and what each saw; none before there is any data."""
        due = self.due(step) if len(self._replay) else 0
        if due > 0:
            yield from (self._on_host if self._replay.by_numpy else self._on_device)(due, step)

    def _on_host(self, due: int, step: int) -> Iterator[UpdateMetrics]:
        """Batches of a replay in the machine's memory, wherever the agent is."""
        config, agent, replay = self._config, self._agent, self._replay
        if isinstance(replay, PrioritisedReplay):
            beta = config.priority.beta_at(step)
            yield from replay.learn(due, config.batch_size, beta, agent.update, self.generator, agent.takes_arrays)
            return
        at_once = max(AT_ONCE // (config.batch_size * replay.transition_bytes), 1)
        while due > 0:
            batches = replay.sample_many(min(due, at_once), config.batch_size, self.generator, agent.takes_arrays)
            yield from map(agent.update, batches)
            due -= at_once

    def _on_device(self, due: int, step: int) -> Iterator[UpdateMetrics]:
        self._beta.fill_(self._config.priority.beta_at(step))
        for _ in range(due):
            self._agent.before_update()
            seen = self._work().clone()  # a graph writes the next ones over them
            self._agent.after_update()
            yield UpdateMetrics(*seen)

    def _step(self) -> Tensor:
        """One update, but for what the host does. What it saw: loss, norm and, with weights, mean priority [2 or 3]."""
        size, replay = self._config.batch_size, self._replay
        if not isinstance(replay, PrioritisedReplay):
            loss, norm, _ = self._agent.learn(replay.sample(size, self.generator))
            return torch.stack((loss, norm))
        batch, weight, rows = replay.sample_prioritised(size, self._beta, self.generator)
        loss, norm, priority = self._agent.learn(batch, weight)
        replay.reprioritise(rows, priority)
        return torch.stack((loss, norm, priority.mean()))
