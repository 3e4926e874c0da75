"""Actors on Ray: what they play is stored once, whatever dies; the updates are counted; nothing is left over."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest

pytest.importorskip("ray")

from agent.common.errors import UserError
from agent.common.masking import Masking
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.networks.encoder_registry import register_encoder
from agent.networks.encoders import MLPEncoder
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.metrics import read_rows
from agent.records.saved_agent import load_agent
from agent.running.distributed.cluster import import_ray
from agent.running.outcome import Outcome
from agent.running.run import train
from envs.make import load_task
from tests import journal
from tests.helpers import ROOT, Programs

STARTS = 200
OPTIONS: dict[str, Any] = {
    "env": {"id": journal.ID},
    "num_envs": 5,
    "steps": 2_000,
    "agent": {"learning_starts": STARTS, "replay_ratio": "1/4", "n_step": 1, "replay_size": 100_000, "batch_size": 32},
    "collect": {"engine": "ray", "actors": 3, "chunk": 8, "publish": 4},
    "eval": {"every": 0, "episodes": 5, "noisy": False, "video": False},
    "checkpoint": {"every": 0},
    "log": {"every": 500, "progress": False},
    "wandb": {"mode": "disabled"},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the journals."""
    folder = tmp_path_factory.mktemp("played")
    os.environ[journal.FOLDER] = str(folder)
    journal.register()
    yield folder
    del os.environ[journal.FOLDER]


@pytest.fixture(scope="module")
def nodes(played: Path) -> Iterator[Any]:
    """A cluster of three nodes on this machine; its address is in OPTIONS."""
    import_ray()
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=2, **small)
    session = Path(cluster.head_node.get_session_dir_path())
    yield cluster
    cluster.shutdown()
    shutil.rmtree(session, ignore_errors=True)
    del os.environ["PYTHONPATH"]


def config_of(address: str | None, **changes: Any) -> TrainConfig:
    tree = json.loads(json.dumps(OPTIONS))
    tree["collect"]["address"] = address
    for name, value in changes.items():
        *path, last = name.split("__")
        node = tree
        for part in path:
            node = node[part]
        node[last] = value
    return parse(TrainConfig, tree)


def state_of(folder: Path) -> dict[str, Any]:
    path = latest_checkpoint(folder)
    assert path is not None
    return load_checkpoint(path)[1]


def metric(folder: Path, name: str) -> list[float]:
    return [row[name] for _, row in read_rows(folder / "metrics.jsonl") if name in row]


def stored(state: dict[str, Any]) -> Iterator[tuple[journal.Row, tuple[int, int, int], bool]]:
    """Every start of the replay as a row of the journal, with the next observation and whether its return goes on."""
    for ring in state["replay"]["rings"]:
        envs, scalars = len(ring["fresh"]), np.asarray(ring["scalars"])
        observations = np.asarray(ring["observations"]).astype(int)
        for start in np.asarray(ring["starts"])[: ring["count"]].tolist():
            action, reward, terminated, _ = scalars[start].tolist()
            row = (*observations[start].tolist(), int(action), reward, int(terminated))
            yield row, tuple(observations[start + envs].tolist()), bool(terminated)


def check(folder: Path, played: Path, outcome: Outcome) -> None:
    """Steps, updates and transitions are counted right; each is stored once, as it was played, within its episode."""
    state = state_of(folder)
    rows = [row for row, _, _ in stored(state)]
    assert len(rows) == len(set(rows)) == outcome.step
    assert set(rows) <= set(journal.rows(played)), "a transition that nobody played"
    for row, following, _ in stored(state):
        assert following == (row[0], row[1], row[2] + 1), "a transition across an ending"
    assert state["agent"]["updates"] == (outcome.step - STARTS) // 4


@pytest.fixture
def fresh(played: Path) -> Path:
    for path in played.iterdir():
        path.unlink()
    return played


def test_a_tiny_task_is_solved_and_everything_is_counted(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    slow = {"env__eval_kwargs": {"nap": 0.1}, "eval__every": 200, "log__every": 100}
    outcome = train(config_of(nodes.address, **slow), tmp_path)
    assert outcome.evaluation is not None
    assert outcome.evaluation.statistics()["return_mean"] > 9.0
    check(tmp_path, fresh, outcome)
    players = {row[0] for row in journal.rows(fresh) if row[2] == journal.LENGTH - 1}  # of whole episodes
    assert len(players) >= 4, "actors, and one that evaluates"
    assert os.getpid() not in players
    logged = [(step, "eval/return_mean" in row) for step, row in read_rows(tmp_path / "metrics.jsonl")]
    late = [max(before for before, _ in logged[:i]) - step for i, (step, evaluates) in enumerate(logged) if evaluates]
    assert len(late) >= 2
    assert max(late) > 100, "it has learned on while an evaluation was played"
    assert load_agent(tmp_path / "best" / "agent.safetensors").description["evaluation"]["return_mean"] == 10.0
    assert metric(tmp_path, "collect/restarts") == [0.0] * len(metric(tmp_path, "collect/restarts"))
    for name in ("actor_wait", "learner_wait", "staleness", "steps_per_second"):
        assert metric(tmp_path, f"collect/{name}"), name
    assert any(metric(tmp_path, f"collect/steps_per_second_of_actor_{i}") for i in range(3))
    returns = metric(tmp_path, "train/episode_return")
    assert len(returns) == len(metric(tmp_path, "train/episode_length")) > outcome.step / journal.LENGTH * 0.8


def test_lockstep_gives_the_same_again(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    """Of a task whose observations are the same in every process."""
    changes = {
        "env__id": "CartPole-v1",
        "collect__sync": True,
        "steps": 400,
        "collect__actors": 2,
        "agent__priority": {"enabled": True},
    }
    states = []
    for name in ("one", "two"):
        train(config_of(nodes.address, **changes), tmp_path / name)
        states.append(state_of(tmp_path / name))
    for one, two in ((states[0][part], states[1][part]) for part in ("agent", "replay", "sampling_generator")):
        assert same(one, two)


def test_actors_take_allowed_actions_and_hand_their_masks_on(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    """Of Taxi, which tells its state: the mask that is stored is the state's own, and the action is one of its."""
    changes: dict[str, Any] = {"env__id": "Taxi-v4", "collect__sync": True, "steps": 600, "collect__actors": 2}
    options = {**OPTIONS["agent"], "replay_ratio": "1/8", "epsilon": {"start": 0.3, "end": 0.3}}
    train(config_of(nodes.address, **changes, agent=options), tmp_path)
    states = state_of(tmp_path)["replay"]["rings"]
    spec, taxi, found = load_task("Taxi-v4", {}, action_mask="auto").observation, gym.make("Taxi-v4").unwrapped, 0
    for ring in states:
        observations = np.asarray(ring["observations"])
        allowed, state = Masking(spec).allowed(observations), Masking(spec).observed(observations).argmax(1)
        for start in np.asarray(ring["starts"])[: ring["count"]].tolist():
            assert (allowed[start] == taxi.action_mask(int(state[start]))).all()  # type: ignore[attr-defined]
            assert allowed[start, int(np.asarray(ring["scalars"])[start, 0])]
            found += not allowed[start].all()
    assert found > 300


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(np.array_equal(one, two))


def go_wrong(folder: Path, names: tuple[str, ...]) -> None:
    """Has one fault after the other happen, each when some steps have been played after the last."""
    enough = 0
    for name in names:
        enough += 600
        while len(journal.rows(folder)) < enough:
            time.sleep(0.1)
        (folder / name).touch()
        while (folder / name).exists():
            time.sleep(0.02)


def test_an_actor_that_is_killed_hangs_or_fails_is_made_anew(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    (fresh / "slow").touch()
    faults = threading.Thread(target=go_wrong, args=(fresh, ("kill", "hang", "raise")), daemon=True)
    faults.start()
    outcome = train(config_of(nodes.address, steps=5_000, collect__timeout=1.5), tmp_path)
    faults.join(1.0)
    assert not faults.is_alive(), "not all went wrong"
    check(tmp_path, fresh, outcome)
    assert metric(tmp_path, "collect/restarts")[-1] == 3.0
    assert sum(state_of(tmp_path)["collector"]["incarnations"]) == 3 + 3, "of the next actors"


def test_an_environment_that_always_fails_ends_the_run_in_its_own_words(
    nodes: Any, fresh: Path, tmp_path: Path
) -> None:
    (fresh / "always").touch()
    with pytest.raises(UserError, match="the wheel is off"):
        train(config_of(nodes.address, num_envs=1, collect__actors=1), tmp_path / "at once")
    (fresh / "always").unlink()

    def later() -> None:
        while len(journal.rows(fresh)) < 500:
            time.sleep(0.02)
        (fresh / "always").touch()

    thread = threading.Thread(target=later, daemon=True)
    thread.start()
    with pytest.raises(UserError, match=r"the wheel is off.*resume="):
        train(config_of(nodes.address, steps=100_000, collect__actors=1), tmp_path / "later")
    (fresh / "always").unlink()
    state = state_of(tmp_path / "later")
    assert sum(ring["count"] for ring in state["replay"]["rings"]) > 0


def test_a_resumed_run_goes_on_with_new_episodes_and_an_encoder_of_ones_own_plays(
    nodes: Any, fresh: Path, tmp_path: Path
) -> None:
    """The encoder is registered in this process alone, as a function that no module holds."""
    register_encoder("of_this_test", lambda parts: MLPEncoder(parts.observation.size, parts.hidden, parts.linear))
    own = {"agent__network": {"encoder": "of_this_test"}, "collect__actors": 2}
    train(config_of(nodes.address, steps=800, **own), tmp_path)
    path = latest_checkpoint(tmp_path)
    assert path is not None
    outcome = train(config_of(nodes.address, steps=1_600, **own), tmp_path, load_checkpoint(path))
    check(tmp_path, fresh, outcome)
    assert state_of(tmp_path)["collector"]["incarnations"].tolist() == [2, 2]


def test_a_node_that_leaves_takes_its_actors_and_the_run_goes_on(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    (fresh / "slow").touch()
    node = nodes.add_node(num_cpus=4, object_store_memory=80 * 2**20)

    def leave() -> None:
        while len(journal.rows(fresh)) < 1_500:
            time.sleep(0.1)
        nodes.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    outcome = train(config_of(nodes.address, steps=4_500, num_envs=10, collect__actors=6), tmp_path)
    thread.join()
    check(tmp_path, fresh, outcome)
    assert metric(tmp_path, "collect/restarts")[-1] >= 1.0


# ---- Ray that a run starts by itself


def reaper_of(pid: int) -> tuple[str, Path] | None:
    """The mark and the folder of the Ray that a trainer has started."""
    for child in psutil.Process(pid).children():
        words = child.cmdline()
        if len(words) > 3 and words[-3].endswith("reaper.py"):
            return words[-2], Path(words[-1])
    return None


def listens_on(processes: list[psutil.Process]) -> set[str]:
    """The addresses on which processes can be reached."""
    found = [connection for process in processes for connection in process.net_connections("inet")]
    return {str(each.laddr.ip).removeprefix("::ffff:") for each in found if each.status == psutil.CONN_LISTEN}


def shared_memory(processes: list[psutil.Process]) -> set[str]:
    """The files of shared memory that processes have; of one whose name is taken away already it says so."""
    maps = [each.path for process in processes for each in process.memory_maps() if each.path.startswith("/dev/shm/")]
    return set(maps)


#: How the trainer ends, and its exit code then.
ENDINGS = {"done": 0, "full disk": 2, "SIGINT": 130, "SIGKILL": -9}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_of_the_ray_that_a_run_started(programs: Programs, tmp_path: Path, ending: str) -> None:
    from agent.running.distributed.reaper import marked

    home, steps = tmp_path / "run", 1_200 if ending == "done" else 10**7
    options = ["collect=ray", "collect.actors=2", "num_envs=4", f"steps={steps}", "log.every=200", "eval.video=false"]
    if ending == "full disk":  # with an evaluation that is under way all the time
        options += ["eval.every=300", "eval.episodes=100000", "checkpoint.every=600"]
    else:
        options += ["eval.episodes=0"]
    run = programs.start("train", *options, "wandb.mode=disabled", "hydra.run.dir=run", cwd=tmp_path, real=True)
    kept: list[tuple[str, Path]] = []

    def plays() -> bool:
        time.sleep(0.1)  # to look takes processor time from what is looked at
        if not kept and (found := reaper_of(run.pid)):
            kept.append(found)
        if ending == "full disk":
            return len(list(home.glob("checkpoints/step_*"))) == 2
        path = home / "metrics.jsonl"
        return path.exists() and "collect/staleness" in path.read_text()

    run.until(plays)
    (mark, folder), memory = kept[0], set[str]()
    if ending != "done":
        assert len(marked(mark)) >= 4, "Ray's own processes and two actors"
        assert listens_on([psutil.Process(run.pid), *marked(mark)]) == {"127.0.0.1"}
        memory = shared_memory([psutil.Process(run.pid)])
        assert memory, "Ray's store"
    if ending == "full disk":
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # room for metrics, not for agents
    elif ending != "done":
        run.kill(signal.Signals[ending], group=ending == "SIGINT")
    result = run.wait()
    assert result.code == ENDINGS[ending], result.err
    deadline = time.monotonic() + 10.0
    while (marked(mark) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not marked(mark)
    assert not folder.exists()
    assert not [path for path in memory if Path(path).exists()]
    if ending == "SIGINT":
        assert latest_checkpoint(home) is not None
    if ending == "full disk":
        assert re.fullmatch(r"error: .*\(File too large\): free some space.*", result.err.splitlines()[-1])
        assert "under_way" in state_of(home), "the evaluation is not lost"
