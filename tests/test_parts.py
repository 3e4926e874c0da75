"""Images with other parts: each part keeps its dtype, each image has a convolution, and other parts are flattened."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import Programs
from hydra.core.override_parser.overrides_parser import OverridesParser

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec, packed
from agent.compute.plan import TORCH
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.networks.build import build_network, noise_model
from agent.networks.encoders import MLPEncoder, PartsEncoder, TrunkEncoder
from agent.networks.trunks import Convolutions
from agent.records.saved_agent import read_agent, save_agent
from agent.replay.memory import required_bytes
from agent.replay.ring import Replay
from agent.replay.rings import Rings
from agent.running.build import build_replay
from agent.running.failures import Folder, not_finite
from agent.running.monitor import NotFiniteError
from agent.running.player import load_player
from agent.running.remedies import remedies
from envs.make import load_task
from envs.observations import observer_of
from envs.observed_parts import observer_for
from envs.vector import make_vector
from envs.wrapping import wrapping_of

SPACE = spaces.Dict(
    far=spaces.Box(0, 255, (40, 44, 3), np.uint8),
    health=spaces.Box(-np.inf, np.inf, (3,), np.float32),
    mask=spaces.Box(0, 1, (5, 6), np.bool_),
    near=spaces.Box(-1, 1, (7, 8), np.float32),
    weapon=spaces.Discrete(4),
)
SMALL = {"network": {"hidden": [24, 16]}}


class Scene(gym.Env[Any, Any]):
    """Observes samples of a space; episodes have seven steps."""

    action_space = spaces.Discrete(3)

    def __init__(self, space: spaces.Space[Any] = SPACE) -> None:
        self.observation_space = space

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        return self._observe(), float(action == 1), self._time == 7, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gym.register("Test/Parts-v0", entry_point=Scene)
    yield
    del gym.registry["Test/Parts-v0"]


def encoder_of(spec: ObservationSpec, **network: Any) -> PartsEncoder:
    config = parse(AgentConfig, {"network": {"hidden": [24, 16], **network}})
    built = build_network(config, spec, 3, torch.Generator().manual_seed(0)).encoder
    assert isinstance(built, PartsEncoder)
    return built


def parts_by_hand(sample: Any, space: Any = SPACE) -> dict[str, np.ndarray]:
    """The parts, made by observers of single spaces."""
    images = {name: observer_of("x", space[name])(np.array([sample[name]]))[0] for name in ("far", "mask", "near")}
    rest = spaces.Dict(health=space["health"], weapon=space["weapon"])
    return images | {"rest": spaces.flatten(rest, {name: sample[name] for name in ("health", "weapon")})}


@pytest.mark.parametrize("kind", [spaces.Dict, spaces.Tuple])
def test_a_row_of_bytes_holds_every_part_as_it_is(kind: Any) -> None:
    space = SPACE if kind is spaces.Dict else spaces.Tuple(tuple(SPACE.spaces.values()))
    observe = observer_for("x", space)
    SPACE.seed(3)
    samples = [SPACE.sample() for _ in range(5)]
    given = samples if kind is spaces.Dict else [tuple(sample.values()) for sample in samples]
    rows = observe(observe.stack(given))
    assert (rows.shape, rows.dtype) == ((5, *observe.spec.shape), np.uint8)
    assert observe.spec.size % 4 == 0
    unpacked = encoder_of(observe.spec).unpacked(torch.from_numpy(rows))
    for i, sample in enumerate(samples):
        expected = parts_by_hand(sample)
        for part, name in zip(unpacked, ("near", "rest", "far", "mask"), strict=True):
            assert np.array_equal(part[i].numpy(), expected[name].astype(part.numpy().dtype)), name


def test_an_empty_part_beside_an_image_is_left_out() -> None:
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    space = spaces.Dict(a=spaces.Box(-1, 1, (2, 0)), i=image)
    observe, plain = observer_for("Test-v0", space), observer_for("Test-v0", spaces.Dict(i=image))
    assert observe.spec.parts == plain.spec.parts
    assert np.array_equal(*(one(one.stack([{**space.sample(), "i": image.low}])) for one in (observe, plain)))


def test_memory_is_that_of_the_parts() -> None:
    spec = observer_for("x", SPACE).spec
    numbers = 40 * 44 * 3 + 5 * 6 + 4 * (7 * 8 + 3 + 4)
    assert spec.stored_bytes == numbers + -numbers % 4
    assert required_bytes(1000, 1, spec) < required_bytes(1000, 1, 40 * 44 * 3 + 5 * 6 + 7 * 8 + 3 + 4) / 3


def test_every_image_has_a_convolution_of_its_own_and_the_rest_a_linear_layer() -> None:
    encoder = encoder_of(observer_for("x", SPACE).spec)
    near, rest, far, mask = encoder.encoders
    assert isinstance(rest, MLPEncoder)
    for image, layers in ((near, 1), (far, 3), (mask, 1)):
        assert isinstance(image, TrunkEncoder)
        assert isinstance(image.trunk, Convolutions)
        assert len(image.trunk.layers) == layers
    assert encoder.mlp.layers[0].in_features == sum(e.features for e in (near, rest, far, mask))


@pytest.mark.parametrize("name", ["far", "health", "mask", "near", "weapon"])
def test_values_depend_on_every_part_and_every_part_learns(name: str) -> None:
    observe = observer_for("x", SPACE)
    SPACE.seed(4)
    one, two = SPACE.sample(), SPACE.sample()
    network = build_network(parse(AgentConfig, SMALL), observe.spec, 3, torch.Generator().manual_seed(1))
    rows = torch.from_numpy(observe(observe.stack([one, {**one, name: two[name]}])))
    values = network(rows, None).q_values
    assert not np.array_equal(one[name], two[name])
    assert not torch.equal(values[0], values[1])
    values.sum().backward()
    for encoder in network.encoder.encoders:
        first = encoder.trunk.layers[0].weight if isinstance(encoder, TrunkEncoder) else next(encoder.parameters())
        assert first.grad.abs().sum() > 0


def test_one_row_many_rows_and_double_precision_agree() -> None:
    """A single row is read without a copy, wherever its floats of four bytes lie in memory."""
    observe = observer_for("x", SPACE)
    SPACE.seed(5)
    config = parse(AgentConfig, SMALL)
    network = build_network(config, observe.spec, 3, torch.Generator().manual_seed(1))
    rows = torch.from_numpy(observe(observe.stack([SPACE.sample() for _ in range(4)])))
    noise = noise_model(config, network).draw(4, generator=torch.Generator().manual_seed(2))
    together = network(rows, noise).q_values
    for i in range(4):
        assert torch.allclose(network(rows[i : i + 1], noise[i : i + 1]).q_values[0], together[i], atol=1e-5)
    double = network.double()(rows.double(), noise.double()).q_values
    assert torch.allclose(double.float(), together, atol=1e-4)


def test_a_prior_sees_the_numbers_of_all_parts() -> None:
    config = parse(
        AgentConfig,
        {
            **SMALL,
            "double": False,
            "noise": {"form": "index", "learning": "joint", "prior": 1.0, "index": 4},
            "loss": "squared",
        },
    )
    observe = observer_for("x", SPACE)
    network = build_network(config, observe.spec, 3, torch.Generator().manual_seed(1))
    SPACE.seed(6)
    rows = torch.from_numpy(observe(observe.stack([SPACE.sample() for _ in range(2)])))
    flat = network.encoder.flat(rows)
    assert flat.shape == (2, 7 * 8 + 7 + 40 * 44 * 3 + 5 * 6)
    assert flat.abs().max() < 6
    assert network(rows, torch.ones(1, 4)).q_values.shape == (2, 3)


@pytest.mark.parametrize("kind", [spaces.Dict, spaces.Tuple])
def test_stacks_of_all_parts_are_stored_once_and_sampled_as_they_were(kind: Any) -> None:
    space = SPACE if kind is spaces.Dict else spaces.Tuple(tuple(SPACE.spaces.values()))
    wrapping = wrapping_of((), [{"FrameStackObservation": {"stack_size": 3}}])
    task, alone = (load_task("Test/Parts-v0", {"space": space}, wrapping=w) for w in (wrapping, wrapping_of()))
    spec = task.observation
    assert (spec.stack, spec.stored_shape) == (3, alone.observation.shape)
    envs, replay, given = make_vector(task, 2), Replay(24, 2, spec), {}
    seen = task.observe(envs.reset(seed=1)[0])
    replay.begin(seen)
    for t in range(60):
        observation, reward, terminated, truncated, _ = envs.step(np.zeros(2, np.int64))
        given[t % replay.rows] = seen
        seen = task.observe(observation)
        replay.add(np.zeros(2), reward, terminated, truncated, seen)
    for flat in replay.starts[(replay.first + np.arange(len(replay))) % len(replay.starts)]:
        row, copy = divmod(int(flat), 2)
        assert np.array_equal(replay.gather(np.array([flat])).observation[0], given[row][copy])
    far = encoder_of(spec).unpacked(torch.from_numpy(seen))[2]
    batch = observation["far"] if kind is spaces.Dict else observation[0]
    assert np.array_equal(far.numpy(), batch.transpose(0, 1, 4, 2, 3).reshape(2, 9, 40, 44))
    envs.close()


def test_numbers_that_are_not_finite_are_found_among_bytes() -> None:
    observe = observer_for("x", SPACE)
    replay = Replay(8, 1, observe.spec)
    SPACE.seed(7)
    sample = SPACE.sample()
    replay.begin(observe(observe.stack([sample])))
    assert replay.not_finite() == ""
    sample["health"] = np.array([0, np.nan, 0], np.float32)
    no = np.zeros(1, bool)
    replay.add(np.zeros(1), np.zeros(1), no, no, observe(observe.stack([sample])))
    assert replay.not_finite() == "observations"


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("rings", [False, True])
def test_huge_numbers_of_an_environment_are_named(tmp_path: Path, tensors: bool, rings: bool) -> None:
    no, error, folder = np.zeros(1, bool), NotFiniteError("q/mean is nan"), Folder(tmp_path)
    replays = [Replay(8, 1, 3, tensors=tensors) for _ in range(2)]
    replay = Rings(replays) if rings else replays[1]
    assert "a lower agent.lr" in str(not_finite(error, 600, "X-v0", replay, folder))
    replays[1].begin(np.full((1, 3), -2e30, np.float32))
    replays[1].add(np.zeros(1), np.full(1, 1e38), no, no, np.zeros((1, 3), np.float32))
    sentence = str(not_finite(error, 600, "X-v0", replay, folder))
    assert "rewards that X-v0 gave reach 1e38: scale them, or set env.clip_rewards=true" in sentence
    assert "observations that X-v0 gave reach 2e30: scale them with a wrapper (env.wrappers)" in sentence
    assert "agent.lr" not in sentence


def test_bytes_are_never_huge_and_the_floats_among_them_may_be() -> None:
    images = Replay(8, 1, ObservationSpec((1, 4, 4), "uint8"))
    assert images.largest() == {"rewards": 0.0, "observations": 0.0}
    observe = observer_for("x", SPACE)
    replay = Replay(8, 1, observe.spec)
    SPACE.seed(7)
    sample = SPACE.sample()
    sample["health"] = np.array([0, -1e20, 0], np.float32)
    replay.begin(observe(observe.stack([sample])))
    assert replay.largest()["observations"] >= 0.99e20


def test_what_has_no_images_is_one_vector_as_before() -> None:
    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-np.inf, np.inf, (4, 4), np.float32))
    assert observer_for("x", space).description() == observer_of("x", space).description()


def test_parts_of_floats_come_first() -> None:
    with pytest.raises(ValueError, match="float32 must come first"):
        packed([ObservationSpec((3,), "bool"), ObservationSpec((3,))])


ROOMS = """
import sys
sys.path.insert(0, {tests!r})
import gymnasium as gym
from test_parts import Scene

gym.register("Rooms-v0", entry_point=Scene)
"""

QUICK = (
    *("wandb.mode=disabled", "eval.video=false", "log.progress=false", "eval.episodes=2", "num_envs=2"),
    *("agent.learning_starts=64", "agent.batch_size=16", "agent.network.hidden=[16,16]", "checkpoint.every=100"),
    "imports=rooms",
)


def test_training_resuming_and_evaluating(programs: Programs, tmp_path: Path) -> None:
    """A run in two parts is bit for bit that in one part, and its agent plays."""
    folders = []
    for name in ("once", "twice"):
        home = tmp_path / name
        home.mkdir()
        (home / "rooms.py").write_text(ROOMS.format(tests=str(Path(__file__).parent)))
        first = "steps=160" if name == "once" else "steps=110"
        result = programs.run("train", "env=Rooms-v0", *QUICK, first, cwd=home)
        assert result.code == 0, result.err
        assert "PartsEncoder" in result.out + result.err
        folders += [next((home / "runs/Rooms-v0").iterdir())]
    more = programs.run("train", f"resume={folders[1]}", "imports=rooms", "steps=160", cwd=tmp_path / "twice")
    assert more.code == 0, more.err
    one, two = (read_agent(folder / "last/agent.safetensors") for folder in folders)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    played = programs.run("evaluate", f"checkpoint={folders[0]}", "imports=rooms", "episodes=3", cwd=tmp_path / "once")
    assert played.code == 0, played.err


def saved(path: Path, **changes: Any) -> Path:
    task, config = load_task("Test/Parts-v0", {}), parse(AgentConfig, SMALL)
    network = build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))
    said = {
        **{"env": {"id": task.id, "kwargs": {}}, "time_limit": None, "channels": task.observe.channels},
        **{"observation": task.observe.description(), "actions": task.actions, "global_step": 1},
        "agent": json.loads(json.dumps({"network": {"hidden": [24, 16]}})),
    }
    said["observation"] |= changes
    save_agent(path, network.state_dict(), said)
    return path


def test_a_saved_agent_of_parts_is_rebuilt_and_a_hostile_one_refused(tmp_path: Path) -> None:
    player = load_player(saved(tmp_path / "agent.safetensors"))
    assert isinstance(player.network.encoder, PartsEncoder)
    part = player.task.observe.description()["parts"]
    huge = {**part[0], "shape": [1, 10**6, 10**6]}
    for changes in (
        {"parts": []},
        {"parts": part * 100},
        {"parts": "x"},
        {"stack": 10**9},
        {"stack": None},
        {"parts": [huge]},
        {"parts": part[::-1]},
        {"parts": [7]},
    ):
        with pytest.raises(UserError, match="is damaged"):
            load_player(saved(tmp_path / "agent.safetensors", **changes))


def test_a_replay_that_does_not_fit_says_what_makes_it_fit_and_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option in the sentence gives the size beside it."""
    space = spaces.Dict(screen=spaces.Box(0, 255, (240, 320, 3), np.uint8), health=spaces.Box(0, 200, (1,), np.float32))
    task = load_task("Test/Parts-v0", {"space": space})
    monkeypatch.setattr("agent.running.resources.available_bytes", lambda device: 2 * 2**30)
    config = parse(TrainConfig, {"agent": {"replay_size": 40_000}, "num_envs": 1})
    with pytest.raises(UserError) as refusal:
        build_replay(config, task, torch.device("cpu"), TORCH)
    said = dict(re.findall(r"(\S+) \((\d+\.\d\d) GiB", str(refusal.value).partition("free: ")[2]))
    assert list(said) == [
        "agent.replay_size=9300",
        "env.wrappers=[{ResizeObservation:{shape:[84,84],part:screen}}]",
        "env.wrappers=[{GrayscaleObservation:{part:screen}}]",
        "env.observation=[health]",
    ]
    assert "part:screen}}] (2.86 GiB, not enough alone)" in str(refusal.value)
    resize = {"ResizeObservation": {"shape": [84, 84], "part": "screen"}}
    grey = {"GrayscaleObservation": {"part": "screen"}}
    for changed, capacity, parts, wrappers in zip(
        said, (9_300, 40_000, 40_000, 40_000), ((), (), (), ("health",)), ([], [resize], [grey], []), strict=True
    ):
        smaller = load_task("Test/Parts-v0", {"space": space}, wrapping=wrapping_of(parts, wrappers))
        assert f"{required_bytes(capacity, 1, smaller.observation) / 2**30:.2f}" == said[changed]
    assert required_bytes(9_300, 1, task.observation) <= 2 * 2**30 < required_bytes(9_400, 1, task.observation)


BYTES = {
    name: spaces.Box(0, 255, shape, np.uint8)
    for name, shape in {
        "colours": (100, 120, 3),
        "first": (3, 100, 120),
        "four": (100, 120, 4),
        "grey": (100, 120),
        "small": (60, 120, 3),
    }.items()
}


@pytest.mark.parametrize(
    ("space", "wrappers", "expected"),
    [
        (BYTES["colours"], [], ["[{ResizeObservation:{shape:[84,84]}}]", "[GrayscaleObservation]"]),
        (BYTES["first"], [], ["[{ResizeObservation:{shape:[84,84]}}]"]),
        (BYTES["four"], [], ["[{ResizeObservation:{shape:[84,84]}}]"]),
        (BYTES["small"], [], ["[GrayscaleObservation]"]),
        (
            BYTES["colours"],
            [{"FrameStackObservation": {"stack_size": 2}}],
            [
                "[{ResizeObservation:{shape:[84,84]}},{FrameStackObservation:{stack_size:2}}]",
                "[GrayscaleObservation,{FrameStackObservation:{stack_size:2}}]",
            ],
        ),
        (BYTES["colours"], ["FlattenObservation"], []),
        (
            spaces.Dict(far=BYTES["grey"], near=BYTES["small"]),
            [],
            ["[{ResizeObservation:{shape:[84,84],part:far}}]", "[{GrayscaleObservation:{part:near}}]"],
        ),
        (
            spaces.Tuple((BYTES["first"], BYTES["small"])),
            [{"FrameStackObservation": {"stack_size": 2}}],
            ["[{ResizeObservation:{shape:[84,84],part:'0'}},{FrameStackObservation:{stack_size:2}}]"],
        ),
    ],
)
def test_each_option_that_makes_a_replay_smaller_works(space: Any, wrappers: Any, expected: list[str]) -> None:
    """It keeps the task's own wrappers, and it is no option that they or the images do not allow."""
    task = load_task("Test/Parts-v0", {"space": space}, wrapping=wrapping_of((), wrappers))

    def bytes_of(capacity: int, form: ObservationSpec) -> int:
        return capacity * form.stored_bytes

    said = dict(re.findall(r"env\.wrappers=(\S+) \((\d+\.\d\d) GiB", remedies(task, 10**6, bytes_of, 2**40)))
    assert list(said) == expected
    for option, size in said.items():
        wrapping = wrapping_of((), OverridesParser.create().parse_override(f"x={option}").value())
        smaller = load_task("Test/Parts-v0", {"space": space}, wrapping=wrapping)
        assert smaller.observation.stored_bytes < task.observation.stored_bytes
        assert f"{bytes_of(10**6, smaller.observation) / 2**30:.2f}" == size
