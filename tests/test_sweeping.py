"""Sweeps at W&B: runs that differ in their seeds alone are one group, whichever program starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, Programs, plain_environment
from test_dashboard import record

from agent.command.composing import compose_training, training_request
from agent.command.sweeping import MAX_GROUP_NAME, group_name, with_labels
from agent.config.run import WandbConfig
from agent.records.dashboard import charts_of

SWEEP = ROOT / "conf" / "wandb_sweep.yaml"

SHORT = ("steps=40", "num_envs=2", "eval.episodes=0", "agent.network.hidden=[8]", "log.progress=false")
LABELS = ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_SWEEP_ID")


def options(**wandb: str | None) -> dict[str, Any]:
    return {"env": {"id": "A-v1"}, "seed": 3, "wandb": {"group": None, "job_type": None, "name": None, **wandb}}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LABELS:
        monkeypatch.delenv(name, raising=False)


def test_a_sweep_at_wandb_has_a_group_for_each_setting(programs: Programs, tmp_path: Path) -> None:
    swept = ("seed=0,1", "agent.lr=0.001,0.01", "agent=noisy_dqn,dqn")
    result = programs.run("train", "-m", *SHORT, *swept, "wandb.mode=offline", cwd=tmp_path, real=True)
    assert result.code == 0, result.err
    groups = defaultdict(set)
    for run in tmp_path.glob("runs/CartPole-v1/*"):
        found = record(run)
        assert found["job_type"] == "train"
        groups[found["run_group"]].add(run.name.partition("_seed")[2][0])
    rest = "agent.network.hidden=[8] eval.episodes=0 num_envs=2 steps=40"
    agents, rates = ("noisy_dqn", "dqn"), ("0.001", "0.01")
    assert groups == {f"CartPole-v1 {agent} agent.lr={lr} {rest}": {"0", "1"} for agent in agents for lr in rates}


def test_a_run_that_is_no_sweep_has_no_group(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("train", *SHORT, "wandb.mode=offline", "hydra.run.dir=run", cwd=tmp_path, real=True)
    assert result.code == 0, result.err
    found = record(tmp_path / "run")
    assert not found.get("run_group")
    assert not found.get("job_type")


def test_a_person_and_the_variables_of_wandb_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    given, choices = ["agent.lr=0.1", "seed=3"], {"agent": "dqn"}
    assert with_labels(options(), given, choices)["wandb"] == {
        "group": "A-v1 dqn agent.lr=0.1",
        "job_type": "train",
        "name": None,
    }
    named = with_labels(options(group="mine"), [*given, "wandb.group=mine"], choices)["wandb"]
    assert (named["group"], named["job_type"]) == ("mine", "train")
    kept = with_labels(options(), [*given, "wandb.group=null"], choices)["wandb"]
    assert (kept["group"], kept["job_type"]) == (None, "train")
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    assert with_labels(options(), given, choices)["wandb"]["group"] is None
    monkeypatch.setenv("WANDB_JOB_TYPE", "theirs")
    assert with_labels(options(), given, choices)["wandb"]["job_type"] is None


def test_a_node_that_is_taken_out_has_its_defaults(tmp_path: Path) -> None:
    """The option ~wandb takes a node out, or ~resume after resume=<run folder>."""
    composed, _ = compose_training(["env=CartPole-v1", f"hydra.run.dir={tmp_path}", "~wandb"])
    assert "wandb" not in composed
    del composed["resume"]
    given = ["~wandb", "seed=3"]
    request = training_request(with_labels(composed, given, {"agent": "noisy_dqn"}), given, tmp_path)
    assert request.config.wandb == WandbConfig(group="CartPole-v1 noisy_dqn", job_type="train")
    assert request.checkpoint is None


def test_a_group_is_named_by_all_that_seeds_share() -> None:
    name = group_name("A-v1", "dqn", ["env=A-v1", "seed=4", "noise=paper", "agent.lr=0.1", "agent=dqn"])
    assert name == "A-v1 dqn agent.lr=0.1 noise=paper"
    same = ["+agent.lr=0.1", "noise=paper", "seed=5", "wandb.mode=offline", "log.every=3", "checkpoint.keep=1"]
    assert group_name("A-v1", "dqn", same).replace("+", "") == name
    assert group_name("A-v1", "dqn", ["agent.lr=0.2"]) != group_name("A-v1", "dqn", ["agent.lr=0.1"])
    long = [f"env.kwargs.option_{number}=1" for number in range(50)]
    names = [group_name("A-v1", "dqn", [*long, f"steps={steps}"]) for steps in (1, 2)]
    assert len(names[0]) == MAX_GROUP_NAME
    assert names[0] != names[1]  # although their visible parts are equal


# ---- W&B's own sweeps

#: Runs W&B's agent from the answer of its server to the end of the run that it starts.
AGENT = """
import json, os, sys, yaml
from wandb.wandb_agent import Agent
agent = object.__new__(Agent)  # without a server, which its constructor asks
agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = False, None, False, {}
agent._sweep_command = yaml.safe_load(open(sys.argv[1]))["command"] + json.loads(sys.argv[2])
agent._command_run({"type": "run", "run_id": "run1", "program": sys.argv[3], "args": json.loads(sys.argv[4])})
sys.exit(agent._run_processes["run1"].wait())
"""


def chosen(which: int) -> dict[str, Any]:
    """The first or the last value of each parameter of the sweep."""
    parameters = yaml.safe_load(SWEEP.read_text())["parameters"]
    return {
        name: about["values"][which] if "values" in about else float(about["max" if which else "min"])
        for name, about in parameters.items()
    }


@pytest.mark.parametrize("which", [0, -1])
def test_wandbs_agent_starts_a_run_of_the_sweep(which: int, tmp_path: Path) -> None:
    values = chosen(which)
    arguments = {name: {"value": value} for name, value in values.items()}
    words = [json.dumps([*SHORT, "agent.network.hidden=[8]"]), str(ROOT / "train.py"), json.dumps(arguments)]
    environment = plain_environment() | {
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", AGENT, str(SWEEP), *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/CartPole-v1/*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["agent"]["lr"] == values["agent.lr"]
    assert config["agent"]["n_step"] == values["agent.n_step"]
    assert config["agent"]["network"]["dueling"] is values["agent.network.dueling"]
    assert config["agent"]["noise"]["sigma0"] == values["agent.noise.sigma0"]
    assert config["agent"]["noise"]["draws"] == (0 if values["noise"] == "per_row" else 1)
    assert config["seed"] == values["seed"]
    found = record(tmp_path)
    assert found["run_id"] == "run1"
    assert found["job_type"] == "train"
    assert found["run_group"].startswith("CartPole-v1 noisy_dqn agent.")
    assert "seed=" not in found["run_group"]


def combinations() -> Iterator[list[str]]:
    """Each value of each parameter, with the first values of all other parameters."""
    for name, about in yaml.safe_load(SWEEP.read_text())["parameters"].items():
        for value in about.get("values", [about.get("min"), about.get("max")]):
            yield [f"{key}={chosen_value}" for key, chosen_value in {**chosen(0), name: value}.items()]


def test_every_value_of_the_sweep_is_one_that_train_py_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tried = list(combinations())
    assert len(tried) > 10
    for number, overrides in enumerate(tried):
        options, folder = compose_training(["env=CartPole-v1", *overrides, f"hydra.run.dir=run{number}"])
        assert training_request(options, overrides, folder).config.seed in (0, 1, 2)


def test_the_sweep_maximises_a_chart_of_a_run() -> None:
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["metric"]["name"] in charts_of({"eval/return_mean": 1.0})
    assert sweep["command"][-1] == "${args_no_hyphens}"
