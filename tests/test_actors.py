"""What actors are made from: their shares of the environments, their seeds and their ε; no Ray is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.common.errors import UserError
from agent.config.checks import without_effect
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.running.build import build_player
from agent.running.distributed.actor import Actor
from agent.running.distributed.chunk import Chunk, Setup, ladder, shared_out, weights_of
from envs.make import load_task


def config(**collect: Any) -> TrainConfig:
    tree = {"num_envs": 5, "collect": {"engine": "ray", "actors": 3, "chunk": 4, **collect}}
    tree["agent"] = {"learning_starts": 64, "noise": {"mean_envs": 3}, "epsilon": {"start": 0.0, "end": 0.0}}
    return parse(TrainConfig, tree)


def test_environments_are_shared_out_evenly() -> None:
    assert shared_out(5, 3) == (2, 2, 1)
    assert shared_out(8, 8) == (1,) * 8
    with pytest.raises(UserError, match=r"collect\.actors is 6 and num_envs is 5"):
        config(actors=6)


def test_each_incarnation_of_each_actor_has_a_seed_of_its_own_and_always_the_same() -> None:
    def seeds() -> list[int]:
        setup = Setup(config(), load_task("CartPole-v1", {}), None, (2, 2, 1))
        return [setup.config_of(actor, incarnation).seed for actor in range(3) for incarnation in range(3)]

    assert len({0, *seeds()}) == 10
    assert seeds() == seeds()


def test_the_environments_of_the_mean_network_are_the_first_of_all() -> None:
    setup = Setup(config(), load_task("CartPole-v1", {}), None, (2, 2, 1))
    assert [setup.config_of(actor, 0).agent.noise.mean_envs for actor in range(3)] == [2, 1, 0]


def test_the_ladder_is_that_of_ape_x() -> None:
    """0.4 to 0.4⁸ (Horgan et al. 2018, §4), constant from the first step on."""
    assert ladder(0, 1) == pytest.approx(0.4)
    assert [ladder(i, 3) for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])
    setup = Setup(config(ladder=True), load_task("CartPole-v1", {}), None, (2, 2, 1))
    epsilon = setup.config_of(2, 0).agent.epsilon
    assert epsilon.at(0) == epsilon.at(10**6) == pytest.approx(0.4**8)


def test_a_chunk_is_what_was_played_in_order_and_the_weights_are_those_that_were_given() -> None:
    """Two actors with the same seeds play the same by the same weights, and something else by others."""
    task = load_task("CartPole-v1", {})
    setup = Setup(config(), task, None, (2, 2, 1))
    weights = weights_of(build_player(setup.config_of(0, 0), task, 0))
    others = {name: -value for name, value in weights.items()}

    def play(given: Any) -> list[Chunk]:
        actor = Actor(setup, 1, 0)
        chunks = [actor.play(1_000, 7, given) for _ in range(5)]
        assert all(isinstance(chunk, Chunk) for chunk in chunks)
        return chunks  # type: ignore[return-value]

    chunks = play(weights)
    assert [(chunk.actor, chunk.incarnation, chunk.sequence, chunk.version) for chunk in chunks] == [
        (1, 0, i, 7) for i in range(5)
    ]
    assert [chunk.first is None for chunk in chunks] == [False, True, True, True, True]
    assert all(chunk.action.shape == (4, 2) and chunk.observation.shape == (4, 2, 4) for chunk in chunks)
    ended = sum(int((chunk.terminated | chunk.truncated).sum()) for chunk in chunks[:-1])
    assert sum(sum(chunk.steps) for chunk in chunks) <= 40
    assert sum(len(chunk.episodes) for chunk in chunks[:-1]) == ended

    def actions(of: list[Chunk]) -> np.ndarray:
        return np.concatenate([chunk.action for chunk in of])

    assert np.array_equal(actions(chunks), actions(play(weights)))
    assert not np.array_equal(actions(chunks), actions(play(others)))


def test_options_that_nothing_reads_are_named() -> None:
    def told(config: TrainConfig, word: str) -> bool:
        return any(sentence.startswith(word) for sentence in without_effect(config, [word]))

    assert told(TrainConfig(), "collect.actors=3")
    assert not told(config(), "collect.actors=3")
    assert told(config(sync=True), "collect.publish=3")
    assert told(config(), "overlap=on")
    assert told(config(address="auto"), "collect.memory=1")
