"""Environments that break Gymnasium's rules: one sentence each, in one process, in many, and in evaluation."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import breaking
import gymnasium as gym
import numpy as np
import pytest
import torch
from breaking import HARMLESS, RESETS, STEPS

import envs.closing
from agent.common import notices
from agent.common.errors import UserError
from agent.common.seeding import environment_seeds
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.networks.build import build_network
from agent.running.evaluation import evaluate
from envs.make import Task, load_task
from envs.vector import make_vector

ENV = "Test/Breaking-v0"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    breaking.register()
    yield
    gym.registry.pop(ENV)


#: This name is left out of GRID, since Python raises this error for Ctrl-C, too; a test below covers it.
STOPS = "raises KeyboardInterrupt"
GRID = [name for name in STEPS if name != STOPS]


def check(error: UserError, words: str, raises: bool) -> None:
    """Checks that one line names the environment and has the words, and that the author's lines follow if it raised."""
    sentence = str(error)
    assert sentence.startswith((f"{ENV} breaks a rule of Gymnasium: ", f"{ENV} failed in "))
    assert words in sentence
    assert sentence.isprintable()
    assert len(sentence) < 700
    assert ('File "' in error.detail) == raises
    assert all(line.startswith("  ") and line.isprintable() for line in error.detail.splitlines())
    assert "gymnasium" not in error.detail
    assert "/envs/" not in error.detail.replace(breaking.__file__, "")
    if raises:
        assert breaking.__file__ in error.detail


def play(task: Task, vectorization: Any) -> None:
    """Makes thirty vector steps like a run."""
    copies: Any = make_vector(task, 2, vectorization)
    try:
        copies.begin_episodes(0)
        copies.reset(seed=0)
        for _ in range(30):
            copies.step(task.to_environment(np.zeros(2, dtype=np.int64)))
    finally:
        copies.close()


@pytest.mark.parametrize("name", GRID)
def test_a_step_that_breaks_a_rule_is_found_where_the_task_is_loaded(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(ENV, {"step": name})
    check(caught.value, STEPS[name][1], raises=name.startswith(("raises", "not implemented")))


@pytest.mark.parametrize("name", RESETS)
def test_a_reset_that_breaks_a_rule_is_found_where_the_task_is_loaded(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(ENV, {"reset": name})
    check(caught.value, RESETS[name][1], raises=name.startswith("raises"))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("name", GRID)
def test_a_later_step_that_breaks_a_rule_ends_in_one_sentence(name: str, vectorization: str) -> None:
    task = load_task(ENV, {"step": name, "at": 13})
    with pytest.raises(UserError) as caught:
        play(task, vectorization)
    check(caught.value, STEPS[name][1], raises=name.startswith(("raises", "not implemented")))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("name", RESETS)
def test_a_later_reset_that_breaks_a_rule_ends_in_one_sentence(name: str, vectorization: str) -> None:
    task = load_task(ENV, {"reset": name, "at": 2})
    with pytest.raises(UserError) as caught:
        play(task, vectorization)
    check(caught.value, RESETS[name][1], raises=name.startswith("raises"))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_taken(name: str, vectorization: Any) -> None:
    task = load_task(ENV, {"step": name})
    copies = make_vector(task, 2, vectorization)
    copies.reset(seed=0)
    results = [copies.step(np.zeros(2, dtype=np.int64)) for _ in range(12)]
    copies.close()
    assert [reward.tolist() for _, reward, *_ in results] == [[1.0, 1.0]] * 10 + [[0.0, 0.0], [1.0, 1.0]]
    assert [ended.tolist() for _, _, ended, *_ in results] == [[False] * 2] * 9 + [[True] * 2] + [[False] * 2] * 2
    assert all(task.observe(observation).dtype == np.float32 for observation, *_ in results)
    assert all(info == {} for *_, info in results)


@pytest.mark.parametrize("name", ["four values", "shape (1,)", "reward '1'", "terminated 'no'", "raises SystemExit"])
def test_an_evaluation_ends_in_the_same_sentence(name: str) -> None:
    task = load_task(ENV, {"step": name, "at": 13})
    config = parse(AgentConfig, {"network": {"hidden": [8]}})
    network = build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))
    with pytest.raises(UserError) as caught:
        evaluate(task, network, environment_seeds(0, "evaluation", 6), num_envs=2)
    check(caught.value, STEPS[name][1], raises=name.startswith("raises"))


# ---- constructors and spaces


class Made(gym.Env[Any, Any]):
    """Has the given attributes, and no others."""

    def __init__(self, attributes: dict[str, Any], fails: BaseException | None = None) -> None:
        if fails is not None:
            raise fails
        for name, value in attributes.items():
            setattr(self, name, value)


class Unset(gym.spaces.Discrete):
    """A space of actions whose author has not set their number."""

    def __init__(self) -> None:
        gym.Space.__init__(self, (), np.int64)


class Untold(gym.spaces.Box):
    """Has no text, since its author's `__repr__` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Moves(gym.spaces.Discrete):
    """A Discrete space whose author's `__repr__` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


BOX, TWO = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
ATTRIBUTES: list[tuple[dict[str, Any], str]] = [
    ({"observation_space": BOX}, "action_space must be one of gymnasium.spaces, not None"),
    ({"action_space": TWO}, "observation_space must be one of gymnasium.spaces, not None"),
    ({"action_space": 2, "observation_space": BOX}, "action_space must be one of gymnasium.spaces, not 2"),
    ({"action_space": TWO, "observation_space": (3,)}, "observation_space must be one of gymnasium.spaces"),
    ({"action_space": gym.spaces.Discrete, "observation_space": BOX}, "action_space must be one of gymnasium.spaces"),
    ({"action_space": TWO, "observation_space": BOX}, "reset must return (observation, info), not None"),
    (
        {"action_space": TWO, "observation_space": BOX, "reset": lambda **_: (np.zeros(3, np.float32), {})},
        "step must be a method of the environment, not missing",
    ),
    ({"action_space": gym.spaces.Discrete(10**9), "observation_space": BOX}, "the most that are supported are 100,000"),
    (
        {"action_space": TWO, "observation_space": gym.spaces.Discrete(10**9)},
        "observations of 1,000,000,000 numbers: the most that are supported",
    ),
    ({"action_space": Unset(), "observation_space": BOX}, "failed in action_space: AttributeError: 'Unset' object has"),
    ({"action_space": Untold(-1, 1, (2,)), "observation_space": BOX}, "has actions an object of class Untold: this"),
    ({"action_space": TWO, "observation_space": Untold(0, 1, (0,))}, "has observations an object of class Untold: th"),
    (
        {"action_space": gym.spaces.Discrete(10, start=250, dtype=np.uint8), "observation_space": BOX},
        "actions of uint8 must lie from 0 to 255, not 250 to 259",
    ),
]


class NamedMoves(gym.spaces.Discrete):
    """A class that derives from Discrete, with names for its actions."""

    def __init__(self) -> None:
        super().__init__(2)
        self.names = ("left", "right")


class Cube(gym.spaces.Box):
    """A class that derives from Box."""

    def __init__(self) -> None:
        super().__init__(-1, 1, (3,), np.float32)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_spaces_that_derive_from_gymnasiums_are_taken(vectorization: str) -> None:
    methods = {
        "reset": lambda **_: (np.zeros(3, np.float32), {}),
        "step": lambda action: (np.ones(3, np.float32), 1.0, False, False, {}),
    }
    spaces = {"action_space": NamedMoves(), "observation_space": Cube()}
    gym.register("Test/Derived-v0", entry_point=lambda: Made(spaces | methods))
    try:
        envs = make_vector(load_task("Test/Derived-v0", {}), 2, vectorization)
        envs.reset(seed=0)
        assert envs.step(np.zeros(2, dtype=np.int64))[1].tolist() == [1.0, 1.0]
        envs.close()
    finally:
        gym.registry.pop("Test/Derived-v0")


@pytest.mark.parametrize(("attributes", "words"), ATTRIBUTES)
def test_spaces_that_are_none_are_named(attributes: dict[str, Any], words: str) -> None:
    gym.register("Test/Made-v0", entry_point=Made)  # type: ignore[arg-type]
    try:
        with pytest.raises(UserError, match=f"^Test/Made-v0 .*{re.escape(words)}"):
            load_task("Test/Made-v0", {"attributes": attributes})
    finally:
        gym.registry.pop("Test/Made-v0")


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_actions_of_a_class_of_one_s_own_are_taken(vectorization: Any) -> None:
    gym.register("Test/Made-v0", entry_point=Made)  # type: ignore[arg-type]
    steps = {"reset": lambda **_: (breaking.GOOD, {}), "step": lambda _: (breaking.GOOD, 0.0, False, False, {})}
    spaces = {"action_space": Moves(3, start=5), "observation_space": BOX}
    try:
        task = load_task("Test/Made-v0", {"attributes": {**spaces, **steps}})
        assert task.action_space == gym.spaces.Discrete(3, start=5)
        play(task, vectorization)
    finally:
        gym.registry.pop("Test/Made-v0")


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("\x1b[31m"), GeneratorExit(), RecursionError("deep")])
def test_a_constructor_may_raise_anything(error: BaseException) -> None:
    gym.register("Test/Made-v0", entry_point=Made)  # type: ignore[arg-type]
    try:
        with pytest.raises(UserError, match=r"^Test/Made-v0 could not be made with") as caught:
            load_task("Test/Made-v0", {"attributes": {}, "fails": error})
        assert str(caught.value).isprintable()
    finally:
        gym.registry.pop("Test/Made-v0")


# ---- closing


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("close", ["raises", "hangs"])
def test_closing_that_fails_is_told_in_one_line(
    close: str, vectorization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envs.closing, "CLOSE_SECONDS", 0.3)
    monkeypatch.setattr("envs.processes.CLOSE_SECONDS", 1.0)
    told: list[str] = []
    monkeypatch.setattr(notices, "_say", told.append)
    monkeypatch.setattr(notices, "_told", set())
    began = time.monotonic()
    task = load_task(ENV, {"close": close})
    play(task, vectorization)
    play(task, vectorization)
    assert time.monotonic() - began < 10
    assert len(told) == 1
    assert told[0].startswith(ENV)
    assert ("physics server" in told[0]) == (close == "raises")


# ---- observations of every structure

PAIR = gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.Box(0, 1, (2,), np.float32))
TWICE = gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.MultiBinary(2)))
WORD, BYTES = gym.spaces.Text(4), gym.spaces.Box(0, 255, (2,), np.uint8)
SINGLE = gym.spaces.Box(-1, 1, (), np.float32)
B = np.zeros(2, np.float32)
REFUSED: list[tuple[gym.Space[Any], Any, str]] = [
    (PAIR, {"a": 1}, "an observation must be a dict of ['a', 'b'], not a dict of ['a']"),
    (PAIR, (1, B), "an observation must be a dict of ['a', 'b'], not a tuple of length 2"),
    (PAIR, {"a": 3, "b": B}, "'a' of an observation must lie in Discrete(3), as observation_space says, not 3"),
    (PAIR, {"a": 1.0, "b": B}, "'a' of an observation must lie in Discrete(3), as observation_space says, not 1.0"),
    (PAIR, {"a": 1, "b": np.float32(1)}, "'b' of an observation must have shape (2,)"),
    (TWICE, (1,), "an observation must be a tuple of 2 parts, not a tuple of length 1"),
    (TWICE, (1, B.astype(int), 3), "an observation must be a tuple of 2 parts, not a tuple of length 3"),
    (TWICE, 7, "an observation must be a tuple of 2 parts, not 7"),
    (TWICE, (1, np.array([0, 2])), "part 1 of an observation must lie in MultiBinary(2)"),
    (WORD, "abcde", "an observation must be in Text(1, 4"),
    (WORD, "a b", "an observation must be in Text(1, 4"),
    (WORD, 3, "an observation must be in Text(1, 4"),
    (BYTES, np.array([0, 256]), "must have shape (2,) and uint8"),
    (BYTES, np.array([-1, 0]), "must have shape (2,) and uint8"),
    (BYTES, np.array([0.0, 1.0]), "must have shape (2,) and uint8, as observation_space says, not an array of shape"),
    (SINGLE, np.zeros(1, np.float32), "must have shape () and float32"),
    (gym.spaces.Discrete(5), np.array([2]), "must lie in Discrete(5), as observation_space says, not an array of"),
    (gym.spaces.Discrete(5), "2", "must lie in Discrete(5), as observation_space says, not '2'"),
    (gym.spaces.Discrete(5), None, "must lie in Discrete(5), as observation_space says, not None"),
    (gym.spaces.MultiDiscrete([2, 3]), [1, 3], "must lie in MultiDiscrete([2 3]), as observation_space says"),
]
TAKEN: list[tuple[gym.Space[Any], Any]] = [
    (PAIR, {"b": B, "a": np.uint8(2), "more": object()}),
    (PAIR, {"a": True, "b": [0, 1]}),
    (TWICE, [2, np.array([True, False])]),
    (WORD, ""),
    (BYTES, [0, 255]),
    (BYTES, np.array([0, 255], np.int64)),
    (SINGLE, 0.5),
    (SINGLE, np.float64(0.5)),
    (gym.spaces.Discrete(5, start=-1), np.int8(-1)),
    (gym.spaces.Box(0, 1, (2,), np.bool_), np.array([0, 1])),
]


class Shown(gym.Env[Any, Any]):
    """Observes samples of its space, and from its second step on the observation `shown`."""

    action_space = TWO

    def __init__(self, space: gym.Space[Any], shown: Any) -> None:
        self.observation_space, self.shown, self.steps = space, shown, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return (self.observation_space.sample() if self.steps == 1 else self.shown), 0.0, False, False, {}


def show(space: gym.Space[Any], shown: Any, vectorization: Any) -> np.ndarray:
    """Plays two steps, and returns the observation of the agent after the second."""
    gym.register("Test/Shown-v0", entry_point=Shown)  # type: ignore[arg-type]
    try:
        task = load_task("Test/Shown-v0", {"space": space, "shown": shown})
        copies = make_vector(task, 2, vectorization)
        try:
            copies.reset(seed=0)
            copies.step(task.to_environment(np.zeros(2, dtype=np.int64)))
            return task.observe(copies.step(np.zeros(2, dtype=np.int64))[0])
        finally:
            copies.close()
    finally:
        gym.registry.pop("Test/Shown-v0")


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_an_observation_of_another_structure_is_named(number: int, vectorization: str) -> None:
    space, shown, words = REFUSED[number]
    with pytest.raises(UserError, match=r"^Test/Shown-v0 breaks a rule of Gymnasium: ") as caught:
        show(space, shown, vectorization)
    said = str(caught.value)
    assert words in said or ("a state must lie in" in said and words.partition("must lie in")[2] in said)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("number", range(len(TAKEN)))
def test_an_observation_of_another_kind_that_does_no_harm_is_taken(number: int, vectorization: str) -> None:
    space, shown = TAKEN[number]
    rows = show(space, shown, vectorization)
    assert np.isfinite(rows).all()
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_keyboard_interrupt_that_no_keyboard_sent_is_the_environments_own(vectorization: str) -> None:
    """In training our handler of SIGINT does not raise KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with pytest.raises(UserError, match=f"{ENV} failed in step: KeyboardInterrupt"):
            play(load_task(ENV, {"step": STOPS, "at": 3}), vectorization)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        play(load_task(ENV, {"step": STOPS, "at": 3}), "sync")
