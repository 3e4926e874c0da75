"""The plan of a run's computation: choices, refusals, and the line that reports each choice."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agent.common.errors import UserError
from agent.compute.plan import COMPILE_FROM, COMPILE_UP_TO, COMPILE_UP_TO_TRUTH_VALUES, choose_plan
from agent.config.parsing import parse, to_plain
from agent.config.resuming import merge_resumed
from agent.config.run import TrainConfig
from agent.learning.gradient import matmul_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def config(steps: int = 50_000, agent: dict[str, Any] | None = None, **options: Any) -> TrainConfig:
    return parse(TrainConfig, {"steps": steps, "agent": {"learning_starts": 100, **(agent or {})}, **options})


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulates a machine with a compiler, Python's headers and triton."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("agent.compute.plan.sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("agent.compute.plan.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("agent.compute.plan.find_spec", lambda name: name)
    return tmp_path


def long_enough(extra: int) -> TrainConfig:
    return config(2 * (COMPILE_FROM["cpu"] + extra) + 100, {"replay_ratio": "1/2"})


def test_how_many_updates_a_run_has() -> None:
    assert long_enough(7).updates == COMPILE_FROM["cpu"] + 7
    assert config(1_000, {"replay_ratio": "1/3"}).updates == 300
    assert config(100).updates == config(50).updates == 0


def test_auto_never_compiles_what_numpy_computes() -> None:
    plan = choose_plan(long_enough(0), True, CPU)
    assert plan.backend != "compiled"
    assert plan.line == "updates: NumPy"


def test_auto_compiles_where_the_run_is_long_enough_and_says_so() -> None:
    long, short = (choose_plan(long_enough(extra), False, CPU) for extra in (0, -1))
    assert long.backend == "compiled"
    assert short.backend != "compiled"
    assert long.line == "updates: compiled at the first one, which takes a minute or so"
    assert short.line == "updates: autograd (compiling pays from 100,000 updates on; this run makes 99,999)"


def test_auto_leaves_large_networks_alone() -> None:
    small, large = (choose_plan(long_enough(0), False, CPU, COMPILE_UP_TO + extra) for extra in (0, 1))
    assert small.backend == "compiled"
    assert large.backend != "compiled"
    assert "more than 1,000,000 parameters" in large.line

    assert choose_plan(long_enough(0), False, CUDA, COMPILE_UP_TO + 1).backend == "compiled"  # faster on CUDA


def test_auto_leaves_many_truth_values_to_autograd() -> None:
    few, many = (choose_plan(long_enough(0), False, CPU, 0, COMPILE_UP_TO_TRUTH_VALUES + extra) for extra in (0, 1))
    assert few.backend == "compiled"
    assert many.backend == "torch"
    assert many.line == (
        "updates: autograd (which looks up 2,001 truth values faster than a compiled function multiplies them)"
    )
    assert choose_plan(long_enough(0), False, CUDA, 0, 10_000).backend == "compiled"


def test_each_precision_holds_the_one_before() -> None:
    none, tf32, bf16 = (choose_plan(config(autocast=word), False, CUDA) for word in ("none", "tf32", "bf16"))
    assert (none.tf32, none.autocast) == (False, False)
    assert (tf32.tf32, tf32.autocast) == (True, False)
    assert (bf16.tf32, bf16.autocast) == (True, True)
    assert "TF32" in tf32.line
    assert "bfloat16" not in tf32.line
    assert bf16.line.endswith("TF32, bfloat16 in the encoder")


def test_tf32_is_for_what_is_computed_within() -> None:
    def fail(expected: str) -> None:
        assert torch.get_float32_matmul_precision() == expected
        raise ZeroDivisionError

    for tf32, within in ((False, "highest"), (True, "high")):
        with pytest.raises(ZeroDivisionError), matmul_precision(tf32):
            fail(within)
        assert torch.get_float32_matmul_precision() == "highest"


def test_auto_compiles_on_no_device_on_which_nobody_measured() -> None:
    plan = choose_plan(long_enough(0), False, torch.device("mps"))
    assert plan.backend != "compiled"
    assert "backend=compiled does" in plan.line


def test_each_backend_by_its_name() -> None:
    assert choose_plan(config(backend="compiled"), True, CPU).backend == "compiled"
    plain = parse(TrainConfig, {**to_plain(long_enough(0)), "backend": "torch"})
    for fits_numpy in (False, True):
        plan = choose_plan(plain, fits_numpy, CPU)
        assert (plan.backend, plan.numpy_policy, plan.line) == ("torch", False, "updates: autograd")
    with pytest.raises(UserError, match=r"backend=numpy computes linear layers.*use backend=auto"):
        choose_plan(config(backend="numpy"), False, CPU)
    assert choose_plan(config(backend="numpy"), True, CPU).backend == "numpy"
    assert config(overlap=False) == config(overlap="off")  # YAML reads the word off as false
    assert config(overlap=True).overlap == "on"


MISSING = {
    "agent.compute.plan.shutil.which": r"a C\+\+ compiler \(g\+\+|clang",
    "agent.compute.plan.sysconfig.get_path": "Python's header files",
}


@pytest.mark.parametrize("what", MISSING)
def test_without_a_compiler_auto_stays_eager_and_on_is_one_sentence(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what, lambda _: "/nowhere" if "get_path" in what else None)
    plan = choose_plan(long_enough(0), False, CPU)
    assert plan.backend != "compiled"
    assert "compiling would pay, but needs" in plan.line
    with pytest.raises(UserError, match=MISSING[what]):
        choose_plan(config(backend="compiled"), False, CPU)


def test_triton_is_what_cuda_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.compute.plan.find_spec", lambda _: None)
    with pytest.raises(UserError, match="backend=compiled needs the package triton"):
        choose_plan(config(backend="compiled"), False, CUDA)
    assert choose_plan(config(backend="compiled"), False, CPU).backend == "compiled"


def test_an_old_gpu_is_left_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, compiled in (((6, 1), False), ((7, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        plan = choose_plan(long_enough(0), False, CUDA)
        assert (plan.backend == "compiled") is compiled
        assert ("compute capability 7.0" in plan.line) is not compiled
        assert not plan.strict
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    with pytest.raises(UserError, match="backend=compiled needs a GPU of compute capability 7"):
        choose_plan(config(backend="compiled"), False, CUDA)
    assert choose_plan(config(backend="compiled"), False, CPU).strict


def test_auto_uses_graphs_and_overlaps_on_cuda_alone() -> None:
    on_cpu, on_cuda = choose_plan(config(), False, CPU), choose_plan(config(), False, CUDA)
    assert not on_cpu.graphs
    assert not on_cpu.overlap
    assert on_cuda.graphs
    assert on_cuda.overlap
    assert on_cuda.line.endswith("each one CUDA graph, while the environments step")
    off = choose_plan(config(cuda_graphs="off", overlap="off"), False, CUDA)
    assert not off.graphs
    assert not off.overlap
    assert choose_plan(config(overlap="on"), True, CPU).overlap


def test_a_replay_in_the_machines_memory_goes_without_graphs_and_says_so() -> None:
    plan = choose_plan(config(agent={"replay_device": "cpu"}), False, CUDA)
    assert not plan.graphs
    assert "no CUDA graphs, since agent.replay_device is cpu" in plan.line


@pytest.mark.parametrize(
    ("options", "device", "sentence"),
    [
        ({"cuda_graphs": "on"}, CPU, "cuda_graphs=on needs a CUDA device, and the device is cpu"),
        ({"cuda_graphs": "on", "agent": {"replay_device": "cpu"}}, CUDA, "needs the replay on the device"),
        ({"autocast": "bf16"}, CPU, "autocast=bf16 does not go with device=cpu"),
        ({"autocast": "tf32"}, CPU, "autocast=tf32 does not go with device=cpu"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], device: torch.device, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        choose_plan(config(**options), False, device)


def test_a_run_may_be_resumed_with_other_choices() -> None:
    saved, asked = to_plain(config()), to_plain(config(backend="compiled", cuda_graphs="off", overlap="on"))
    words = ["backend=compiled", "cuda_graphs=off", "overlap=on"]
    assert parse(TrainConfig, merge_resumed(saved, asked, words)) == config(
        backend="compiled", cuda_graphs="off", overlap="on"
    )


@pytest.mark.parametrize(("was", "backend"), [("auto", "auto"), ("off", "torch"), ("on", "compiled")])
def test_a_run_of_an_earlier_release_resumes(was: str, backend: str) -> None:
    """The config of such a run has `compile` in the place of `backend`."""
    saved = to_plain(config())
    del saved["backend"]
    merged = merge_resumed({**saved, "compile": was}, to_plain(config()), [])
    assert parse(TrainConfig, merged) == config(backend=backend)
