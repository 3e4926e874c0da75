"""The benchmarks count steps and updates correctly. Their measurements do not matter here."""

import importlib
import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
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
from agent.networks.build import build_network
from agent.networks.encoder_registry import ENCODERS
from tests.test_imports import ROOT

FOLDERS = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark as its command does, and removes its modules after the test."""
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
    """Reports `ratio` updates for each environment step."""

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
    with pytest.raises(SystemExit):  # it plays half of the requested steps
        harness.measure(idle, workload, 1_000, lambda: idle.steps // 2)


def test_steps_are_counted_below_the_vector_classes_and_resets_are_none(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymnasium as gym
    from gymnasium.envs.classic_control import cartpole

    for kind in (cartpole.CartPoleEnv, cartpole.CartPoleVectorEnv):
        monkeypatch.setattr(kind, "step", kind.step)  # monkeypatch restores it after the test
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
    kept[0]["machine"] = "an older one"
    table = {"results": kept, "versions": {"torch": "1"}, "machine": {"processor": "an old one"}}
    both = peers.with_kept([entry("a", 1, "ours", 5)], table)
    seen = [(one["workload"], one["threads"], one["label"], one["blocks"], one["versions"]["torch"]) for one in both]
    assert seen == [
        ("a", 1, "ours", 5, "2"),
        ("a", 2, "ours", 3, "1"),
        ("c32", 1, "ours", 1, "1"),
    ]
    assert [one.get("machine") for one in both] == [None, "an old one", "an older one"]


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


def test_a_task_is_on_the_page_when_all_its_runs_are_made(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load("results")
    task = results.Task("Short", "CartPole-v1", 100, {"dqn": [], "noisy_dqn": []}, range(2))
    monkeypatch.setattr(results, "KEPT", tmp_path)
    monkeypatch.setattr(results, "TASKS", (task,))
    for agent, seed in (("dqn", 0), ("dqn", 1), ("noisy_dqn", 0), ("noisy_dqn", 1)):
        assert "## Short" not in results.page()
        task.path(agent, seed).parent.mkdir(exist_ok=True)
        task.path(agent, seed).write_text(json.dumps({"final": 9.0 + seed}))
    assert "## Short: 100 steps, seeds 0–1" in results.page()


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
    """There are seven tasks of three seeds. With a percentile bootstrap, one task in five would have a winner."""
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


def test_a_run_of_deep_sea_ends_where_it_is_solved_or_has_all_its_episodes(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Solved: fewer than 90 % of the episodes missed the treasure; uniform actions find that of size 2 in a quarter."""
    deep_sea = load("deep_sea")
    monkeypatch.setattr(deep_sea, "EPISODES", 60)
    unsolved = deep_sea.run("index", 10, 20)
    assert (unsolved["solved"], unsolved["episodes"]) == (None, 60)
    solved = deep_sea.run("index", 2, 20)
    assert solved["first_treasure"] <= solved["solved"] == solved["episodes"] < 60


def test_a_size_is_on_the_page_of_deep_sea_when_all_its_seeds_are(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep_sea = load("deep_sea")
    monkeypatch.setattr(deep_sea, "RESULTS", tmp_path)
    for seed in (100, 101):
        run = {"options": deep_sea.options("index", 80, seed), "solved": seed}
        deep_sea.path_of("index", 80, seed).write_text(json.dumps(run))
    assert [run["solved"] for run in deep_sea.complete("index", 80, (100, 101))] == [100, 101]
    assert deep_sea.complete("index", 80, (100, 101, 102)) == []


def test_the_convolutions_of_2013(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENCODERS, "_factories", dict(ENCODERS._factories))
    monkeypatch.delitem(sys.modules, "benchmarks.mnih2013", raising=False)
    importlib.import_module("benchmarks.mnih2013")
    config = AgentConfig(network=NetworkConfig(encoder="mnih2013", hidden=(256,)))
    network = build_network(config, ObservationSpec((4, 84, 84), "uint8", 255.0, 4), 6)
    shapes = {tuple(parameter.shape) for parameter in network.parameters()}
    assert {(16, 4, 8, 8), (32, 16, 4, 4), (256, 32 * 9 * 9)} <= shapes


# ---- scaling out: the page is made of numbers alone


def of_a_learner(**changes: float) -> dict[str, Any]:
    row = {"both": 500.0, "updates_at_both": 250.0, "intake": 80_000.0, "updates": 1_000.0, "replay_ratio": 0.5}
    row |= {"parameters": 1_000, "bytes": 30.0, "wire": 40.0, "steps_of_chunk": 128.0, "chunk": 16, "publish": 16}
    return {**row, **changes}


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "updates"),
        ({"replay_ratio": 1e-4}, "chunks"),
        ({"replay_ratio": 1e-4, "intake": 1e9, "wire": 1e5}, "network"),
    ],
)
def test_the_page_of_scaling_names_what_breaks_first(load: Any, changes: dict[str, float], first: str) -> None:
    module = load("scaling_page")
    learner = of_a_learner(**changes)
    assert module.first_to_break(learner, 1000).name == first
    actors = [
        {"milliseconds": 2.0, "actors": 1, "steps": 400.0, "learner_wait": 0.9, "actor_wait": 0.1},
        {"milliseconds": 2.0, "actors": 4, "steps": 1_440.0, "learner_wait": 0.5, "actor_wait": 0.1},
        {"milliseconds": 2.0, "actors": 8, "steps": 1_600.0, "learner_wait": 0.01, "actor_wait": 0.5},
        {"milliseconds": 2.0, "actors": 16, "steps": 1_920.0, "learner_wait": 0.01, "actor_wait": 0.5},
    ]
    cpu = {"learner_cpu": 2e-4, "actors_cpu": 1e-4, "ray_cpu": 5e-5}
    limit = {"steps": 3_000.0, "playing": 8e-5, "learning": 2e-4}
    limits = [{"actors": count, **limit} for count in (1, 4, 8, 16)]
    limits[3] |= {"steps": 7_000.0, "learning": 3e-4}  # 6,400 steps a second by 380 µs are more than two cores
    result = {
        "command": "python", "versions": {}, "learner": {"A task": learner}, "turns": 2,
        "machine": {"processor": "", "cores": 2, "memory_gib": 1, "system": "", "python": "", "load": 0},
        "actors": [{**row, "staleness": 3.0, "busy": 0.5, **cpu} for row in actors],
        "limits": limits,
        "overhead": {"A task": {"local": [100.0, 300.0], "ray": [100.0]}},
    }  # fmt: skip
    page = module.page(result)
    assert module.REMEDIES[first] in page
    assert "fastest of 2 turns" in page
    assert module.linear_parts(actors) == pytest.approx([1.0, 0.9, 0.5, 0.3])
    assert "least part of linear is **90%**" in page, "rows whose limit is the learner or the cores do not count"
    assert "| 2 | 8 | 1,600 | 3,200 | 50% | 3,000 | 0.9 | the learner | 1% | 50% | 3 | 50% | 200 | 100 | 50 |" in page
    assert "| 6,400 | 30% | 7,000 | 2.4 | the machine's cores |" in page
    assert "| A task | 200 (100 … 300) | 100 (100 … 100) | 0.50 |" in page


def test_needs_of_many_actors_are_those_of_one_times_their_number(load: Any) -> None:
    module = load("scaling_page")
    updates, chunks, network = module.needs(of_a_learner(), 100)
    assert updates.needed == 100 * 500 * 0.5
    assert chunks.needed == 100 * 500 / 16
    assert chunks.limit == 80_000 / 128
    assert network.needed == 100 * 500 * 40 + 1_000 / 16 * 4_000 * 7


def test_the_tables_of_the_tasks_of_others_are_those_of_the_runs_that_are_kept(load: Any) -> None:
    third_party, page = load("third_party"), (ROOT / "docs" / "TASKS.md").read_text()
    assert third_party.with_section(page, third_party.section(third_party.all_finals())) == page
    with pytest.raises(SystemExit, match="has lost its marks"):
        third_party.with_section(page.replace(third_party.END, ""), "")


def test_a_table_of_the_tasks_of_others_holds_what_there_is(load: Any) -> None:
    third_party = load("third_party")
    none = {(task.name, agent): np.array([]) for task in third_party.TASKS for agent in third_party.AGENTS}
    assert third_party.section(none).startswith("0 of 60 runs")
    assert third_party.differences_table(none) == []
    door = "MiniGrid-DoorKey-5x5"
    some = none | {
        (door, "noisy_dqn"): np.array([0.9, 1.0, 0.95]),
        (door, "dqn"): np.array([0.1, 0.0, 0.05]),
        (door, "SB3 DQN"): np.array([0.94]),
    }
    text = third_party.section(some)
    assert text.startswith("7 of 60 runs")
    assert f"| {door} | noisy_dqn | 0.900 1.000 0.950 | 0.950 [0.826, 1.000] | 0.950 |" in text  # no return is above 1
    assert f"| {door} | SB3 DQN | 0.940 | 0.940 (one seed) |  |" in text
    # One pair alone has several seeds on both sides: 0.9 ± 2.776·0.0408, p without correction.
    (line,) = third_party.differences_table(some)[2:]
    assert line == f"| {door} | noisy_dqn less dqn | +0.900 [+0.787, +1.013] | < 0.001 | ahead |"
    worse = some | {(door, "noisy_dqn"): some[door, "dqn"], (door, "dqn"): some[door, "noisy_dqn"]}
    assert third_party.differences_table(worse)[2].endswith("| −0.900 [−1.013, −0.787] | < 0.001 | behind |")
    alike = some | {(door, "dqn"): np.array([0.97, 0.9, 0.95])}
    assert third_party.differences_table(alike)[2].endswith("| undecided |")


def test_the_verdicts_on_the_tasks_of_others_are_corrected_for_their_number(load: Any) -> None:
    third_party = load("third_party")
    first, second = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([4.0, 5.0, 6.0, 7.0, 8.0])  # p = 0.017 alone
    many = {(task.name, agent): first for task in third_party.TASKS for agent in third_party.AGENTS}
    many |= {("minecart", "SB3 DQN"): second}
    verdicts = [line.split("|")[-2].strip() for line in third_party.differences_table(many)[2:]]
    assert verdicts == ["undecided"] * 9


def test_every_episode_of_an_evaluation_has_a_seed_of_its_own_which_is_the_same_for_all_agents(load: Any) -> None:
    third_party = load("third_party")

    class Counter(gym.Env[Any, Any]):
        """Ends after three steps, by termination or by truncation; its reward is the action."""

        def __init__(self) -> None:
            self.seeds: list[int | None] = []

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
            self.seeds.append(seed)
            self.steps = 0
            return 0, {}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
            self.steps += 1
            last = self.steps == 3
            return self.steps, float(action), last and len(self.seeds) % 2 == 0, last and len(self.seeds) % 2 == 1, {}

    env = Counter()
    assert third_party.play(env, lambda observation: observation + 1, episodes=4) == [6.0] * 4
    assert env.seeds == [third_party.EVALUATION_SEED + episode for episode in range(4)]


def test_tasks_of_others_have_options_that_there_are_and_no_preset(load: Any) -> None:
    third_party = load("third_party")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for task in third_party.TASKS:
            assert not any((ROOT / "conf" / group / f"{task.env}.yaml").exists() for group in ("env", "preset/task"))
            options = [word for word in task.options() if not word.startswith("env=")]
            for agent in third_party.AGENTS:
                words = [f"env.id={task.env}", *options, *third_party.AGENTS[agent]]
                tree: Any = OmegaConf.to_container(compose("train", overrides=words))
                assert (tree["env"]["time_limit"], tree["env"]["observation"]) == (
                    task.limit,
                    [task.part] if task.part else [],
                )
                assert tree["env"]["kwargs"] == dict(task.kwargs)
                assert tree["agent"]["noise"]["enabled"] == (agent != "dqn")
