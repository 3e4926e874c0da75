"""Sweeps at W&B: runs that differ in their seeds alone are one group."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from helpers import Programs
from test_dashboard import record

from agent.command.sweeping import LONGEST, group_name, with_labels

SHORT = ("steps=40", "num_envs=2", "eval.episodes=0", "agent.network.hidden=[8]", "log.progress=false")
LABELS = ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE")


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


def test_a_group_is_named_by_all_that_seeds_share() -> None:
    name = group_name("A-v1", "dqn", ["env=A-v1", "seed=4", "noise=paper", "agent.lr=0.1", "agent=dqn"])
    assert name == "A-v1 dqn agent.lr=0.1 noise=paper"
    same = ["+agent.lr=0.1", "noise=paper", "seed=5", "wandb.mode=offline", "log.every=3", "checkpoint.keep=1"]
    assert group_name("A-v1", "dqn", same).replace("+", "") == name
    assert group_name("A-v1", "dqn", ["agent.lr=0.2"]) != group_name("A-v1", "dqn", ["agent.lr=0.1"])
    long = [f"env.kwargs.option_{number}=1" for number in range(50)]
    names = [group_name("A-v1", "dqn", [*long, f"steps={steps}"]) for steps in (1, 2)]
    assert len(names[0]) == LONGEST
    assert names[0] != names[1]  # though all that is shown of them is equal
