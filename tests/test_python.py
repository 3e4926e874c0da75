"""The project as a library: the names in `agent`, and the two programs as functions."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import ROOT, Programs, plain_environment
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors.torch import load_file

import agent
from agent import evaluate, load_agent, train
from agent.command.functions import Run
from agent.common.errors import UserError, check_text
from agent.common.quoting import from_python
from agent.common.seeding import environment_seeds
from envs.batches import is_batch

SMALL: dict[str, Any] = {
    "agent": {"network": {"hidden": [16]}, "learning_starts": 64, "batch_size": 64, "replay_ratio": "1/2"},
    "eval": {"episodes": 3, "video": False},
    "num_envs": 2,
    "steps": 200,
    "wandb": {"mode": "disabled"},
    "log": {"progress": False},
}
WORDS = (
    *("agent.network.hidden=[16]", "agent.learning_starts=64", "agent.batch_size=64", "eval.episodes=3"),
    *("eval.video=false", "num_envs=2", "steps=200", "wandb.mode=disabled", "log.progress=false"),
    "agent.replay_ratio=1/2",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was trained in a thread."""
    folder, found = tmp_path_factory.mktemp("run") / "noisy", []
    thread = threading.Thread(target=lambda: found.append(train(f"hydra.run.dir={folder}", env="CartPole-v1", **SMALL)))
    thread.start()
    thread.join()
    assert found, "it did not train outside the main thread"
    return found[0]


def test_importing_it_costs_nothing() -> None:
    code = "import agent, sys; print(dir(agent)); assert not {'torch', 'numpy', 'hydra'} & set(sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    everything: dict[str, Any] = {}
    exec("from agent import *", everything)
    for name in ("NoisyLinear", "load_agent", "register_encoder", "register_head", "train", "evaluate"):
        assert repr(name) in shown.stdout
        assert everything[name] is getattr(agent, name)
        assert callable(getattr(agent, name))
    with pytest.raises(AttributeError, match="module 'agent' has no attribute 'nothing'"):
        agent.nothing  # noqa: B018


def test_a_run_is_the_program_s_own(programs: Programs, run: Run, tmp_path: Path) -> None:
    assert programs.run("train", *WORDS, "hydra.run.dir=run", cwd=tmp_path).code == 0
    for which in ("best", "last"):
        ours, theirs = (load_file(folder / which / "agent.safetensors") for folder in (run.folder, tmp_path / "run"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert run.step == 200
    assert run.evaluation is not None
    assert len(run.evaluation.returns) == 3
    config = (run.folder / "config.yaml").read_text().splitlines()
    assert config[0].startswith("# python train.py hydra.run.dir=")
    assert (tmp_path / "run" / "config.yaml").read_text().splitlines()[1:] == config[1:]


def test_an_evaluation_is_the_program_s_own(programs: Programs, run: Run) -> None:
    before = sorted(run.folder.rglob("*"))
    found = evaluate(run.folder, which="last", episodes=3, seed=4, noise=True)
    assert sorted(run.folder.rglob("*")) == before
    words = ("which=last", "episodes=3", "seed=4", "noise=true")
    assert programs.run("evaluate", f"checkpoint={run.folder}", *words, cwd=run.folder).code == 0
    assert found == json.loads((run.folder / "last" / "evaluation.json").read_text())


def test_an_agent_acts_as_it_is_evaluated(run: Run) -> None:
    player, env = load_agent(run.folder, "last"), gym.make("CartPole-v1")
    (seed,) = environment_seeds(0, "test", 1)
    observation, ended, seen = env.reset(seed=seed)[0], False, []
    while not ended:
        seen.append(observation)
        action = player.act(observation)
        assert isinstance(action, np.int64)
        observation, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
    assert len(seen) == evaluate(run.folder, which="last", episodes=1)["returns"][0]
    actions, values = player.act(np.stack(seen)), player.q_values(np.stack(seen))
    assert isinstance(actions, np.ndarray)
    assert values.shape == (len(seen), 2)
    assert (values.argmax(1) == actions).all()
    assert player.q_values(seen[0]).shape == (2,)
    np.testing.assert_allclose(player.q_values(seen[0]), values[0])
    with pytest.raises(ValueError, match=r"shape \(3,\): one has \(4,\), a batch has \('n', 4\)"):
        player.act(np.zeros(3))


def test_a_mask_leaves_the_best_of_the_allowed_actions(run: Run) -> None:
    player, rng = load_agent(run.folder, "last"), np.random.default_rng(0)
    observations = rng.normal(size=(8, 4)).astype(np.float32)
    best = player.act(observations)
    assert isinstance(best, np.ndarray)
    only = np.zeros((8, 2), np.int8)  # Taxi's masks are int8
    only[np.arange(8), 1 - best] = 1
    assert (player.act(observations, mask=only) == 1 - best).all()
    assert (player.act(observations, mask=np.ones((8, 2), bool)) == best).all()
    mixed = only.astype(bool)
    mixed[::2] = True
    assert (player.act(observations, mask=mixed) == np.where(np.arange(8) % 2, 1 - best, best)).all()
    one = player.act(observations[0], mask=[best[0] == 1, best[0] == 0])
    assert isinstance(one, np.int64)
    assert one == 1 - best[0]
    noisy = load_agent(run.folder, "last", noise=True)
    assert (noisy.act(observations, mask=only) == 1 - best).all()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([False, False], "allows no action"),
        ([True], r"shape \(1,\): it needs \(2,\)"),
        ([[True, True]], r"shape \(1, 2\): it needs \(2,\)"),
        ([0.5, 1], "other values than True and False"),
        ([float("nan"), 1], "other values than True and False"),
        (["yes", "no"], "other values than True and False"),
    ],
)
def test_a_mask_that_is_none_is_refused(run: Run, mask: object, expected: str) -> None:
    player = load_agent(run.folder, "last")
    with pytest.raises(ValueError, match=expected):
        player.act(np.zeros(4), mask=mask)
    with pytest.raises(ValueError, match="allows no action: at least one must be True in every row"):
        player.act(np.zeros((2, 4)), mask=[[True, True], [False, False]])


def test_an_agent_with_noise_draws_for_every_action(run: Run) -> None:
    observation = np.full(4, 0.01, np.float32)
    noisy, again = (load_agent(run.folder, "last", noise=True, seed=3) for _ in range(2))
    first, second = noisy.q_values(observation), noisy.q_values(observation)
    assert (first != second).any()
    assert (again.q_values(observation) == first).all()
    rows = noisy.q_values(np.stack([observation, observation]))
    assert (rows[0] != rows[1]).any()


def test_nothing_global_is_changed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run changes neither the state of Hydra, torch and NumPy nor the folder, and a second run begins like it."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    np.random.seed(123)  # noqa: NPY002 (not as an earlier run has left it)
    random.seed(123)
    python_state = random.getstate()
    numpy_state, torch_state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    known = set(ConfigStore.instance().repo.get("env", {}))  # other tests may have registered presets
    try:
        for _ in range(2):
            found = train(env="CartPole", **{**SMALL, "steps": 70})
            assert found.folder.parent == tmp_path / "runs/CartPole-v1"
            assert not GlobalHydra.instance().is_initialized()
            assert HydraConfig.instance().cfg is None
            assert set(ConfigStore.instance().repo.get("env", {})) == known
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert Path.cwd() == tmp_path
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_is_refused_late_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B without an account refuses a run when the processes of its environments have started."""

    def refuse(*_: object) -> None:
        raise UserError("no account")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agent.records.tracking.start", refuse)
    before = multiprocessing.active_children()  # processes of other tests
    with pytest.raises(UserError, match="no account"):
        train("env.vectorization=async", env="Acrobot-v1", **{**SMALL, "num_envs": 3})
    assert [child for child in multiprocessing.active_children() if child not in before] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stepz": 5}, "unknown option stepz; did you mean steps"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"env": "CartPol-v1"}, "no environment 'CartPol-v1'.*CartPole-v1"),
        ({"agent": "muzero"}, "there is no agent=muzero: it must be one of"),
        ({"env": {"kwargs": {"wings": 2}}}, "wings"),
        ({"resume": "nowhere"}, "resume=nowhere: there is no such run"),
    ],
)
def test_what_a_person_can_mend_is_one_error(
    options: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        train(**{"wandb": {"mode": "disabled"}, **options})
    with pytest.raises(UserError, match="nowhere does not exist"):
        evaluate("nowhere")
    with pytest.raises(UserError, match="episodes is 0: it must be at least 1"):
        evaluate("nowhere", episodes=0)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_of_the_caller_s_own_is_not_removed(made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "run"
    if made:
        folder.mkdir(parents=True)
    with pytest.raises(UserError, match="there is no environment"):
        train(env="Nope-v3", hydra={"run": {"dir": str(folder)}})
    assert folder.exists() == made


def test_several_values_are_a_call_each() -> None:
    with pytest.raises(UserError, match=r"seed=1,2 reads as several values: call train once for each"):
        train("seed=1,2")


@pytest.mark.parametrize("noise", ["false", "no", 0, 1.0, None])
def test_noise_is_a_truth_value(run: Run, noise: Any) -> None:
    for function in (load_agent, evaluate):
        with pytest.raises(UserError, match=r"noise is .*: it must be (True or False|true or false)"):
            function(run.folder, noise=noise)


def test_numbers_of_numpy_are_numbers_of_an_evaluation(run: Run) -> None:
    given = evaluate(run.folder, episodes=np.int64(2), seed=np.uint8(3), noise=np.True_)  # type: ignore[arg-type]
    assert given == evaluate(run.folder, episodes=2, seed=3, noise=True)


def test_the_last_agent_is_not_asked_of_the_best(run: Run, tmp_path: Path) -> None:
    """A path of the best agent does not go with which=last; the default goes with each path."""
    for place in (run.folder / "best", run.folder / "best" / "agent.safetensors"):
        for function in (load_agent, evaluate):
            with pytest.raises(
                UserError, match=r"is the best agent of its run, and which=last asks .* name .*noisy, or"
            ):
                function(place, which="last")
    assert load_agent(run.folder / "last").path == run.agent("last").path == run.folder / "last" / "agent.safetensors"
    (tmp_path / "best").symlink_to(run.folder)  # a run of this name
    assert load_agent(tmp_path / "best", which="last").path.parent.name == "last"
    with pytest.raises(UserError, match="which is 'first'"):
        run.agent("first")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no best agent yet, but a last one: use which=last"):
        Run(without_best(run, tmp_path), 1, None).agent()


def without_best(run: Run, folder: Path) -> Path:
    """A copy of the run in which nothing was evaluated."""
    (folder / "run").mkdir()
    (folder / "run" / "last").symlink_to(run.folder / "last")
    return folder / "run"


def test_the_pair_of_a_reset_is_named(run: Run) -> None:
    found, pair = load_agent(run.folder), gym.make("CartPole-v1").reset(seed=0)
    for method in (found.act, found.q_values):
        with pytest.raises(ValueError, match="is a pair with a dict, as `reset` returns: pass its first item"):
            method(pair)
    assert found.act(pair[0]) in (0, 1)


@pytest.mark.parametrize("wrong", [None, 5, ["agent.lr=1e-3"]])
def test_arguments_of_another_type_are_one_error(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"train takes texts such as 'agent.lr=1e-3'"):
        train(wrong)
    with pytest.raises(UserError, match=r"evaluate takes a folder, a file or hub:user/name as a text or a Path"):
        evaluate(wrong)


LISTS = ("[1]", [1, 2], ["a", "1", None], [], [[1], [0.5]], "runs/a-b_c/d.e")


@pytest.mark.parametrize(
    "value",
    [
        1,
        -2,
        0.25,
        1e-9,
        float("inf"),
        True,
        None,
        "a",
        "1",
        "true",
        "NULL",
        "a b",
        "it's",
        "a,b",
        "[1]",
        "",
        "x=y",
        "ü",
        *LISTS,
    ],
)
def test_a_value_of_python_s_is_read_as_it_was(value: object) -> None:
    (override,) = from_python("x", value)
    found = OverridesParser.create().parse_override(override).value()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.False_, "false"),
        (np.True_, "true"),
        (np.array([64, 32]), "[64,32]"),
        (np.array(0.5), "0.5"),
        (torch.tensor(3), "3"),
        ([np.True_, None], "[true,null]"),
        (Path("a b"), "'a b'"),
        (Fraction(1, 2), "1/2"),
    ],
)
def test_numbers_of_numpy_and_torch_and_paths_are_values(value: object, text: str) -> None:
    assert list(from_python("x", value)) == [f"x={text}"]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"text", [object()], 1j])
def test_another_object_is_refused_by_the_name_of_its_option(value: object) -> None:
    with pytest.raises(UserError, match=r"agent\.lr is a \w+: it takes numbers, text"):
        list(from_python("agent", {"lr": value}))


class Failing:
    """A value with `tolist`, like a number of another library, that cannot be read."""

    def tolist(self) -> Any:
        raise RuntimeError("no\ndevice")


class Keys(Mapping[str, object]):
    """A mapping whose keys cannot be read."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no\ndevice")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> object:
        return 1


class Word(str):
    """A string whose `__str__` returns another text."""

    def __str__(self) -> str:
        return "Word"


OWN_LIST: list[object] = []
OWN_LIST.append(OWN_LIST)
OWN_DICT: dict[str, object] = {}
OWN_DICT["lr"] = OWN_DICT
TAKES = r": it takes numbers, text, truth values, None, or lists of these$"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seed": Failing()}, rf"^seed is a Failing, which cannot be read \(RuntimeError: no device\){TAKES}"),
        ({"agent": Keys()}, rf"^agent is a Keys, which cannot be read \(RuntimeError: no device\){TAKES}"),
        ({"wandb": {"tags": OWN_LIST}}, rf"^wandb\.tags is a list 32 deep in others, or in itself{TAKES}"),
        ({"agent": OWN_DICT}, rf"^agent\.lr\.lr.* … is a dict 32 deep in others, or in itself{TAKES}"),
        ({"wandb": {"tags": [OWN_DICT]}}, rf"^wandb\.tags is a dict 32 deep in others, or in itself{TAKES}"),
        ({"seed": 10**5000}, r"^seed is a int, which cannot be read \(ValueError: Exceeds the limit"),
        (
            {"wandb": {"name": "\ud800"}},
            r"^wandb\.name has the character \\ud800, which no file can hold: leave it out$",
        ),
        ({"wandb": {"tags": ["a", "b\0"]}}, r"^wandb\.tags has the character \\x00, which no file can hold"),
        ({"hydra": {"run": {"dir": "a\0b"}}}, r"^hydra\.run\.dir has the character \\x00"),
        ({"agent": {"l\0r": 1}}, r"^agent\.l\\x00r has the character \\x00"),
        (
            {"env": {"id": "CartPole-v1", "kwargs": {"x": [{"y": "\udfff"}]}}},
            r"^env\.kwargs\.x has the character \\udfff",
        ),
    ],
)
def test_what_cannot_be_read_or_written_is_refused_by_the_name_of_its_option(
    options: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        train(**{"env": "CartPole-v1", **options})
    assert not list(tmp_path.iterdir())


def test_an_override_and_a_checkpoint_are_texts_that_a_file_can_hold() -> None:
    with pytest.raises(
        UserError, match=r"^wandb\.name has the character \\ud800, which no file can hold: leave it out$"
    ):
        train("env=CartPole-v1", "wandb.name=\ud800")
    for name, refused in (("\0", r"\\x00"), ("hub:a/\udc00", r"\\udc00")):
        with pytest.raises(UserError, match=f"^checkpoint has the character {refused}, which no file can hold"):
            evaluate(name)
    check_text("hydra.run.dir", os.fsdecode(b"runs/\xff"))  # a folder's name whose bytes are no UTF-8


def test_texts_of_a_class_of_ones_own_are_texts() -> None:
    assert list(from_python("wandb", {"name": Word("slow"), "tags": [Word("fast one")]})) == [
        "wandb.name=slow",
        "wandb.tags=['fast one']",
    ]


def test_a_mapping_gives_one_override_for_each_option() -> None:
    assert list(from_python("agent", {"noise": {"sigma0": 0.3}, "lr": np.float32(0.5)})) == [
        "agent.noise.sigma0=0.3",
        "agent.lr=0.5",
    ]
    assert list(from_python("env", {"id": "DeepSea-v0", "kwargs": {"size": np.int64(20)}})) == [
        "env=DeepSea-v0",
        "++env.kwargs.size=20",
    ]


@pytest.mark.parametrize(
    ("space", "one"),
    [
        (spaces.Box(0, 1, (3,)), np.zeros(3)),
        (spaces.Box(0, 1, ()), np.zeros(())),
        (spaces.Discrete(4), 3),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2])),
        (spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (2,))}), {"a": 1, "b": np.zeros(2)}),
        (spaces.Tuple([spaces.Box(0, 1, (2, 2)), spaces.Discrete(2)]), (np.zeros((2, 2)), 1)),
    ],
)
def test_a_batch_is_told_from_one_observation(space: gym.Space[Any], one: Any) -> None:
    assert not is_batch(space, one)
    assert is_batch(space, gym.vector.utils.batch_space(space, 2).sample())


INTERRUPTED = """
import sys
from agent import train
try:
    train("hydra.run.dir=run", *sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted")
train("resume=run", "steps=400000", *sys.argv[2:])
"""


def test_ctrl_c_saves_the_run_and_raises(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "steps=1000000", "eval.every=0", *WORDS[4:6], *WORDS[7:]]
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "run/metrics.jsonl").exists() and (tmp_path / "run/metrics.jsonl").stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "interrupted\n"
    assert (tmp_path / "run/last/agent.safetensors").exists()
    process.terminate()
    process.communicate()
