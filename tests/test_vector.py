"""Processes: the same games as in one process, and the effects of a death, a failure and Ctrl-C."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium.vector import SyncVectorEnv
from helpers import ROOT, Programs
from test_observations import FLAT, Sampler

from agent.common.errors import UserError
from envs.make import Task, load_task
from envs.resuming import begin
from envs.vector import Processes, begin_step, make_vector


class Fragile(gym.Env[np.ndarray, np.int64]):
    """Action 1 kills the process, action 2 raises an error, and action 3 never returns."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, fails: bool = False) -> None:
        if fails and os.getpid() != MAIN:
            os._exit(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if action == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 2:
            raise ValueError("the cart has lost a wheel")
        if action == 3:
            time.sleep(1000)
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}


class Reused(gym.Env[np.ndarray, np.int64]):
    """Always returns the same array and dict, into which `step` and `reset` write."""

    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.shown, self.info = np.zeros(2, np.float32), {"life_lost": False}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.shown[:], self.info["life_lost"] = 0, False
        return self.shown, self.info

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.shown += 1
        self.info["life_lost"] = bool(self.shown[0] == 2)
        return self.shown, 1.0, False, bool(self.shown[0] == 3), self.info


MAIN = os.getpid()


@pytest.fixture
def fragile() -> Iterator[Task]:
    gym.register("Test/Fragile-v0", entry_point=Fragile)
    yield load_task("Test/Fragile-v0", {})
    gym.registry.pop("Test/Fragile-v0")


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())}


@pytest.mark.parametrize("victim", [0, 2])
def test_a_process_that_dies_is_one_sentence_and_no_process_is_left(fragile: Task, victim: int) -> None:
    before = children()
    envs = make_vector(fragile, 3, "async")
    envs.reset(seed=0)
    assert len(children() - before) == 3
    action = np.zeros(3, dtype=np.int64)
    envs.step(action)
    action[victim] = 1
    with pytest.raises(UserError, match=rf"environment {victim} \(killed by signal 9\) of Test/Fragile-v0 has died"):
        envs.step(action)
    assert children() == before
    envs.close()


def test_a_process_that_dies_between_steps_is_noticed_at_the_next(fragile: Task) -> None:
    envs = make_vector(fragile, 2, "async")
    envs.reset(seed=0)
    assert isinstance(envs, Processes)
    process = envs.processes[1]
    process.kill()
    process.join()
    with pytest.raises(UserError, match="environment 1"):
        envs.step(np.zeros(2, dtype=np.int64))


def test_a_process_that_dies_at_birth(fragile: Task) -> None:
    before = children()
    with pytest.raises(UserError, match="has died"):
        make_vector(load_task("Test/Fragile-v0", {"fails": True}), 2, "async")
    assert children() == before


def test_an_error_of_the_environment_comes_through(fragile: Task) -> None:
    before = children()
    envs = make_vector(fragile, 2, "async")
    envs.reset(seed=0)
    with pytest.raises(
        UserError, match="Test/Fragile-v0 failed in step: ValueError: the cart has lost a wheel"
    ) as caught:
        envs.step(np.array([0, 2]))
    lines = caught.value.detail.splitlines()
    assert lines[0].startswith(f'  File "{__file__}", line')
    assert lines[1:] == ['    raise ValueError("the cart has lost a wheel")']
    envs.close()
    assert children() == before


def test_a_process_that_hangs_is_killed_in_the_end(fragile: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.processes.CLOSE_SECONDS", 0.3)
    before, envs = children(), make_vector(fragile, 2, "async")
    envs.reset(seed=0)
    assert isinstance(envs, Processes)
    envs.step_async(np.array([0, 3]))
    began = time.monotonic()
    envs.close()
    assert time.monotonic() - began < 5
    assert children() == before


def test_processes_leave_ctrl_c_to_the_trainer(fragile: Task) -> None:
    envs = make_vector(fragile, 2, "async")
    envs.reset(seed=0)
    assert isinstance(envs, Processes)
    for process in envs.processes:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid or 0, number)
    envs.step(np.zeros(2, dtype=np.int64))
    envs.close()
    assert [process.exitcode for process in envs.processes] == [0, 0]


@pytest.fixture
def sampler(request: pytest.FixtureRequest) -> Iterator[Task]:
    gym.register("Test/Sampler-v0", entry_point=lambda: Sampler(FLAT[request.param]))
    yield load_task("Test/Sampler-v0", {})
    gym.registry.pop("Test/Sampler-v0")


@pytest.mark.parametrize("sampler", ["discrete", "multi", "dict", "binary tuple", "unbounded matrix"], indirect=True)
def test_every_kind_of_observation_passes_between_processes(sampler: Task) -> None:
    """The environment of a worker has the seed of the same copy in one process."""
    seen: dict[str, list[np.ndarray]] = {}
    for vectorization in ("sync", "async"):
        envs = make_vector(sampler, 2, vectorization)  # type: ignore[arg-type]
        rows = [sampler.observe(envs.reset(seed=3)[0])]
        for _ in range(12):
            observation, reward, terminated, *_ = envs.step(np.zeros(2, dtype=np.int64))
            rows += [sampler.observe(observation), reward, terminated]
        envs.close()
        seen[vectorization] = rows
    assert all(row.shape == (2, *sampler.observation.shape) for row in seen["async"][1::3])
    for one, two in zip(seen["sync"][2:], seen["async"][2:], strict=True):
        assert one.ndim == 2 or np.array_equal(one, two)  # in one process samples share a generator


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_time_limit_of_ones_own(vectorization: Any) -> None:
    task = load_task("Acrobot-v1", {}, time_limit=7)
    envs = make_vector(task, 2, vectorization)
    envs.reset(seed=0)
    endings = [envs.step(np.ones(2, dtype=np.int64))[3].tolist() for _ in range(16)]
    assert [t for t, ended in enumerate(endings, 1) if all(ended)] == [7, 15]  # step 8 is the reset
    envs.close()


def test_a_time_limit_may_be_longer_than_the_environment_s_own() -> None:
    envs = make_vector(load_task("MountainCar-v0", {}, time_limit=250), 2)  # the environment's own limit is 200
    envs.reset(seed=0)
    endings = [envs.step(np.ones(2, dtype=np.int64))[3].tolist() for _ in range(260)]
    assert [t for t, ended in enumerate(endings, 1) if any(ended)] == [250]
    envs.close()


def test_a_vector_class_of_its_own_knows_no_time_limit_of_ours() -> None:
    task = load_task("CartPole-v1", {}, time_limit=7)
    assert isinstance(make_vector(task, 8), SyncVectorEnv)
    with pytest.raises(UserError, match="no vector class"):
        make_vector(task, 8, "native")


# ---- in the whole program

TRAIN = ("env=CartPole-v1", "env.vectorization=async", "num_envs=2", "wandb.mode=disabled", "eval.video=false")
SMALL = (*TRAIN, "agent.network.hidden=[16]", "eval.episodes=2", "hydra.run.dir=run")


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_leaves_no_process(
    programs: Programs, tmp_path: Path, number: signal.Signals
) -> None:
    run = programs.start("train", *SMALL, "steps=10000000", cwd=tmp_path)
    run.until(lambda: (tmp_path / "run/metrics.jsonl").exists() and (tmp_path / "run/metrics.jsonl").stat().st_size > 0)
    workers = descendants(run.pid)
    assert len(workers) == 2
    run.kill(number, group=True)
    result = run.wait()
    assert result.code == 128 + number, result
    assert (tmp_path / "run/checkpoints/latest").exists()
    assert "Traceback" not in result.err
    assert gone(workers)
    again = programs.run("train", *SMALL, "steps=100", cwd=tmp_path)
    assert "holds a run already" in again.err


def test_a_trainer_that_is_killed_takes_its_processes_with_it(programs: Programs, tmp_path: Path) -> None:
    run = programs.start("train", *SMALL, "steps=10000000", cwd=tmp_path)
    run.until((tmp_path / "run/metrics.jsonl").exists)
    workers = descendants(run.pid)
    run.kill(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while not gone(workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(workers)
    assert "Traceback" not in run.stream("err")  # the workers end silently


def test_a_worker_that_is_killed_ends_the_run_in_one_sentence(programs: Programs, tmp_path: Path) -> None:
    run = programs.start("train", *SMALL, "steps=10000000", cwd=tmp_path)
    run.until((tmp_path / "run/metrics.jsonl").exists)
    workers = descendants(run.pid)
    workers[0].kill()
    result = run.wait()
    assert result.code == 2
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("error: the process of environment 0 (killed by signal 9) of CartPole-v1 has died")
    assert "Traceback" not in result.err
    assert gone(workers)


def test_an_error_before_training_ends_the_processes_too(programs: Programs, tmp_path: Path) -> None:
    began = time.monotonic()
    result = programs.run("train", *SMALL, "wandb.mode=online", cwd=tmp_path, real=True, HOME=str(tmp_path))
    assert result.code == 2
    assert time.monotonic() - began < 60


# ---- processes end with their trainer

#: A program that starts a worker, prints its process id and waits for a kill. The worker hangs and ignores all signals.
DEAF = """
import ctypes, multiprocessing, os, signal, sys, time
from types import SimpleNamespace
from envs import worker

def hang(trainer, platform, ready):
    worker.sys = SimpleNamespace(platform=platform)
    worker.end_with(trainer)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    ready.set()
    while platform == "linux":
        ctypes.PyDLL(None).sleep(1000)  # holds Python's lock: no thread of this process does anything
    time.sleep(1000)

if __name__ == "__main__":
    ready = multiprocessing.get_context("fork").Event()
    process = multiprocessing.get_context("fork").Process(target=hang, args=(os.getpid(), sys.argv[1], ready))
    process.start()
    ready.wait()
    print(process.pid, flush=True)
    process.join()
"""
#: The same with a vector environment whose worker hangs.
STUCK = """
import signal, time
import gymnasium as gym, numpy as np
from envs.make import load_task
from envs.vector import make_vector

class Stuck(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        if action == 1:
            time.sleep(1000)
        return np.zeros(2, np.float32), 0.0, False, False, {}

gym.register("Stuck-v0", Stuck)
envs = make_vector(load_task("Stuck-v0", {}), 2, "async")
envs.reset(seed=0)
envs.step_async(np.ones(2, int))
time.sleep(0.3)
print(envs.processes[1].pid, flush=True)
envs.step_wait()
"""


@pytest.mark.parametrize(("script", "platform"), [(DEAF, "linux"), (DEAF, "another"), (STUCK, "linux")])
def test_a_worker_that_hangs_and_hears_no_signal_ends_with_its_trainer(
    tmp_path: Path, script: str, platform: str
) -> None:
    """On other systems than Linux a thread watches the trainer."""
    (tmp_path / "deaf.py").write_text(script)
    command, environment = (
        [sys.executable, str(tmp_path / "deaf.py"), platform],
        {**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        worker = psutil.Process(int(trainer.stdout.readline()))
        trainer.kill()
    deadline = time.monotonic() + 5
    while not gone([worker]) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert gone([worker])
    finally:
        if worker.is_running():
            worker.kill()


def test_too_few_open_files_are_told(fragile: Task) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = children()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 12, hard))
    try:
        with pytest.raises(UserError, match=r"^40 processes of environments cannot be started: .* too few open files"):
            make_vector(fragile, 40, "async")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert children() == before


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_an_environment_may_write_into_what_it_has_shown(vectorization: Any, num_envs: int) -> None:
    """The row of an ending has the last observation and not the first of the next episode, and no row changes later."""
    gym.register("Test/Reused-v0", entry_point=Reused)
    task = load_task("Test/Reused-v0", {})
    envs = make_vector(task, num_envs, vectorization)
    gym.registry.pop("Test/Reused-v0")
    rows = [task.observe(begin(envs, 0))]
    lost = []
    for _ in range(9):
        observation, *_, info = begin_step(envs, task.to_environment(np.zeros(num_envs, np.int64)))()
        rows.append(task.observe(observation))
        lost.append(np.array(info.get("life_lost", np.zeros(num_envs, bool))))
    envs.close()
    expected = np.array([0, 1, 2, 3] * 2 + [0, 1], np.float32)
    assert np.array_equal(np.array(rows), np.broadcast_to(expected[:, None, None], (10, num_envs, 2)))
    assert np.array_equal(np.array(lost), np.broadcast_to((expected[1:] == 2)[:, None], (9, num_envs)))
