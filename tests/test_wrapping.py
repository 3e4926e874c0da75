"""Wrappers and chosen parts of an environment: they belong to the task, wherever it is played."""

import copy
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from helpers import Programs

from agent.common.errors import UserError
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.saved_agent import read_agent
from agent.records.saved_env import check_env
from agent.replay.ring import Replay
from agent.running.run import with_eval_kwargs
from envs.make import Task, load_task
from envs.observed_parts import images_of_bytes
from envs.parts import wrap
from envs.rules import life_lost
from envs.vector import make_vector
from envs.wrapping import ALLOWED, BARE, wrapping_of

SCENE = spaces.Dict(
    direction=spaces.Discrete(4),
    image=spaces.Box(0, 255, (6, 7, 3), np.uint8),
    mission=spaces.Sequence(spaces.Discrete(3)),
)

ROOMS = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Rooms(gym.Env):
    observation_space = spaces.Dict(
        direction=spaces.Discrete(4),
        image=spaces.Box(0, 255, (6, 7, 3), np.uint8),
        mission=spaces.Sequence(spaces.Discrete(3)),
    )
    action_space = spaces.Discrete(2)

    def observe(self):
        image = self.np_random.integers(0, 256, (6, 7, 3), np.uint8)
        return {"direction": self.time % 4, "image": image, "mission": (1,)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        return self.observe(), float(action), self.time == 9, False, {}


gym.register("Rooms-v0", entry_point=Rooms)
"""

QUICK = (
    *("wandb.mode=disabled", "eval.video=false", "log.progress=false", "steps=200", "eval.episodes=2", "num_envs=2"),
    *("agent.learning_starts=64", "agent.batch_size=16", "agent.network.hidden=[16,16]", "checkpoint.every=100"),
)


class Scene(gym.Env[Any, Any]):
    """Observes samples of a space. Step t has the reward t, and an episode has nine steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any] = SCENE, drops: Any = None) -> None:
        self.observation_space, self._drops, self._time = space, drops, 0

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        sample = self.observation_space.sample()
        if self._drops is not None and self._time == 5:
            return {key: value for key, value in sample.items() if key != self._drops}
        return sample

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        return self._observe(), float(self._time), self._time == 9, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gym.register("Test/Scene-v0", entry_point=Scene)
    yield
    del gym.registry["Test/Scene-v0"]


def scene(*parts: Any, **kwargs: Any) -> Task:
    return load_task("Test/Scene-v0", kwargs, wrapping=wrapping_of(parts))


# ---- parts


def test_a_part_that_no_network_takes_is_named_with_the_option_that_leaves_it_out() -> None:
    expected = r"observes 'mission' \(Sequence.*which no network can take: env.observation=\[direction,image\] leaves"
    with pytest.raises(UserError, match=expected):
        scene()
    assert scene("direction", "image").observation.size > 0


def test_one_part_is_observed_as_if_it_were_all() -> None:
    assert scene("image").observation == load_task("Test/Scene-v0", {"space": SCENE["image"]}).observation
    assert scene("direction").observation.shape == (4,)


@pytest.mark.parametrize("space", [SCENE, spaces.Tuple(SCENE.spaces.values())])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_parts_hold_what_the_environment_observes(space: Any, vectorization: Any) -> None:
    names = ("image", "direction") if isinstance(space, spaces.Dict) else (1, 0)
    task = scene(*names, space=space)
    assert task.make().observation_space == type(space)(
        {"direction": SCENE["direction"], "image": SCENE["image"]}
        if isinstance(space, spaces.Dict)
        else (SCENE["direction"], SCENE["image"])
    )
    envs, alone = make_vector(task, 2, vectorization), Scene(space)
    try:
        seen, whole = envs.reset(seed=3)[0], alone.reset(seed=4)[0]
        for _ in range(9):
            for name in names:
                assert np.array_equal(seen[name][1], whole[name])
            seen, whole = envs.step(np.zeros(2, np.int64))[0], alone.step(0)[0]
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (["sound"], "env.observation names 'sound': the parts of Test/Scene-v0 are direction, image, mission"),
        (["image", "image"], "names 'image' twice"),
        ([[1]], "names \\[1\\]: a part has"),
        (["x" * 65], "a part has a short name"),
        (["a\nb"], "a part has a short name"),
        ("image", "it must be a list of parts"),
    ],
)
def test_parts_that_are_none_are_refused(parts: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        load_task("Test/Scene-v0", {}, wrapping=wrapping_of(parts))
    with pytest.raises(UserError, match="names parts, and CartPole-v1 observes Box"):
        load_task("CartPole-v1", {}, wrapping=wrapping_of(["image"]))


def test_a_part_that_goes_missing_breaks_a_rule() -> None:
    task = scene("image", drops="image")
    envs = make_vector(task, 2)
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(np.zeros(2, np.int64))
    with pytest.raises(UserError, match=r"breaks a rule of Gymnasium: an observation must be a dict of .*not a dict"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


def test_a_vector_class_of_its_own_knows_no_wrapping() -> None:
    gym.register("Test/Native-v0", entry_point=Scene, vector_entry_point=Scene)
    try:
        task = load_task("Test/Native-v0", {}, wrapping=wrapping_of(["image"]))
        with pytest.raises(UserError, match=r"no vector class of its own with env\.observation: use"):
            make_vector(task, 2, "native")
        make_vector(task, 64).close()
    finally:
        del gym.registry["Test/Native-v0"]


def test_a_description_gives_the_same_wrapping_again() -> None:
    for wrapping in (BARE, wrapping_of(["image", "direction"]), wrapping_of([0])):
        said = {"id": "C-v1", "kwargs": {}, **wrapping.description()}
        check_env(said, Path("x"))
        assert wrapping_of(said.get("observation", ())) == wrapping


@pytest.mark.parametrize("parts", [{"a": 1}, "image", [None], [["image"]], ["\x1b[2J"], ["a"] * 300, 7])
def test_hostile_parts_are_refused(parts: Any) -> None:
    with pytest.raises(UserError, match="cannot be used") as refusal:
        check_env({"id": "C-v1", "kwargs": {}, "observation": parts}, Path("x"))
    assert "\x1b" not in str(refusal.value)


def test_numbers_name_parts_in_a_config_too() -> None:
    config = parse(TrainConfig, {"env": {"observation": [0, "image"]}})
    assert wrapping_of(config.env.observation).parts == ("0", "image")


def test_training_resuming_and_evaluating_keep_the_parts(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "rooms.py").write_text(ROOMS)
    words = ("imports=rooms", "env=Rooms-v0", *QUICK)
    refused = programs.run("train", *words, cwd=tmp_path)
    assert refused.code == 2
    assert "env.observation=[direction,image] leaves it out" in refused.err
    done = programs.run("train", *words, "env.observation=[image,direction]", cwd=tmp_path)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs/Rooms-v0").iterdir()
    more = programs.run("train", f"resume={folder}", "imports=rooms", "steps=300", cwd=tmp_path)
    assert more.code == 0, more.err
    played = programs.run("evaluate", f"checkpoint={folder}", "imports=rooms", "episodes=3", cwd=tmp_path)
    assert played.code == 0, played.err


# ---- wrappers

IMAGES = spaces.Box(0, 255, (12, 14, 3), np.uint8)
STACK = {"FrameStackObservation": {"stack_size": 3}}


def wrapped(wrappers: Any, space: spaces.Space[Any] = IMAGES, *parts: Any) -> Task:
    return load_task("Test/Scene-v0", {"space": space}, wrapping=wrapping_of(parts, wrappers))


def by_hand(space: spaces.Space[Any], *wrappers: Any) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = Scene(space)
    for make in wrappers:
        env = make(env)
    return env


@pytest.mark.parametrize(
    ("wrappers", "made"),
    [
        (["GrayscaleObservation"], [gym.wrappers.GrayscaleObservation]),
        ([{"GrayscaleObservation": {"keep_dim": True}}], [lambda e: gym.wrappers.GrayscaleObservation(e, True)]),
        (
            [{"MaxAndSkipObservation": {"skip": 2}}, "GrayscaleObservation"],
            [lambda e: gym.wrappers.MaxAndSkipObservation(e, 2), gym.wrappers.GrayscaleObservation],
        ),
        ([{"DelayObservation": {"delay": 2}}], [lambda e: gym.wrappers.DelayObservation(e, 2)]),
        ([{"ClipReward": {"max_reward": 3}}], [lambda e: gym.wrappers.ClipReward(e, None, 3)]),
        ([{"RepeatAction": {"num_repeats": 2}}], [lambda e: gym.wrappers.RepeatAction(e, 2)]),
        ([{"ReshapeObservation": {"shape": [14, 12, 3]}}], [lambda e: gym.wrappers.ReshapeObservation(e, (14, 12, 3))]),
    ],
)
def test_wrappers_are_gymnasiums_in_the_order_given(wrappers: Any, made: Any) -> None:
    ours, theirs = wrapped(wrappers).make(), by_hand(IMAGES, *made)
    assert ours.observation_space == theirs.observation_space
    assert np.array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    for _ in range(3):
        (one, *rest), (two, *others) = ours.step(1), theirs.step(1)
        assert np.array_equal(one, two)
        assert rest[:3] == others[:3]


def test_a_continuous_task_in_bins() -> None:
    task = load_task("Pendulum-v1", {}, wrapping=wrapping_of((), [{"DiscretizeAction": {"bins": 5}}]))
    assert task.actions == 5


def test_sizes_are_averages_over_areas() -> None:
    env = wrapped([{"ResizeObservation": {"shape": [6, 7]}}]).make()
    whole = Scene(IMAGES).reset(seed=5)[0].astype(np.float64)
    means = whole.reshape(6, 2, 7, 2, 3).mean(axis=(1, 3))
    seen = env.reset(seed=5)[0]
    assert env.observation_space == spaces.Box(0, 255, (6, 7, 3), np.uint8)
    assert np.abs(seen - means).max() <= 0.5 + 1e-3
    grey = wrapped([{"ResizeObservation": {"shape": [6, 7]}}], spaces.Box(0, 255, (12, 14), np.uint8))
    assert grey.observation.shape == (1, 6, 7)


@pytest.mark.parametrize("part", [None, "image"])
def test_sizes_of_images_with_their_channels_first(part: str | None) -> None:
    """Height and width are changed, and the channels are those of the same image with its channels last."""
    first, last = spaces.Box(0, 255, (3, 40, 50), np.uint8), spaces.Box(0, 255, (40, 50, 3), np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    resize = {"ResizeObservation": {"shape": [6, 7]} if part is None else {"shape": [6, 7], "part": part}}
    seen = []
    for space, shown in ((first, image.transpose(2, 0, 1)), (last, image)):
        whole = space if part is None else spaces.Dict(image=space)
        task = wrapped([resize], whole)
        assert [image.shape for image in images_of_bytes(task.observe).values()] == [(3, 6, 7)]
        layer: Any = task.make()
        changed = layer.observation(shown if part is None else {"image": shown})
        assert changed in layer.observation_space
        batch = task.observe.stack([changed])
        seen.append(task.observe(batch))
    assert np.array_equal(*seen)


def test_sizes_of_an_image_whose_channels_are_anywhere_are_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(20, 20, 20\) does not tell which dimension holds the channels"):
        wrapped([{"ResizeObservation": {"shape": [6, 7]}}], spaces.Box(0, 255, (20, 20, 20), np.uint8))


class Reused(gym.Env[Any, Any]):
    """Counts its steps in an array that it may return again and again, inside of other values or alone."""

    action_space = spaces.Discrete(2)

    def __init__(self, kind: str, again: bool) -> None:
        box = spaces.Box(0, 99, (2,), np.float32)
        self.kind, self.again, self.shown = kind, again, np.zeros(2, np.float32)
        self.observation_space: Any = {
            "dict": spaces.Dict(count=box, other=spaces.Discrete(3)),
            "tuple": spaces.Tuple((box, spaces.Discrete(3))),
        }.get(kind, box)

    def _observe(self) -> Any:
        if not self.again:
            self.shown = self.shown.copy()
        array = torch.from_numpy(self.shown) if self.kind == "tensor" else self.shown
        whole = {"dict": {"count": array, "other": 1}, "tuple": [array, np.int64(1)]}
        return whole.get(self.kind, array)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.shown[:] = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.shown += 1
        return self._observe(), 1.0, False, False, {}


@pytest.mark.parametrize("kind", ["array", "dict", "tuple", "tensor"])
@pytest.mark.parametrize("wrapper", [STACK, {"DelayObservation": {"delay": 2}}, {"MaxAndSkipObservation": {"skip": 2}}])
def test_an_environment_may_write_into_what_a_wrapper_keeps(wrapper: Any, kind: str) -> None:
    """As if it returned new arrays."""
    copied = (lambda tensor: np.asarray(tensor).copy()) if kind == "tensor" else copy.deepcopy
    if "MaxAndSkipObservation" in wrapper and kind in ("dict", "tuple"):
        pytest.skip("it takes arrays")
    seen = []
    for again in (False, True):
        env = wrap(Reused(kind, again), wrapping_of((), [wrapper]), "Test/Reused-v0")
        seen.append([])
        for _ in range(2):
            seen[-1].append(copied(env.reset(seed=0)[0]))
            seen[-1] += [copied(env.step(0)[0]) for _ in range(5)]
    assert data_equivalence(*seen)
    assert not data_equivalence(seen[0][4], seen[0][5])


class Lives(gym.Env[Any, Any]):
    """Counts its steps, reports lost lives in its own way, and is truncated after five steps."""

    observation_space, action_space = spaces.Box(-99, 99, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, infos: Any) -> None:
        self.infos, self.time = infos, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        self.time += 1
        shown = np.array([self.time, -self.time], np.float32)
        return shown, 1.0, False, self.time == 5, self.infos.get(self.time, {"time": self.time})


@pytest.mark.parametrize("wrapper", [{"RepeatAction": {"num_repeats": 3}}, {"MaxAndSkipObservation": {"skip": 3}}])
@pytest.mark.parametrize(
    ("infos", "lost"),
    [
        ({}, [None, None]),
        ({1: {"life_lost": True}}, [True, None]),
        ({2: {"life_lost": np.True_}, 4: {"life_lost": 1}, 5: {"life_lost": False}}, [True, True]),
        ({1: {"life_lost": True}, 3: None}, [True, None]),  # an info of any kind
        ({3: {"life_lost": False}}, [False, None]),
    ],
)
def test_repeated_actions_report_each_lost_life(wrapper: Any, infos: Any, lost: Any) -> None:
    env = wrap(Lives(infos), wrapping_of((), [wrapper]), "Test/Lives-v0")
    env.reset()
    ends = [env.step(0) for _ in range(2)]
    assert [life_lost(info) for *_, info in ends] == lost
    assert [(reward, terminated, truncated) for _, reward, terminated, truncated, _ in ends] == [
        (3.0, False, False),
        (2.0, False, True),
    ]
    if not infos:
        assert [info for *_, info in ends] == [{"time": 3}, {"time": 5}]


@pytest.mark.parametrize(("skip", "last"), [(2, [5, -5]), (3, [5, -4]), (4, [5, -5]), (6, [5, -4])])
def test_an_episode_that_ends_early_shows_the_maximum_of_its_last_two_observations(skip: int, last: Any) -> None:
    """Of a single one where the last step has only one."""
    env = wrap(Lives({}), wrapping_of((), [{"MaxAndSkipObservation": {"skip": skip}}]), "Test/Lives-v0")
    env.reset()
    truncated = False
    while not truncated:
        observation, _, _, truncated, _ = env.step(0)
    assert observation.tolist() == last


def test_a_wrapper_on_one_part() -> None:
    space = spaces.Dict(image=IMAGES, speed=spaces.Box(-1, 1, (2,), np.float32))
    for part, kind in (("image", space), (0, spaces.Tuple(space.spaces.values()))):
        env = wrapped([{"ResizeObservation": {"shape": [6, 7], "part": part}}], kind).make()
        alone = wrapped([{"ResizeObservation": {"shape": [6, 7]}}], kind, part).make()
        seen, image = env.reset(seed=5)[0], alone.reset(seed=5)[0]
        assert np.array_equal(seen[part], image)
        assert seen in env.observation_space


@pytest.mark.parametrize(
    "space",
    [IMAGES, spaces.Box(0, 255, (12, 14), np.uint8), spaces.Box(0, 1, (3, 12, 12), np.float32)],
    ids=["colour", "grey", "floats"],
)
def test_a_stack_of_frames_is_stored_once_and_sampled_as_it_was(space: Any) -> None:
    """Sampled observations are those of the wrapper, over the ends of episodes and around the ring."""
    task = wrapped([STACK, {"ClipReward": {"max_reward": 1}}], space)
    spec, frame = task.observation, load_task("Test/Scene-v0", {"space": space}).observation
    assert spec.shape == (3 * frame.shape[0], *frame.shape[1:])
    assert (spec.stack, spec.stored_shape) == (3, frame.shape)
    envs, replay = make_vector(task, 2), Replay(24, 2, spec)
    seen = task.observe(envs.reset(seed=1)[0])
    replay.begin(seen)
    given = {}
    for t in range(60):
        observation, reward, terminated, truncated, _ = envs.step(np.zeros(2, np.int64))
        given[t % replay.rows] = seen
        seen = task.observe(observation)
        replay.add(np.zeros(2), reward, terminated, truncated, seen)
    for flat in replay.starts[(replay.first + np.arange(len(replay))) % len(replay.starts)]:
        row, copy = divmod(int(flat), 2)
        assert np.array_equal(replay.gather(np.array([flat])).observation[0], given[row][copy])
    envs.close()


@pytest.mark.parametrize("last", [{"DelayObservation": {"delay": 1}}, {"MaxAndSkipObservation": {"skip": 2}}])
def test_what_changes_stacks_afterwards_has_them_stored_whole(last: Any) -> None:
    space = spaces.Box(0, 255, (12, 14), np.uint8)
    assert wrapped([STACK], space).observation.stack == 3
    assert wrapped([STACK, last], space).observation.stack == 1


def test_stacked_vectors_are_no_images() -> None:
    assert wrapped([STACK], spaces.Box(-1, 1, (8,), np.float32)).observation.shape == (24,)
    assert wrapped([STACK], spaces.Discrete(4)).observation.shape == (12,)


def test_emulated_frames_that_a_wrapper_changes_are_no_stacks_any_more() -> None:
    pytest.importorskip("ale_py")
    resize = wrapping_of((), [{"ReshapeObservation": {"shape": [4, 42, 168]}}])
    assert load_task("ALE/Pong-v5", {}).observation.stack == 4
    assert load_task("ALE/Pong-v5", {}, wrapping=resize).observation.stack == 1


REFUSALS: list[tuple[Any, str]] = [
    ("FlattenObservation", "must be a list"),
    ([7], "each is the name of a wrapper"),
    ([{"A": {}, "B": {}}], "each is the name of a wrapper"),
    (["os.system"], "cannot have 'os.system'"),
    (["__class__"], "cannot have '__class__'"),
    (["vector"], "cannot have 'vector'"),
    ([{"RecordVideo": {"video_folder": "/etc"}}], "cannot have 'RecordVideo'"),
    (["\x1b[2J"], "cannot have"),
    (["FlattenObservation"] * 17, "16 is the most"),
    (["NormalizeObservation"], "its running statistics would be lost"),
    (["NormalizeReward"], "its running statistics would be lost"),
    ([{"TransformReward": {"func": "eval"}}], "takes a function"),
    ([{"TimeLimit": {"max_episode_steps": 3}}], r"write env\.time_limit"),
    ([{"FlattenObservation": {"x": 1}}], "takes no arguments, not 'x'"),
    ([{"FlattenObservation": 3}], "takes {argument:value}"),
    ([{"FrameStackObservation": {}}], "needs stack_size"),
    ([{"FrameStackObservation": {"stack_size": 65}}], "cannot be 65"),
    ([{"FrameStackObservation": {"stack_size": True}}], "cannot be True"),
    ([{"FrameStackObservation": {"stack_size": 4, "padding_type": "zero"}}], "not 'padding_type'"),
    ([{"FrameStackObservation": {"stack_size": 4, "part": "image"}}], "on whole observations only"),
    ([{"ResizeObservation": {"shape": [10**9, 10**9]}}], "cannot be"),
    ([{"ResizeObservation": {"shape": "84"}}], "cannot be"),
    ([{"ResizeObservation": {"shape": [84, 84], "part": ["a"]}}], "a part has a short name"),
    ([{"StickyAction": {"repeat_action_probability": float("nan")}}], "cannot be nan"),
    ([{"ClipReward": {"min_reward": "0"}}], "cannot be '0'"),
]


@pytest.mark.parametrize(("wrappers", "match"), REFUSALS)
def test_wrappers_that_cannot_be_named_are_refused_and_hostile_files_with_them(wrappers: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        wrapping_of((), wrappers)
    with pytest.raises(UserError, match="cannot be used") as refusal:
        check_env({"id": "C-v1", "kwargs": {}, "wrappers": wrappers}, Path("x"))
    assert "\x1b" not in str(refusal.value)


@pytest.mark.parametrize("name", ALLOWED)
def test_every_wrapper_that_may_be_named_is_gymnasiums_with_these_arguments(name: str) -> None:
    parameters = inspect.signature(getattr(gym.wrappers, name).__init__).parameters
    assert set(ALLOWED[name].required) <= set(ALLOWED[name].arguments) <= set(parameters)


def test_a_wrapper_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"env\.wrappers: GrayscaleObservation cannot be put on CartPole-v1: "):
        load_task("CartPole-v1", {}, wrapping=wrapping_of((), ["GrayscaleObservation"]))


def test_wrappers_come_back_from_a_description() -> None:
    said = ["GrayscaleObservation", {"ResizeObservation": {"shape": [6, 7]}}, STACK]
    wrapping = wrapping_of(["image"], said)
    assert json.loads(json.dumps(wrapping.description())) == {"observation": ["image"], "wrappers": said}


def test_training_resuming_and_evaluating_keep_the_wrappers(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "rooms.py").write_text(ROOMS)
    wrappers = (
        "[GrayscaleObservation,{StickyAction:{repeat_action_probability:0.2}},{FrameStackObservation:{stack_size:3}}]"
    )
    words = ("imports=rooms", "env=Rooms-v0", *QUICK, "env.observation=[image]", f"env.wrappers={wrappers}")
    folders = []
    for name, parts in (("once", ("steps=300",)), ("twice", ("steps=200", "steps=300"))):
        home = tmp_path / name
        home.mkdir()
        (home / "rooms.py").write_text(ROOMS)
        for part in parts:
            go_on = [f"resume={folders[-1]}"] if part == "steps=300" and name == "twice" else []
            result = programs.run("train", *((*go_on, "imports=rooms", part) if go_on else (*words, part)), cwd=home)
            assert result.code == 0, result.err
            if not go_on:
                folders += [next((home / "runs/Rooms-v0").iterdir())]
    one, two = (read_agent(folder / "last/agent.safetensors") for folder in folders)
    assert one.description["env"]["wrappers"] == two.description["env"]["wrappers"]
    assert all(np.array_equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    played = programs.run("evaluate", f"checkpoint={folders[0]}", "imports=rooms", "episodes=3", cwd=tmp_path / "once")
    assert played.code == 0, played.err


# ---- other conditions


def test_evaluations_play_with_arguments_of_their_own(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "rooms.py").write_text(ROOMS.replace("gym.register", LENGTHS + "\n\ngym.register"))
    words = ("imports=rooms", "env=Rooms-v0", *QUICK, "env.observation=[image]")
    result = programs.run("train", *words, "+env.kwargs.longest=7", "+env.eval_kwargs.longest=5", cwd=tmp_path)
    assert result.code == 0, result.err
    (folder,) = (tmp_path / "runs/Rooms-v0").iterdir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["eval/length_mean"] for row in rows if "eval/length_mean" in row} == {5}
    assert {row["train/episode_length"] for row in rows if "train/episode_length" in row} == {7}
    env = read_agent(folder / "last/agent.safetensors").description["env"]
    assert (env["kwargs"], env["eval_kwargs"]) == ({"longest": 7}, {"longest": 5})
    assert programs.run("train", f"resume={folder}", "imports=rooms", "steps=250", cwd=tmp_path).code == 0
    played = programs.run("evaluate", f"checkpoint={folder}", "imports=rooms", "episodes=3", cwd=tmp_path)
    assert played.code == 0, played.err
    assert json.loads((folder / "best/evaluation.json").read_text())["length_mean"] == 5


LENGTHS = """
class Rooms(Rooms):
    def __init__(self, longest=9):
        self.longest = longest

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.time >= self.longest, truncated, info
"""


def test_conditions_that_make_another_task_are_refused() -> None:
    gym.register("Test/Grid-v0", entry_point="envs.deep_sea:DeepSea")
    try:
        with pytest.raises(UserError, match="other observations or actions than training has"):
            with_eval_kwargs(load_task("Test/Grid-v0", {"size": 5}), {"size": 6})
    finally:
        del gym.registry["Test/Grid-v0"]
    with pytest.raises(UserError, match=r"without env\.eval_kwargs: leave one out"):
        parse(TrainConfig, {"env": {"eval_kwargs": {"x": 1}}, "eval": {"share": True}})


@pytest.mark.parametrize(
    ("wrappers", "sentence"),
    [
        (["FlattenObservation"] * 17, "names 17 wrappers: 16 is the most"),
        (
            [{"FrameStackObservation": {"stack_size": 64}}] * 5,
            "stacks observations, 1,073,741,824 in all: 64 is the most",
        ),
        ([{"DelayObservation": {"delay": 400}}] * 3, "delays observations by steps, 1,200 in all: 1,000 is the most"),
        (["MaxAndSkipObservation"] * 5, "repeats actions, 1,024 in all: 1,000 is the most"),
        ([{"RepeatAction": {"num_repeats": 1000}}] * 16, "repeats actions, 1,000,000"),
    ],
)
def test_wrappers_that_use_up_the_machine_together_are_refused(wrappers: Any, sentence: str) -> None:
    """A saved file may name wrappers, and the limits allow every useful number of them."""
    with pytest.raises(UserError, match=sentence):
        wrapping_of((), wrappers)
    with pytest.raises(UserError, match="257 parts: 256 is the most"):
        wrapping_of([str(number) for number in range(257)])
    half = [{"FrameStackObservation": {"stack_size": 8}}, "MaxAndSkipObservation", {"DelayObservation": {"delay": 500}}]
    assert len(wrapping_of((), half * 2).wraps) == 6


@pytest.mark.parametrize("kwargs", [7, {"render_mode": "human"}, {"size": 10**10}, {"path": "/etc/passwd"}, {"x": [1]}])
def test_hostile_arguments_of_evaluations_are_refused(kwargs: Any) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        check_env({"id": "C-v1", "kwargs": {}, "eval_kwargs": kwargs}, Path("x"))
