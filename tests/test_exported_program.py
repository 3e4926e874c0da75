"""The program in an exported agent's README: it observes and plays as the agent does, without this project."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from test_export import saved

from agent import evaluate
from agent.common.seeding import environment_seeds
from agent.running.export.folder import write_folder
from agent.running.export.inputs import inputs_of
from agent.running.export.program import arguments, environment_code
from envs.make import Task, load_task
from envs.wrapping import wrapping_of

SCREEN = spaces.Box(0, 255, (30, 44, 3), np.uint8)
SPACES: dict[str, spaces.Space[Any]] = {
    "screen": SCREEN,
    "dict": spaces.Dict(
        at=spaces.Box(-1, 1, (3,), np.float32),
        legal=spaces.MultiBinary(3),
        screen=SCREEN,
        zone=spaces.Discrete(4),
    ),
    "short": spaces.Dict(at=spaces.Box(-1, 1, (3,), np.float32), legal=spaces.MultiBinary(3)),
    "first": spaces.Box(0, 255, (3, 33, 44), np.uint8),
    "two": spaces.Dict(first=spaces.Box(0, 255, (3, 33, 44), np.uint8), last=SCREEN),
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "tuple": spaces.Tuple((spaces.Discrete(3), SCREEN, spaces.Box(-1, 1, (2,), np.float32))),
}


class Scene(gym.Env[Any, Any]):
    """Observes samples of a space, of which `legal` is a mask. At every step an episode ends with probability 1/5."""

    action_space = spaces.Discrete(3, start=2)

    def __init__(self, kind: str = "screen", **others: object) -> None:
        self.observation_space, self.others, self.shown = SPACES[kind], others, np.zeros(3, np.float32)

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        observation = self.observation_space.sample()
        if isinstance(observation, dict):
            observation.get("legal", np.zeros(3))[self.np_random.integers(3)] = 1
        if self.others.get("again"):  # the same array again and again
            self.shown[:] = observation
            return self.shown
        return observation

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._observe(), float(action) + self.np_random.random(), bool(self.np_random.random() < 0.2), False, {}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gym.register("Test/Program-v0", entry_point=Scene)
    gym.register("OfMine-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
    yield
    del gym.registry["Test/Program-v0"], gym.registry["OfMine-v0"]


RESIZE: dict[str, Any] = {"ResizeObservation": {"shape": [7, 9]}}
GREY: dict[str, Any] = {"GrayscaleObservation": {}}
STACK: dict[str, Any] = {"FrameStackObservation": {"stack_size": 3}}
ATARI = ("ALE/Pong-v5", {}, (), (), "off")
#: id, arguments, parts, wrappers, mask
TASKS: dict[str, tuple[str, Any, Any, Any, str]] = {
    "time": ("CartPole-v1", {}, (), ["TimeAwareObservation"], "off"),
    "several": (
        "CartPole-v1",
        {},
        (),
        [{"StickyAction": {"repeat_action_probability": 0.4}}, {"DelayObservation": {"delay": 2}}, STACK],
        "off",
    ),
    "bins": (
        "Pendulum-v1",
        {"g": 9.0},
        (),
        [{"DiscretizeAction": {"bins": 5}}, {"RepeatAction": {"num_repeats": 2}}],
        "off",
    ),
    "rescaled": ("MountainCar-v0", {}, (), [{"RescaleObservation": {"min_obs": 0, "max_obs": 1}}], "off"),
    "rewards": ("MountainCar-v0", {}, (), [{"ClipReward": {"min_reward": -0.5}}, "FlattenObservation"], "off"),
    "images": ("Test/Program-v0", {}, (), [RESIZE, {"MaxAndSkipObservation": {"skip": 2}}, GREY, STACK], "off"),
    "shape": ("Test/Program-v0", {}, (), [{"ReshapeObservation": {"shape": [60, 66]}}], "off"),
    "part": ("Test/Program-v0", {"kind": "dict"}, ["screen"], (), "off"),
    "parts": ("Test/Program-v0", {"kind": "dict"}, ["zone", "screen"], (), "off"),
    "part_wrapped": ("Test/Program-v0", {"kind": "dict"}, ["screen"], [GREY, RESIZE], "off"),
    "parts_wrapped": (
        "Test/Program-v0",
        {"kind": "dict"},
        ["zone", "screen"],
        [
            {"ResizeObservation": {"shape": [8, 8], "part": "screen"}},
            {"GrayscaleObservation": {"part": "screen"}},
            STACK,
        ],
        "off",
    ),
    "tuple": ("Test/Program-v0", {"kind": "tuple"}, [2, 0], (), "off"),
    "tuple_part": ("Test/Program-v0", {"kind": "tuple"}, [1], (), "off"),
    "tuple_wrapped": (
        "Test/Program-v0",
        {"kind": "tuple"},
        [1, 2],
        [{"ResizeObservation": {"shape": [8, 8], "part": 0}}],
        "off",
    ),
    "masks": ("Test/Program-v0", {"kind": "dict"}, (), (), "observation.legal"),
    "masks_alone": ("Test/Program-v0", {"kind": "short"}, (), (), "observation.legal"),
    "masks_parts": ("Test/Program-v0", {"kind": "dict"}, ["at", "zone"], (), "observation.legal"),
    "masks_wrapped": (
        "Test/Program-v0",
        {"kind": "dict"},
        ["screen", "at"],
        [{"ResizeObservation": {"shape": [8, 8], "part": "screen"}}, STACK],
        "observation.legal",
    ),
    "masks_alone_wrapped": ("Test/Program-v0", {"kind": "short"}, (), ["TimeAwareObservation"], "observation.legal"),
    "masks_in_infos": ("Taxi-v4", {}, (), ["TimeAwareObservation"], "info.action_mask"),
    "sea": ("DeepSea-v0", {}, (), (), "off"),
    "stochastic_sea": ("DeepSea-v0", {"size": 6, "stochastic": True, "mapping_seed": 3}, (), (), "off"),
    "wrapped_sea": ("DeepSea-v0", {"size": 5}, (), ["TimeAwareObservation"], "off"),
    "another_id": ("OfMine-v0", {}, (), (), "off"),
    "game": ATARI,
    "wrapped_game": (
        "ALE/Breakout-v5",
        {"repeat_action_probability": 0.0},
        (),
        [{"StickyAction": {"repeat_action_probability": 0.3}}],
        "off",
    ),
    "channels_first": ("Test/Program-v0", {"kind": "first"}, (), [RESIZE], "off"),
    "part_first": (
        "Test/Program-v0",
        {"kind": "two"},
        (),
        [{"ResizeObservation": {"shape": [8, 9], "part": name}} for name in ("first", "last")],
        "off",
    ),
    "one_array": ("Test/Program-v0", {"kind": "vector", "again": True}, (), [STACK], "off"),
    "one_array_late": (
        "Test/Program-v0",
        {"kind": "vector", "again": True},
        (),
        [{"DelayObservation": {"delay": 2}}],
        "off",
    ),
    "raw_game": ("ALE/Pong-v5", {"frameskip": 4}, (), [RESIZE, GREY, STACK], "off"),
    "older_game": ("PongNoFrameskip-v4", {}, (), (), "off"),
    "board": ("MinAtar/Breakout-v1", {}, (), [STACK], "off"),
}
EXTRAS = {"game": "ale_py", "board": "minatar"}


def task_of(name: str) -> Task:
    """One of TASKS, with a time limit for half of them."""
    env_id, kwargs, parts, wrappers, mask = TASKS[name]
    if (extra := EXTRAS.get(name.rpartition("_")[2])) is not None:
        pytest.importorskip(extra)
    limit = 40 if "TimeAwareObservation" in wrappers or list(TASKS).index(name) % 2 else None
    return load_task(env_id, kwargs, limit, wrapping=wrapping_of(parts, wrappers), action_mask=mask)


@pytest.mark.parametrize("name", TASKS)
def test_the_program_observes_what_the_agent_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, registry = task_of(name), dict(gym.registry)
    code, inputs, ours = environment_code(task), inputs_of(task), task.make()
    assert code.note == ""
    scope: dict[str, Any] = {"gym": gym, "np": np}
    ours = task.make()
    monkeypatch.setattr(gym.envs.registration, "registry", registry)
    if name == "another_id":
        del registry["OfMine-v0"]
    for module in code.imports:
        exec(f"import {module}", scope)
    rng, steps = np.random.default_rng(0), 0  # the steps of all episodes
    for seed in range(3, 9):
        if seed == 3 or name == "board":  # MinAtar remembers an action of the previous episode
            exec("\n\n".join([*code.definitions, *code.lines]), scope)
            theirs = scope["env"]
        (observation, info), (expected, _) = theirs.reset(seed=seed), ours.reset(seed=seed)
        ended = False
        while not ended and steps < 300:
            scope |= {"observation": observation, "info": info}
            leaves = list(leaves_in(expected))
            assert len(leaves) == len(inputs)
            for item, value in zip(inputs, leaves, strict=True):
                np.testing.assert_array_equal(np.asarray(eval(item.source, scope), item.dtype), value)
            allowed = np.flatnonzero(expected[1]) if task.observation.mask else np.arange(task.actions)
            action = task.to_environment(rng.choice(allowed, 1))[0]
            observation, reward, terminated, truncated, info = theirs.step(action)
            expected, reward_of_ours, *endings, _ = ours.step(action)
            assert (float(reward), bool(terminated), bool(truncated)) == (float(reward_of_ours), *map(bool, endings))
            ended, steps = terminated or truncated, steps + 1
    assert steps > 8


def leaves_in(observation: Any) -> Iterator[np.ndarray]:
    """The parts of an observation in the order of its space."""
    if isinstance(observation, dict):
        for key in sorted(observation):
            yield from leaves_in(observation[key])
    elif isinstance(observation, tuple):
        for part in observation:
            yield from leaves_in(part)
    else:
        yield np.asarray(observation)


def played(folder: Path, seed: int) -> float:
    """The program's return for the seed of an episode, in a process without this project, torch and OpenCV."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code.count("seed=0") == 1
    blocked = "['torch', 'agent', 'envs', 'onnx', 'onnxscript', 'cv2', 'hydra', 'omegaconf', 'wandb']"
    start = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
    script = start + code.replace("seed=0", f"seed={seed}")
    ended = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


WHOLE = {
    "time": ("CartPole-v1", {}, (), ["TimeAwareObservation"], "off"),
    "sea": ("DeepSea-v0", {"size": 6, "stochastic": True}, (), (), "off"),
    "told": ("Told-v0", {}, (), (), "observation.legal"),
    "game": ("ALE/Pong-v5", {}, (), (), "off"),
}
TOLD = """
import gymnasium as gym
import numpy as np

class Told(gym.Env):
    observation_space = gym.spaces.Dict(at=gym.spaces.Box(-9, 9, (2,)), legal=gym.spaces.MultiBinary(4))
    action_space = gym.spaces.Discrete(4)
    def _observe(self):
        self.mask = np.ones(4, np.int8)
        self.mask[self.np_random.integers(4)] = self.mask[self.np_random.integers(4)] = 0
        return {"at": self.np_random.normal(size=2).astype(np.float32), "legal": self.mask}
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}
    def step(self, action):
        if not self.mask[action]:
            raise ValueError("not allowed")
        reward = float(action) + float(self.np_random.random())
        return self._observe(), reward, False, False, {}

gym.register("Told-v0", entry_point="a_told_game:Told", max_episode_steps=30)
"""


@pytest.mark.parametrize("name", WHOLE)
def test_the_program_plays_as_evaluate_does_without_this_project(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    (tmp_path / "a_told_game.py").write_text(TOLD)
    monkeypatch.syspath_prepend(tmp_path)
    if name == "told":
        __import__("a_told_game")
    env_id, kwargs, parts, wrappers, mask = WHOLE[name]
    network = {"encoder": "data_efficient"} if name == "game" else {}
    player = saved(tmp_path, env_id, kwargs, wrappers, mask, parts, network=network)
    write_folder(player, tmp_path)
    episodes = 1 if name == "game" else 3
    expected = evaluate(tmp_path, episodes=episodes)["returns"]
    seeds = environment_seeds(0, "test", episodes)
    assert [played(tmp_path, seed) for seed in seeds] == pytest.approx(expected)
    gym.registry.pop("Told-v0", None)


def test_names_and_values_of_a_strangers_file_are_data_in_the_program() -> None:
    given = {"a": "'\"", "b=print(1)); print(2)\n#": 1, "lambda": [1, {"x": None}], "c": True}
    (call,) = ast.parse(f"make(env{arguments(given)})").body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert {keyword.arg for keyword in call.value.keywords} == {"a", "c", None}
    assert sum(isinstance(node, ast.Call) for node in ast.walk(call)) == 1
    found: dict[str, Any] = {}
    eval(f"make(env{arguments(given)})", {"make": lambda _, **options: found.update(options), "env": None})
    assert found == given


def test_an_environment_that_is_defined_in_no_module_is_said_to_be_missing() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("import gymnasium as gym\ndef make():\n    return gym.make('CartPole-v1')", namespace)
    gym.register("Nowhere-v0", entry_point=namespace["make"])
    try:
        code = environment_code(load_task("Nowhere-v0", {}))
        assert code.note == "Register `Nowhere-v0` before: this program does not know where it is defined."
        assert code.lines == ['env = gym.make("Nowhere-v0")']
    finally:
        del gym.registry["Nowhere-v0"]
