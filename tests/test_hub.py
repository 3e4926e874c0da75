"""Agents on the Hugging Face Hub, here a server on this machine: they are pushed with a card, and fetched as data."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import ROOT, Programs, Result
from hub_server import Hub, hub

from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.parsing import to_plain
from agent.records.names import AGENT
from agent.records.saved_agent import read_agent
from agent.running.export.card import algorithm
from agent.running.fetching import MAX_BYTES, checked_repo, fetch

pytest.importorskip("huggingface_hub", reason="needs the extra hub")

CHECKPOINT = f"checkpoint={ROOT / 'zoo' / 'FrozenLake-v1'}"
REPO = "someone/lake"


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as running:
        yield running


class Person:
    """A user with a home folder and perhaps an account, whose programs use the server as their Hub."""

    def __init__(self, programs: Programs, home: Path, address: str) -> None:
        self._programs, self.home = programs, home
        self.env = {"HF_ENDPOINT": address, "HF_HOME": str(home / "hf"), "HF_TOKEN": "hf_secret"}

    def run(self, program: str, *options: str, **env: str) -> Result:
        return self._programs.run(program, *options, cwd=self.home, **{**self.env, **env})


@pytest.fixture
def person(programs: Programs, tmp_path: Path, server: Hub) -> Person:
    return Person(programs, tmp_path, server.address)


def put(server: Hub, data: bytes | None = None) -> None:
    """Puts an agent on the Hub, beside files that could run code."""
    agent = (ROOT / "zoo" / "FrozenLake-v1" / AGENT).read_bytes() if data is None else data
    server.files[REPO] = {AGENT: agent, "model.pt": b"\x80", "agent.py": b"1/0", "config.yaml": b"!!python/none"}


def test_an_agent_is_pushed_with_its_card_and_plays_from_there(person: Person, server: Hub) -> None:
    shared = person.run("share", CHECKPOINT, "to=hub", f"repo={REPO}", "out=folder", "private=true")
    assert (shared.code, shared.err) == (0, "")
    assert shared.out.endswith(f"pushed to {server.address}/{REPO}\n")
    folder, pushed = person.home / "folder", server.files[REPO]
    assert server.private[REPO]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == pushed
    assert {AGENT, "evaluation.json", "config.yaml", "README.md"} < pushed.keys()
    assert any(name.startswith("replay.") for name in pushed)
    assert pushed[AGENT] == (ROOT / "zoo" / "FrozenLake-v1" / AGENT).read_bytes()
    assert "wandb" not in yaml.safe_load(pushed["config.yaml"])
    assert str(person.home) not in "".join(pushed[name].decode() for name in ("config.yaml", "evaluation.json"))

    played = person.run("evaluate", f"checkpoint=hub:{REPO}", "episodes=3")
    assert (played.code, played.err) == (0, "")
    place = person.home / "runs" / "hub" / REPO
    first = json.loads(pushed["evaluation.json"])["returns"][:3]
    assert json.loads((place / "evaluation.json").read_text())["returns"] == first


def test_the_card_lists_the_returns_as_the_hub_reads_them(person: Person) -> None:
    options = (CHECKPOINT, "to=hub", f"repo={REPO}", "out=folder", "push=false")
    assert person.run("share", *options).code == 0
    _, front, body = (person.home / "folder" / "README.md").read_text().split("---\n", 2)
    said, returns = yaml.safe_load(front), json.loads((person.home / "folder" / "evaluation.json").read_text())
    values = np.array(returns["returns"])
    assert len(values) == 100
    assert said["library_name"] == "noisy-dqn"
    assert {"FrozenLake-v1", "reinforcement-learning", "deep-reinforcement-learning"} <= set(said["tags"])
    ((result,),) = [model["results"] for model in said["model-index"]]
    assert result["dataset"]["type"] == "FrozenLake-v1"
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["mean_reward"] == f"{values.mean():.2f} +/- {values.std():.2f}"
    assert metrics["iqm_reward"] == round(float(np.sort(values)[25:75].mean()), 2)
    low, high = json.loads(metrics["mean_reward_ci95"])
    assert low < values.mean() < high
    assert f'load_agent("hub:{REPO}")' in body


def test_the_card_of_an_older_agent_has_the_defaults_of_what_its_file_lacks() -> None:
    agent = read_agent(ROOT / "zoo" / "FrozenLake-v1" / AGENT).description["agent"]
    older = {name: value for name, value in agent.items() if name not in ("munchausen", "double")}
    defaults = to_plain(AgentConfig())
    assert algorithm(older) == algorithm({**defaults, **older})
    assert algorithm({}) == algorithm(defaults)


def test_nothing_is_sent_for_somebody_who_is_not_logged_in(person: Person, server: Hub) -> None:
    shared = person.run("share", CHECKPOINT, "to=hub", f"repo={REPO}", "out=a folder", HF_TOKEN="")
    assert shared.code == 0, shared.err
    *_, last = shared.out.splitlines()
    assert last.endswith(f"hf auth login && hf upload {REPO} 'a folder' .")
    assert (person.home / "a folder" / "README.md").is_file()
    assert not server.asked


def test_of_a_repository_the_agents_file_alone_is_fetched_and_not_twice(person: Person, server: Hub) -> None:
    put(server)
    for _ in range(2):
        assert person.run("evaluate", f"checkpoint=hub:{REPO}", "episodes=1").code == 0
    files = [(method, path) for method, path, _ in server.asked if REPO in path]
    assert {path.rpartition("/")[2] for _, path in files} == {AGENT}
    assert sum(method == "GET" for method, _ in files) == 1


def test_without_a_network_the_copy_on_this_machine_plays(person: Person, server: Hub) -> None:
    put(server)
    assert person.run("evaluate", f"checkpoint=hub:{REPO}", "episodes=1").code == 0
    played = person.run("evaluate", f"checkpoint=hub:{REPO}", "episodes=1", HF_ENDPOINT="http://127.0.0.1:9")
    assert played.code == 0
    assert "the Hub cannot be reached" in played.err


def test_an_agent_of_the_hub_is_exported_from_a_folder_of_ones_own(person: Person, server: Hub) -> None:
    put(server)
    shared = person.run("share", f"checkpoint=hub:{REPO}", "to=hub", "repo=another/lake", "push=false")
    assert shared.code == 0, shared.err
    assert (person.home / "runs" / "hub" / REPO / "hub" / "README.md").is_file()


@pytest.mark.parametrize(
    ("repo", "sentence"),
    [
        (REPO, "at most 536,870,912 are fetched"),
        ("someone/nothing", "there is no hub:someone/nothing, or it is private"),
        ("someone/empty", "hub:someone/empty holds no agent.safetensors"),
        ("someone/pickle", "pickle"),
        ("lake", "hub:lake names no repository of the Hub"),
        ("../lake", "names no repository of the Hub"),
    ],
)
def test_an_agent_that_cannot_be_fetched_is_refused_in_one_sentence(
    person: Person, server: Hub, repo: str, sentence: str
) -> None:
    put(server)
    server.files |= {"someone/empty": {}, "someone/pickle": {AGENT: b"\x80\x04N."}}
    server.sizes[REPO, AGENT] = MAX_BYTES + 1
    played = person.run("evaluate", f"checkpoint=hub:{repo}", "episodes=1")
    assert played.code == 2
    assert played.err.startswith("error: ")
    assert played.err.count("\n") == 1
    assert sentence in played.err
    assert not any(method == "GET" and REPO in path for method, path, _ in server.asked)


def test_without_a_network_a_push_leaves_the_folder_and_says_the_command(person: Person) -> None:
    options = (CHECKPOINT, "to=hub", f"repo={REPO}", "out=folder")
    shared = person.run("share", *options, HF_ENDPOINT="http://127.0.0.1:9")
    assert shared.code == 2
    assert shared.err.count("\n") == 1
    assert f"hf upload {REPO} " in shared.err
    assert (person.home / "folder" / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("to=hub",), "to=hub needs repo=user/name"),
        (("repo=a/b",), "repo is for to=hub"),
        (("to=hub", "repo=lake"), "repo=lake names no repository"),
        (("to=hub", "repo=a/b", "noise=true"), "noise=true is for to=onnx"),
        (("to=hub", "repo=a/b", "out=."), "diary.txt, which is no part of an agent's folder"),
    ],
)
def test_options_that_do_not_fit_are_refused(person: Person, options: tuple[str, ...], sentence: str) -> None:
    (person.home / "diary.txt").write_text("mine")
    shared = person.run("share", CHECKPOINT, *options)
    assert shared.code == 2
    assert sentence in shared.err
    assert shared.err.count("\n") == 1
    assert [path.name for path in person.home.iterdir()] == ["diary.txt"]


def test_files_of_ones_own_are_not_replaced(person: Person) -> None:
    """This holds for a README in the folder, and for files beside the shared agent."""
    notes = person.home / "notes" / "README.md"
    notes.parent.mkdir()
    notes.write_text("mine")
    agent = person.home / "agent" / AGENT
    agent.parent.mkdir()
    agent.write_bytes((ROOT / "zoo" / "FrozenLake-v1" / AGENT).read_bytes())
    curve = agent.with_name("learning_curve.png")
    curve.write_bytes(b"a curve")
    for options, sentence in (
        ((CHECKPOINT, "to=hub", f"repo={REPO}", "out=notes"), "README.md was not written by share.py"),
        ((f"checkpoint={agent}", "to=hub", f"repo={REPO}", "out=agent"), "is the folder of the agent itself"),
        ((CHECKPOINT, "to=onnx", "out=notes"), "README.md was not written by share.py"),
    ):
        shared = person.run("share", *options)
        assert shared.code == 2
        assert sentence in shared.err
        assert shared.err.count("\n") == 1
    assert notes.read_text() == "mine"
    assert curve.read_bytes() == b"a curve"
    assert sorted(path.name for path in notes.parent.iterdir()) == ["README.md"]
    again = ("share", CHECKPOINT, "to=hub", f"repo={REPO}", "out=shared", "push=false")
    assert [person.run(*again).code for _ in range(2)] == [0, 0]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else found(name))
    with pytest.raises(UserError, match=r"pip install 'noisy-dqn\[hub\]'"):
        fetch(f"hub:{REPO}")


@pytest.mark.parametrize(
    "repo", ["", "a", "a/b/c", "/b", "a/", "-a/b", "a/b--c", "a/..b", "a/b.git", "a/b c", "a/" + 96 * "b"]
)
def test_names_that_the_hub_does_not_have_are_refused(repo: str) -> None:
    with pytest.raises(UserError, match="user/name"):
        checked_repo(repo, repo)
    assert checked_repo("A.b_c/d-e1", "") == "A.b_c/d-e1"
