"""Environments that change the state of the whole process: the run goes on as if they had not."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers import Programs, Result
from safetensors.numpy import load_file

MEDDLING = '''
import multiprocessing, os, signal, sys, threading, time
import gymnasium as gym
import numpy as np
import torch


def forks():
    if os.fork() == 0:
        raise OSError("no such simulator")


def forks_and_goes_on():
    os.fork()


def leaves_a_process():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    print("left", process.pid)


def torch_for_itself():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)


def leaves_a_timer():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)


def nothing():
    pass


MEDDLE = {
    "": nothing,
    "forks": forks,
    "forks and goes on": forks_and_goes_on,
    "leaves a thread": lambda: threading.Thread(target=time.sleep, args=(600,), name="music").start(),
    "leaves a process": leaves_a_process,
    "leaves a timer": leaves_a_timer,
    "torch": torch_for_itself,
    "closes stdout": lambda: sys.stdout.close(),
    "closes the file of stdout": lambda: sys.__stdout__.close(),
    "closes stderr": lambda: sys.stderr.close(),
    "takes stdout away": lambda: setattr(sys, "stdout", None),
    "takes stderr away": lambda: setattr(sys, "stderr", None),
    "closes all files": lambda: os.closerange(3, 256),
    "ends the program": lambda: os._exit(int(os.environ["CODE"])),
}[os.environ.get("MEDDLE", "")]
if os.environ.get("WHEN") == "import":
    MEDDLE()


class Meddling(gym.Env):
    """Ten steps; meddles once, at its 40th."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
    steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.random(3, np.float32), {}

    def step(self, action):
        self.t += 1
        Meddling.steps += 1
        if Meddling.steps == 40 and os.environ.get("WHEN") == "step":
            MEDDLE()
        if Meddling.steps == int(os.environ.get("FAILS", "0")):
            raise ValueError("no such level")
        return self.np_random.random(3, np.float32), float(action), self.t == 10, False, {}


gym.register("Meddling-v0", Meddling)
'''
OPTIONS = (
    *("env=meddles:Meddling-v0", "num_envs=2", "steps=120", "agent.network.hidden=[8]", "agent.batch_size=8"),
    *("agent.learning_starts=30", "agent.replay_size=500", "eval.every=200", "eval.episodes=2", "checkpoint.every=50"),
    *("log.progress=false", "wandb.mode=disabled"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meddling")
    (folder / "meddles.py").write_text(MEDDLING)
    return folder


def train(programs: Programs, place: Path, name: str, *options: str, real: bool = False, **env: str) -> Result:
    return programs.run("train", *OPTIONS, *options, f"hydra.run.dir={name}", cwd=place, real=real, **env)


def same(place: Path, one: str, other: str) -> bool:
    """Whether the last agents of two runs are equal, bit for bit."""
    first, second = (load_file(place / name / "last/agent.safetensors") for name in (one, other))
    return first.keys() == second.keys() and all(first[key].tobytes() == second[key].tobytes() for key in first)


@pytest.fixture(scope="module", params=["numpy", "torch"])
def backend(request: pytest.FixtureRequest, programs: Programs, place: Path) -> str:
    """The name of a backend, after a run with it in an environment that changes nothing."""
    result = train(programs, place, f"plain-{request.param}", f"backend={request.param}")
    assert result.code == 0, result.err
    return request.param


@pytest.mark.parametrize("when", ["import", "step"])
def test_what_torch_does_by_default_is_a_module_s_own_affair(
    programs: Programs, place: Path, backend: str, when: str
) -> None:
    """With double precision, another device and no gradients as defaults, training computes the same, bit for bit."""
    result = train(programs, place, f"torch-{backend}-{when}", f"backend={backend}", MEDDLE="torch", WHEN=when)
    assert result.code == 0, result.err
    assert same(place, f"plain-{backend}", f"torch-{backend}-{when}")


# "forks and goes on" has no async: both processes of a copy would answer the trainer, which cannot tell them apart.
@pytest.mark.parametrize(
    ("how", "vectorization"), [("forks", "sync"), ("forks", "async"), ("forks and goes on", "sync")]
)
def test_a_process_that_an_environment_forks_is_not_the_run(
    programs: Programs, place: Path, how: str, vectorization: str
) -> None:
    """Such a process ends when it comes back from the environment, with or without an error. The run is the same."""
    name = f"{how}-{vectorization}"
    result = train(programs, place, name, f"env.vectorization={vectorization}", MEDDLE=how, WHEN="step")
    assert result.code == 0, result.err
    assert result.err.count("a process that an environment has forked came back") > (vectorization == "async")
    assert ("OSError: no such simulator" in result.err) == (how == "forks")
    assert result.err.count("done: ") == 1
    assert not result.err.count("error")
    if not (place / "plain").exists():
        train(programs, place, "plain")
    assert same(place, "plain", name)


@pytest.mark.parametrize("how", ["leaves a thread", "leaves a process"])
def test_what_an_environment_leaves_running_does_not_keep_the_program(
    programs: Programs, place: Path, how: str
) -> None:
    began = time.monotonic()
    result = train(programs, place, how.replace(" ", "-"), "num_envs=1", real=True, MEDDLE=how, WHEN="step")
    assert result.code == 0, result.err
    assert "not waited for, and still running: " in result.err.splitlines()[-1]
    assert time.monotonic() - began < 60
    if how == "leaves a thread":
        assert result.err.splitlines()[-1].endswith("thread music")
    else:
        pid = int(result.out.split("left ")[1].split()[0])
        time.sleep(0.2)
        assert not alive(pid)


def test_a_timer_that_an_environment_leaves_does_not_kill_a_finished_run(programs: Programs, place: Path) -> None:
    """Python puts handlers back while it ends, and the signal of a timer then ends the process with 142."""
    result = train(programs, place, "timer", "num_envs=1", real=True, MEDDLE="leaves a timer", WHEN="step")
    assert result.code == 0, result.err
    assert result.err.count("done: ") == 1


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie counts as ended. A process that runs is killed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    if alive:
        os.kill(pid, signal.SIGKILL)
    return alive


@pytest.mark.parametrize("how", ["closes stdout", "closes the file of stdout", "closes stderr", "takes stdout away"])
def test_streams_that_an_environment_closes_do_not_end_a_run(programs: Programs, place: Path, how: str) -> None:
    result = train(programs, place, how.replace(" ", "-"), MEDDLE=how, WHEN="step")
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert "evaluate:  python evaluate.py" in result.err


@pytest.mark.parametrize("how", ["closes stderr", "takes stderr away"])
def test_the_sentence_of_an_error_arrives_all_the_same(programs: Programs, place: Path, how: str) -> None:
    name = f"fails {how}".replace(" ", "-")
    result = train(programs, place, name, MEDDLE=how, WHEN="step", FAILS="90")
    assert result.code == 2
    assert "error: Meddling-v0 failed in step: ValueError: no such level" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_closes_all_files_shows_no_traceback(
    programs: Programs, place: Path, vectorization: str
) -> None:
    name = f"files-{vectorization}"
    result = train(programs, place, name, f"env.vectorization={vectorization}", MEDDLE="closes all files", WHEN="step")
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "error: " in result.err


@pytest.mark.parametrize(("code", "expected"), [("0", 2), ("7", 7)])
def test_a_program_that_an_environment_ends_at_once_is_not_complete(
    programs: Programs, place: Path, code: str, expected: int
) -> None:
    """Nothing can be saved, but a line is shown, and the exit code differs from that of a complete run."""
    result = train(programs, place, f"ended-{code}", MEDDLE="ends the program", WHEN="step", CODE=code)
    assert result.code == expected
    assert f"error: the environment, or another library, ended the program at once, by os._exit({code})" in result.err
    assert not (place / f"ended-{code}" / "last").exists()
