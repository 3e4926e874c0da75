"""Saved agents from Python: a wrong agent or observation raises one sentence; parts of an observation are found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import ROOT
from test_export import saved

from agent import load_agent, train
from agent.common.errors import UserError
from agent.records.names import AGENT
from agent.running.acting import LoadedAgent

ZOO = ROOT / "zoo"


@pytest.fixture(scope="module")
def agents() -> dict[str, LoadedAgent]:
    return {name: load_agent(ZOO / name) for name in ("CartPole-v1", "FrozenLake-v1", "Blackjack-v1")}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"path": None}, "load_agent takes a folder, a file or hub:user/name as a text or a Path, not None"),
        ({"path": b"zoo"}, "as a text or a Path, not b'zoo'"),
        ({"path": "nowhere\n\x1b[2J"}, r"nowhere\\n\\x1b\[2J does not exist"),
        ({"path": "\0"}, "cannot be read .embedded null byte"),
        ({"path": 5_000 * "a"}, "a cannot be read .File name too long."),
        ({"path": "/dev/null"}, "/dev/null is neither a file nor a folder"),
        ({"which": "newest"}, "which is 'newest': it must be one of best, last"),
        ({"device": "tpu"}, "device=tpu cannot be used: "),
        ({"seed": -1}, "seed is -1: it must be a whole number from 0"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number"),
        ({"seed": 2**64}, "it must be a whole number"),
    ],
)
def test_what_is_no_agent_is_refused_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as told:
        load_agent(**{"path": ZOO / "CartPole-v1", **given})
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    ("name", "observation", "sentence"),
    [
        ("CartPole-v1", None, "the observation must hold numbers, not None"),
        ("CartPole-v1", ["1", "2", "3", "4"], "must hold numbers"),
        ("CartPole-v1", np.zeros(4, complex), "must hold numbers"),
        ("CartPole-v1", {"a": 1}, "must hold numbers"),
        ("CartPole-v1", torch.zeros(4, requires_grad=True), "cannot be read as an array: Can't call numpy"),
        ("CartPole-v1", [[0, 0], [0]], "cannot be read as an array"),
        ("CartPole-v1", [0.0] * 3, r"shape \(3,\): one has \(4,\), a batch has \('n', 4\)"),
        ("CartPole-v1", np.zeros((2, 2, 4)), r"shape \(2, 2, 4\)"),
        ("CartPole-v1", np.zeros((0, 4)), "a batch of none"),
        ("CartPole-v1", [np.nan, 0, 0, 0], "holds NaN, infinity or numbers that are too large"),
        ("CartPole-v1", [0, 0, 0, -np.inf], "holds NaN, infinity or numbers that are too large"),
        ("FrozenLake-v1", 3.5, "must hold whole numbers, of int64, not 3.5"),
        ("FrozenLake-v1", np.nan, "must hold whole numbers"),
        ("FrozenLake-v1", [], "a batch of none"),
        ("Blackjack-v1", (10, 2), "must be a tuple of 3 parts"),
        ("Blackjack-v1", [(10, 2, 0), (11, 2, 0)], "must be a tuple of 3 parts"),
        ("Blackjack-v1", {}, "must be a tuple of 3 parts"),
        ("Blackjack-v1", (10.5, 2, 0), "part 0 of the observation must hold whole numbers"),
        ("Blackjack-v1", (10, [2, 3], 0), r"the observation has shape \(\)|the observation has shape \(2,\)"),
    ],
)
def test_what_is_no_observation_is_refused_in_one_sentence(
    agents: dict[str, LoadedAgent], name: str, observation: object, sentence: str
) -> None:
    for method in (agents[name].act, agents[name].q_values):
        with pytest.raises(ValueError, match=sentence) as told:
            method(observation)
        assert "\n" not in str(told.value)


def test_lists_are_as_good_as_arrays(agents: dict[str, LoadedAgent]) -> None:
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(5, 4)).astype(np.float32)
    for agent, rows in (
        (agents["CartPole-v1"], batch),
        (agents["FrozenLake-v1"], np.arange(5)),
        (agents["FrozenLake-v1"], np.arange(5.0)),
    ):
        expected = agent.act(rows)
        assert expected.shape == (5,)
        assert (agent.act(rows.tolist()) == expected).all()
        assert [int(agent.act(row)) for row in rows.tolist()] == expected.tolist()


class Rooms(gym.Env[Any, Any]):
    """Observes a Dict or a Tuple with a text in it, which no network takes."""

    action_space = spaces.Discrete(3)
    parts = (spaces.Text(5, min_length=1), spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4))

    def __init__(self, named: bool = True) -> None:
        names = ("say", "at", "zone")
        self.observation_space = (
            spaces.Dict(dict(zip(names, self.parts, strict=True))) if named else spaces.Tuple(self.parts)
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture
def rooms() -> Iterator[None]:
    gym.register("Test/Rooms-v0", entry_point=Rooms)
    yield
    del gym.registry["Test/Rooms-v0"]


@pytest.mark.parametrize(
    ("named", "parts"),
    [(True, ["at"]), (True, ["zone", "at"]), (False, [1]), (False, [2]), (False, [2, 1])],
)
def test_an_agent_of_some_parts_takes_the_whole_observation(
    rooms: None, tmp_path: Path, named: bool, parts: list[Any]
) -> None:
    """It also takes the observation of its own environment, which has only the parts that it uses."""
    player = saved(tmp_path, "Test/Rooms-v0", {"named": named}, parts=parts)
    agent, kept, whole = load_agent(tmp_path / AGENT), player.task.make(), gym.make("Test/Rooms-v0", named=named)
    for seed in range(5):
        (own, _), (observation, _) = kept.reset(seed=seed), whole.reset(seed=seed)
        np.testing.assert_array_equal(agent.q_values(observation), agent.q_values(own))
        assert agent.act(observation) == agent.act(own)
    missing = {"say": "x"} if named else ("x",)
    with pytest.raises(ValueError, match="the observation has no part"):
        agent.act(missing)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "env.wrappers=TimeAwareObservation",
            "env.wrappers is 'TimeAwareObservation': it must be a list, such as [a,b]",
        ),
        ("env.wrappers={ClipReward:{}}", "env.wrappers={ClipReward:{}} cannot be used: env.wrappers takes a list"),
        ("env.observation={a:1}", "env.observation takes a list, such as [a,b]"),
        ("env.eval_kwargs=[1]", "env.eval_kwargs takes options of its own, such as {name:value}"),
        ("agent.network.hidden=64", "agent.network.hidden is 64: it must be a list, such as [256,256]"),
        (
            "+env.eval_kwargs.render_mode=human",
            "env.eval_kwargs={'render_mode': 'human'} cannot be saved with an agent",
        ),
        ("+env.eval_kwargs.gravity=null", "env.eval_kwargs={'gravity': None} cannot be saved with an agent"),
    ],
)
def test_options_of_another_form_are_told_by_their_own_name(tmp_path: Path, override: str, sentence: str) -> None:
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    with pytest.raises(UserError) as told:
        train(folder, override, env="CartPole-v1", wandb={"mode": "disabled"})
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)
