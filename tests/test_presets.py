"""The option preset: with preset=none a task keeps its own arguments and limits, and other options their defaults."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Programs

from agent import train
from agent.command.composing import training_options
from agent.command.presets import CONF
from agent.command.tuning import new_study
from agent.common.errors import UserError
from agent.config.parsing import parse
from agent.config.resuming import merge_resumed
from agent.config.tune import TuneConfig

SETTINGS, TASKS = CONF / "preset" / "task", CONF / "env"
#: The discount of CartPole with each preset.
GAMMAS = {"task": 0.995, "none": 0.99}
IDS = sorted(path.relative_to(SETTINGS).with_suffix("").as_posix() for path in SETTINGS.rglob("*.yaml"))
SMALL = (
    *("num_envs=2", "steps=60", "agent.network.hidden=[8]", "agent.learning_starts=20", "agent.batch_size=8"),
    *("agent.replay_size=100", "eval.episodes=1", "eval.video=false", "wandb.mode=disabled", "log.progress=false"),
)


def without_env(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "env"}


@pytest.mark.parametrize("env", IDS)
def test_with_none_the_agent_has_its_defaults_and_the_task_is_the_same(env: str) -> None:
    preset, none = (training_options([f"env={env}", *words]) for words in ((), ("preset=none",)))
    assert none["env"] == preset["env"]
    assert without_env(none) == without_env(training_options(["env=NoPreset-v0"]))
    assert without_env(none) != without_env(preset)


@pytest.mark.parametrize("agent", ["c51", "rainbow", "index_dqn"])
@pytest.mark.parametrize("env", ["CartPole-v1", "DeepSea-v0"])
def test_each_agent_keeps_its_own_settings(agent: str, env: str) -> None:
    none, default = (training_options([word, f"agent={agent}", "preset=none"]) for word in (f"env={env}", "env=X-v0"))
    assert none["agent"] == default["agent"]


def test_the_default_is_the_preset_of_the_task() -> None:
    assert training_options(["env=Acrobot-v1", "preset=task"]) == training_options(["env=Acrobot-v1"])


def test_what_is_no_setting_for_a_single_task_stays() -> None:
    """The arguments of a task in conf/env, options of the command line, and the sizes for Atari stay."""
    assert training_options(["env=CliffWalking-v1", "preset=none"])["env"]["time_limit"] == 200
    assert training_options(["env=MinAtar/Freeway-v1", "preset=none"])["env"]["time_limit"] == 2500
    sea = training_options(["env=DeepSea-v0", "preset=none", "env.kwargs.size=20", "noise=per_row"])
    assert sea["env"]["kwargs"] == {"size": 20, "stochastic": False, "mapping_seed": 0}
    assert sea["agent"]["noise"]["draws"] == 0
    atari = ["env=ALE/Pong-v5", "agent=rainbow"]
    assert training_options([*atari, "preset=none"]) == training_options(atari)


@pytest.mark.parametrize(("short", "whole"), [("CartPole", "CartPole-v1"), ("MinAtar/Breakout", "MinAtar/Breakout-v1")])
def test_an_id_without_its_version_is_still_the_newest(short: str, whole: str) -> None:
    for preset in ("task", "none"):
        options = [training_options([f"env={env}", f"preset={preset}"]) for env in (short, whole)]
        assert options[0] == options[1]
        assert options[0]["env"]["id"] == whole


def test_files_of_tasks_set_the_task_and_presets_set_the_rest() -> None:
    for folder, allowed in ((TASKS, {"env"}), (SETTINGS, {"agent", "steps", "num_envs", "eval", "checkpoint"})):
        for path in folder.rglob("*.yaml"):
            nodes = set(yaml.safe_load(path.read_text())) - {"defaults"}
            assert nodes <= allowed, f"{path.relative_to(CONF)} sets {sorted(nodes - allowed)}"


def test_two_calls_in_one_process_have_a_preset_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, preset in enumerate(("none", "task", "none")):
        run = train(f"preset={preset}", *SMALL, f"hydra.run.dir=run{number}", env="CartPole")
        saved = yaml.safe_load((run.folder / "config.yaml").read_text())
        assert saved["env"]["id"] == "CartPole-v1"
        assert saved["agent"]["gamma"] == GAMMAS[preset]


def test_a_preset_that_there_is_not_is_one_error() -> None:
    with pytest.raises(UserError, match="there is no preset=nope: it must be one of none, task"):
        train(preset="nope")


def test_a_sweep_over_both(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("train", "-m", *SMALL, "env=CartPole", "preset=task,none", "seed=0,1", cwd=tmp_path)
    assert result.code == 0, result.err
    found, groups = {}, set()
    for path in tmp_path.glob("runs/CartPole-v1/*/config.yaml"):
        text = path.read_text()
        config = yaml.safe_load(text)
        (word,) = (word for word in shlex.split(text.partition("\n")[0]) if word.startswith("preset="))
        found[word, config["seed"]] = config["agent"]["gamma"]
        groups.add((word, config["wandb"]["group"]))
    assert found == {(f"preset={name}", seed): gamma for name, gamma in GAMMAS.items() for seed in (0, 1)}
    assert len(groups) == len({group for _, group in groups}) == 2
    shown = programs.run("compare", "runs/CartPole-v1", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert all(f"preset={name}" in shown.out for name in GAMMAS)


def test_files_of_ones_own(programs: Programs, tmp_path: Path) -> None:
    """A file of a task applies with each preset, and a file of settings with preset=task."""
    texts = {"env": "env:\n  time_limit: 77\nagent:\n  tau: 0.5\n", "preset/task": "agent:\n  gamma: 0.125\n"}
    for group, text in texts.items():
        (tmp_path / "my" / group).mkdir(parents=True)
        (tmp_path / "my" / group / "Mine-v0.yaml").write_text(f"# @package _global_\n{text}")

    def agent(preset: str) -> Any:
        words = ("--config-dir=my", "env=Mine-v0", f"preset={preset}", "--cfg", "job")
        shown = programs.run("train", *words, cwd=tmp_path)
        assert shown.code == 0, shown.err
        config = yaml.safe_load(shown.out)
        assert config["env"]["time_limit"] == 77
        return config["agent"]["tau"], config["agent"]["gamma"]

    assert (agent("task"), agent("none")) == ((0.5, 0.125), (0.5, 0.99))


def resumed(saved: Sequence[str], requested: Sequence[str]) -> dict[str, object]:
    options = [json.loads(json.dumps(training_options(words))) for words in (saved, requested)]
    return merge_resumed(options[0], options[1], requested)


def test_a_resumed_run_keeps_its_settings_and_takes_no_other_preset() -> None:
    run = ["env=Acrobot-v1", "preset=none"]
    assert resumed(run, ["env=Acrobot-v1"])["agent"] == resumed(run, run)["agent"] == training_options(run)["agent"]
    with pytest.raises(UserError, match=r"was requested by preset=task: leave preset=task out"):
        resumed(run, ["env=Acrobot-v1", "preset=task"])


def test_trials_of_a_study_and_their_commands_have_the_preset_too() -> None:
    config = parse(TuneConfig, {"train": ["env=Acrobot-v1", "preset=none"], "trials": 1})
    study, _, _ = new_study(config)
    assert "preset=none" in study.overrides
    assert "preset=none" in study.not_in_preset
    assert study.first["agent.lr"] == 1e-3
    assert study.steps == 50_000
