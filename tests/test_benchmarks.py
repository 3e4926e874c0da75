"""The benchmarks count what they say they count. What they measure is no matter here."""

import importlib
import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from agent.command.presets import register_presets
from agent.common.observation import ObservationSpec
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.parts import NetworkConfig
from agent.config.run import TrainConfig
from agent.networks import encoder_registry
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


def test_the_page_of_results_is_that_of_the_runs_that_are_kept(load: Any) -> None:
    assert load("results").page() == (ROOT / "docs" / "RESULTS.md").read_text()


def test_an_agent_is_called_as_its_preset_in_tables_and_pictures(load: Any) -> None:
    results, deep_sea = load("results"), load("deep_sea")
    presets = {path.stem for path in (ROOT / "conf" / "agent").glob("*.yaml")}
    names = [agent for task in results.TASKS for agent in task.agents] + list(deep_sea.NAMES.values())
    assert {name.partition(",")[0] for name in names} <= presets
    assert {name.partition(",")[0] for name in names} <= set(load("drawing").COLOURS)
    for task in results.TASKS:
        for agent in task.agents:
            assert {result["label"] for result in task.results(agent)} <= {agent}, (task.name, agent)
            chosen = [word for word in task.agents[agent] if word.startswith("agent=")] or ["agent=noisy_dqn"]
            assert chosen == [f"agent={agent.partition(',')[0]}"]


def test_an_agent_has_its_colour_in_every_picture_and_a_variant_dashes(load: Any) -> None:
    drawing = load("drawing")
    first, second = drawing.looks(["dqn", "noisy_dqn", "noisy_dqn, no ε"]), drawing.looks(["noisy_dqn, a", "noisy_dqn"])
    assert first["noisy_dqn"] == second["noisy_dqn"] == (drawing.COLOURS["noisy_dqn"], "-")
    assert first["noisy_dqn, no ε"][0] == drawing.COLOURS["noisy_dqn"]
    assert first["noisy_dqn, no ε"][1] != "-"
    assert len({colour for colour, _ in drawing.looks(["normal", "uniform", "laplace"]).values()}) == 3


def test_a_picture_says_what_it_shows_and_its_bands_stay_within_what_a_return_can_be(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = load("drawing")
    seen: list[Any] = []
    monkeypatch.setattr(drawing, "save", lambda figure, path: seen.append(figure.axes[0]))
    runs = [[[step, value, 1.0] for step in range(1, 4)] for value in (-21.0, -20.0, 21.0)]
    picture = drawing.Picture("Pong", 500_000, (-21.0, 21.0), 18.0, whole=True)
    drawing.learning_curves(
        picture, {"dqn": runs, "rainbow": runs[:1]}, {"dqn": [1.0, 2.0], "rainbow": [3.0]}, tmp_path
    )
    (axes,) = seen
    (band,) = axes.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (-21.0, 21.0)
    assert [text.get_text() for text in axes.texts] == ["solved:\n18"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dqn (3 seeds)", "rainbow (one seed)"]
    assert "Student's t" in axes.get_title(loc="left")
    assert axes.xaxis.get_major_formatter()(1_500_000, 0) == "1.5M"
    assert axes.get_yticks().tolist() == [-21, -14, -7, 0, 7, 14, 21]


def test_tables_of_evidence_say_no_more_than_their_seeds(load: Any) -> None:
    results = load("results")
    assert results.spread(np.array([-7.6]), "ALE/Pong-v5") == "−7.6 (one seed)"
    assert results.spread(np.array([500.0, 490.0, 500.0]), "CartPole-v1").endswith(", 500.0]")
    assert results.beside(np.array([-66.0, -60.0, -72.0]), -69.1) == "undecided"
    assert results.beside(np.array([500.0, 500.0]), 500.0) == "equal"
    assert results.beside(np.array([1.0, 1.1, 0.9]), 5.0) == "behind"
    assert results.beside(np.array([1.0, 1.1, 0.9]), 0.5) == "ahead"


def test_no_table_of_two_equal_agents_names_a_winner_more_often_than_it_says(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven tasks of three seeds: by a percentile bootstrap, one in five tasks had a winner."""
    results = load("results")
    random = np.random.Generator(np.random.PCG64(0))
    monkeypatch.setattr(results, "finals", lambda task, agent: random.normal(size=3))
    tables = [results.ablation(results.TASKS[:7]) for _ in range(300)]
    assert sum("wins" in "".join(table) for table in tables) / 300 <= 0.08


def test_a_median_says_how_many_seeds_it_hides(load: Any) -> None:
    learning, deep_sea = load("learning"), load("deep_sea")
    study = learning.Study("CartPole-v1", 100, 475.0, "0-2", {"dqn": []})
    runs = [
        {"label": "dqn", "final": 1.0, "hit_steps": hit, "hit_seconds": hit, "curve": [[1, 1.0, 1.0]]}
        for hit in (10, 20, None)
    ]
    assert "| 20 (1 of 3 never) |" in learning.table(study, runs)
    assert deep_sea.failures([{"solved": None}, {"solved": 3}]) == 1


def test_the_convolutions_of_2013(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_registry, "_FACTORIES", dict(encoder_registry._FACTORIES))
    monkeypatch.delitem(sys.modules, "benchmarks.mnih2013", raising=False)
    importlib.import_module("benchmarks.mnih2013")
    config = AgentConfig(network=NetworkConfig(encoder="mnih2013", hidden=(256,)))
    network = build_network(config, ObservationSpec((4, 84, 84), "uint8", 255.0, 4), 6)
    shapes = {tuple(parameter.shape) for parameter in network.parameters()}
    assert {(16, 4, 8, 8), (32, 16, 4, 4), (256, 32 * 9 * 9)} <= shapes
