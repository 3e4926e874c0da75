"""Sweeps whose jobs are Ray tasks: each job equals a run alone, whichever process dies, and nothing is left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

import yaml

from agent.command import launching
from agent.common.errors import UserError
from agent.records.board import Board, Note
from agent.running.distributed.cluster import Cluster, import_ray
from agent.running.distributed.reaper import marked
from hydra_plugins.noisy_dqn_ray import RayLauncherConfig
from tests.helpers import ROOT, Process, Programs
from tests.test_cluster import reaper_of
from tests.test_sweeps import (
    LONG,
    SAVED,
    SMALL,
    agents,
    assert_equal,
    assert_saved,
    processes_in,
    steps_of,
)

RAY = "hydra/launcher=ray"
STORE = {"object_store_memory": 80 * 2**20}


def test_jobs_on_ray_are_the_runs_of_a_serial_sweep(programs: Programs, tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    words = ("train", "-m", *SMALL, "env=CartPole-v1,Nope-v0", "seed=0")
    many = programs.run(*words, RAY, "hydra.launcher.num_cpus=0.5", cwd=tmp_path / "many")
    one = programs.run(*words, cwd=tmp_path / "one")
    assert (one.code, many.code) == (2, 2), many.err
    assert set(agents(tmp_path / "one")) == {"0_noisy_dqn_job0"}
    assert_equal(agents(tmp_path / "one"), agents(tmp_path / "many"))
    assert many.err.splitlines()[-1].startswith("error: 1 of the jobs failed: ")
    assert many.err.count("[job 1] error: ") == 1
    assert "2/2 jobs ended" in many.err
    assert "Traceback" not in many.err
    (config,) = tmp_path.glob("many/runs/CartPole-v1/*/config.yaml")
    assert yaml.safe_load(config.read_text())["wandb"]["group"].startswith(
        "CartPole-v1 noisy_dqn agent.learning_starts"
    )


def test_the_actors_of_jobs_play_though_the_jobs_hold_all_cpus(programs: Programs, tmp_path: Path) -> None:
    """In lockstep a job waits for all of its actors, and on two cores three actors would never get a CPU each."""
    collect = "collect=ray", "collect.actors=1,3", "collect.sync=true", "num_envs=3", "env=CartPole-v1"
    halves = f"hydra.launcher.num_cpus={(os.cpu_count() or 1) / 2}"
    sweep = programs.run("train", "-m", *SMALL, "steps=400", *collect, RAY, halves, "seed=0", cwd=tmp_path)
    assert sweep.code == 0, sweep.err
    for actors in ("1 actors with 1 × 3", "3 actors with 3 × 1"):
        assert f"collecting: {actors} environments in lockstep, on Ray" in sweep.err
    assert "is restarted" not in sweep.err
    assert set(agents(tmp_path)) == {"0_noisy_dqn_job0", "0_noisy_dqn_job1"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_sweep_that_is_stopped_leaves_nothing_of_ray(programs: Programs, tmp_path: Path, name: str) -> None:
    halves = f"hydra.launcher.num_cpus={(os.cpu_count() or 1) / 2}"
    sweep = programs.start("train", "-m", *LONG, RAY, halves, "seed=0,1,2", cwd=tmp_path)
    sweep.until(lambda: sum(step > 0 for step in steps_of(tmp_path)) == 2)
    kept = reaper_of(sweep.pid)
    assert kept is not None
    sweep.kill(signal.Signals[name], group=name == "SIGINT")
    result = sweep.wait()
    assert result.code == {"SIGINT": 130, "SIGKILL": -signal.SIGKILL}[name], result.err
    gone_within(10.0, *kept)
    if name == "SIGINT":
        assert result.err.count("and saved; go on with: python train.py resume=") == 2
        assert "failed" not in result.err
        assert "Traceback" not in result.err
        assert_saved(tmp_path)


def gone_within(seconds: float, mark: str, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while (marked(mark) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not marked(mark)
    assert not folder.exists()


# ---- a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose head runs no job, since it has one CPU only."""
    import_ray()
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    quiet = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **quiet, **STORE})
    session = Path(made.head_node.get_session_dir_path())
    yield made
    made.shutdown()
    shutil.rmtree(session, ignore_errors=True)
    del os.environ["PYTHONPATH"]


def node_with_room(cluster: Any) -> Any:
    """A node with two CPUs: that of an earlier test, or a new one."""
    return next(iter(cluster.worker_nodes), None) or cluster.add_node(num_cpus=2, **STORE)


def worker_in(folder: Path) -> psutil.Process:
    (found,) = [process for process in processes_in(folder) if process.name().startswith("ray::")]
    return found


def start(programs: Programs, cluster: Any, folder: Path, *more: str) -> Process:
    where = f"hydra.launcher.address={cluster.address}", "hydra.launcher.num_cpus=2"
    sweep = programs.start("train", "-m", *SAVED, RAY, *where, *more, cwd=folder, real=True)
    sweep.until(lambda: any(step > 1_200 for step in steps_of(folder)))
    return sweep


def test_a_job_whose_node_left_goes_on_exactly_on_another(programs: Programs, cluster: Any, tmp_path: Path) -> None:
    node = node_with_room(cluster)
    longer = "steps=15000"  # a shorter job could end before its node is gone
    sweep = start(programs, cluster, tmp_path, longer)
    cluster.remove_node(node, allow_graceful=False)
    node_with_room(cluster)
    result = sweep.wait()
    assert result.code == 0, result.err
    assert "[job 0] resume=auto: going on with" in result.err
    (tmp_path / "serial").mkdir()
    assert programs.run("train", "-m", *SAVED, longer, cwd=tmp_path / "serial").code == 0
    assert_equal(agents(tmp_path / "serial"), agents(tmp_path))
    assert set(agents(tmp_path)) == {"5_noisy_dqn_job0"}, "in the folder where it began"


def test_a_job_that_is_lost_too_often_is_named_and_the_others_go_on(
    programs: Programs, cluster: Any, tmp_path: Path
) -> None:
    node_with_room(cluster)
    sweep = start(programs, cluster, tmp_path, "steps=5000,1500", "hydra.launcher.retries=0")
    worker_in(tmp_path).kill()
    result = sweep.wait()
    assert result.code == 2, result.err
    assert "[job 0] error: its process ended each time" in result.err
    assert "go on with: python train.py resume=runs/CartPole-v1/" in result.err
    assert result.err.splitlines()[-1].startswith("error: 1 of the jobs failed: ")
    assert "Traceback" not in result.err
    notes = sorted(tmp_path.glob("runs/multirun/*/jobs/*/[01].json"))
    states = [json.loads(path.read_text())["state"] for path in notes]
    assert states == ["failed", "done"]


# ---- options


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_cpus": 0.0}, r"hydra\.launcher\.num_cpus=0 must be above 0"),
        ({"num_cpus": float("nan")}, r"hydra\.launcher\.num_cpus=nan must be above 0"),
        ({"num_gpus": -1.0}, r"hydra\.launcher\.num_gpus=-1 must be at least 0"),
        ({"retries": -1}, r"hydra\.launcher\.retries=-1 must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        launching.check(RayLauncherConfig(**wrong))


class Small:
    """A cluster whose largest machine has two CPUs and no GPU."""

    def largest(self, kind: str) -> float:
        return {"CPU": 2.0, "GPU": 0.0}[kind]


def test_jobs_that_no_machine_has_room_for_are_refused_here_and_wait_on_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small: Any = Small()
    launching.check_room(RayLauncherConfig(num_cpus=2), small)
    with pytest.raises(UserError, match=r"hydra\.launcher\.num_gpus=1 is more than this machine has: 0"):
        launching.check_room(RayLauncherConfig(num_gpus=1), small)
    assert capsys.readouterr().err == ""
    launching.check_room(RayLauncherConfig(address="auto", num_cpus=8), small)
    assert "hydra.launcher.num_cpus=8: the jobs wait for one" in capsys.readouterr().err


def test_a_job_whose_machine_has_left_is_not_waited_for_when_the_sweep_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note of such a job says for ever that it runs."""
    monkeypatch.setattr(launching, "POLL", 0.01)
    monkeypatch.setattr(launching, "STOP_SECONDS", 0.3)
    board = Board(tmp_path, "now")
    board.open()
    board.log(0).touch()
    board.write(0, Note("seed=0", "run"))
    board.stop()
    ray: Any = SimpleNamespace(wait=lambda references, num_returns, timeout: (time.sleep(timeout), references))
    began = time.monotonic()
    launching.wait(ray, ["job"], board)
    assert time.monotonic() - began > 0.3


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"Ray did not start at collect.address={address}: ConnectionRefusedError"):
        Cluster(address, 1, 0)
