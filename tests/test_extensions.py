"""Modules of the user's own: the command line names them, and never a run, a checkpoint or a saved agent."""

import copy
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from helpers import ROOT, Programs, Result
from hydra.core.override_parser.overrides_parser import OverridesParser

from agent.command.imports import import_named
from agent.common.errors import UserError
from agent.common.foreign import OwnCodeError, is_own_file, own_code
from agent.config.algorithm import AgentConfig
from agent.config.parts import NetworkConfig
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import UpdateNoise
from agent.networks.build import build_network
from agent.networks.encoder_registry import ENCODERS
from agent.networks.heads.registry import HEADS
from agent.networks.q_network import flatten_parameters
from agent.records.saved_agent import read_agent
from agent.replay.batch import Batch
from envs.bounds import is_own

QUIET = (
    "wandb.mode=disabled",
    "eval.video=false",
    "steps=200",
    "eval.episodes=2",
    "agent.learning_starts=64",
    "agent.batch_size=64",
)

GAME = """
import gymnasium as gym
import numpy as np


class Game(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (6, 7, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self.observation_space.low, {}

    def step(self, action):
        self.left -= 1
        return self.observation_space.high, float(action), self.left == 0, False, {}


gym.register("Game-v0", entry_point=Game)
"""


def shown_encoder() -> str:
    """The example of an encoder in docs/EXTENDING.md."""
    found = re.search(r"```python\n(# my_encoder\.py\n.*?)```", (ROOT / "docs/EXTENDING.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def sentence(result: Result) -> str:
    assert result.code == 2, result
    return result.err


def test_an_encoder_and_an_environment_of_ones_own(programs: Programs, tmp_path: Path) -> None:
    """The documented encoder plays an environment of another file. A saved agent names neither: the user names both."""
    (tmp_path / "my_encoder.py").write_text(shown_encoder())
    (tmp_path / "my_game.py").write_text(GAME)
    named = ("env=my_game:Game-v0", "imports=my_encoder", "agent.network.encoder=tiny")
    options = (*QUIET, "hydra.run.dir=run", "num_envs=2", "log.network=true")
    result = programs.run("train", *options, *named, cwd=tmp_path)
    assert result.code == 0, result.err
    assert "Game-v0 · cpu" in result.err
    assert "Tiny(" in result.err
    shown = next(line for line in result.err.splitlines() if line.startswith("evaluate:"))
    assert "'imports=[my_encoder,my_game]'" in shown
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "config.yaml":  # on top stands the command, for people
                command, _, content = content.partition(b"\n")
                assert command.startswith(b"# python train.py ")
            assert b"my_game" not in content, path
            assert b"my_encoder" not in content, path
    words = ("checkpoint=run", "which=last", "episodes=2")
    refused = sentence(programs.run("evaluate", *words, "imports=my_encoder", cwd=tmp_path))
    assert re.search("no environment 'Game-v0'.*imports=<package>", refused)
    refused = sentence(programs.run("evaluate", *words, "imports=my_game", cwd=tmp_path))
    assert re.search("'tiny': there is no encoder of this name.*imports=", refused)
    result = programs.run("evaluate", *words, "imports=[my_game,my_encoder]", cwd=tmp_path)
    assert result.code == 0, result.err
    more = ("resume=run", "steps=300", "wandb.mode=disabled", "eval.video=false")
    refused = sentence(programs.run("train", *more, cwd=tmp_path))
    assert re.search("no environment 'Game-v0'.*imports=<package>", refused)
    result = programs.run("train", *more, *named, cwd=tmp_path)
    assert result.code == 0, result.err


def test_a_run_is_found_without_the_version_of_its_environment(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "my_game.py").write_text(GAME)
    words = (*QUIET, "num_envs=1", "resume=auto")
    for env_id, steps, told in (
        ("my_game:Game-v0", 50, "beginning runs/Game-v0/"),
        ("my_game:Game", 60, "going on with runs/Game-v0/.* from step 50"),
        ("my_game:Game-v0", 70, "going on with runs/Game-v0/.* from step 60"),
    ):
        result = programs.run("train", *words, f"env={env_id}", f"steps={steps}", cwd=tmp_path)
        assert result.code == 0, result.err
        assert re.search(told, result.err), result.err


CONSTRUCTOR = "gym.Env):\n    def __init__(self, price=1, start=0):\n        self.price = price\n"
MARKET = GAME.replace("gym.Env):", CONSTRUCTOR).replace("Game-v0", "Market-v0")


def test_numbers_of_ones_own_environment_may_be_large(programs: Programs, tmp_path: Path) -> None:
    """A large number in a saved file is refused for an environment of a package, and if nobody names the module."""
    (tmp_path / "market.py").write_text(MARKET)
    named = ("imports=market", "+env.kwargs.price=2e6", "+env.kwargs.start=20261129")
    result = programs.run("train", *QUIET, "env=Market-v0", *named, "hydra.run.dir=run", "num_envs=2", cwd=tmp_path)
    assert result.code == 0, result.err
    result = programs.run("evaluate", "checkpoint=run", "episodes=2", "imports=market", cwd=tmp_path)
    assert result.code == 0, result.err
    more = ("resume=run", "steps=300", "wandb.mode=disabled", "eval.video=false")
    assert programs.run("train", *more, "imports=market", cwd=tmp_path).code == 0
    refused = sentence(programs.run("evaluate", "checkpoint=run", "episodes=2", cwd=tmp_path))
    assert re.search("'price' is 2000000.0, where 1,000,000 is the most; .* which imports= names", refused)
    refused = sentence(programs.run("train", *QUIET, "env=CartPole-v1", "+env.kwargs.x=2e6", cwd=tmp_path))
    assert re.search("env.kwargs.x of CartPole-v1 is 2000000.0: .* 1,000,000 at most", refused)


def _own(**kwargs: object) -> gym.Env[object, object]:
    return gym.make("CartPole-v1")


@pytest.mark.parametrize(
    ("entry_point", "own"),
    [
        (_own, True),
        (partial(_own, x=1), True),
        (f"{__name__}:_own", True),
        ("gymnasium.envs.classic_control.cartpole:CartPoleEnv", False),
        (CartPoleEnv, False),
        ("envs.deep_sea:DeepSea", False),
        ("json:loads", False),
        ("nowhere.at.all:Env", False),
        ("..:", False),
        (None, False),
    ],
)
def test_an_environment_is_ones_own_by_the_module_of_its_class(entry_point: object, own: bool) -> None:
    gym.register("Test/Entry-v3", entry_point=entry_point, vector_entry_point=_own)  # type: ignore[arg-type]
    try:
        assert is_own("Test/Entry-v3") is own
        assert is_own("Test/Entry") is own
        assert not is_own("Test/Another-v3")
        assert not is_own("…:-v")
    finally:
        del gym.registry["Test/Entry-v3"]


LIVES = """
import gymnasium as gym
import numpy as np


class Lives(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, tells=True):
        self.tells = tells

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.np_random.integers(3, 9)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.left -= 1
        told = {"life_lost": np.bool_(self.left == 2)} if self.tells else {}
        return np.zeros(3, np.float32), 0.0, bool(self.left == 0), False, told


gym.register("Lives-v0", entry_point=Lives, max_episode_steps=7)
"""


# With two copies, one is reset while the other reports a loss. NumPy's truth values then come as an array of objects.
@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_lives_that_nobody_tells_of_are_said_once(
    programs: Programs, tmp_path: Path, tells: bool, num_envs: int
) -> None:
    (tmp_path / "lives.py").write_text(LIVES)
    words = ("env=lives:Lives-v0", f"+env.kwargs.tells={tells}", "env.life_loss=true", f"num_envs={num_envs}")
    result = programs.run("train", *QUIET, *words, "eval.every=0", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.err.count("Lives-v0 reports no lost lives") == (not tells)


def test_a_run_is_filed_under_the_id_alone(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "my_game.py").write_text(GAME)
    result = programs.run("train", *QUIET, "env=my_game:Game-v0", "num_envs=2", cwd=tmp_path)
    assert result.code == 0, result.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["Game-v0"]
    result = programs.run("train", "-m", *QUIET, "env=my_game:Game-v0", "num_envs=2", "seed=1", cwd=tmp_path)
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"Game-v0", "multirun"}


#: An exception whose text raises another one.
TEXTLESS = """
class Textless(Exception):
    def __str__(self):
        raise {error}

raise Textless
"""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("import nowhere_at_all", "it needs nowhere_at_all"),
        ("1 / 0", "importing it failed: ZeroDivisionError"),
        ("import sys; sys.exit(0)", "importing it failed: SystemExit"),
        ("import pytest; pytest.importorskip('nowhere_at_all')", "importing it failed: Skipped: could not import"),
        ("raise GeneratorExit", "importing it failed: GeneratorExit"),
        (TEXTLESS.format(error="SystemExit(0)"), "importing it failed: Textless: an object of class Textless"),
        ("from agent import register_encoder; register_encoder('mlp', None)", "ValueError: 'mlp'"),
    ],
)
def test_a_module_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_broken.py").write_text(content)
    with pytest.raises(UserError, match=expected):
        import_named({"imports": "my_broken"})


def test_a_module_that_stops_the_program_is_one_sentence(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "stops.py").write_text("raise KeyboardInterrupt")
    result = programs.run("train", *QUIET, "imports=stops", "env=CartPole-v1", cwd=tmp_path)
    assert result.code == 2
    assert "error: imports=stops: importing it failed: KeyboardInterrupt" in result.err


def test_what_names_a_module_is_taken_out() -> None:
    asked = {"imports": ["json"], "env": {"id": "json:Foo/Bar-v0"}, "seed": 0}
    import_named(asked)
    assert asked == {"env": {"id": "Foo/Bar-v0"}, "seed": 0}


MODULE = "import sys; sys.was_imported = __file__"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own current folder; modules that are imported from it are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "was_imported", None, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_module(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODULE)
    return path


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("agent", "agent.py", "agent is the name of a module of this program: .*its path, such as ./agent.py"),
        ("envs", "envs/__init__.py", "envs is the name of a module of this program: .*its path, such as ./envs$"),
        ("train", "other.py", "train is the name of a module of this program"),
        ("agent.running", "other.py", "agent is the name of a module of this program"),
        ("code", "code.py", "code is the name of a module of Python itself: rename yours, .* such as ./code.py"),
        ("sys", "sys.py", "sys is the name of a module of Python itself"),
        ("yaml", "yaml.py", "yaml is the name of a module that is installed in .*/__init__.py: .* such as ./yaml.py"),
    ],
)
def test_a_name_that_another_module_has_is_told(mine: Path, name: str, file: str, expected: str) -> None:
    write_module(mine, file)
    for options, option in (
        ({"imports": name}, f"imports={name}"),
        ({"imports": [], "env": {"id": f"{name}:Game-v0"}}, f"env={name}:Game-v0"),
    ):
        with pytest.raises(UserError, match=f"^{option}: {expected}"):
            import_named(options)
    assert sys.was_imported is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("./mine.py", "mine.py"),
        ("mine.py", "mine.py"),
        ("./agent.py", "agent.py"),
        ("./code.py", "code.py"),
        ("folder/my module.py", "folder/my module.py"),
        ("../{here}/mine.py", "mine.py"),
        ("./package", "package/__init__.py"),
        ("{all}/mine.py", "mine.py"),
    ],
)
def test_a_path_stands_for_a_name(mine: Path, path: str, file: str) -> None:
    written = write_module(mine, file)
    path = path.format(here=mine.name, all=mine)
    (shown,) = import_named({"imports": path})
    assert Path(sys.was_imported).resolve() == written.resolve()  # type: ignore[attr-defined]
    again = OverridesParser.create().parse_override(shown).value()
    assert again == [path]
    sys.was_imported = None  # type: ignore[attr-defined]
    import_named({"imports": again})
    assert sys.was_imported is None, "it was imported twice"  # type: ignore[attr-defined]
    assert sys.modules["agent"].__file__ == str(ROOT / "agent" / "__init__.py")


def test_two_files_of_one_name_are_two_modules(mine: Path) -> None:
    files = [write_module(mine / folder, "game.py") for folder in ("one", "two")]
    for file in files:
        import_named({"imports": str(file.relative_to(mine))})
        assert sys.was_imported == str(file.resolve())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("./nothing.py", "imports=./nothing.py: there is no file nothing.py"),
        ("./empty", "imports=./empty: there is no file empty/__init__.py"),
        ("./text.txt", "imports=./text.txt: .* is not a module: a module's file ends in .py"),
        ("./broken.py", "imports=./broken.py: importing it failed: ZeroDivisionError"),
        ("./needs.py", "imports=./needs.py: it needs nowhere_at_all; it must be installed, or lie in"),
    ],
)
def test_a_path_that_cannot_be_imported_is_one_sentence(mine: Path, path: str, expected: str) -> None:
    (mine / "empty").mkdir()
    for name, text in (("text.txt", ""), ("broken.py", "1 / 0"), ("needs.py", "import nowhere_at_all")):
        (mine / name).write_text(text)
    for _ in range(2):  # a module that failed does not count as imported
        with pytest.raises(UserError, match=expected):
            import_named({"imports": path})


def test_an_environment_in_a_file_is_trained_and_played(programs: Programs, tmp_path: Path) -> None:
    """The file has the name of a module of this project, and the commands in the output name the file."""
    (tmp_path / "agent.py").write_text(GAME)
    result = programs.run("train", *QUIET, "env=./agent.py:Game-v0", "num_envs=2", cwd=tmp_path)
    assert result.code == 0, result.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["Game-v0"]
    shown = next(line for line in result.err.splitlines() if line.startswith("evaluate:"))
    words = shlex.split(shown.partition("python evaluate.py ")[2])
    assert "imports=[./agent.py]" in words
    result = programs.run("evaluate", *words, "episodes=2", cwd=tmp_path)
    assert result.code == 0, result.err


WANDERING = """
import os
import gymnasium as gym
import numpy as np

os.chdir(os.environ["ELSEWHERE"])


class Wandering(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, when="step", render_mode=None):
        self.when, self.render_mode = when, render_mode
        self.wander("init")

    def wander(self, now):
        if now == self.when:
            os.chdir(os.environ["ELSEWHERE"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wander("reset")
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.wander("step")
        return np.zeros(3, np.float32), 1.0, False, False, {}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)

    def close(self):
        self.wander("close")


gym.register("Wandering-v0", entry_point=Wandering, max_episode_steps=9)
"""


@pytest.mark.parametrize("when", ["init", "reset", "step", "close", "never"])
def test_an_environment_that_changes_the_folder_leaves_the_run_in_its_own(
    programs: Programs, tmp_path: Path, when: str
) -> None:
    """The environment's module changes the folder, too. Paths in the output are relative to the folder of the start."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "wandering.py").write_text(WANDERING)
    words = (*QUIET[:1], *QUIET[2:], "env=wandering:Wandering-v0", f"+env.kwargs.when={when}", "checkpoint.every=80")
    result = programs.run("train", *words, "num_envs=2", cwd=home, ELSEWHERE=str(elsewhere))
    assert result.code == 0, result.err
    (run,) = home.glob("runs/Wandering-v0/*")
    there = {path.name for path in run.iterdir()}
    assert there >= {"config.yaml", "metrics.jsonl", "learning_curve.png", "best", "last", "checkpoints", "videos"}
    assert not list(elsewhere.iterdir())
    shown = next(line for line in result.err.splitlines() if line.startswith("evaluate:"))
    words = tuple(shlex.split(shown.partition("python evaluate.py ")[2]))
    assert words[0] == f"checkpoint={run.relative_to(home)}"
    result = programs.run("evaluate", *words, "episodes=2", "video=true", cwd=home, ELSEWHERE=str(elsewhere))
    assert result.code == 0, result.err
    files = {path.name for path in (run / "best").iterdir()}
    assert files >= {"evaluation.json", "evaluation.png"}
    assert any(re.fullmatch(r"evaluation\.(gif|mp4)", name) for name in files)
    said = [line for line in result.out.splitlines() if line.startswith("wrote ")]
    assert all(line.startswith(f"wrote {run.relative_to(home)}/best/evaluation.") for line in said)
    both = f"checkpoint=[{run.relative_to(home)}/best,{run.relative_to(home)}/last]"
    result = programs.run("evaluate", both, *words[1:], "episodes=2", cwd=home, ELSEWHERE=str(elsewhere))
    assert result.code == 0, result.err
    assert (run / "last" / "evaluation.json").exists()
    assert (run / "best" / "comparison.png").exists()
    assert not list(elsewhere.iterdir())
    assert {path.name for path in home.iterdir()} <= {"wandering.py", "runs", "__pycache__"}


# ---- encoders and heads that fail

ENCODER = """
import torch
from torch import nn

from agent import register_encoder
from agent.networks.encoders import TrunkEncoder


class Mine(nn.Module):
    features = 4

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1)


register_encoder("mine", lambda parts: TrunkEncoder(Mine(), parts))
"""

HEAD = """
from typing import NamedTuple

from torch import Tensor

from agent import register_head
from agent.networks.heads.base import Head, bellman_target, gather_actions


class Mine(NamedTuple):
    q_values: Tensor

    @property
    def outcomes(self):
        return self.q_values


class MineHead(Head):
    def values(self, outputs):
        return Mine(outputs)

    def target(self, outcome, reward, discount, limits=None):
        return bellman_target(reward, discount, outcome)

    def loss(self, prediction, action, target):
        return (target - gather_actions(prediction.q_values, action)).square()

    def priority(self, prediction, action, target, loss):
        return loss


register_head("mine", lambda parts: MineHead(parts.sizes))
"""

#: (code of the encoder, its replacement, begin of the sentence).
BAD_ENCODERS = [
    ("x.flatten(1)", "x.flatten(1)[:, :3]", r"from 2 observations it makes features of shape \[2, 3\]"),
    ("x.flatten(1)", "x.flatten(1).long()", r"from 2 observations it makes features of shape \[2, 4\] \(torch.int64"),
    ("x.flatten(1)", "x.no_such", "failed: AttributeError: 'Tensor' object has no attribute 'no_such'"),
    ("features = 4", "width = 4", "failed: AttributeError: 'Mine' object has no attribute 'features'"),
    ("features = 4", "features = 'four'", "failed: ValueError"),
    ("TrunkEncoder(Mine(), parts)", "Mine()", "failed: AttributeError: 'Mine' object has no attribute 'noise_sizes'"),
    ("TrunkEncoder(Mine(), parts)", "1 / 0", "failed: ZeroDivisionError"),
    ("TrunkEncoder(Mine(), parts)", "None", "failed: AttributeError"),
    ("lambda parts", "lambda", "failed: TypeError: .*takes 0 positional arguments"),
    ("self.calls = 0", "exit()", "failed: it ended the program, by sys.exit"),
    (
        "self.calls = 0",
        "self.n = nn.Embedding(3, 1, sparse=True); type(self).forward = lambda self, x: self.n(x.long()).flatten(1)",
        "the gradient of trunk.n.weight is sparse: use sparse=False",
    ),
    (
        "self.calls = 0",
        "self.calls, self.n = 0, torch.jit.script(nn.Linear(4, 4))",
        "a copy of trunk.n.weight cannot learn, as after",
    ),
    ("return x.flatten(1)", "return x.flatten(1) if self.training else 1 / 0", "failed: ZeroDivisionError"),
    ("x.flatten(1)", "x.float().flatten(1)", "must play in double precision as well: leave casts such as"),
    ("TrunkEncoder(Mine(), parts)", "Raw(casts=True)", "must play in double precision as well: leave casts such as"),
    ("TrunkEncoder(Mine(), parts)", "Raw(in_place=True)", "writes to its input"),
    ("x.flatten(1)", "setattr(self, 'v', nn.Linear(4, 4)) or self.v(x)", "makes trunk.v.bias when it is called"),
    ("x.flatten(1)", "setattr(self, 'w', nn.Parameter(self.w * 0.9)) or x", "replaces trunk.w when it is called"),
    ("x.flatten(1)", "Wrong.apply(x * self.w)", "failed: RuntimeError: Function WrongBackward returned an invalid"),
    ("TrunkEncoder(Mine(), parts)", "Raw((4, 4))", r"its attribute noise_sizes is \(4, 4\) and must hold the numbers"),
    ("TrunkEncoder(Mine(), parts)", "Raw(None)", "its attribute noise_sizes is None and must hold the numbers"),
    ("TrunkEncoder(Mine(), parts)", "Raw(((4.0, 4),))", r"its attribute noise_sizes is 4.0 \(float\) and must be a"),
    ("TrunkEncoder(Mine(), parts)", "Raw(((-4, 4),))", r"its attribute noise_sizes is -4 \(int\) and must be a whole"),
    (
        "TrunkEncoder(Mine(), parts)",
        "Raw(features=4.0)",
        r"its attribute features is 4.0 \(float\) and must be a whole",
    ),
]
#: (replacement in a head or an encoder that no saved agent could hold, begin of the sentence).
NEVER_SAVED = [
    ("self.register_buffer('w', torch.full((2,), -torch.inf))", "encoder.trunk.w holds values that are not finite"),
    (
        "self.register_buffer('w', torch.tensor([3, 2**24 + 1]))",
        "encoder.trunk.w holds whole numbers above 16,777,216",
    ),
    (
        "self.register_buffer('w', torch.tensor([2**31 - 1], dtype=torch.int32))",
        "encoder.trunk.w holds whole numbers above 16,777,216",
    ),
    ("self.register_buffer('w', torch.tensor([2**63 - 1]))", "encoder.trunk.w holds whole numbers above 16,777,216"),
    (
        "self.w = nn.ParameterList([nn.Parameter(torch.zeros(1))] * 5000)",
        r"network has 5,\d* tensors, and 4,096 are the",
    ),
    (
        "type(self).get_extra_state = dict",
        "state_dict holds encoder.trunk._extra_state, which is no parameter and no buffer",
    ),
    (
        "self.w = nn.Linear(1, 1); self._register_state_dict_hook(lambda m, s, p, _: s.pop(p + 'w.bias'))",
        "state_dict lacks encoder.trunk.w.bias, which a saved agent needs",
    ),
]
BAD_HEADS = [
    ("Mine(outputs)", "outputs", "failed: AttributeError: 'Tensor' object has no attribute 'q_values'"),
    ("Mine(outputs)", "Mine(outputs[..., :1])", r".*q_values must have the shape \[2, 2\], not \[2, 1\]"),
    ("bellman_target(reward, discount, outcome)", "None", "failed: TypeError"),
    ("MineHead(parts.sizes)", "exit()", "failed: it ended the program, by sys.exit"),
    (".square()", ".square().mean()", r".*loss must have the shape \[2\], not \[\]"),
    (".square()", ".no_such()", "failed: AttributeError: 'Tensor' object has no attribute 'no_such'"),
    ("return loss", "return loss.sum()", r".*priority must have the shape \[2\], not \[\]"),
    ("MineHead(parts.sizes)", "3", "failed: AttributeError"),
    ("MineHead(parts.sizes)", "1 / 0", "failed: ZeroDivisionError"),
    ("MineHead(parts.sizes)", "MineHead()", "failed: TypeError"),
    ("(Head)", "(object)", "failed: TypeError"),
    (".square()", ".square().detach()", "its loss has no gradient"),
    (".square()", ".square().bfloat16()", "its loss is torch.bfloat16 and must be float32"),
    ("return loss", "return loss.long()", "its priority is torch.int64 and must be float32"),
    ("Mine(outputs)", "Mine(outputs.long())", "its q_values is torch.int64 and must be float32"),
    (
        "(Head):",
        "(Head):\n    level_counts = (4.5, 3)",
        r"its attribute level_counts is 4.5 \(float\) and must be a whole",
    ),
    ("(Head):", "(Head):\n    level_counts = (4,)", "failed: ValueError: not enough values to unpack"),
]


@pytest.fixture
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders and heads that a module registers are removed after the test."""
    for registry in (ENCODERS, HEADS):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def build(source: str, **options: object) -> None:
    """Runs a module of the user's own, and builds a network with the encoder or head that it registers."""
    exec(compile(source, "mine.py", "exec"), {})
    build_network(AgentConfig(**options), 4, 2, torch.Generator())  # type: ignore[arg-type]


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(("replaced", "by", "expected"), BAD_ENCODERS)
def test_an_encoder_of_ones_own_that_fails_is_one_sentence(replaced: str, by: str, expected: str) -> None:
    assert replaced in ENCODER
    config = NetworkConfig(encoder="mine")
    build(ENCODER, network=config)
    with pytest.raises(UserError, match=f"^agent.network.encoder=mine:? {expected}"):
        build(WITH_TOOLS.replace(replaced, by), network=config)


#: The module with two more classes: a function whose backward pass is wrong, and an encoder without a trunk.
WITH_TOOLS = (
    ENCODER.replace("import TrunkEncoder", "import Encoder, TrunkEncoder")
    .replace(
        "class Mine",
        """class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient[:1]


class Raw(Encoder):
    def __init__(self, noise_sizes=[], features=4, casts=False, in_place=False):
        super().__init__()
        self.noise_sizes, self.features, self.casts, self.in_place = noise_sizes, features, casts, in_place

    def forward(self, x, noise):
        if self.in_place:
            x -= 1.0
        return x.float() if self.casts else x * 1.0


class Mine""",
    )
    .replace("self.calls = 0", "self.calls = 0\n        self.w = nn.Parameter(torch.ones(4))")
)


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(("tensor", "sentence"), NEVER_SAVED)
def test_a_network_that_could_not_be_saved_is_refused_before_training(tensor: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^the .*{sentence}"):
        build(ENCODER.replace("self.calls = 0", f"self.calls = 0; {tensor}"), network=NetworkConfig(encoder="mine"))


@pytest.mark.usefixtures("_registries")
def test_an_encoder_without_a_trunk_and_with_a_list_of_no_noise_is_built() -> None:
    build(WITH_TOOLS.replace("TrunkEncoder(Mine(), parts)", "Raw()"), network=NetworkConfig(encoder="mine"))


@pytest.mark.usefixtures("_registries")
def test_numbers_of_numpy_are_whole_numbers() -> None:
    """A checkpoint holds the number of drawn values, which a size of NumPy's type would turn into that type."""
    module = ENCODER.replace("features = 4", "import numpy; features = numpy.prod((4,))")
    exec(compile(module, "mine.py", "exec"), {})
    config = AgentConfig(network=NetworkConfig(encoder="mine"))
    network = build_network(config, 4, 2, torch.Generator())
    assert type(network.noise_size) is type(network.encoder.features) is int


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(("replaced", "by", "expected"), BAD_HEADS)
def test_a_head_of_ones_own_that_fails_is_one_sentence(replaced: str, by: str, expected: str) -> None:
    """Some of these heads would train without an error."""
    assert replaced in HEAD
    build(HEAD, head="mine")
    with pytest.raises(UserError, match=f"^agent.head=mine:? {expected}"):
        build(HEAD.replace(replaced, by), head="mine")


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ("self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))", "encoder.trunk.w is torch.float64"),
        ("self.register_buffer('w', torch.zeros(2, dtype=torch.complex64))", "encoder.trunk.w is torch.complex64"),
        ("self.w = nn.LazyLinear(3)", "encoder.trunk.w.weight has no size yet"),
    ],
)
def test_tensors_that_no_saved_agent_holds_are_refused_before_training(tensor: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^the network's {sentence}"):
        build(ENCODER.replace("self.calls = 0", f"self.calls = 0; {tensor}"), network=NetworkConfig(encoder="mine"))


def test_an_encoder_with_batch_normalisation_is_saved_evaluated_and_resumed(programs: Programs, tmp_path: Path) -> None:
    """Batch normalisation counts its batches in an integer, while saved agents hold floats."""
    normalised = ENCODER.replace("self.calls = 0", "self.calls = 0; self.norm = nn.BatchNorm1d(4)")
    (tmp_path / "mine.py").write_text(normalised.replace("return x.flatten(1)", "return self.norm(x.flatten(1))"))
    named = ("imports=mine", "agent.network.encoder=mine", "env=CartPole-v1")
    options = (*QUIET, "num_envs=3", "hydra.run.dir=run", "steps=300")
    for words in (("train", *options, *named), ("train", "resume=run", *QUIET, named[0], "steps=400")):
        result = programs.run(*words, cwd=tmp_path)
        assert result.code == 0, result.err
    result = programs.run("evaluate", "checkpoint=run", "imports=mine", "episodes=2", cwd=tmp_path)
    assert result.code == 0, result.err


@pytest.mark.usefixtures("_registries")
def test_an_encoder_is_tried_on_a_copy() -> None:
    """The encoder that learns has not been called, and is in training mode."""
    exec(compile(ENCODER, "mine.py", "exec"), {})
    network = build_network(AgentConfig(network=NetworkConfig(encoder="mine")), 4, 2, torch.Generator())
    assert network.encoder.trunk.calls == 0  # type: ignore[union-attr]
    assert network.training


#: (module, option that names it, wrong result after some calls, words of the sentence).
LATE_RESULTS = [
    (ENCODER, "network.encoder", "None", "must make a tensor of features, and not None"),
    (ENCODER, "network.encoder", "x[:, :3]", r"from 3 observations it makes features of shape \[3, 3\]"),
    (ENCODER, "network.encoder", "x[:2]", r"from 3 observations it makes features of shape \[2, 4\]"),
    (ENCODER, "network.encoder", "x.long()", r"from 3 observations it makes features of shape \[3, 4\] \(torch.int64"),
    (HEAD, "head", "None", "must make values with a tensor q_values, and not None"),
    (HEAD, "head", "Mine(outputs[:, :1])", r"for 3 rows its q_values have the shape \[3, 1\]"),
    (HEAD, "head", "Mine(outputs[:2])", r"for 3 rows its q_values have the shape \[2, 2\]"),
]


def late(module: str, result: str, after: int) -> str:
    """The source of a module whose result changes after some calls with three rows."""
    before, name = ("return x.flatten(1)", "x") if module is ENCODER else ("return Mine(outputs)", "outputs")
    assert before in module
    changed = f"global calls; calls += len({name}) == 3\n        if calls > {after}: return {result}\n        {before}"
    return "calls = 0\n" + module.replace(before, changed)


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(("module", "option", "result", "told"), LATE_RESULTS)
def test_a_result_that_does_not_fit_later_is_one_sentence(module: str, option: str, result: str, told: str) -> None:
    """Without the check the result would cause an error in this project's code, which is not at fault."""
    exec(compile(late(module, result, 1), "mine.py", "exec"), {})
    chosen = {"network": NetworkConfig(encoder="mine")} if module is ENCODER else {"head": "mine"}
    network = build_network(AgentConfig(**chosen), 4, 2, torch.Generator())  # type: ignore[arg-type]
    copied = copy.deepcopy(network)  # the target network is a copy, too
    observation = torch.zeros(3, 4)
    network(observation, None)
    for one in (network, copied):
        with pytest.raises(OwnCodeError, match=f"^agent.{option}=mine:? {told}"):
            one(observation, None)


#: (method of a head, result that does not fit the rows, words of the sentence). The first result would be broadcast.
LATE_LOSSES = [
    ("loss", "(target - gather_actions(prediction.q_values, action)).square()[:, None]", r"has the shape \[64, 1\]"),
    ("loss", "None", "is None"),
    ("priority", "loss[:1]", r"has the shape \[1\]"),
    ("priority", "None", "is None"),
]


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize(("method", "result", "told"), LATE_LOSSES)
def test_a_loss_that_does_not_fit_later_is_one_sentence(method: str, result: str, told: str) -> None:
    """The first check of a head has two rows. Its result for the 64 rows of a batch is wrong."""
    signature = f"def {method}(self, prediction, action, target{', loss' * (method == 'priority')}):\n"
    assert signature in HEAD
    changed = HEAD.replace(signature, f"{signature}        if len(action) == 64: return {result}\n")
    exec(compile(changed, "mine.py", "exec"), {})
    config = AgentConfig(head="mine")
    network = build_network(config, 4, 2, torch.Generator())
    gradient = AutogradGradient(network, copy.deepcopy(network), flatten_parameters(network), config)
    zeros = np.zeros(64, np.float32)
    batch = Batch(np.zeros((64, 4), np.float32), zeros.astype(np.int64), zeros, zeros, np.zeros((64, 4), np.float32))
    with pytest.raises(OwnCodeError, match=f"^agent.head: the {method} of MineHead must be .* \\[64\\].* and {told}"):
        gradient(batch, UpdateNoise(), weight=zeros + 1)


@pytest.mark.parametrize(("module", "option"), [(ENCODER, "network.encoder"), (HEAD, "head")])
def test_a_result_that_does_not_fit_later_loses_nothing(
    programs: Programs, tmp_path: Path, module: str, option: str
) -> None:
    (tmp_path / "mine.py").write_text(late(module, "None", 30))
    named = ("imports=mine", f"agent.{option}=mine", "env=CartPole-v1", "num_envs=3", "hydra.run.dir=run")
    ended = programs.run("train", *QUIET, *named, "steps=300", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    sentence = ended.err[ended.err.index("error:") :]
    assert re.match(rf"error: agent.{option}=mine must make .*; training stopped at step \d+: fix it; all ", sentence)
    (tmp_path / "mine.py").write_text(module)
    ended = programs.run("train", "resume=run", *QUIET[:2], "imports=mine", "steps=400", cwd=tmp_path)
    assert ended.code == 0, ended.err


#: Errors without a line in the user's file, or of no usual class: (line in `forward`, words of the sentence).
UNUSUAL = {
    "an exception of no usual kind": ("raise Halt('no device')", "Halt: no device"),
    "a KeyboardInterrupt of its own": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "in a backward pass": (
        "return Wrong.apply(x * self.w)",
        "RuntimeError: Function WrongBackward returned an invalid",
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_error_of_an_encoder_is_one_sentence_and_loses_nothing(
    programs: Programs, tmp_path: Path, name: str
) -> None:
    line, told = UNUSUAL[name]
    module = WITH_TOOLS.replace("class Mine", "class Halt(BaseException):\n    pass\n\n\nclass Mine")
    bug = f"if self.calls > 40 and len(x) in (3, 64): {line}\n        return x"
    (tmp_path / "mine.py").write_text(module.replace("return x.f", f"{bug}.f"))
    named = ("imports=mine", "agent.network.encoder=mine", "env=CartPole-v1", "num_envs=3", "hydra.run.dir=run")
    ended = programs.run("train", *QUIET, *named, "steps=400", "eval.every=0", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    sentence = ended.err[ended.err.index("error:") :]
    assert re.match(
        f"error: agent.network.encoder=mine failed: {told}.*training stopped at step .*resume=run", sentence
    )
    (tmp_path / "mine.py").write_text(WITH_TOOLS)
    ended = programs.run("train", "resume=run", *QUIET[:2], "imports=mine", "steps=500", cwd=tmp_path)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("/home/me/game.py", True),
        ("/home/me/my-site-packages-x/game.py", True),
        ("/home/me/train.py", True),
        ("/home/me/lib/site-packages/game.py", False),
        (str(ROOT / "train.py"), False),
        (str(ROOT / "agent" / "common" / "foreign.py"), False),
        (str(ROOT / "tests" / ".." / "evaluate.py"), False),
        (traceback.__file__, False),
        ("<string>", False),
    ],
)
def test_a_file_of_ones_own_is_one_question(file: str, own: bool) -> None:
    """The sentences of errors and the check of environments' arguments use this function."""
    assert is_own_file(file) == own


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("no room"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        UserError("a sentence"),
    ],
)
def test_an_error_of_the_machine_is_no_error_of_an_encoder(error: Exception) -> None:
    """Torch raises such an error in a file of its own, like the errors of a backward pass."""
    source = "def call(error, options):\n    with own_code(options):\n        raise error"
    torch_s: dict[str, Any] = {"own_code": own_code}
    exec(compile(source, "/lib/site-packages/torch/autograd/graph.py", "exec"), torch_s)
    with pytest.raises(type(error)) as raised:
        torch_s["call"](error, "agent.head=mine")
    assert raised.value is error
    other = RuntimeError("a gradient of a wrong shape")
    with pytest.raises(OwnCodeError, match=r"^agent\.head=mine failed: RuntimeError: a gradient of a wrong shape$"):
        torch_s["call"](other, "agent.head=mine")
    with pytest.raises(RuntimeError) as raised_without:
        torch_s["call"](other, "")
    assert raised_without.value is other


@pytest.mark.parametrize("line", ["sys.exit(0)", "raise ValueError('bad value')"])
def test_an_encoder_of_an_installed_package_is_named(programs: Programs, tmp_path: Path, line: str) -> None:
    """Its file does not show that it is the user's encoder."""
    package = tmp_path / "site-packages"
    package.mkdir()
    bug = f"import sys\n        if self.calls > 40 and len(x) == 3: {line}\n        return x"
    (package / "packaged.py").write_text(ENCODER.replace("return x", bug))
    named = (
        "imports=./site-packages/packaged.py",
        "agent.network.encoder=mine",
        "env=CartPole-v1",
        "num_envs=3",
        "hydra.run.dir=run",
    )
    ended = programs.run("train", *QUIET, *named, "eval.every=0", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert re.search("error: agent.network.encoder=mine failed: .*training stopped at step .*resume=run", ended.err)


def test_an_encoder_that_needs_numbers_is_loaded(programs: Programs, tmp_path: Path) -> None:
    """The network of a saved agent is first built on torch's device meta, but such a module needs numbers."""
    looks = "assert bool(torch.isfinite(x).all())\n        return x"
    module = ENCODER.replace("return x", looks).replace("self.calls = 0", "self.calls = torch.ones(3).tolist()[0]")
    (tmp_path / "mine.py").write_text(module)
    named = ("imports=mine", "agent.network.encoder=mine", "env=CartPole-v1", "hydra.run.dir=run")
    assert programs.run("train", *QUIET, *named, cwd=tmp_path).code == 0
    result = programs.run("evaluate", "checkpoint=run", "imports=mine", "episodes=2", cwd=tmp_path)
    assert result.code == 0, result.err


@pytest.mark.parametrize("code", [0, 3])
def test_an_encoder_that_ends_the_program_later_is_one_sentence(programs: Programs, tmp_path: Path, code: int) -> None:
    """Without the check the program would end with the encoder's exit code, such as 0, without results."""
    (tmp_path / "mine.py").write_text(ENCODER)
    named = ("imports=mine", "agent.network.encoder=mine", "env=CartPole-v1", "hydra.run.dir=run")
    assert programs.run("train", *QUIET, *named, cwd=tmp_path).code == 0
    ending = f"if len(x) != 2: import sys; sys.exit({code})\n        return x"  # the first check has two observations
    (tmp_path / "mine.py").write_text(ENCODER.replace("return x", ending))
    ended = programs.run("evaluate", "checkpoint=run", "imports=mine", "episodes=3", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert f"mine.py failed (it ended the program, by sys.exit({code})): fix it" in ended.err


@pytest.mark.parametrize("where", ["act", "update", "evaluate"])
def test_an_encoder_that_fails_later_is_named_with_its_line_and_all_is_saved(
    programs: Programs, tmp_path: Path, where: str
) -> None:
    """The environment is not blamed, and after a repair of the encoder the run goes on."""
    rows = {"act": 3, "update": 64, "evaluate": 2}[where]
    bug = f"if self.calls > 9 and len(x) == {rows}: raise ValueError('a bug of mine')\n        return x"
    (tmp_path / "mine.py").write_text(ENCODER.replace("return x", bug))
    named = ("imports=mine", "agent.network.encoder=mine", "env=CartPole-v1")
    options = (*QUIET, "eval.num_envs=2", "num_envs=3", "hydra.run.dir=run", "checkpoint.every=90", "steps=300")
    result = programs.run("train", *options, *named, cwd=tmp_path)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    last = result.err[result.err.index("error:") :].splitlines()
    blamed = "the last evaluation failed at step" if where == "evaluate" else "mine.py failed at step"
    assert re.match(f"error: {blamed} [0-9]+ .ValueError: a bug of mine.*resume=run", last[0]), result.err
    assert re.match(r'  File ".*mine.py", line \d+, in forward', last[-2])
    (tmp_path / "mine.py").write_text(ENCODER)
    result = programs.run("train", "resume=run", *options[:2], *named[:1], "steps=400", cwd=tmp_path)
    assert result.code == 0, result.err


# ---- random numbers of an encoder of the user's own

DRAWING = """
import torch
from torch import nn

from agent import register_encoder
from agent.networks.encoders import TrunkEncoder


class Drawing(nn.Module):
    features = 8

    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(4, 8), nn.Dropout(0.5)

    def forward(self, x):
        x = self.dropout(self.layer(x))
        return x + 0.1 * torch.randn_like(x)


register_encoder("drawing", lambda parts: TrunkEncoder(Drawing(), parts))
"""


def test_draws_of_an_encoder_of_ones_own_are_those_of_the_seed(programs: Programs, tmp_path: Path) -> None:
    """Its parameters and its dropout come from torch's global generator. Evaluations leave that as it is."""
    (tmp_path / "drawing.py").write_text(DRAWING)

    def learned(folder: str, *options: str) -> dict[str, torch.Tensor]:
        own = ("imports=./drawing.py", "agent.network.encoder=drawing")
        words = own if options[0].startswith("resume") else (*QUIET, *own, "env=CartPole-v1", f"hydra.run.dir={folder}")
        learning = ("agent.learning_starts=64", "agent.batch_size=16", "agent.network.hidden=[8]", "eval.noisy=false")
        result = programs.run("train", *words, *options, *(() if words is own else learning), cwd=tmp_path)
        assert result.code == 0, result.err
        return read_agent(tmp_path / folder / "last" / "agent.safetensors").tensors

    whole = learned("whole", "steps=400", "seed=3", "eval.every=0")
    other = learned("other", "steps=400", "seed=4", "eval.every=0")
    learned("parts", "steps=250", "seed=3", "eval.every=100", "checkpoint.every=50")
    resumed = learned("parts", "resume=parts", "steps=400")
    assert any(not torch.equal(whole[name], other[name]) for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
