"""Environments: refusals, and the equal meaning of an ending in all kinds of vectorisation."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agent.common.errors import UserError
from envs.make import load_saved_task, load_task
from envs.observations import observer_of
from envs.single import make_single
from envs.vector import NATIVE_FROM, Processes, make_vector
from envs.wrapping import wrapping_of

Policy = Callable[[np.ndarray], np.ndarray]
Register = Callable[..., None]


@pytest.fixture
def register() -> Iterator[Register]:
    """gym.register, undone after the test."""
    names: list[str] = []

    def add(env_id: str, entry_point: Any, **options: Any) -> None:
        gym.register(env_id, entry_point=entry_point, **options)
        names.append(env_id)

    yield add
    for name in names:
        gym.registry.pop(name)


class Plain(gym.Env[np.ndarray, np.int64]):
    """Has actions 2, 3, 4, observes (action, time) in double precision, and has no limit, rendering or threshold."""

    def __init__(self, spaces: tuple[Any, Any] | None = None, fails: Exception | None = None) -> None:
        if fails is not None:
            raise fails
        box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space, self.action_space = spaces or (box, gym.spaces.Discrete(3, start=2))
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.array([0.1, 0.0]), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        return np.array([np.sum(action), self.time], dtype=np.float64), 0.5, False, False, {}


# ---- one task


def facts(env_id: str) -> tuple[Any, ...]:
    task = load_task(env_id, {})
    return (task.id, task.kwargs, task.observation.size, *(getattr(task, name) for name in AFTER))


AFTER = ("actions", "first_action", "threshold", "fps", "renders")


def test_load_task_says_what_an_agent_needs(register: Register) -> None:
    assert facts("CartPole-v1") == ("CartPole-v1", {}, 4, 2, 0, 475.0, 50, True)
    assert facts("Acrobot-v1") == ("Acrobot-v1", {}, 6, 3, 0, -100.0, 15, True)
    assert facts("MountainCar-v0") == ("MountainCar-v0", {}, 2, 3, 0, -110.0, 30, True)
    kwargs = {"sutton_barto_reward": True}
    assert load_task("CartPole-v1", kwargs).kwargs == kwargs
    register("Test/Plain-v0", Plain)
    assert facts("Test/Plain-v0") == ("Test/Plain-v0", {}, 2, 3, 2, None, 30, False)


@pytest.mark.filterwarnings("error")
def test_narrow_observations_are_stretched_to_one_and_others_left_alone() -> None:
    """Wide, one-sided, unbounded and constant components stay as they are; 10³⁸ or more counts as unbounded."""
    low = np.array([-0.07, -1.2, 100, -1, 0, 0, -np.inf, 3, -1.7e308])
    high = np.array([0.07, 0.6, 100.5, 1, 255, np.inf, np.inf, 3, 1.7e308])
    observe = observer_of("Test/Plain-v0", gym.spaces.Box(low, high, dtype=np.float64))
    middle = np.array([0, -0.3, 100.375, 0.25, 127.5, 7, -8, 3, 9])
    low_seen, high_seen, seen = observe(np.stack([low.clip(-9, 100), high.clip(0, 255), middle]))
    assert seen.dtype == np.float32
    assert low_seen[:4].tolist() == pytest.approx([-1, -1, -1, -1])
    assert high_seen[:4].tolist() == pytest.approx([1, 1, 1, 1])
    assert seen[:4].tolist() == pytest.approx([0, 0, 0.5, 0.25], abs=1e-6)
    assert seen[4:].tolist() == middle[4:].tolist()


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPol-v1", "no environment 'CartPol-v1'.*nearest are .*CartPole-v1"),
        ("CARTPOLE-V1", "nearest are .*CartPole-v1"),
        ("CartPole-v7", "no environment 'CartPole-v7'.*nearest are .*CartPole-v1"),
        ("Nowhere/CartPole-v1", "no environment 'Nowhere/CartPole-v1'.*CartPole-v1"),
        ("zzzzzz-v0", "no environment 'zzzzzz-v0'$"),
        ("no id at all", "no id at all"),
        ("no_such_module:CartPole-v1", "no_such_module"),
        ("", "env= names no environment: write env=<id>"),
        ("Pendulum-v1", r"Pendulum-v1 has actions Box\(-2.0, 2.0.*Discrete"),
        ("MountainCarContinuous-v0", "has actions Box.*Discrete"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_sentence(env_id: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        load_task(env_id, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("observations", "actions", "expected"),
    [
        (gym.spaces.Sequence(gym.spaces.Discrete(3)), gym.spaces.Discrete(2), "Sequence.*their length is not fixed"),
        (gym.spaces.Dict(a=gym.spaces.Graph(gym.spaces.Box(0, 1, (2,)), None)), gym.spaces.Discrete(2), "Graph"),
        (gym.spaces.Box(0, 1, (2,), np.float32), gym.spaces.MultiDiscrete([2, 3]), "has actions MultiDiscrete"),
        (gym.spaces.Box(0, 1, (2,), np.float32), gym.spaces.MultiBinary(3), "has actions MultiBinary"),
    ],
)
def test_unsupported_spaces_are_named(register: Register, observations: Any, actions: Any, expected: str) -> None:
    register("Test/Plain-v0", Plain)
    with pytest.raises(UserError, match=expected):
        load_task("Test/Plain-v0", {"spaces": (observations, actions)})


BOUNDED = np.float32(1.0)


@pytest.mark.parametrize(
    ("actions", "bins"),
    [
        (gym.spaces.Box(-BOUNDED, BOUNDED, (1,)), 5),
        (gym.spaces.Box(-BOUNDED, BOUNDED, (3,)), 5),
        (gym.spaces.Box(-BOUNDED, BOUNDED, (2, 2)), 3),
        (gym.spaces.Box(-BOUNDED, BOUNDED, (8,)), 2),
        (gym.spaces.Box(-BOUNDED, BOUNDED, (9,)), None),  # 512 actions are more than a message advises
        (gym.spaces.Box(-np.inf, np.inf, (1,)), None),
        (gym.spaces.Box(0, np.inf, (1,)), None),
        (gym.spaces.MultiDiscrete([2, 3]), None),
    ],
)
def test_the_option_that_makes_continuous_actions_discrete_works(
    register: Register, actions: Any, bins: int | None
) -> None:
    register("Test/Plain-v0", Plain)
    kwargs = {"spaces": (gym.spaces.Box(0, 1, (2,), np.float32), actions)}
    with pytest.raises(UserError, match="takes continuous ones, and several at once") as refusal:
        load_task("Test/Plain-v0", kwargs)
    found = re.search(r"env\.wrappers=\[\{DiscretizeAction:\{bins:(\d)\}\}\] makes (\d+) of them", str(refusal.value))
    assert (found is not None) == (bins is not None)
    if found is not None:
        assert int(found[1]) == bins
        wrapping = wrapping_of((), [{"DiscretizeAction": {"bins": bins}}])
        assert load_task("Test/Plain-v0", kwargs, wrapping=wrapping).actions == int(found[2])


def test_what_the_constructor_says_reaches_the_person(register: Register) -> None:
    with pytest.raises(UserError, match=r"CartPole-v1.*'bogus': 1.*unexpected keyword argument 'bogus'"):
        load_task("CartPole-v1", {"bogus": 1})
    register("Test/Plain-v0", Plain)
    for error in (RuntimeError("no licence"), gym.error.DependencyNotInstalled("pip install x"), OSError(2, "gone")):
        with pytest.raises(UserError, match=r"Test/Plain-v0.*(no licence|pip install x|gone)"):
            load_task("Test/Plain-v0", {"fails": error})


def check_usable(env_id: str, kwargs: dict[str, Any], num_envs: int) -> None:
    """Vectorises a task that load_task accepts; a refusal must be a UserError."""
    with contextlib.suppress(UserError):
        make_vector(load_task(env_id, kwargs), num_envs).close()


@pytest.mark.parametrize("num_envs", [2, 8])
@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("CartPole", {}),  # for Gymnasium this is the newest version
        ("gymnasium.envs.classic_control:CartPole-v1", {}),
        ("CartPole-v1", {"disable_env_checker": True}),  # an option of gymnasium.make, unknown to the vector class
        ("CartPole-v1", {"max_episode_steps": 20}),
    ],
)
def test_what_loads_can_be_vectorised(env_id: str, kwargs: dict[str, Any], num_envs: int) -> None:
    check_usable(env_id, kwargs, num_envs)


# ---- many environments


def test_native_is_chosen_by_size_and_by_wish() -> None:
    task = load_task("CartPole-v1", {})
    for num_envs, vectorization, cls in (
        (1, "auto", SyncVectorEnv),
        (NATIVE_FROM - 1, "auto", SyncVectorEnv),
        (NATIVE_FROM, "auto", CartPoleVectorEnv),
        (1, "native", CartPoleVectorEnv),
        (NATIVE_FROM, "sync", SyncVectorEnv),
        (2, "async", Processes),
    ):
        envs = make_vector(task, num_envs, vectorization)  # type: ignore[arg-type]
        assert isinstance(envs, cls)
        assert envs.num_envs == num_envs
        envs.close()


def test_native_without_a_vector_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"Acrobot-v1 has no vector class.*env\.vectorization=sync"):
        make_vector(load_task("Acrobot-v1", {}), 2, "native")


def test_another_autoreset_is_refused(register: Register) -> None:
    """A vector class that resets within the step would store the wrong final observation."""

    class SameStep(CartPoleVectorEnv):
        metadata = {**CartPoleVectorEnv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    register("Test/SameStep-v0", "gymnasium.envs.classic_control:CartPoleEnv", vector_entry_point=SameStep)
    task = load_task("Test/SameStep-v0", {})
    with pytest.raises(UserError, match=r"SAME_STEP.*env\.vectorization=sync"):
        make_vector(task, 4, "native")
    make_vector(task, 4, "sync").close()


def balance(observation: np.ndarray) -> np.ndarray:
    """Keeps the pole up for more than 500 steps."""
    return np.asarray(observation @ np.array([0.1, 0.3, 3.0, 1.0]) > 0, dtype=np.int64)


def push_right(observation: np.ndarray) -> np.ndarray:
    return np.ones(len(observation), dtype=np.int64)


def random_actions() -> Policy:
    rng = np.random.Generator(np.random.PCG64(0))
    return lambda observation: rng.integers(2, size=len(observation))


def check_rows(
    envs: VectorEnv[Any, Any, Any], policy: Policy, rows: int, limit: int, sutton_barto: bool = False
) -> list[tuple[int, bool, bool]]:
    """Checks every row against the equations of motion of CartPole. Returns (length, flags) of all endings."""
    model: Any = gym.make("CartPole-v1").unwrapped
    model.reset(seed=0)
    observation = envs.reset(seed=5)[0].copy()  # the environments may write the next observations to the same place
    age, resetting = np.zeros(envs.num_envs, dtype=int), np.zeros(envs.num_envs, dtype=bool)
    endings = []
    for _ in range(rows):
        action = policy(observation)
        following, reward, terminated, truncated, _ = envs.step(action)
        following = following.copy()
        for e in range(envs.num_envs):
            if resetting[e]:  # the action is ignored
                assert (reward[e], terminated[e], truncated[e]) == (0.0, False, False)
                assert np.abs(following[e]).max() <= 0.05
                age[e] = 0
                continue
            model.state, model.steps_beyond_terminated = tuple(observation[e].astype(float)), None
            expected, _, falls, _, _ = model.step(int(action[e]))
            assert np.allclose(following[e], expected, atol=1e-5)  # this includes the true final observation
            age[e] += 1
            assert reward[e] == (-float(falls) if sutton_barto else 1.0)
            assert (terminated[e], truncated[e]) == (falls, age[e] == limit)
            if falls or age[e] == limit:
                endings.append((int(age[e]), bool(terminated[e]), bool(truncated[e])))
        observation, resetting = following, terminated | truncated
    envs.close()
    return endings


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_next_step_autoreset_after_falls(vectorization: Any) -> None:
    envs = make_vector(load_task("CartPole-v1", {}), 5, vectorization)
    endings = check_rows(envs, random_actions(), 150, limit=500)
    assert len(endings) > 10
    assert all(terminated and not truncated for _, terminated, truncated in endings)


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_the_time_limit_truncates_at_500(vectorization: Any) -> None:
    envs = make_vector(load_task("CartPole-v1", {}), 2, vectorization)
    assert check_rows(envs, balance, 1005, limit=500) == [(500, False, True)] * 4


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_a_fall_at_the_time_limit_has_both_flags(vectorization: Any) -> None:
    envs = make_vector(load_task("CartPole-v1", {"max_episode_steps": 9}), 8, vectorization)
    endings = check_rows(envs, push_right, 200, limit=9)
    assert {(9, True, True), (9, False, True)} <= set(endings) <= {(8, True, False), (9, True, True), (9, False, True)}


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_kwargs_reach_every_copy(vectorization: Any) -> None:
    envs = make_vector(load_task("CartPole-v1", {"sutton_barto_reward": True}), 4, vectorization)
    assert check_rows(envs, random_actions(), 60, limit=500, sutton_barto=True)


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_a_reset_from_outside_takes_the_place_of_an_autoreset(vectorization: Any) -> None:
    """After a reset from outside, as at a checkpoint right after an ending, the next row is a step and no reset."""
    envs = make_vector(load_task("CartPole-v1", {}), 2, vectorization)
    envs.reset(seed=1)
    ended = np.zeros(2, dtype=bool)
    while not ended.any():
        _, _, terminated, truncated, _ = envs.step(np.ones(2, dtype=np.int64))
        ended = terminated | truncated
    first = envs.reset(seed=2)[0].copy()
    following, reward, *_ = envs.step(np.ones(2, dtype=np.int64))
    assert reward.tolist() == [1.0, 1.0]
    assert (following[:, 1] - first[:, 1] > 0.15).all()  # the effect of the push: 10 N for 20 ms on 1.1 kg
    envs.close()


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
def test_a_seed_decides_everything_and_copies_differ(vectorization: Any) -> None:
    task = load_task("CartPole-v1", {})

    def play(seed: int) -> np.ndarray:
        envs, act = make_vector(task, 4, vectorization), random_actions()
        rows = [envs.reset(seed=seed)[0].copy(), *(envs.step(act(np.zeros(4)))[0].copy() for _ in range(60))]
        envs.close()
        stacked: np.ndarray = np.stack(rows)
        return stacked

    one, again, other = play(3), play(3), play(100)
    assert np.array_equal(one, again)
    assert not np.isin(one[0, :, 0], other[0, 0, 0]).any()
    assert len(np.unique(one[0, :, 0])) == 4


def test_no_time_limit_shifted_actions_and_double_observations(register: Register) -> None:
    register("Test/Plain-v0", Plain)
    task = load_task("Test/Plain-v0", {})
    envs = make_vector(task, 2)
    first = envs.reset(seed=0)[0].copy()
    assert first.dtype == np.float64
    assert task.observe(first).dtype == np.float32
    assert np.array_equal(task.observe(first), first.astype(np.float32))
    for t in range(1, 1200):
        action = np.array([t % task.actions, (t + 1) % task.actions]) + task.first_action
        observation, _, terminated, truncated, _ = envs.step(action)
        assert not (terminated | truncated).any()
        assert observation[:, 0].tolist() == action.tolist()
        assert observation[:, 1].tolist() == [t, t]
    envs.close()


def test_make_single_renders_on_request() -> None:
    env = make_single("CartPole-v1", {"sutton_barto_reward": True}, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    assert (frame.shape, frame.dtype) == ((400, 600, 3), np.uint8)
    assert env.step(0)[1] == 0.0
    env.close()


# ---- arguments in saved files


@pytest.mark.parametrize(
    ("env_id", "kwargs", "refused"),
    [
        ("ALE/Pong-v5", {"frameskip": 1_000_000_000}, "env.kwargs.frameskip of ALE/Pong-v5 is 1000000000: in"),
        ("ALE/Pong-v5", {"frameskip": 101}, "it may be 100 at most"),
        ("LunarLander-v3", {"wind_power": 1e7}, "env.kwargs.wind_power of LunarLander-v3 is 10000000.0: in"),
        ("LunarLander-v3", {"wind_power": -float("inf")}, "it may be 1,000,000 at most"),
        ("CartPole-v1", {"size": float("nan")}, "env.kwargs.size of CartPole-v1 is nan"),
        ("CartPole-v1", {"size": 10**400}, "env.kwargs.size of CartPole-v1 is"),
        ("DeepSea-v0", {"size": 10_000}, "it may be 1,000 at most"),
        ("DeepSea-v0", {"size": 201}, "DeepSea has from 2 to 200 rows"),
        ("DeepSea-v0", {"size": 1.5}, "a whole number"),
    ],
)
def test_a_saved_file_asks_for_no_more_than_a_machine_has(env_id: str, kwargs: dict[str, Any], refused: str) -> None:
    """The refusal comes before anything is built, so that it does not depend on installed packages."""
    began = time.monotonic()
    with pytest.raises(UserError, match=re.escape(refused)):
        load_saved_task(env_id, kwargs)
    assert time.monotonic() - began < 5


def test_seeds_of_any_size_and_plain_numbers_are_allowed() -> None:
    assert load_saved_task("DeepSea-v0", {"size": 5, "mapping_seed": 2**40}).observation.size == 25


def test_deep_sea_of_any_size_up_to_its_bound() -> None:
    for size in (2, 200):
        assert load_task("DeepSea-v0", {"size": size}).observation.size == size**2


# ---- actions


class Picky(Plain):
    """Takes only actions of one type."""

    def __init__(self, takes: type, dtype: Any = np.int64) -> None:
        super().__init__()
        self.takes, self.action_space = takes, gym.spaces.Discrete(3, start=2, dtype=dtype)

    def step(self, action: Any) -> Any:
        if type(action) is not self.takes:
            raise TypeError(f"{type(action)}")
        return np.zeros(2), 0.5, False, False, {}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("takes", "dtype"), [(np.int64, np.int64), (np.uint8, np.uint8), (np.int32, np.int32), (int, np.int64)]
)
def test_actions_are_what_the_space_samples_or_plain_numbers(
    register: Register, takes: type, dtype: Any, vectorization: Any
) -> None:
    register("Test/Picky-v0", Picky)
    task = load_task("Test/Picky-v0", {"takes": takes, "dtype": dtype})
    envs = make_vector(task, 2, vectorization)
    envs.reset(seed=0)
    envs.step(task.to_environment(np.array([0, 2])))
    envs.close()
    env = task.make_guarded()
    env.reset(seed=0)
    for action in task.to_environment(np.array([0, 2])):
        env.step(action)


def test_one_that_takes_neither_is_told_of_what_it_said_first(register: Register) -> None:
    register("Test/Picky-v0", Picky)
    with pytest.raises(UserError, match=r"Test/Picky-v0 failed in step: TypeError: <class 'numpy.int64'>"):
        load_task("Test/Picky-v0", {"takes": str})


@pytest.mark.parametrize(
    ("metadata", "fps", "modes"),
    [
        ({"render_fps": None, "render_modes": None}, 30, ()),
        ({"render_fps": 0, "render_modes": "rgb_array"}, 30, ("rgb_array",)),
        ({"render_fps": "fast", "render_modes": [None, "human"]}, 30, ("human",)),
        ({"render_fps": 29.97, "render_modes": {"human"}}, 30, ("human",)),
        ({"render_fps": float("nan"), "render_modes": 3}, 30, ()),
        ({"render_fps": [60]}, 30, ()),
        ({"render_fps": 1e-9}, 1, ()),
    ],
)
def test_metadata_of_any_kind(register: Register, metadata: dict[str, Any], fps: int, modes: tuple[str, ...]) -> None:
    kind = type("Described", (Plain,), {"metadata": metadata})
    register("Test/Described-v0", kind, reward_threshold="high")
    task = load_task("Test/Described-v0", {})
    assert (task.fps, task.render_modes, task.threshold) == (fps, modes, None)
