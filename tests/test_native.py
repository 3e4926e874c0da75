"""Vector classes of other packages: a broken rule raises one sentence, as for single environments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from agent.common.errors import UserError
from envs.failure import BrokenEnvironmentError
from envs.make import load_task
from envs.native import GuardedVector
from envs.vector import begin_step, make_vector

BOX, TWO = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)


class One(gym.Env[Any, Any]):
    """A single environment that keeps all rules."""

    observation_space, action_space = BOX, TWO

    def __init__(self, breaks: str = "") -> None:
        self.breaks = breaks

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), 1.0, False, False, {}


def raise_it(*_: Any) -> Any:
    raise ValueError("no threads")


#: Functions that turn the right results of a step of two copies into wrong ones, and words of the sentence.
BREAKS: dict[str, tuple[Callable[..., Any], str]] = {
    "four values": (lambda o, r, e, t, i: (o, r, e, i), "step must return"),
    "one observation": (lambda o, r, e, t, i: (o[0], r, e, t, i), "observations must be an array of shape (2, 3)"),
    "a list": (lambda o, r, e, t, i: (o.tolist(), r, e, t, i), "observations must be an array of shape (2, 3)"),
    "one reward": (lambda o, r, e, t, i: (o, 1.0, e, t, i), "rewards must be an array of 2 numbers, not 1.0"),
    "rewards of words": (lambda o, r, e, t, i: (o, np.array(["1", "2"]), e, t, i), "rewards must be an array of 2"),
    "endings None": (lambda o, r, e, t, i: (o, r, None, t, i), "terminations must be an array of 2 truth values"),
    "endings words": (lambda o, r, e, t, i: (o, r, e, np.array(["no", "no"]), i), "truncations must be an array of 2"),
    "raises": (raise_it, "failed in step: ValueError: no threads"),
}
HARMLESS: dict[str, Callable[..., Any]] = {
    "infos of any kind": lambda o, r, e, t, i: (o, r, e, t, [object()]),
    "float32 rewards": lambda o, r, e, t, i: (o, r.astype(np.float32), e, t, i),
    "whole rewards": lambda o, r, e, t, i: (o, r.astype(int), e, t, i),
}


OTHER_BOXES = {
    "another length": gym.spaces.Box(-1, 1, (4,), np.float32),
    "another range": gym.spaces.Box(-100, 100, (3,), np.float32),
}


class Two(VectorEnv[Any, Any, Any]):
    """A vector class of `One`, which breaks a rule in each step."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 2, breaks: str = "") -> None:
        self.num_envs, self.breaks = num_envs, breaks
        self.single_observation_space, self.single_action_space = BOX, TWO
        self.single_observation_space = OTHER_BOXES.get(breaks, BOX)
        if breaks == "another start":
            self.single_action_space = gym.spaces.Discrete(2, start=1)
        if breaks == "its own death":
            raise SystemExit(0)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observation = np.zeros((self.num_envs, 3), np.float32)
        return observation if self.breaks == "reset" else (observation, {})

    def step(self, actions: Any) -> Any:
        ended = np.zeros(self.num_envs, bool)
        result = np.zeros((self.num_envs, 3), np.float32), np.ones(self.num_envs), ended, ended, {}
        change = HARMLESS.get(self.breaks) or BREAKS.get(self.breaks, (lambda *values: values, ""))[0]
        return change(*result)

    def close_extras(self, **options: Any) -> None:
        if self.breaks == "closing":
            raise OSError("gone")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("Test/Two-v0", entry_point=One, vector_entry_point=Two)  # type: ignore[arg-type]
    yield
    gym.registry.pop("Test/Two-v0")


def two(breaks: str) -> VectorEnv[Any, Any, Any]:
    return make_vector(load_task("Test/Two-v0", {"breaks": breaks}), 2, "native")


@pytest.mark.parametrize("name", BREAKS)
def test_a_step_that_breaks_a_rule(name: str) -> None:
    envs = two(name)
    envs.reset(seed=0)
    with pytest.raises(UserError, match=r"^Test/Two-v0 ") as caught:
        begin_step(envs, np.zeros(2, dtype=np.int64))()
    assert BREAKS[name][1] in str(caught.value)
    assert (__file__ in caught.value.detail) == (name == "raises")
    envs.close()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_taken(name: str) -> None:
    envs = two(name)
    envs.reset(seed=0)
    observation, reward, terminated, truncated, info = envs.step(np.zeros(2, dtype=np.int64))
    assert (observation.shape, reward.dtype, reward.tolist(), info) == ((2, 3), np.float64, [1.0, 1.0], {})
    assert not terminated.any()
    assert not truncated.any()


def test_a_reset_that_breaks_a_rule() -> None:
    with pytest.raises(UserError, match=r"^Test/Two-v0 .*reset must return \(observation, info\), not an array"):
        two("reset").reset(seed=0)


#: (attribute of a vector class, its wrong value, or MISSING if it has none, words of the sentence).
MISSING = object()
FAILING = property(raise_it, lambda *_: None)
ATTRIBUTES: dict[str, tuple[str, object, str]] = {
    "no observation space": ("single_observation_space", MISSING, "must have single_observation_space, not nothing"),
    "no action space": ("single_action_space", MISSING, "must have single_action_space, not nothing at all"),
    "space None": ("single_observation_space", None, "observation_space must be one of gymnasium.spaces, not None"),
    "actions None": ("single_action_space", None, "single_action_space must be one of gymnasium.spaces, not None"),
    "no number": ("num_envs", MISSING, "a vector class must have num_envs, not nothing at all"),
    "a number None": ("num_envs", None, "must have num_envs=2, the number of copies .*, not None"),
    "one copy more": ("num_envs", 3, "must have num_envs=2, the number of copies .*, not 3"),
    "an array": ("num_envs", np.ones(2), "must have num_envs=2, the number of copies .*, not an array"),
    "a property that fails": ("num_envs", FAILING, "failed in num_envs: ValueError: no threads"),
    "metadata a list": ("metadata", ["NEXT_STEP"], "resets by None: only NEXT_STEP is supported"),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_class_without_an_attribute(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The class is closed, and the sentence says what to do."""
    attribute, value, expected = ATTRIBUTES[name]
    closed: list[str] = []

    class Lacking(Two):
        def __init__(self, num_envs: int = 2, breaks: str = "") -> None:
            super().__init__(num_envs, breaks)
            vars(self).pop(attribute, None)

        def close(self, **options: Any) -> None:
            closed.append(name)

    if value is not MISSING:
        setattr(Lacking, attribute, value)
    gym.register("Test/Lacking-v0", entry_point=One, vector_entry_point=Lacking)  # type: ignore[arg-type]
    try:
        with pytest.raises(UserError, match=rf"^Test/Lacking-v0 .*{expected}.*; use env.vectorization=sync$") as caught:
            make_vector(load_task("Test/Lacking-v0", {}), 2, "native")
    finally:
        gym.registry.pop("Test/Lacking-v0")
    assert (__file__ in caught.value.detail) == (name == "a property that fails")
    assert closed == [name]
    assert capsys.readouterr().err == ""


class Growing(Two):
    """Has one copy more from its third step on, in num_envs and in its results."""

    steps = 0

    def step(self, actions: Any) -> Any:
        self.steps += 1
        self.num_envs += self.steps == 3
        return super().step(actions)


def test_a_number_of_copies_that_changes_later() -> None:
    """A run treats this as a failure of the environment, and saves all steps before it."""
    gym.register("Test/Growing-v0", entry_point=One, vector_entry_point=Growing)  # type: ignore[arg-type]
    try:
        envs = make_vector(load_task("Test/Growing-v0", {}), 2, "native")
    finally:
        gym.registry.pop("Test/Growing-v0")
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(BrokenEnvironmentError, match=r"observations must be .* \(2, 3\), not .*\(3, 3\)"):
        envs.step(np.zeros(2, dtype=np.int64))
    assert envs.num_envs == 2


@pytest.mark.parametrize(
    ("space", "batch", "expected"),
    [
        (gym.spaces.Discrete(4), np.zeros(3, np.int64), r"observations must be an array of shape \(2,\)"),
        (
            gym.spaces.Dict({"x": gym.spaces.Tuple([BOX, gym.spaces.MultiBinary(5)])}),
            {"x": (np.zeros((2, 3), np.float32), np.zeros((3, 5), np.int8))},
            r"part 1 of part 'x' of observations must be an array of shape \(2, 5\)",
        ),
    ],
    ids=["Discrete", "Dict"],
)
def test_observations_of_every_space_have_a_row_for_each_copy(space: Any, batch: Any, expected: str) -> None:
    class Wrong(Two):
        def __init__(self) -> None:
            super().__init__()
            self.single_observation_space = space

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return batch, {}

    with pytest.raises(UserError, match=f"^Test/Two-v0 .*{expected}"):
        GuardedVector(Wrong(), "Test/Two-v0", 2).reset(seed=0)


def test_copies_of_other_spaces_than_one_alone() -> None:
    for name in OTHER_BOXES:
        with pytest.raises(UserError, match=r"^Test/Two-v0 .*every copy must have the observation space .*\(3,\)"):
            two(name)
    with pytest.raises(UserError, match=r"^Test/Two-v0 .*every copy must have the action space .*\(2\).*start=1"):
        two("another start")


def test_a_constructor_that_ends_the_program() -> None:
    with pytest.raises(
        UserError, match=r"the vector class of Test/Two-v0 could not be made .*use env.vectorization=sync"
    ):
        two("its own death")


def test_closing_that_fails_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    two("closing").close()
    assert "Test/Two-v0 could not be closed (OSError: gone)" in capsys.readouterr().err
