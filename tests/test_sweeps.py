"""Sweeps whose jobs run at the same time: their output and endings, and the equality of each job with a run alone."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import Process, Programs
from hydra.errors import MissingConfigException
from safetensors.numpy import load_file

from agent.command.config_errors import LAUNCHERS
from agent.command.errors import sentence_of
from agent.command.jobs import Job
from agent.command.program import TRAIN
from agent.command.watching import Watcher, number_of_jobs
from agent.common.errors import NothingLeftError
from agent.records.board import Board, Note
from agent.records.jobs_console import JobsConsole

INSTALLED = {distribution.metadata["Name"] for distribution in distributions()}
needs_joblib = pytest.mark.skipif("hydra-joblib-launcher" not in INSTALLED, reason="pip install -e '.[parallel]'")
needs_submitit = pytest.mark.skipif("hydra-submitit-launcher" not in INSTALLED, reason="pip install -e '.[slurm]'")
SHORT = ("num_envs=2", "eval.every=0", "eval.video=false", "wandb.mode=disabled", "agent.network.hidden=[8]")
SMALL = (*SHORT, "steps=300", "eval.episodes=1", "agent.learning_starts=128")
#: A run with far more steps than a test can complete.
LONG = (*SHORT, "steps=4000000", "eval.episodes=0", "checkpoint.every=0")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def agents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of the last agent of each run, by the end of the folder's name."""
    found = folder.glob("runs/*/*/last/agent.safetensors")
    return {path.parent.parent.name.partition("_seed")[2]: load_file(path) for path in found}


def assert_equal(one: dict[str, dict[str, np.ndarray]], other: dict[str, dict[str, np.ndarray]]) -> None:
    assert one.keys() == other.keys()
    for name, parameters in one.items():
        assert parameters.keys() == other[name].keys()
        assert all(np.array_equal(value, other[name][key]) for key, value in parameters.items()), name


def steps_of(folder: Path, notes: str = "runs/multirun/*/jobs/*/[0-9].json") -> list[int]:
    return [json.loads(path.read_text())["step"] for path in folder.glob(notes)]


def test_a_job_with_nothing_left_returns_the_score_of_its_run(tmp_path: Path) -> None:
    """The job was stopped after its last step, and its queue starts it again."""
    board = Board(tmp_path, "now")
    board.open()
    board.write(0, Note("seed=0", "run", state="queued"))

    def run(options: dict[str, str]) -> float | None:
        assert options == {"resume": "auto"}
        raise NothingLeftError("it is complete", 7.5)

    assert Job(board, 0, "seed=0", "run").execute(run) == 7.5
    with pytest.raises(NothingLeftError):
        Job(board, 1, "seed=0", "run").execute(lambda options: run({"resume": "auto"}))


#: A callback of Hydra's that ends a job's process before the job.
LEAVING = """
import sys
from hydra.experimental.callback import Callback

class Leave(Callback):
    def on_job_start(self, config, **kwargs):
        sys.exit()
"""


@needs_joblib
def test_a_callback_that_ends_the_process_of_a_job_is_one_sentence(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "cb.py").write_text(LEAVING)
    words = (*JOBLIB, "+hydra.callbacks.mine._target_=cb.Leave", "seed=0,1")
    result = programs.run("train", "-m", *SMALL, *words, cwd=tmp_path, real=True, PYTHONPATH=str(tmp_path))
    assert result.code == 2, result.err
    assert result.err.endswith(
        "error: cb.py failed in a job and ended the sweep (it ended the program, by sys.exit(None)): fix it\n"
    )
    assert "Traceback" not in result.err


@needs_joblib
def test_jobs_on_many_cores_are_the_runs_of_a_serial_sweep(programs: Programs, tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    words = ("train", "-m", *SMALL, "env=CartPole-v1,Nope-v0", "seed=0,1")
    many = programs.run(*words, *JOBLIB, cwd=tmp_path / "many", real=True)
    one = programs.run(*words, cwd=tmp_path / "one")
    assert (one.code, many.code) == (2, 2), many.err
    assert set(agents(tmp_path / "one")) == {"0_noisy_dqn_job0", "1_noisy_dqn_job1"}
    assert_equal(agents(tmp_path / "one"), agents(tmp_path / "many"))
    *told, last = [line for line in many.err.splitlines() if line]
    assert re.fullmatch(r"error: 2 of the jobs failed: .*env=Nope-v0 seed=0.*; .*env=Nope-v0 seed=1.*", last)
    assert all(re.match(r"\[job [0-3]\] |[ \d]{3}% \d/4 jobs ended", line) for line in told), many.err
    assert sum(line.startswith("[job 2] error: ") for line in told) == 1
    assert "4/4 jobs ended" in told[-1]
    assert "Traceback" not in many.err
    assert {path.name for path in tmp_path.glob("many/runs/*")} == {"CartPole-v1", "multirun"}


#: Launchers that run one job at a time, in the process of the sweep.
ONE = [("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"), ()]


@needs_joblib
def test_one_job_at_a_time_runs_as_without_a_launcher(programs: Programs, tmp_path: Path) -> None:
    outputs = []
    for number, launcher in enumerate(ONE):
        (folder := tmp_path / str(number)).mkdir()
        words = ("train", "-m", *SMALL, *launcher, "env=CartPole-v1,Nope-v0", "seed=0,1")
        result = programs.run(*words, cwd=folder, real=True)
        assert result.code == 2
        assert not [*folder.glob("runs/multirun/*/jobs")]
        outputs.append([line for line in result.err.splitlines() if line.startswith(("job ", "error: "))])
    assert outputs[0] == outputs[1]
    assert_equal(agents(tmp_path / "0"), agents(tmp_path / "1"))


@needs_joblib
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("launcher", ONE, ids=["joblib", "none"])
def test_a_signal_ends_one_job_at_a_time_and_begins_no_other(
    programs: Programs, tmp_path: Path, launcher: tuple[str, ...], number: signal.Signals
) -> None:
    process = programs.start("train", "-m", *LONG, *launcher, "seed=0,1", cwd=tmp_path, real=True)
    process.until(lambda: any(path.stat().st_size for path in tmp_path.glob("runs/CartPole-v1/*seed0*/metrics.jsonl")))
    process.kill(number)
    result = process.wait()
    assert result.code == 128 + number, result.err
    assert "and saved; go on with: python train.py resume=" in result.err + result.out
    assert not [*tmp_path.glob("runs/CartPole-v1/*seed1*")]


@needs_joblib
@pytest.mark.parametrize("option", ["n_jobs=0", "pre_dispatch=foo", "batch_size=0", "max_nbytes=foo", "prefer=zz"])
def test_options_that_the_launcher_refuses_are_one_sentence(programs: Programs, tmp_path: Path, option: str) -> None:
    words = ("-m", *SMALL, *JOBLIB, "seed=0,1", f"hydra.launcher.{option}")
    result = programs.run("train", *words, cwd=tmp_path, real=True)
    assert result.code == 2
    assert re.search(rf"error: Hydra cannot use .*hydra\.launcher\.{option}.*: correct it, or leave it out", result.err)
    assert "Traceback" not in result.err


def started(programs: Programs, folder: Path) -> Process:
    process = programs.start("train", "-m", *LONG, *JOBLIB, "seed=0,1,2", cwd=folder, real=True)
    process.until(lambda: sum(step > 0 for step in steps_of(folder)) == 2)
    return process


def assert_saved(folder: Path) -> None:
    saved = list(folder.glob("runs/CartPole-v1/*/checkpoints/latest"))
    assert len(saved) == 2
    assert len(list(folder.glob("runs/CartPole-v1/*/last/agent.safetensors"))) == 2
    assert not list(folder.glob("runs/CartPole-v1/*seed2*")), "the third has not begun, and leaves nothing"


@needs_joblib
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "process"])
def test_a_signal_saves_and_ends_all_jobs(programs: Programs, tmp_path: Path, group: bool) -> None:
    process = started(programs, tmp_path)
    process.kill(signal.SIGINT if group else signal.SIGTERM, group=group)
    began = time.monotonic()
    result = process.wait()
    assert result.code == (130 if group else 143), result.err
    assert time.monotonic() - began < 30.0  # three seconds on an idle machine
    assert result.err.count("and saved; go on with: python train.py resume=") == 2
    assert "failed" not in result.err
    assert "Traceback" not in result.err
    assert_saved(tmp_path)


@needs_joblib
def test_a_closed_terminal_saves_and_ends_all_jobs(programs: Programs, tmp_path: Path) -> None:
    """The shell and the system both send SIGHUP; the second one does not end the sweep before its jobs."""
    process = started(programs, tmp_path)
    process.kill(signal.SIGHUP)
    process.until(lambda: "all jobs save and stop" in process.stream("err"))
    process.kill(signal.SIGHUP)
    result = process.wait()
    assert result.code == 129, result.err
    assert result.err.count("and saved; go on with: python train.py resume=") == 2
    assert "Traceback" not in result.err
    assert_saved(tmp_path)


@needs_joblib
def test_sweeps_that_share_a_folder_leave_each_other_alone(programs: Programs, tmp_path: Path) -> None:
    words = ("train", "-m", *JOBLIB, *SMALL, "hydra.sweep.dir=shared")
    first = programs.start(*words, "seed=0,1", "steps=1000000", cwd=tmp_path)
    first.until(lambda: len(steps_of(tmp_path, "shared/jobs/*/[0-9].json")) == 2)
    second = programs.run(*words, "seed=2,3", "steps=100", cwd=tmp_path)
    assert second.code == 0, second.err
    before = steps_of(tmp_path, "shared/jobs/*/[0-9].json")
    first.until(lambda: sum(steps_of(tmp_path, "shared/jobs/*/[0-9].json")) > sum(before))  # it goes on
    first.kill(signal.SIGTERM)
    result = first.wait()
    assert result.code == 143, result.err
    assert len([*tmp_path.glob("shared/CartPole-v1/*/last/agent.safetensors")]) == 4


@needs_joblib
def test_jobs_whose_sweep_was_killed_save_and_stop(programs: Programs, tmp_path: Path) -> None:
    process = started(programs, tmp_path)
    process.kill(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    process.until(lambda: len(list(tmp_path.glob("runs/CartPole-v1/*/last/agent.safetensors"))) == 2)
    process.until(lambda: len(list(tmp_path.glob("runs/CartPole-v1/*/checkpoints/latest"))) == 2)
    process.until(lambda: not processes_in(tmp_path))


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(folder):
                found.append(process)
    return found


#: An environment that prints the number of torch's threads in its process.
COUNTING = """
import gymnasium as gym, torch
from gymnasium.envs.classic_control import CartPoleEnv

class Counting(CartPoleEnv):
    def step(self, action):
        print(f"threads: {torch.get_num_threads()}", flush=True) if not hasattr(self, "told") else None
        self.told = True
        return super().step(action)

gym.register("Counting-v0", entry_point=Counting, max_episode_steps=50)
"""


@needs_joblib
def test_a_job_has_one_thread_and_what_it_prints_is_prefixed(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    words = ("-m", *SMALL, "env=counting:Counting-v0", "seed=0,1", "log.progress=false")
    result = programs.run("train", *words, *JOBLIB, cwd=tmp_path, real=True)
    assert result.code == 0, result.err
    counted = re.findall(r"^\[job (\d)\] threads: (\d+)$", result.err, re.MULTILINE)
    assert set(counted) == {("0", "1"), ("1", "1")}
    assert "jobs ended" not in result.err


def task_of(process: Process) -> psutil.Process:
    """The process of the one job that submitit's local executor runs."""
    children = psutil.Process(process.pid).children(recursive=True)
    (task,) = [child for child in children if "submitit.core._submit" in child.cmdline()]
    return task


#: A run that is saved often, and takes some seconds even on a fast machine.
SAVED = (*SHORT, "steps=20000", "eval.episodes=1", "agent.network.hidden=[64]", "checkpoint.every=500", "seed=5")


@pytest.fixture(scope="module")
def undisturbed(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of the run SAVED after a sweep by the basic launcher."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert programs.run("train", "-m", *SAVED, cwd=folder).code == 0
    return agents(folder)


def queue(programs: Programs, folder: Path, *options: str) -> Process:
    words = ("-m", *SAVED, "hydra/launcher=submitit_local", *options)
    queued = programs.start("train", *words, cwd=folder, real=True)
    queued.until(lambda: any(step > 1_200 for step in steps_of(folder)))
    return queued


#: For jobs of less than ten minutes the signal of the queue means the end of their time, and otherwise preemption.
OUT_OF_TIME = ("hydra.launcher.timeout_min=9",)


@needs_submitit
@pytest.mark.parametrize("options", [(), OUT_OF_TIME], ids=["preempted", "out of time"])
def test_a_job_that_its_queue_stops_goes_on_exactly(
    programs: Programs, tmp_path: Path, undisturbed: dict[str, dict[str, np.ndarray]], options: tuple[str, ...]
) -> None:
    queued = queue(programs, tmp_path, *options)
    task_of(queued).send_signal(signal.SIGUSR2)
    result = queued.wait()
    assert result.code == 0, result.err
    assert "resume=auto: going on with" in result.err
    assert_equal(undisturbed, agents(tmp_path))
    assert set(agents(tmp_path)) == {"5_noisy_dqn_job0"}, "in the folder where it began"


@needs_submitit
def test_a_job_that_slurm_starts_again_goes_on_exactly(
    programs: Programs, tmp_path: Path, undisturbed: dict[str, dict[str, np.ndarray]]
) -> None:
    """After a failure of a node and after `scontrol requeue`, Slurm repeats the same command in the same environment.

    One job is killed, and one is cancelled; their sweeps wait a while for results, at the same time.
    """
    lost = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        folder = tmp_path / number.name
        folder.mkdir()
        queued = queue(programs, folder)
        task = task_of(queued)
        lost.append((number, folder, queued, task.cmdline(), task.environ()))
        task.send_signal(number)
    for number, folder, queued, command, environment in lost:
        result = queued.wait()
        assert result.code == 2
        assert re.fullmatch(r"error: a job of the sweep was lost .*", result.err.splitlines()[-1]), result.err
        assert ("saved; go on with: python train.py resume=" in result.err) == (number == signal.SIGTERM)
        again = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        (log,) = folder.glob("runs/multirun/*/jobs/*/0.log")
        assert "resume=auto: going on with" in log.read_text()
        assert_equal(undisturbed, agents(folder))


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_the_extra_of_a_missing_launcher_is_named(launcher: str) -> None:
    said = (
        f"Could not find 'hydra/launcher/{launcher}'\n\nAvailable options in 'hydra/launcher':\n\tbasic\nConfig search"
    )
    extra = LAUNCHERS[launcher]
    wanted = f"hydra/launcher={launcher} needs the extra {extra}: pip install -e '.[{extra}]'"
    assert sentence_of(MissingConfigException(said, ""), TRAIN) == wanted


def test_an_option_of_one_run_ends_a_sweep_in_one_sentence(programs: Programs, tmp_path: Path) -> None:
    if "hydra-joblib-launcher" not in INSTALLED:
        pytest.skip("pip install -e '.[parallel]'")
    result = programs.run("train", "-m", *JOBLIB, "seed=0,1", "resume=auto", cwd=tmp_path, real=True)
    assert result.code == 2
    assert result.err == "error: resume does not go with -m: resume the runs one by one\n"


@pytest.mark.parametrize(
    ("words", "number"),
    [("seed=range(10)", 10), ("seed=0,1 agent=dqn,c51,iqn", 6), ("seed=3 env=A-v0,B-v0", 2), ("", 1)],
)
def test_the_number_of_jobs_is_known(words: str, number: int) -> None:
    assert number_of_jobs(words.split()) == number


def test_lines_are_shown_whole_and_once(tmp_path: Path) -> None:
    board, shown = Board(tmp_path, "now"), io.StringIO()
    board.open()
    watcher = Watcher(board, 2, bar=False, stops=False, stream=shown)
    board.write(0, Note("seed=0", "a"))
    with board.log(0).open("w") as log:
        for part in ("half", " of a line\n", "\nthe rest"):
            log.write(part)
            log.flush()
            time.sleep(0.5)
    assert watcher.close().keys() == {0}
    assert shown.getvalue() == "[job 0] half of a line\n[job 0] the rest\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_bar_shows_all_jobs() -> None:
    shown = Terminal()
    console = JobsConsole(4, enabled=True, stream=shown)
    time.sleep(0.11)
    console.update(ended=1, running=2, step=2_500, progress=1.5)
    console.line("[job 1] a line")
    console.close()
    assert " 38%|" in shown.getvalue()
    assert "1/4 jobs ended · 2 running · 2,500 steps · " in shown.getvalue()
    assert "\n[job 1] a line\n" in shown.getvalue().replace("\r", "\n")
