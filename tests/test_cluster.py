"""Actors on Ray: each transition is stored once, whichever process dies; updates are counted; nothing is left over."""

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
from typing import Any, NamedTuple

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
from agent.records.saved_agent import read_agent
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
    """The folder of the journals, for all tests of this file."""
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
    quiet = {"no_monitor": True, "include_log_monitor": False}  # without processes of the head that no test needs
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **small, **quiet})
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
    """Every start of the replay as a row of the journal, with its next observation and whether it terminated."""
    for ring in state["replay"]["rings"]:
        envs, scalars = len(ring["fresh"]), np.asarray(ring["scalars"])
        observations = np.asarray(ring["observations"]).astype(int)
        for start in np.asarray(ring["starts"])[: ring["count"]].tolist():
            action, reward, terminated, _ = scalars[start].tolist()
            row = (*observations[start].tolist(), int(action), reward, int(terminated))
            yield row, tuple(observations[start + envs].tolist()), bool(terminated)


def check(folder: Path, journal_rows: list[journal.Row], outcome: Outcome) -> None:
    """Checks the counts of steps, updates and transitions; each transition is stored once, as it was played."""
    state = state_of(folder)
    rows = [row for row, _, _ in stored(state)]
    assert len(rows) == len(set(rows)) == outcome.step
    assert set(rows) <= set(journal_rows), "a transition that nobody played"
    for row, following, _ in stored(state):
        assert following == (row[0], row[1], row[2] + 1), "a transition across an ending"
    assert state["agent"]["updates"] == (outcome.step - STARTS) // 4


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def fresh(played: Path) -> Path:
    """The folder of the journals, emptied."""
    clear(played)
    return played


class Solved(NamedTuple):
    """A run that several tests share, with its journal and its options."""

    folder: Path
    outcome: Outcome
    rows: list[journal.Row]
    options: dict[str, Any]


@pytest.fixture(scope="module")
def solved(nodes: Any, played: Path, tmp_path_factory: pytest.TempPathFactory) -> Solved:
    """The shared run. Its encoder is registered in this process alone, as a function that no module holds."""
    clear(played)
    register_encoder("of_this_test", lambda parts: MLPEncoder(parts.observation.size, parts.hidden, parts.linear))
    own = {"agent__network": {"encoder": "of_this_test"}, "env__eval_kwargs": {"nap": 0.1}}
    folder, options = tmp_path_factory.mktemp("solved"), {**own, "eval__every": 200, "log__every": 100}
    outcome = train(config_of(nodes.address, **options), folder)
    return Solved(folder, outcome, journal.rows(played), options)


def test_a_tiny_task_is_solved_and_everything_is_counted(solved: Solved) -> None:
    folder, outcome, rows, _ = solved
    assert outcome.evaluation is not None
    assert outcome.evaluation.statistics()["return_mean"] > 9.0
    check(folder, rows, outcome)
    players = {row[0] for row in rows if row[2] == journal.LENGTH - 1}  # the processes that played whole episodes
    assert len(players) >= 4, "actors, and one that evaluates"
    assert os.getpid() not in players
    logged = [(step, "eval/return_mean" in row) for step, row in read_rows(folder / "metrics.jsonl")]
    late = [max(before for before, _ in logged[:i]) - step for i, (step, evaluates) in enumerate(logged) if evaluates]
    assert len(late) >= 2
    assert max(late) > 100, "it has learned on while an evaluation was played"
    assert read_agent(folder / "best" / "agent.safetensors").description["evaluation"]["return_mean"] == 10.0
    assert metric(folder, "collect/restarts") == [0.0] * len(metric(folder, "collect/restarts"))
    scales, kept = metric(folder, "noise/acting_scale"), state_of(folder)["collector"]["acting_scales"]
    assert scales[-1] != 1.0
    assert np.mean(kept) == pytest.approx(scales[-1], rel=0.5)
    for name in ("actor_wait", "learner_wait", "staleness", "steps_per_second"):
        assert metric(folder, f"collect/{name}"), name
    assert any(metric(folder, f"collect/steps_per_second_of_actor_{i}") for i in range(3))
    returns = metric(folder, "train/episode_return")
    assert len(returns) == len(metric(folder, "train/episode_length")) > outcome.step / journal.LENGTH * 0.8


def test_a_resumed_run_goes_on_with_new_episodes(nodes: Any, fresh: Path, solved: Solved, tmp_path: Path) -> None:
    shutil.copytree(solved.folder, tmp_path / "run")
    path = latest_checkpoint(tmp_path / "run")
    assert path is not None
    options = {**solved.options, "steps": solved.outcome.step + 400, "eval__every": 0}
    outcome = train(config_of(nodes.address, **options), tmp_path / "run", load_checkpoint(path))
    check(tmp_path / "run", solved.rows + journal.rows(fresh), outcome)
    assert outcome.step > solved.outcome.step
    assert state_of(tmp_path / "run")["collector"]["incarnations"].tolist() == [2, 2, 2]


@pytest.fixture(scope="module")
def lockstep(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The last states of two equal runs in lockstep on Taxi, whose observations do not depend on the process."""
    options = {**OPTIONS["agent"], "replay_ratio": "1/8", "epsilon": {"start": 0.3, "end": 0.3}}
    options["priority"] = {"enabled": True}
    changes = {"env__id": "Taxi-v4", "collect__sync": True, "steps": 600, "collect__actors": 2, "agent": options}
    folders = [tmp_path_factory.mktemp("lockstep") for _ in range(2)]
    for folder in folders:
        train(config_of(nodes.address, **changes), folder)
    return [state_of(folder) for folder in folders]


def test_lockstep_gives_the_same_again(lockstep: list[dict[str, Any]]) -> None:
    one, two = lockstep
    assert one["agent"]["updates"] > 40
    for part in ("agent", "replay", "sampling_generator"):
        assert same(one[part], two[part])


def test_actors_take_allowed_actions_and_hand_their_masks_on(lockstep: list[dict[str, Any]]) -> None:
    """Taxi observes its state: the stored mask is that of the state, and the action is one that it allows."""
    states = lockstep[0]["replay"]["rings"]
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
    """Causes the named faults one after the other, with 500 played steps between two of them."""
    enough = 0
    for name in names:
        enough += 500
        while len(journal.rows(folder)) < enough:
            time.sleep(0.1)
        (folder / name).touch()
        while (folder / name).exists():
            time.sleep(0.02)


def test_an_actor_that_is_killed_hangs_or_fails_is_made_anew(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    (fresh / "slow").touch()
    faults = threading.Thread(target=go_wrong, args=(fresh, ("kill", "hang", "raise")), daemon=True)
    faults.start()
    outcome = train(config_of(nodes.address, steps=4_000, collect__timeout=1.5), tmp_path)
    faults.join(1.0)
    assert not faults.is_alive(), "not all went wrong"
    check(tmp_path, journal.rows(fresh), outcome)
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


def plays_on(node: Any, folder: Path) -> bool:
    """Whether an actor has played on this node: the node's raylet is the parent of its processes."""
    (raylet,) = node.all_processes["raylet"]
    return any(psutil.Process(pid).ppid() == raylet.process.pid for pid in {row[0] for row in journal.rows(folder)})


def test_a_node_that_leaves_takes_its_actors_and_the_run_goes_on(nodes: Any, fresh: Path, tmp_path: Path) -> None:
    (fresh / "slow").touch()

    def leave() -> None:
        while len(journal.rows(fresh)) < 1_000:
            time.sleep(0.1)
        played_on = [node for node in nodes.worker_nodes if plays_on(node, fresh)]
        nodes.remove_node(played_on[0], allow_graceful=False)

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    outcome = train(config_of(nodes.address, steps=4_000), tmp_path)
    thread.join(1.0)
    assert not thread.is_alive(), "it did not leave"
    check(tmp_path, journal.rows(fresh), outcome)
    assert metric(tmp_path, "collect/restarts")[-1] >= 1.0


# ---- Ray that a run starts by itself


def reaper_of(pid: int) -> tuple[str, Path] | None:
    """The mark and the folder of the Ray that a trainer has started, from the command line of its reaper."""
    for child in psutil.Process(pid).children():
        words = child.cmdline()
        if len(words) > 3 and words[-3].endswith("reaper.py"):
            return words[-2], Path(words[-1])
    return None


def listens_on(processes: list[psutil.Process]) -> set[str]:
    """The addresses on which processes listen."""
    found = [connection for process in processes for connection in process.net_connections("inet")]
    return {str(each.laddr.ip).removeprefix("::ffff:") for each in found if each.status == psutil.CONN_LISTEN}


def shared_memory(processes: list[psutil.Process]) -> set[str]:
    """The files of shared memory that processes have mapped; the name of a deleted file says so."""
    maps = [each.path for process in processes for each in process.memory_maps() if each.path.startswith("/dev/shm/")]
    return set(maps)


#: The ways in which the trainer ends, and its exit codes.
ENDINGS = {"done": 0, "full disk": 2, "SIGINT": 130, "SIGKILL": -9}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_of_the_ray_that_a_run_started(programs: Programs, tmp_path: Path, ending: str) -> None:
    from agent.running.distributed.reaper import marked

    home, steps, actors = tmp_path / "run", 1_200 if ending == "done" else 10**7, 2 if ending == "SIGKILL" else 1
    options = ["collect=ray", f"collect.actors={actors}", "num_envs=4", f"steps={steps}", "log.every=200"]
    options += ["eval.video=false", "wandb.mode=disabled", "hydra.run.dir=run"]
    if ending == "full disk":  # an evaluation is under way all the time
        options += ["eval.every=300", "eval.episodes=100000", "checkpoint.every=600"]
    else:
        options += ["eval.episodes=0"]
    run = programs.start("train", *options, cwd=tmp_path, real=ending == "done")
    kept: list[tuple[str, Path]] = []

    def plays() -> bool:
        time.sleep(0.1)  # looking takes processor time from the run
        if not kept and (found := reaper_of(run.pid)):
            kept.append(found)
        if ending == "full disk":
            return len(list(home.glob("checkpoints/step_*"))) == 2
        path = home / "metrics.jsonl"
        return path.exists() and "collect/staleness" in path.read_text()

    run.until(plays)
    (mark, folder), memory = kept[0], set[str]()
    if ending != "done":
        assert len(marked(mark)) >= 2 + actors, "Ray's own processes and the actors"
        assert listens_on([psutil.Process(run.pid), *marked(mark)]) == {"127.0.0.1"}
        assert {process.nice() for process in marked(mark)} == {psutil.Process(run.pid).nice()}, "actors are no less"
        memory = shared_memory([psutil.Process(run.pid)])
        assert memory, "Ray's store"
    if ending == "full disk":
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # room for metrics, and not for agents
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
