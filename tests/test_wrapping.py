"""What is put around an environment: it belongs to the task, wherever that is played."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from helpers import Programs

from agent.common.errors import UserError
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.saved_agent import check_env
from envs.make import Task, load_task
from envs.vector import make_vector
from envs.wrapping import BARE, wrapping_of

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
    """Observes samples of a space; step t gives the reward t, and an episode has nine steps."""

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


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    started = Programs(tmp_path_factory.mktemp("logs"))
    yield started
    started.close()


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
