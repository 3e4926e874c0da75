"""The agents of zoo/: each is small, can be loaded from its folder, and has the returns of its card."""

import json
import re
from typing import Any

import numpy as np
import pytest
import yaml
from test_benchmarks import load as load

from agent import evaluate, load_agent
from agent.common.observation import ObservationSpec
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.networks.build import build_network
from agent.records.names import AGENT
from agent.records.saved_agent import read_header
from tests.test_imports import ROOT

ZOO = ROOT / "zoo"
TASKS = sorted(path.parent.name for path in ZOO.glob(f"*/{AGENT}"))
RETURNS = "evaluation_100_episodes_seed0.json"
EPISODES = 5
SHARE = 0.8  # the agent needs this fraction of the card's returns for the same episodes


def test_the_zoo_holds_the_agents_of_its_command_and_no_others(load: Any) -> None:
    assert sorted(load("zoo").AGENTS) == TASKS


def test_every_task_with_a_preset_has_an_agent_unless_it_is_too_large(load: Any) -> None:
    folder = ROOT / "conf" / "preset" / "task"
    presets = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
    missing = {preset for preset in presets - set(TASKS) if not preset.startswith("MinAtar/")}
    assert missing == set()
    config = parse(AgentConfig, {"network": {"hidden": [128]}})
    network = build_network(config, ObservationSpec((4, 10, 10), "bool"), 3)  # Breakout, the smallest game of MinAtar
    assert sum(4 * parameter.numel() for parameter in network.parameters()) > load("zoo").MAX_BYTES


@pytest.mark.parametrize("task", TASKS)
def test_an_agent_of_the_zoo_is_small_and_its_files_agree(task: str) -> None:
    folder = ZOO / task
    assert (folder / AGENT).stat().st_size <= 1_000_000
    returns = json.loads((folder / RETURNS).read_text())
    assert (len(returns["returns"]), returns["noise"], returns["seed"]) == (100, False, 0)
    assert returns["return_mean"] == pytest.approx(np.mean(returns["returns"]))
    said = read_header(folder / AGENT).description
    config = parse(TrainConfig, yaml.safe_load((folder / "config.yaml").read_text()))
    assert (parse(AgentConfig, said["agent"]), said["seed"]) == (config.agent, config.seed)
    assert said["env"]["id"] == task
    card = (folder / "README.md").read_text()
    assert f"{returns['return_mean']:.2f} ± {returns['return_std']:.2f}" in card
    assert f"checkpoint=zoo/{task}" in card


@pytest.mark.parametrize("task", TASKS)
def test_an_agent_of_the_zoo_plays_as_its_card_says(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if task == "LunarLander-v3":
        pytest.importorskip("Box2D", reason="needs the extra box2d")
    monkeypatch.chdir(ROOT)
    assert load_agent(f"zoo/{task}").env_id == task
    played = evaluate(f"zoo/{task}", episodes=EPISODES)["return_mean"]
    said = float(np.mean(json.loads((ZOO / task / RETURNS).read_text())["returns"][:EPISODES]))
    assert played >= said - (1 - SHARE) * abs(said)


def test_the_table_of_the_zoo_has_the_returns_of_the_cards() -> None:
    table = (ZOO / "README.md").read_text()
    for task in TASKS:
        returns = json.loads((ZOO / task / RETURNS).read_text())
        row = re.search(rf"^\| \[{re.escape(task)}\].*$", table, re.MULTILINE)
        assert row is not None
        assert f"{returns['return_mean']:.2f} ± {returns['return_std']:.2f}" in row[0]
