"""Agents as ONNX: the same values and actions as the agent's own, for every head, encoder and kind of observation."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import Programs

from agent import load_agent
from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse, to_plain
from agent.networks.build import build_network
from agent.networks.encoder_registry import register_encoder
from agent.networks.encoders import TrunkEncoder
from agent.records.names import AGENT
from agent.records.saved_agent import save_agent
from agent.running.evaluation import EvaluationPolicy
from agent.running.export.folder import write_folder
from agent.running.export.graph import ExportedAgent, MaxPool, Norm, exportable, write_onnx
from agent.running.player import Player, load_player
from envs.make import load_task
from envs.wrapping import wrapping_of

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

SPACES: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(np.float32([-1, 0.5]), np.float32([9, 0.7])),
    "doubles": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "bytes": spaces.Box(0, 255, (7,), np.uint8),
    "huge": spaces.Box(-(2**63), 2**63 - 1, (3,), np.int64),  # its squares are beyond float32
    "scalar": spaces.Box(-2, 2, (), np.float32),
    "scalars": spaces.Dict(
        a=spaces.Box(-2, 2, (), np.float32), b=spaces.Discrete(3), c=spaces.Box(-9, 9, (), np.int32)
    ),
    "state": spaces.Discrete(5, start=2),
    "states": spaces.MultiDiscrete([2, 3], start=[0, 4]),
    "bits": spaces.MultiBinary(4),
    "mixed": spaces.Dict(
        at=spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float32))), b=spaces.MultiBinary(2)
    ),
    "board": spaces.Box(0, 1, (10, 10, 3), np.bool_),
    "image": spaces.Box(0, 255, (40, 44, 3), np.uint8),
    "grey": spaces.Box(-1, 1, (9, 8), np.float32),
    "parts": spaces.Dict(
        far=spaces.Box(0, 255, (40, 44, 3), np.uint8),
        health=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        near=spaces.Box(-1, 1, (7, 8), np.float32),
        weapon=spaces.Discrete(4),
    ),
    "dotted": spaces.Dict(
        {
            "a": spaces.Dict(b=spaces.Box(-2, 2, (1,), np.float32)),
            "a.b": spaces.Box(-2, 2, (2,), np.float32),
            "a.b_2": spaces.Box(-2, 2, (3,), np.float32),
            "a/b": spaces.Box(-2, 2, (1,), np.float32),
        }
    ),
}


class Scene(gym.Env[Any, Any]):
    """Observes samples of a space, and masks that forbid one action."""

    action_space = spaces.Discrete(3, start=5)

    def __init__(self, kind: str = "vector") -> None:
        self.observation_space = SPACES[kind]

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        mask = np.ones(3, np.int8)
        mask[self.np_random.integers(3)] = 0
        return self.observation_space.sample(), {"legal": mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        observation, info = self._observe()
        return observation, float(action), self._time == 7, False, info


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gym.register("Test/Export-v0", entry_point=Scene)
    yield
    del gym.registry["Test/Export-v0"]


def saved(
    folder: Path,
    env_id: str,
    kwargs: Any = None,
    wrappers: Any = (),
    mask: str = "off",
    parts: Any = (),
    **options: Any,
) -> Player:
    """An agent whose parameters are drawn by one seed, with σ large enough to change values visibly."""
    options = {"network": {"hidden": [24, 16], **options.pop("network", {})}, **options}
    config, wrapping = parse(AgentConfig, options), wrapping_of(parts, wrappers)
    task = load_task(env_id, kwargs or {}, wrapping=wrapping, action_mask=mask)
    network = build_network(config, task.observation, task.actions, torch.Generator().manual_seed(0))
    description = {
        "env": {"id": task.id, "kwargs": task.kwargs, **task.wrapping.description()},
        "channels": task.observe.channels,
        "action_mask": mask,
        "observation": task.observe.description(),
        "actions": task.actions,
        "agent": to_plain(config),
        "global_step": 7,
    }
    save_agent(folder / AGENT, network.state_dict(), description)
    return load_player(folder / AGENT)


def observations(player: Player, count: int) -> list[tuple[Any, Any]]:
    """The first observations and infos of `count` episodes."""
    env, whole = player.task.make(), bool(player.task.observation.mask)
    found = [env.reset(seed=seed) for seed in range(count)]
    env.close()
    return [((observation[0], info) if whole else (observation, info)) for observation, info in found]


def leaf(source: str, observation: Any, info: Any) -> Any:
    """The value of an expression of names, keys and numbers, such as observation['at'][0]."""
    value = {"observation": observation, "info": info}[source.partition("[")[0]]
    for key in re.findall(r"\[(\"[^\"]*\"|\d+)\]", source):
        value = value[key.strip('"') if key.startswith('"') else int(key)]
    return value


def check(player: Player, folder: Path, count: int = 6, noise: bool = False) -> list[str]:
    """Checks that the file gives the agent's values and actions, singly and as a batch; returns its input names."""
    inputs = write_onnx(player, folder / "agent.onnx", noise)
    session = onnxruntime.InferenceSession(str(folder / "agent.onnx"))
    seen = observations(player, count)
    batch = {i.name: np.stack([np.asarray(leaf(i.source, *pair), i.dtype) for pair in seen]) for i in inputs}
    observe, whole = player.task.observe, player.task.observation.mask
    array = observe(observe.stack([(o, info["legal"]) if whole else o for o, info in seen]))
    draws = None
    if noise:
        epsilon = np.random.Generator(np.random.PCG64(0)).normal(size=(count, player.noise.size)).astype(np.float32)
        batch["noise"] = epsilon
        draws = torch.from_numpy(np.sign(epsilon) * np.abs(epsilon) ** 0.5 if player.noise.factorised else epsilon)
    network = EvaluationPolicy(player.network, None, [0])._network
    with torch.inference_mode():
        expected = network(torch.from_numpy(array).double(), None if draws is None else draws.double()).q_values.numpy()
    values, actions = session.run(["q_values", "action"], batch)
    np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-5)
    assert values.std() > 0
    assert (actions == player.task.to_environment(values.argmax(1))).all()
    for row in range(2):
        one = session.run(["q_values"], {name: value[row : row + 1] for name, value in batch.items()})[0]
        np.testing.assert_allclose(one[0], expected[row], rtol=2e-4, atol=2e-5)
    return [item.name for item in session.get_inputs()]


HEADS: dict[str, dict[str, Any]] = {
    "expected": {},
    "plain": {"noise": {"enabled": False}, "network": {"layer_norm": False}},
    "dueling": {"network": {"dueling": True}},
    "categorical": {"head": "categorical", "network": {"dueling": True}},
    "quantile": {"head": "quantile", "quantile": {"count": 20}},
    "implicit_quantile": {"head": "implicit_quantile", "network": {"dueling": True}},
    "independent": {"noise": {"form": "independent", "sigma0": 0.3}},
    "index": {"noise": {"form": "index", "learning": "joint", "index": 4, "prior": 1.0}},
}


@pytest.mark.parametrize("noise", [False, True], ids=["mean", "noise"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_the_agent_s_values(tmp_path: Path, head: str, noise: bool) -> None:
    player = saved(tmp_path, "Test/Export-v0", {"kind": "vector"}, **HEADS[head])
    if noise and not player.noise.size:
        with pytest.raises(UserError, match="has no noisy layers: leave noise=true out"):
            write_onnx(player, tmp_path / "agent.onnx", noise)
        return
    assert check(player, tmp_path, noise=noise) == ["observation", *(["noise"] if noise else [])]


@pytest.mark.parametrize(
    ("encoder", "kind", "impala"),
    [
        ("mlp", "grey", {}),
        ("minatar", "board", {}),
        ("nature", "image", {}),
        ("data_efficient", "image", {}),
        ("impala", "image", {"pool": 4, "spectral_norm": True}),
        ("impala", "grey", {"pool": None}),
    ],
)
def test_every_encoder_gives_the_agent_s_values(
    tmp_path: Path, encoder: str, kind: str, impala: dict[str, Any]
) -> None:
    player = saved(tmp_path, "Test/Export-v0", {"kind": kind}, network={"encoder": encoder, "impala": impala})
    before = {name: value.clone() for name, value in player.network.state_dict().items()}
    check(player, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in player.network.state_dict().items())


@pytest.mark.parametrize("kind", SPACES)
def test_every_kind_of_observation_is_taken_as_the_environment_gives_it(tmp_path: Path, kind: str) -> None:
    names = check(saved(tmp_path, "Test/Export-v0", {"kind": kind}), tmp_path)
    several = {
        "mixed": ["observation.at.0", "observation.at.1", "observation.b"],
        "parts": [f"observation.{name}" for name in ("far", "health", "near", "weapon")],
        "scalars": [f"observation.{name}" for name in "abc"],
        "dotted": [f"observation.{name}" for name in ("a.b", "a.b_3", "a.b_2", "a/b")],  # a name for each
    }
    assert names == several.get(kind, ["observation"])


def test_noise_and_prior_beside_images(tmp_path: Path) -> None:
    noise = {"form": "index", "learning": "joint", "index": 4, "prior": 1.0}
    check(saved(tmp_path, "Test/Export-v0", {"kind": "parts"}, noise=noise), tmp_path, noise=True)


def test_masks_are_an_input_and_hold(tmp_path: Path) -> None:
    for kind in ("vector", "mixed", "state"):
        player = saved(tmp_path, "Test/Export-v0", {"kind": kind}, mask="info.legal")
        assert check(player, tmp_path, count=20)[-1] == "action_mask"


def test_rows_of_one_number_are_normalised_as_the_agent_does(tmp_path: Path) -> None:
    """Their variance is 0; the export divides rows by their largest number before it squares them."""
    for x in (torch.zeros(1, 4), torch.full((1, 4), 1e25), torch.tensor([[1.0, 2.0, 3.0, 900.0]]), torch.eye(4) * 1e-4):
        expected = torch.nn.functional.layer_norm(x.double(), (4,)).float()
        torch.testing.assert_close(Norm(torch.nn.LayerNorm(4))(x), expected)


@pytest.mark.parametrize("kind", ["image", "parts"])
def test_stacks_of_frames_are_taken_in_their_order(tmp_path: Path, kind: str) -> None:
    wrappers = [{"FrameStackObservation": {"stack_size": 3}}]
    player = saved(tmp_path, "Test/Export-v0", {"kind": kind}, wrappers=wrappers)
    assert player.task.observation.stack == 3
    session = write_onnx(player, tmp_path / "agent.onnx")
    env, rows = player.task.make(), []
    rows.append(env.reset(seed=0)[0])
    rows += [env.step(5)[0] for _ in range(4)]  # the frames differ
    env.close()
    batch = {i.name: np.stack([np.asarray(leaf(i.source, row, {}), i.dtype) for row in rows]) for i in session}
    values = onnxruntime.InferenceSession(str(tmp_path / "agent.onnx")).run(["q_values"], batch)[0]
    array = player.task.observe(player.task.observe.stack(rows))
    expected = EvaluationPolicy(player.network, None, [0]).q_values(array, [0] * 5).numpy()
    np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-5)
    assert len({tuple(row) for row in values}) == 5


@pytest.mark.parametrize(("sides", "side"), [((13, 13), 6), ((7, 12), 4), ((2, 3), 6), ((5, 5), 1)])
def test_the_pool_is_torch_s(sides: tuple[int, int], side: int) -> None:
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    assert torch.equal(MaxPool(side)(x), torch.nn.AdaptiveMaxPool2d(side)(x))


PLAYED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vector": ("CartPole-v1", {}, {}),
    "state": ("FrozenLake-v1", {"is_slippery": False}, {}),
    "tuple": ("Blackjack-v1", {}, {}),
    "uniform": ("CartPole-v1", {}, {"noise": {"distribution": "uniform"}}),
    "laplace": ("CartPole-v1", {}, {"noise": {"distribution": "laplace"}}),
    "logistic": ("CartPole-v1", {}, {"noise": {"distribution": "logistic"}}),
}


@pytest.mark.parametrize("case", PLAYED)
def test_the_readme_s_program_plays_as_the_agent_does(tmp_path: Path, case: str) -> None:
    env_id, kwargs, options = PLAYED[case]
    player = saved(tmp_path, env_id, kwargs, **options)
    noisy = bool(options)
    written = write_folder(player, tmp_path / "shared", noisy)
    assert [path.name for path in written] == ["agent.onnx", "README.md"]
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["README.md", "agent.onnx"]
    printed = program_of(tmp_path / "shared")
    if not noisy:
        assert printed == pytest.approx(return_of(player, tmp_path))


def program_of(folder: Path) -> float:
    """Runs the program of the README, in a process that finds neither this project nor torch."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len([line for line in lines if not line.startswith("        ")]) <= 12  # besides a line for each input
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'agent', 'envs', 'onnx', 'onnxscript']))\n"
    ended = subprocess.run([sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


def return_of(player: Player, folder: Path) -> float:
    """The return of the episode that the README plays, by the agent itself."""
    agent, env = load_agent(folder / AGENT), gym.make(player.task.id, **player.task.kwargs)
    observation, total, ended = env.reset(seed=0)[0], 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        total, ended = total + float(reward), terminated or truncated
    return total


def test_the_readme_s_program_plays_with_masks(tmp_path: Path) -> None:
    player = saved(tmp_path, "Taxi-v4", mask="info.action_mask")
    write_folder(player, tmp_path / "shared")
    text = (tmp_path / "shared" / "README.md").read_text()
    assert 'info["action_mask"]' in text
    assert "| `action_mask` | int8 | [batch, 6] |" in text
    assert program_of(tmp_path / "shared") >= -200  # an illegal action would cost 10


PACKAGE = """
import gymnasium as gym

class Walk(gym.Env):
    observation_space, action_space = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2)
    def __init__(self, step=1.0): self._step = step
    def reset(self, *, seed=None, options=None):
        self._place = 0.0
        return [self._place], {}
    def step(self, action):
        self._place += self._step if action else -self._step
        return [self._place], self._place, abs(self._place) > 4, False, {}

gym.register("Walk-v0", entry_point="a_package_of_walks:Walk", max_episode_steps=20)
"""


def test_the_readme_s_program_plays_a_task_of_another_package_without_this_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_package_of_walks.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("a_package_of_walks")
    try:
        player = saved(tmp_path, "Walk-v0", {"step": 0.5})
        write_folder(player, tmp_path)
        assert program_of(tmp_path) == pytest.approx(return_of(player, tmp_path))
        assert "with its wrappers" not in (tmp_path / "README.md").read_text()
    finally:
        del gym.registry["Walk-v0"]


def test_the_readme_s_program_plays_minatar_without_this_project(tmp_path: Path) -> None:
    pytest.importorskip("minatar", reason="needs the extra minatar")
    write_folder(saved(tmp_path, "MinAtar/Breakout-v1"), tmp_path)
    assert program_of(tmp_path) >= 0


def test_an_encoder_that_onnx_cannot_express_is_refused_in_a_sentence(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        features = 4

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x.flatten(1).unsqueeze(1).expand(-1, 4, -1))[:, :1].expand(-1, 4)

    register_encoder("odd_of_export", lambda parts: TrunkEncoder(Odd(), parts))
    player = saved(tmp_path, "Test/Export-v0", {"kind": "grey"}, network={"encoder": "odd_of_export"})
    with pytest.raises(UserError, match="cannot be written as ONNX: "):
        write_onnx(player, tmp_path / "agent.onnx")
    assert not (tmp_path / "agent.onnx").exists()


def test_ctrl_c_during_the_export_is_no_error_of_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter replaces any error by its own, so that Ctrl-C may be deep in the chain of causes."""

    def fails(*_: Any, **__: Any) -> None:
        try:
            raise cause
        except BaseException as error:
            raise RuntimeError("\x1b[96mThis is step 1/3\x1b[0m of exporting") from ValueError(str(error))

    monkeypatch.setattr(torch.onnx, "export", fails)
    player, cause = saved(tmp_path, "CartPole-v1"), BaseException("a defect")
    with pytest.raises(UserError, match=r"as ONNX: RuntimeError: This is step 1/3 of exporting$"):
        write_onnx(player, tmp_path / "agent.onnx")
    cause = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        write_onnx(player, tmp_path / "agent.onnx")


def test_a_full_disk_is_no_fault_of_the_agent(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is made in memory, so that no temporary folder is needed."""
    player = saved(tmp_path / "best", "CartPole-v1")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", "/dev/null")
        write_onnx(player, tmp_path / "agent.onnx")
    ended = programs.run("share", "checkpoint=best", "out=other", cwd=tmp_path, file_limit=4096)
    assert ended.code == 2
    assert re.fullmatch(r"error: could not write .*agent\.onnx \(File too large\): free some space.*\n", ended.err)
    assert not list((tmp_path / "other").iterdir())


def test_an_encoder_that_fixes_the_size_of_a_batch_is_refused(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        features = 72

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), 72)

    register_encoder("fixed_of_export", lambda parts: TrunkEncoder(Fixed(), parts))
    player = saved(tmp_path, "Test/Export-v0", {"kind": "grey"}, network={"encoder": "fixed_of_export"})
    with pytest.raises(UserError, match="makes a plain number of the size of a batch"):
        write_onnx(player, tmp_path / "agent.onnx")


def test_a_text_is_refused(tmp_path: Path) -> None:
    SPACES["text"] = spaces.Dict(a=spaces.Box(0, 1, (2,), np.float32), say=spaces.Text(4, min_length=4))
    try:
        player = saved(tmp_path, "Test/Export-v0", {"kind": "text"})
        with pytest.raises(UserError, match=r"observes a text \(observation.say\), which to=onnx cannot take"):
            write_onnx(player, tmp_path / "agent.onnx")
    finally:
        del SPACES["text"]


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = saved(tmp_path, "CartPole-v1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"to=onnx needs onnx and onnxscript: pip install 'noisy-dqn\[onnx\]'"):
        write_onnx(player, tmp_path / "agent.onnx")


def test_the_copy_that_is_exported_computes_the_same(tmp_path: Path) -> None:
    impala = {"encoder": "impala", "impala": {"pool": 4, "spectral_norm": True}}
    player = saved(tmp_path, "Test/Export-v0", {"kind": "image"}, network=impala)
    x = torch.randint(0, 256, (3, 3, 40, 44), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.inference_mode():
        theirs, ours = player.network(x, None).q_values, exportable(player.network)(x, None).q_values
    torch.testing.assert_close(ours, theirs)
    assert ExportedAgent(player, False).first == 5


def test_the_program_writes_beside_the_agent_or_where_it_is_told(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    saved(tmp_path / "run" / "best", "CartPole-v1")
    ended = programs.run("share", "checkpoint=run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"wrote run/best/onnx/{name}" for name in ("agent.onnx", "README.md")]
    ended = programs.run("share", "checkpoint=run/best", "out=elsewhere", "noise=true", cwd=tmp_path)
    assert ended.code == 0, ended.err
    session = onnxruntime.InferenceSession(str(tmp_path / "elsewhere" / "agent.onnx"))
    assert [item.name for item in session.get_inputs()] == ["observation", "noise"]
    (tmp_path / "a_file").touch()
    for options, sentence in (
        (("checkpoint=run", "out=a_file"), "out=a_file is a file: name a folder"),
        (("checkpoint=run", "which=last"), "has no last agent yet"),
        (("checkpoint=run", "to=tflite"), "to is 'tflite'"),
        ((), "there is no run under runs/"),
    ):
        ended = programs.run("share", *options, cwd=tmp_path)
        assert ended.code == 2
        assert sentence in ended.err
        assert "Traceback" not in ended.err
