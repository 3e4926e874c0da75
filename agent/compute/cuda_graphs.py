"""CUDA graphs: work on the device that is recorded once and then launched as one unit, however many kernels it has.

A recording holds kernels and addresses, not Python. A recorded function must therefore keep four rules. It reads and
writes tensors at fixed addresses. It never waits for a result from the device. It does nothing on the host that each
replay would have to repeat. It draws random numbers only from the generators that `Graph` knows: each replay then
advances them, as the function itself would.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from agent.common.errors import UserError
from agent.learning.dqn import DQN
from agent.learning.gradient import UpdateMetrics
from agent.learning.learner import Learner
from agent.learning.policy import TorchPolicy
from agent.networks.q_network import QNetwork
from agent.replay.ring import Replay

#: The number of calls before the recording, in which libraries choose kernels and allocate memory. Their results count.
WARM_UP = 3

R = TypeVar("R")


class Graph(Generic[R]):
    """A function without arguments as a CUDA graph: the first calls run it, and later calls replay its recording.

    The result stays at one address; the next call overwrites it.

    Args:
        function: keeps the rules at the top of this file.
        generators: the generators from which the function draws.
        name: the name of the function in messages.

    Raises:
        UserError: at the call that records, if the function cannot be recorded.
    """

    def __init__(self, function: Callable[[], R], generators: Sequence[torch.Generator], name: str) -> None:
        self._function, self._generators, self._name = function, generators, name
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: R | None = None
        self._calls = 0

    def __call__(self) -> R:
        """The result of the function."""
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._warm_up()
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()
        return cast(R, self._result)

    def _warm_up(self) -> R:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._function()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch register the generators themselves
            for generator in self._generators:
                graph.register_generator_state(generator)
        try:
            # The outer context restores the current stream even if the recording fails.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                self._result = self._function()
        except RuntimeError as error:
            # After a failed operation the end of the recording fails as well; the first error is the context.
            reason = str(error.__context__ or error).partition("\n")[0]
            raise UserError(f"{self._name} could not be recorded ({reason:.300}): use cuda_graphs=off") from error
        return graph


class GraphedFunction(Generic[R]):
    """A function that acts and draws nothing, as a CUDA graph: each call copies its tensors to the graph's inputs.

    It records a new graph when shapes change, or when a tensor takes the place of None.
    """

    def __init__(self, function: Callable[..., R]) -> None:
        self._function = function
        self._kinds: tuple[object, ...] | None = None
        self._inputs: list[Tensor | None] = []

    def __call__(self, *arguments: Tensor | None) -> R:
        """The result of the function for the arguments; the next call overwrites it."""
        kinds = tuple(None if a is None else (a.shape, a.dtype) for a in arguments)
        if kinds != self._kinds:
            self._kinds, self._inputs = kinds, [None if a is None else a.clone() for a in arguments]
            self._graph = Graph(lambda: self._function(*self._inputs), (), "acting")
        else:
            for place, argument in zip(self._inputs, arguments, strict=True):
                if place is not None and argument is not None:
                    place.copy_(argument)
        return self._graph()


class GraphedPolicy(TorchPolicy):
    """A TorchPolicy whose forward pass is one CUDA graph."""

    def __init__(self, network: QNetwork) -> None:
        super().__init__(network)
        self._graphed = GraphedFunction(super().greedy)

    def greedy(self, observation: Tensor, noise: Tensor | None) -> Tensor:
        """See TorchPolicy."""
        return self._graphed(observation, noise)


class GraphedLearner(Learner):
    """A Learner whose whole update, from sampling a batch to its new priorities, is one CUDA graph.

    Numbers that change between updates (the learning rate, β, the number of transitions) are on the device, where the
    graph reads them.
    """

    def __init__(self, agent: DQN, replay: Replay, seed: int) -> None:
        super().__init__(agent, replay, seed)
        assert isinstance(self.generator, torch.Generator)
        self._ring = replay
        self._beta = torch.zeros((), dtype=torch.float64, device=replay.place.device)
        self._graph = Graph(self._device_update, [self.generator, *agent.generators()], "the update")

    def _updates(self, count: int, beta: float) -> Iterator[UpdateMetrics]:
        self._beta.fill_(beta)
        for _ in range(count):
            self._agent.before_update()
            metrics = self._graph().clone()  # the next replay overwrites it
            self._agent.after_update()
            yield UpdateMetrics(*metrics)

    def _device_update(self) -> Tensor:
        """One update on the device; loss, norm and (for weighted rows) mean priority as one tensor [2 or 3]."""
        batch, weight, rows = self._ring.sample_to_learn(self._config.batch_size, self._beta, self.generator)
        loss, norm, priority = self._agent.learn(batch, weight)
        self._ring.update_priorities(rows, priority)
        values = (loss, norm) if priority is None else (loss, norm, priority.mean())
        return torch.stack([torch.as_tensor(value, device=self._agent.device) for value in values])
