"""The benchmarks count what they say they count. What they measure is no matter here."""

import importlib
import json
import subprocess
import sys
import time
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from agent.command.presets import register_presets
from agent.common.observation import ObservationSpec
from agent.config.algorithm import AgentConfig, NetworkConfig
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.networks import encoders
from agent.networks.build import build_network
from tests.test_imports import ROOT

FOLDERS = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark as its command would, and leaves nothing of it behind."""
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield module
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(FOLDERS[0]):
            del sys.modules[name]


@pytest.mark.parametrize(("workload", "variant"), [("a", "noisy_rows"), ("c8", "plain"), ("a", "rainbow")])
def test_our_runner_makes_the_steps_and_the_updates_that_were_asked_for(workload: str, variant: str) -> None:
    command = [sys.executable, f"{FOLDERS[1]}/run_ours.py", "--workload", workload, "--variant", variant]
    run = subprocess.run([*command, "--steps", "400", "--warmup", "200"], capture_output=True, text=True, check=True)
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("{"))
    measured = json.loads(line)
    assert 400 <= measured["steps"] <= 408
    assert abs(measured["updates"] - measured["steps"] / 10) < 1
    assert measured["steps_per_second"] == pytest.approx(measured["steps"] / measured["seconds"])
    assert measured["peak_mib"] > 100
    assert {"noisy-dqn", "torch", "gymnasium", "numpy"} == set(measured["versions"])


def test_a_cycle_is_the_shortest_whole_number_of_steps_and_updates(load: Any) -> None:
    workloads = load("workloads").WORKLOADS
    assert {name: workload.cycle for name, workload in workloads.items()} == {
        "a": (10, 1),
        "b": (1, 1),
        "c8": (5, 4),
        "c32": (5, 16),
        "d": (4, 1),
        "e": (4, 1),
    }
    for workload in workloads.values():
        steps, updates = workload.cycle
        assert Fraction(updates, steps * workload.num_envs) == Fraction(1, workload.every)


class Fake:
    """Says that it has made so many updates for each environment step."""

    def __init__(self, ratio: float) -> None:
        self.ratio, self.steps = ratio, 0

    def advance(self, steps: int) -> None:
        self.steps += steps

    def updates(self) -> int:
        return int(self.steps * self.ratio)


def test_a_library_that_learns_less_than_asked_is_not_measured(load: Any) -> None:
    harness, workload = load("harness"), load("workloads").WORKLOADS["a"]
    honest, lazy = Fake(1 / 10), Fake(1 / 12)
    assert harness.measure(honest, workload, 1_000, lambda: honest.steps)["updates"] == 100
    with pytest.raises(SystemExit, match="asked for 1000 steps, an update every 10: got 1000 and 83"):
        harness.measure(lazy, workload, 1_000, lambda: lazy.steps)
    idle = Fake(1 / 10)
    with pytest.raises(SystemExit):  # it plays half of what it was asked to
        harness.measure(idle, workload, 1_000, lambda: idle.steps // 2)


def test_steps_are_counted_below_the_vector_classes_and_resets_are_none(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymnasium as gym
    from gymnasium.envs.classic_control import cartpole

    for kind in (cartpole.CartPoleEnv, cartpole.CartPoleVectorEnv):
        monkeypatch.setattr(kind, "step", kind.step)  # undone at the end
    harness, workload = load("harness"), load("workloads").WORKLOADS["c8"]
    counted = harness.count_steps(workload)
    for mode in ("sync", "vector_entry_point"):
        before, expected = counted(), 0
        envs = gym.make_vec("CartPole-v1", 3, vectorization_mode=mode)
        envs.reset(seed=0)
        resets = np.zeros(3, dtype=bool)
        for _ in range(60):
            _, _, terminated, truncated, _ = envs.step(np.ones(3, dtype=np.int64))
            expected += int((~resets).sum())
            resets = terminated | truncated
        assert expected < 180  # some rows were resets
        assert counted() - before == expected


def test_ratios_are_taken_within_a_round(load: Any) -> None:
    peers = load("peers")

    def entry(library: str, variant: str, seconds: list[float]) -> dict[str, Any]:
        blocks = [{"steps": 100, "seconds": s, "peak_mib": 1.0} for s in seconds]
        name = peers.Contender(library, variant).label
        about = {"workload": "a", "threads": 1, "failure": None}
        return {**about, "library": library, "variant": variant, "label": name, "blocks": blocks}

    # The machine was half as fast in the second round, for both.
    results = [entry("ours", "noisy", [0.5, 1.0, 0.5]), entry("sb3", "plain", [1.0, 2.0, 1.0])]
    ((title, rows),) = peers.groups(results, "seconds")
    assert title.startswith("(a) CartPole-v1")
    assert [row[0]["library"] for row in rows] == ["sb3", "ours"]
    assert rows[1][2].tolist() == [2.0, 2.0, 2.0]
    table = peers.write_table(results, "seconds")
    assert "| ours, noisy, one draw per batch | 200 (100 … 200) | 2.00 (2.00 … 2.00) | 5000 | 1 |" in table


def test_who_could_not_play_is_named(load: Any, tmp_path: Any) -> None:
    peers = load("peers")
    broken = {"workload": "a", "threads": 1, "library": "sb3", "variant": "plain", "label": "SB3", "blocks": []}
    text = peers.write_table([{**broken, "failure": "ModuleNotFoundError: no such thing"}], "seconds")
    assert text == "Not measured:\n\n- a, SB3: ModuleNotFoundError: no such thing"


def test_the_time_of_a_piece_is_its_own(load: Any) -> None:
    class Work:
        def outer(self) -> None:
            time.sleep(0.02)
            self.inner()

        def inner(self) -> None:
            time.sleep(0.05)

    clock = load("whole_run").Clock(time.perf_counter)
    for name in ("outer", "inner"):
        clock.around(Work, name, name)
    Work().outer()
    assert clock.calls == {"outer": 1, "inner": 1}
    assert clock.seconds["inner"] > clock.seconds["outer"] >= 0.02
    assert clock.seconds["inner"] >= 0.05


def test_works_are_timed_in_turns(load: Any) -> None:
    calls: list[str] = []
    times = load("reporting").alternate(
        {"short": lambda: calls.append("s"), "long": lambda: (calls.append("l"), time.sleep(0.004))}, 3, 0.01
    )
    assert {name: len(blocks) for name, blocks in times.items()} == {"short": 3, "long": 3}
    assert min(times["long"]) >= 4_000 > max(times["short"])
    turns = "".join(name for name, before in zip(calls, ["", *calls], strict=False) if name != before)
    assert turns == "sl" * 4  # once to know how long each takes, and three blocks


def test_the_document_names_the_command_of_what_is_missing(load: Any, monkeypatch: Any, tmp_path: Any) -> None:
    report = load("report")
    monkeypatch.setattr(report, "TABLES", tmp_path)
    (tmp_path / "micro.md").write_text("`python benchmarks/micro.py`, on a machine.\n\n| what | µs |\n")
    text = report.document()
    assert "Not measured yet: `python benchmarks/peers.py`." in text
    assert "Not measured yet: `python benchmarks/micro.py`" not in text
    assert "| what | µs |" in text
    for _, _, _, command in report.SECTIONS:
        assert (ROOT / command.split()[1]).exists()


def test_what_is_kept_of_an_earlier_table_is_workloads_that_were_not_measured_again(load: Any) -> None:
    peers = load("peers")

    def entry(workload: str, threads: int, label: str, blocks: int) -> dict[str, Any]:
        return {"workload": workload, "threads": threads, "label": label, "blocks": blocks, "versions": {"torch": "2"}}

    kept = [entry("c32", 1, "ours", 1), entry("a", 1, "ours", 2), entry("a", 2, "ours", 3), entry("a", 1, "theirs", 4)]
    kept = [{name: value for name, value in one.items() if name != "versions"} for one in kept]
    both = peers.with_kept([entry("a", 1, "ours", 5)], {"results": kept, "versions": {"torch": "1"}})
    seen = [(one["workload"], one["threads"], one["label"], one["blocks"], one["versions"]["torch"]) for one in both]
    assert seen == [
        ("a", 1, "ours", 5, "2"),
        ("a", 2, "ours", 3, "1"),
        ("c32", 1, "ours", 1, "1"),
    ]


def test_every_run_of_the_evidence_has_options_that_there_are(load: Any) -> None:
    tasks = load("results").TASKS
    register_presets([f"env={task.env}" for task in tasks])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for task in tasks:
            for options in task.agents.values():
                words = [f"env={task.env}", f"env.id={task.env}", f"steps={task.steps}", *options]
                tree: Any = OmegaConf.to_container(compose("train", overrides=words))
                known = {key: value for key, value in tree.items() if key not in ("resume", "imports", "hydra")}
                assert parse(TrainConfig, known).steps == task.steps
                ours = [name for name in tree["imports"] if name.startswith("benchmarks.")]
                assert all((ROOT / f"{name.replace('.', '/')}.py").exists() for name in ours)


def test_the_convolutions_of_2013(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_FACTORIES", dict(encoders._FACTORIES))
    monkeypatch.delitem(sys.modules, "benchmarks.mnih2013", raising=False)
    importlib.import_module("benchmarks.mnih2013")
    config = AgentConfig(network=NetworkConfig(encoder="mnih2013", hidden=(256,)))
    network = build_network(config, ObservationSpec((4, 84, 84), "uint8", 255.0, 4), 6)
    shapes = {tuple(parameter.shape) for parameter in network.parameters()}
    assert {(16, 4, 8, 8), (32, 16, 4, 4), (256, 32 * 9 * 9)} <= shapes
