"""Compiled updates: they agree with eager ones to float precision on the same draws, and no draw is baked in.

One test compiles for this machine, which takes a while. The other tests trace all parts without a C++ compiler.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from test_graphs import AGENTS, IMPLICIT, PLAIN, World

from agent.common.errors import UserError
from agent.common.seeding import restore, state_of
from agent.compute.compiled import Compiled
from agent.compute.compiled_gradient import CompiledGradient
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.numpy.network import NumpyPolicy
from agent.compute.plan import Plan
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.parts import ImpalaConfig, NetworkConfig
from agent.config.run import TrainConfig
from agent.learning.gradient import AutogradGradient
from agent.running.build import build_agent
from envs.make import load_task

COMPILED = Plan("compiled")
BY_NUMPY = Plan("numpy", numpy_policy=True)
WIDE = NetworkConfig((6,), encoder="impala", impala=ImpalaConfig(1, 2, spectral_norm=True), dueling=True)
CASES: dict[str, AgentConfig] = {
    "a residual trunk with spectral norms": replace(IMPLICIT, network=WIDE),
    "uniform": PLAIN,
    "implicit quantiles, Munchausen, priorities": IMPLICIT,
    "quantiles, a draw for each row": replace(
        PLAIN, head="quantile", noise=replace(PLAIN.noise, draws=0), network=NetworkConfig((6,), dueling=True)
    ),
}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without its last step: the same operations, run by torch itself."""
    monkeypatch.setattr("agent.compute.compiled.torch.compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


def close(a: Any, b: Any, tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_traced_updates_are_the_eager_ones(name: str, traced: None) -> None:
    eager, compiled = World(CASES[name], tensors=False), World(CASES[name], COMPILED, tensors=False)
    assert isinstance(compiled.agent._gradient, CompiledGradient)
    close(compiled.run(8), eager.run(8), 1e-3)
    assert torch.allclose(compiled.agent.parameters, eager.agent.parameters, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", AGENTS)
def test_a_replay_on_a_device_is_traced_as_well(name: str, traced: None) -> None:
    """An update's work in the replay is traced except its draws. A batch of another size, as in diagnostics, is not."""
    eager, compiled = World(AGENTS[name]), World(AGENTS[name], COMPILED)
    parts = (
        compiled.replay._gather,
        getattr(compiled.replay, "_chosen", None),
        getattr(compiled.replay, "_raised", None),
    )
    assert sum(isinstance(part, Compiled) for part in parts) == (2 if AGENTS[name].priority.enabled else 1)
    close(compiled.run(25), eager.run(25), 1e-4)
    assert torch.allclose(compiled.agent.parameters, eager.agent.parameters, rtol=1e-4, atol=1e-6)
    if AGENTS[name].priority.enabled:
        assert torch.allclose(compiled.replay._tree.leaves, eager.replay._tree.leaves, rtol=1e-4)  # type: ignore[attr-defined]
    for part in parts:
        if isinstance(part, Compiled):
            part._compiled = None  # type: ignore[assignment]  # it would fail
    assert len(compiled.replay.sample(5, torch.Generator().manual_seed(0)).action) == 5


def test_a_network_for_numpy_is_compiled_where_asked_and_still_acts_by_numpy(traced: None) -> None:
    for backend, kind in (("auto", NumpyGradient), ("compiled", CompiledGradient)):
        config = parse(TrainConfig, {"backend": backend})
        agent, _ = build_agent(config, load_task("CartPole-v1", {}), torch.device("cpu"))
        assert isinstance(agent._gradient, kind)
        assert isinstance(agent._policy, NumpyPolicy)


def test_what_cannot_be_compiled_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError("the compiler\nhas lost its way")

        return fail

    monkeypatch.setattr("agent.compute.compiled.torch.compile", broken)
    with pytest.raises(UserError, match=r"could not be compiled \(RuntimeError: the compiler\): use backend=torch"):
        World(PLAIN, Plan("compiled", strict=True), tensors=False).run(10)
    assert not capsys.readouterr().err
    expected = World(PLAIN, tensors=False).run(10)  # without compiling
    close(World(PLAIN, COMPILED, tensors=False).run(10), expected, 1e-4)
    assert "could not be compiled and runs uncompiled (RuntimeError: the compiler)" in capsys.readouterr().err


def test_what_cannot_be_followed_is_named(traced: None) -> None:
    def branches(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x

    with pytest.raises(UserError, match=r"Data-dependent.*File .*test_compile.py"):
        Compiled(branches, strict=True)(torch.ones(2))


class Counting(torch.nn.Module):
    """A module that is another function at each call to the compiler, as an encoder of the user's own may be."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


@pytest.mark.parametrize("strict", [True, False])
def test_a_function_that_changes_at_each_call(strict: bool, traced: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A run has made its first updates by then, so that this is no error, even with strict compiling."""
    function, expected = Compiled(Counting(), strict), Counting()
    for _ in range(20):
        assert torch.equal(function(torch.ones(2)), expected(torch.ones(2)))
    told = "could not be compiled and runs uncompiled .it is another function at each call, as with an encoder or head"
    assert len(re.findall(told, capsys.readouterr().err)) == 1


def test_a_full_device_is_no_fault_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("agent.compute.compiled.torch.compile", lambda *_, **__: full)
    with pytest.raises(torch.OutOfMemoryError):
        Compiled(full, strict=False)(torch.ones(2))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_compiled_updates_agree_draw_anew_and_share_checkpoints_with_eager_ones() -> None:
    """One test covers all of this, since compiling takes long."""
    config = PLAIN
    eager, compiled = World(config, BY_NUMPY, tensors=False), World(config, COMPILED, tensors=False)
    close(compiled.run(20), eager.run(20), 1e-3)
    assert torch.allclose(compiled.agent.parameters, eager.agent.parameters, rtol=1e-3, atol=1e-5)
    assert isinstance(eager.agent._gradient, NumpyGradient)

    # Either agent goes on from the state of the other.
    for source, target in ((compiled, eager), (eager, compiled)):
        target.agent.load_state(source.agent.state())
        target.replay.load_state(source.replay.state())
        restore(target.learner.generator, state_of(source.learner.generator))
        close(compiled.run(6), eager.run(6), 1e-3)

    # Parameters and batch stay the same, so that only the noise differs.
    agent, gradient = compiled.agent, compiled.agent._gradient
    batch = compiled.replay.sample(8, torch.Generator().manual_seed(0))
    draws = [agent.update_noise(8) for _ in range(6)]

    def size(draw: Any) -> float:
        gradient(batch, draw)
        assert agent.parameters.grad is not None
        return float(agent.parameters.grad.abs().sum())

    sizes = [size(draw) for draw in draws]
    assert len(set(sizes)) == 6
    assert [size(draw) for draw in draws] == sizes  # the gradient is a function of the draw


def test_bfloat16_in_the_encoder_is_close_and_the_head_stays_exact() -> None:
    """On the CPU, where bfloat16 is only slower: the gradient keeps its direction, with numbers of less precision."""
    world = World(IMPLICIT, tensors=False)
    world.run(5)
    agent = world.agent
    batch, draws = world.replay.sample(8), agent.update_noise(8)
    parts = agent.network, agent.target, agent.parameters, IMPLICIT
    levels = agent._levels(8)
    assert agent.parameters.grad is not None
    gradients = []
    for autocast in (False, True):
        AutogradGradient(*parts, autocast=autocast)(batch, draws, levels)
        gradients.append(agent.parameters.grad.clone())
    exact, rough = gradients
    assert not torch.equal(exact, rough)
    assert float(torch.cosine_similarity(exact, rough, dim=0)) > 0.98
    values = agent.network(torch.as_tensor(batch.observation), None, autocast=True)
    assert values.q_values.dtype == torch.float32


def test_each_job_of_a_sweep_compiles_anew(monkeypatch: pytest.MonkeyPatch, traced: None) -> None:
    """Jobs share a process, in which torch compiles one function for eight configurations at most."""
    resets: list[None] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(None))
    for backend, count in (("torch", 0), ("compiled", 1)):
        build_agent(parse(TrainConfig, {"backend": backend}), load_task("CartPole-v1", {}), torch.device("cpu"))
        assert len(resets) == count
