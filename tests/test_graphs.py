"""CUDA graphs: on any machine the properties that a recording needs, and graphs themselves where there is CUDA.

On the CPU a `Recording` stands in for a graph. It keeps the operations and the tensors that a function used, and runs
the same operations on the same tensors again, without Python: numbers of the host are baked in, as in a graph.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT
from making import make_agent
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.common.seeding import seed_sequence, torch_generator
from agent.compute.cuda_graphs import WARM_UP, Graph, GraphedLearner
from agent.compute.plan import TORCH, Plan
from agent.config.algorithm import AgentConfig
from agent.config.parts import ImplicitQuantileConfig, MunchausenConfig, NetworkConfig, NoiseConfig, PriorityConfig
from agent.networks.build import build_network
from agent.networks.trunks import Impala
from agent.noise.streams import DeviceNoise
from agent.replay.batch import Sample
from agent.replay.prioritised import PrioritisedReplay
from agent.replay.ring import Replay

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
ENVS, ACTIONS, ROWS = 3, 4, 8
IMAGES = ObservationSpec((2, 5, 5), "uint8", 255.0, 2)
PLAIN = AgentConfig(
    network=NetworkConfig((8, 6), layer_norm=True),
    noise=NoiseConfig(draws=4, mean_envs=1, mean_rows=0.5),
    batch_size=ROWS,
    learning_starts=ROWS,
    lr=1e-2,
    adam_eps=1e-2,  # other rounding has small effects
    lr_end=1e-4,
    lr_updates=10,
    target_every=4,
    n_step=3,
)
IMPLICIT = replace(
    PLAIN,
    head="implicit_quantile",
    implicit_quantile=ImplicitQuantileConfig(3, 2, 4, 5),
    double=False,
    munchausen=MunchausenConfig(True),
    priority=PriorityConfig(True, 0.5, 0.4, 60),
)
JOINT = replace(PLAIN, noise=replace(PLAIN.noise, learning="joint"))  # its loss depends on the noise
#: Agents whose gradient is autograd's on every device.
AGENTS = {
    "uniform": PLAIN,
    "joint learning": JOINT,
    "priorities": replace(PLAIN, priority=PriorityConfig(True, 0.5, 0.4, 60), head="categorical"),
    "implicit quantiles, Munchausen, priorities": IMPLICIT,
}


class World:
    """An agent, its replay and random transitions of its environments, which are equal in all worlds."""

    def __init__(
        self, config: AgentConfig, plan: Plan = TORCH, device: torch.device | str = "cpu", tensors: bool = True
    ) -> None:
        network = build_network(config, IMAGES, ACTIONS, torch_generator(0, "initialisation"))
        self.agent, self.plan = make_agent(network, config, ACTIONS, 0, device, plan), plan
        sizes = 60, ENVS, IMAGES
        options: dict[str, Any] = {"n_step": config.n_step, "gamma": 0.9, "device": device, "tensors": tensors}
        options["compiled"] = plan.compile(ROWS, torch.device("cuda" if tensors else "cpu"))  # compiled as on a device
        if config.priority.enabled:
            self.replay: Replay = PrioritisedReplay(*sizes, exponent=config.priority.exponent, **options)
        else:
            self.replay = Replay(*sizes, **options)
        self.learner = plan.learner(self.agent, self.replay, 0)
        self.rng, self.step = np.random.Generator(np.random.PCG64(0)), 0
        self.replay.begin(self.observe())
        self.resetting = np.zeros(ENVS, dtype=bool)

    def observe(self) -> np.ndarray:
        return self.rng.integers(256, size=(ENVS, *IMAGES.shape), dtype=np.uint8)

    def play(self) -> None:
        ended = (self.rng.random(ENVS) < 0.2) & ~self.resetting
        action, reward = self.rng.integers(ACTIONS, size=ENVS), self.rng.standard_normal(ENVS)
        self.replay.add(action, reward, ended, np.zeros(ENVS, dtype=bool), self.observe())
        self.step += ENVS - int(self.resetting.sum())
        self.resetting = ended

    def run(self, steps: int) -> list[list[float]]:
        """Plays and learns, and returns the metrics of the updates."""
        seen = []
        for _ in range(steps):
            self.play()
            seen += [[float(torch.as_tensor(x).mean()) for x in m if x is not None] for m in self.learner(self.step)]
        return seen


# ---- a stand-in for graphs


class Recording(TorchDispatchMode):
    """The interface of agent.compute.cuda_graphs.Graph: recorded at the first call, replayed at every other."""

    #: Operations that wait for the device, or whose shapes depend on values.
    ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2")

    def __init__(self, function: Callable[[], Any], generators: Sequence[torch.Generator], name: str) -> None:
        super().__init__()
        self.function, self.generators, self.result = function, generators, None
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __call__(self) -> Any:
        if not self.operations:
            with self:
                self.result = self.function()
        else:
            with torch.no_grad():
                for operation in self.operations:
                    self.again(*operation)
        return self.result

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        assert name not in self.ASKS, f"a graph cannot hold {name}"
        kwargs = kwargs or {}
        if generator := kwargs.get("generator"):
            assert generator._cdata in {known._cdata for known in self.generators}, "a generator that nobody named"
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result

    @staticmethod
    def again(function: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for place, value in zip(tree_leaves(result), tree_leaves(function(*args, **kwargs)), strict=True):
            # A result that is neither an argument nor a view of one has memory of its own.
            if isinstance(place, Tensor) and place.untyped_storage().data_ptr() not in given:
                place.detach().copy_(value)


@contextmanager
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Replaces graphs by recordings, and yields the plan for them."""
    monkeypatch.setattr("agent.compute.cuda_graphs.Graph", Recording)
    yield Plan(graphs=True)


def as_on_cuda(world: World) -> World:
    agent = world.agent
    agent._adam._lr_on_device = torch.zeros(())
    agent._adam._steps = agent._adam.state["step"]
    agent._update_stream = DeviceNoise(agent.noise, seed_sequence(0, "update"), "cpu")
    agent.acting_noise._stream = DeviceNoise(agent.noise, seed_sequence(0, "acting"), "cpu")
    world.learner = world.plan.learner(agent, world.replay, 0)
    return world


def test_batches_of_much_data_are_gathered_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are gathered one at a time are those that are gathered all at once."""
    config = replace(AGENTS["uniform"], replay_ratio=Fraction(5, 3))
    whole, pieces = World(config, tensors=False), World(config, tensors=False)
    gathered: list[int] = []
    sample_many = pieces.replay.sample_many

    def seen(count: int, *args: Any) -> Any:
        gathered.append(count)
        return sample_many(count, *args)

    monkeypatch.setattr(pieces.replay, "sample_many", seen)
    expected = whole.run(10)
    monkeypatch.setattr("agent.replay.ring.AT_ONCE", 2 * config.batch_size * 2 * IMAGES.size)  # bytes of two batches
    assert pieces.run(10) == expected
    assert len(expected) == sum(gathered) > 20
    assert set(gathered) == {1, 2}


@pytest.mark.parametrize("name", AGENTS)
def test_a_recorded_update_is_the_update(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring turns, the step size falls and β rises, so that every number must be read where it changes."""
    eager = as_on_cuda(World(AGENTS[name]))
    expected = eager.run(60)
    assert len(expected) > 60
    with recordings(monkeypatch) as plan:
        recorded = as_on_cuda(World(AGENTS[name], plan))
        assert recorded.run(60) == expected
    assert torch.equal(recorded.agent.parameters, eager.agent.parameters)
    assert torch.equal(recorded.agent._target_parameters, eager.agent._target_parameters)
    assert isinstance(recorded.learner, GraphedLearner)
    assert isinstance(recorded.learner._graph, Recording)
    assert len(recorded.learner._graph.operations) > 100


def test_every_replay_of_an_update_draws_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    still = replace(JOINT, lr=1e-30, lr_end=None, target_every=10_000)
    with recordings(monkeypatch) as plan:
        world = as_on_cuda(World(still, plan))
        for _ in range(10):
            world.play()
        world.learner._ring = OneBatch(world.replay)  # type: ignore[attr-defined]
        losses = [float(world.learner._graph()[0]) for _ in range(8)]
    assert len(set(losses)) == 8  # rows and parameters are the same, and only the noise differs


class OneBatch:
    """A replay that always gives the same rows."""

    def __init__(self, replay: Replay) -> None:
        self.batch = replay.sample(ROWS, torch.Generator().manual_seed(0))

    def sample_to_learn(self, size: int, beta: Tensor, generator: torch.Generator) -> Sample:
        return Sample(self.batch)

    def update_priorities(self, rows: None, priority: None) -> None: ...


@pytest.mark.parametrize("noise", [True, False])
def test_recorded_acting_is_acting(noise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(IMPLICIT, noise=replace(IMPLICIT.noise, enabled=noise))
    eager = as_on_cuda(World(config))
    with recordings(monkeypatch) as plan:
        recorded = as_on_cuda(World(config, plan))
        begins = np.zeros(ENVS, dtype=bool)
        chosen = []
        for _ in range(25):
            observation = eager.observe()
            action = eager.agent.act(observation, begins)
            assert (recorded.agent.act(observation, begins) == action).all()
            chosen.append(tuple(action))
        one = eager.observe()[:1]  # another number of environments needs another recording
        assert recorded.agent.act(one, begins[:1]) == eager.agent.act(one, begins[:1])
    assert len(set(chosen)) > 3


def test_a_recording_finds_what_a_graph_cannot_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        Recording(lambda: torch.ones(2).sum().item(), (), "")()
    with pytest.raises(AssertionError, match="nobody named"):
        Recording(lambda: torch.rand(2, generator=generator), (), "")()
    number = [1.0]
    baked = Recording(lambda: torch.zeros(1) + number[0], (), "")
    baked()
    number[0] = 5.0
    assert baked() == 1.0


# ---- the device's path and the host's


@pytest.mark.parametrize("name", [name for name, config in AGENTS.items() if config.priority.enabled])
def test_a_device_learns_what_the_host_learns(name: str) -> None:
    """Rows, weights, updates and priorities are the same with priorities by NumPy and by torch."""
    host, device = World(AGENTS[name], tensors=False), World(AGENTS[name])
    host.learner.generator = torch_generator(0, "replay")  # torch's generator, as on the device
    for a, b in zip(host.run(60), device.run(60), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert torch.allclose(host.agent.parameters, device.agent.parameters, rtol=1e-3, atol=1e-5)


def test_a_step_size_on_the_device_is_the_step_size() -> None:
    a, b = World(PLAIN), World(PLAIN)
    b.agent._adam._lr_on_device = torch.zeros(())
    assert np.allclose(a.run(30), b.run(30), rtol=1e-5)
    assert torch.allclose(a.agent.parameters, b.agent.parameters, rtol=1e-5, atol=1e-7)


def test_nothing_is_learned_from_an_empty_replay() -> None:
    world = World(PLAIN)
    assert list(world.learner(1_000)) == []
    world.play()
    assert world.learner.due(1_000) == len(list(world.learner(1_000))) == (1_000 - ROWS) // 2
    assert list(world.learner(1_000)) == []


# ---- graphs


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda")


GRAPHS = Plan(graphs=True)


@needs_cuda
def test_a_graph_draws_on_where_its_generator_stands(cuda: torch.device) -> None:
    """Warm-up, recording and replays draw as without a graph, also after the state of the generator is restored."""
    ours, twin = (torch.Generator(cuda).manual_seed(3) for _ in range(2))
    graph = Graph(lambda: torch.randn(100, generator=ours, device=cuda), [ours], "a draw")
    for _ in range(WARM_UP + 5):
        assert torch.equal(graph(), torch.randn(100, generator=twin, device=cuda))
    saved = ours.get_state()
    assert torch.equal(saved, twin.get_state())
    first = [graph().clone() for _ in range(3)]
    assert len({float(draw[0]) for draw in first}) == 3
    ours.set_state(saved)
    assert all(torch.equal(graph(), draw) for draw in first)


@needs_cuda
def test_what_asks_the_device_is_refused_in_one_sentence(cuda: torch.device) -> None:
    """The test has a process of its own: after a failed recording torch 2.11 records no more."""
    code = f"""
import torch
from agent.compute.cuda_graphs import Graph
graph = Graph(lambda: torch.ones(2, device="{cuda}").sum().item(), (), "the update")
for _ in range({WARM_UP + 1}):
    graph()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"UserError: the update could not be recorded .*use cuda_graphs=off", done.stderr), done.stderr


def test_the_graph_that_fails_names_the_first_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the recording fails as well, and must not hide the first error."""

    class Broken:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise RuntimeError("the end of it")

    def function() -> None:
        raise RuntimeError("an operation that waits")

    for name in ("Stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: Broken())
    with pytest.raises(UserError, match=r"could not be recorded \(an operation that waits\)"):
        Graph(function, (), "the update")._record()


@needs_cuda
@pytest.mark.parametrize("name", AGENTS)
def test_graphs_learn_what_the_same_work_learns_without(name: str, cuda: torch.device) -> None:
    eager, graphed = World(AGENTS[name], device=cuda), World(AGENTS[name], GRAPHS, cuda)
    a, b = eager.run(60), graphed.run(60)
    assert np.allclose(a, b, rtol=1e-3, atol=1e-5)
    assert torch.allclose(eager.agent.parameters, graphed.agent.parameters, rtol=1e-3, atol=1e-4)
    assert isinstance(graphed.learner, GraphedLearner)
    assert graphed.learner._graph._graph is not None
    for one, two in zip(streams(eager), streams(graphed), strict=True):
        assert torch.equal(one, two)


def streams(world: World) -> list[Tensor]:
    return [generator.get_state() for generator in [world.learner.generator, *world.agent.generators()]]


@needs_cuda
def test_every_replay_of_a_graph_draws_anew(cuda: torch.device) -> None:
    world = World(replace(JOINT, lr=1e-30, lr_end=None, target_every=10_000), GRAPHS, cuda)
    world.run(10)
    sample = torch.Generator(cuda).manual_seed(0)
    batch = world.replay.sample(ROWS, sample)
    graph = Graph(lambda: world.agent.learn(batch).loss, world.agent.generators(), "the update")
    assert len({float(graph()) for _ in range(WARM_UP + 8)}) == WARM_UP + 8


@needs_cuda
def test_a_run_with_graphs_goes_on_from_its_state(cuda: torch.device) -> None:
    one = World(AGENTS["priorities"], GRAPHS, cuda)
    one.run(30)
    other = World(AGENTS["priorities"], GRAPHS, cuda)
    other.run(8)  # it has already recorded
    other.agent.load_state(one.agent.state())
    other.replay.load_state(one.replay.state())
    other.learner.generator.set_state(one.learner.generator.get_state())
    for name in ("rng", "step", "resetting"):
        setattr(other, name, getattr(one, name))
    other.rng = np.random.Generator(np.random.PCG64(0))
    other.rng.bit_generator.state = one.rng.bit_generator.state
    assert np.allclose(one.run(20), other.run(20), rtol=1e-3, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(streams(one), streams(other), strict=True))


@needs_cuda
def test_nothing_waits_for_the_device_but_the_actions(cuda: torch.device) -> None:
    world = World(AGENTS["priorities"], GRAPHS, cuda)
    world.run(20)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            world.play()
            for _ in world.learner(world.step):
                pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("noise", [True, False])
def test_graphs_act_as_the_same_work_acts_without(noise: bool, cuda: torch.device) -> None:
    config = replace(IMPLICIT, noise=replace(IMPLICIT.noise, enabled=noise))
    eager, graphed = World(config, device=cuda), World(config, GRAPHS, cuda)
    begins = np.zeros(ENVS, dtype=bool)
    for _ in range(20):
        observation = eager.observe()
        assert (graphed.agent.act(observation, begins) == eager.agent.act(observation, begins)).all()
    one = eager.observe()[:1]
    assert graphed.agent.act(one, begins[:1]) == eager.agent.act(one, begins[:1])


@needs_cuda
@pytest.mark.parametrize("name", ["uniform", "priorities"])
def test_a_graph_holds_a_compiled_update(name: str, cuda: torch.device) -> None:
    eager = World(AGENTS[name], device=cuda)
    both = World(AGENTS[name], Plan("compiled", graphs=True), cuda)
    assert np.allclose(eager.run(20), both.run(20), rtol=1e-2, atol=1e-3)


@needs_cuda
def test_tf32_rounds_what_updates_multiply_and_nothing_else(cuda: torch.device) -> None:
    exact, rounded = World(PLAIN, device=cuda), World(PLAIN, Plan(tf32=True), cuda)
    a, b = exact.run(12), rounded.run(12)
    assert a != b
    assert np.allclose(a, b, rtol=0.05, atol=1e-2)
    assert torch.get_float32_matmul_precision() == "highest"


@needs_cuda
def test_a_wide_trunk_on_cuda_is_the_one_on_the_cpu(cuda: torch.device) -> None:
    """On CUDA its channels have another memory layout, which is undone before the linear layers."""
    trunk = Impala((2, 9, 9), pool=2, spectral_norm=True, generator=torch_generator(0, "initialisation"))
    x = torch.rand(3, 2, 9, 9)
    assert torch.allclose(trunk(x), trunk.to(cuda)(x.to(cuda)).cpu(), rtol=1e-2, atol=1e-3)
