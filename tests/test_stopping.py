"""A signal stops any work of a run: the state is saved within seconds, other work is dropped, and the run can go on.

The work that a stop has to drop is in a module that the run imports: it waits for ever, in one of several ways.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, Process, Programs, plain_environment

from agent.common import beginning, interrupt
from agent.common.interrupt import GRACE, Interrupt, Stopped, droppable
from agent.common.signals import WARNINGS
from agent.records.checkpoint import latest_checkpoint, load_checkpoint

SECONDS = 5.0
MARGIN = 4.0  # for a machine that does other work as well

WORK = '''
import ctypes, os, sys, time
from pathlib import Path
import gymnasium as gym
import numpy as np

PLACE, HOW = os.environ.get("PLACE"), os.environ.get("HOW")


def sleep():
    time.sleep(3600)


def spin():
    while True:
        pass


def swallow():
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


def wait_in_c():
    """A lock that is taken twice: the C function does not come back at a signal, and Python's handler never runs."""
    lock = ctypes.create_string_buffer(64)
    take = ctypes.CDLL(None).pthread_mutex_lock
    take(lock), take(lock)


def work(place):
    if place == PLACE:
        Path("begun").touch()
        globals()[HOW]()


def replaced(module, name, place):
    real = getattr(module, name)

    def function(*arguments, **options):
        work(place)
        return real(*arguments, **options)

    setattr(module, name, function)


class Slow(gym.Env):
    """Ten steps; what is not made for training may hang."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)
    made = steps = 0

    def __init__(self, render_mode=None):
        Slow.made += 1
        self.render_mode, self.own = render_mode, Slow.made <= 3  # one to look at it, two to train

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.random(3, np.float32), {}

    def step(self, action):
        Slow.steps += self.own
        if Slow.steps == 150 and self.own:
            work("training")
        if not self.own:
            work("evaluation")
            if PLACE == "long evaluation":
                Path("begun").touch()
                time.sleep(0.005)
        self.t += 1
        ended = self.t == 10 and (self.own or PLACE != "long evaluation")
        return self.np_random.random(3, np.float32), 1.0, ended, False, {}

    def render(self):
        work("film")
        return np.zeros((40, 40, 3), np.uint8)

    def close(self):
        if not self.own:
            work("close")


gym.register("Slow-v0", Slow)

import agent.running.evaluation
import agent.running.ending
import torch

replaced(agent.running.evaluation, "bootstrap_interval", "bootstrap")
replaced(agent.running.ending, "plot_learning_curve", "curve")
replaced(agent.running.ending.Tracker, "finish", "end of W&B")


def compiled(function, **options):
    """Stands in for the compiler, which takes a minute."""

    def call(*arguments):
        work("compiler")
        return function(*arguments)

    return call


torch.compile = compiled
'''
OPTIONS = (
    *("env=slow:Slow-v0", "num_envs=2", "agent.network.hidden=[8]", "agent.batch_size=8", "agent.learning_starts=30"),
    *("agent.replay_size=500", "eval.episodes=2", "eval.noisy=false", "log.progress=false", "wandb.mode=disabled"),
    *("checkpoint.every=0", "hydra.run.dir=run", "backend=compiled", "steps=300"),
)
#: The work during the stop, the step at which it begins, and options for it.
PLACES = {
    "long evaluation": (120, "eval.every=120"),
    "evaluation": (120, "eval.every=120"),
    "bootstrap": (120, "eval.every=120"),
    "film": (120, "eval.every=120", "eval.video_every=1"),
    "close": (120, "eval.every=120"),
    "compiler": (30,),
    "curve": (300,),
    "training": (146,),
    "end of W&B": (300,),
}


def start(programs: Programs, folder: Path, place: str, how: str) -> Process:
    (folder / "slow.py").write_text(WORK)
    process = programs.start("train", *OPTIONS, *map(str, PLACES[place][1:]), cwd=folder, PLACE=place, HOW=how)
    process.until((folder / "begun").exists)
    return process


def stop(process: Process, number: signal.Signals) -> tuple[int, str, float]:
    began = time.monotonic()
    process.kill(number)
    result = process.wait()
    return result.code, result.err, time.monotonic() - began


CASES = [
    *((place, "sleep", signal.SIGTERM) for place in PLACES if place != "training"),
    *((place, "sleep", signal.SIGINT) for place in ("long evaluation", "evaluation", "compiler", "end of W&B")),
    *(("evaluation", how, number) for how in ("spin", "swallow") for number in (signal.SIGTERM, signal.SIGINT)),
    *((place, "wait_in_c", signal.SIGTERM) for place in ("evaluation", "film", "compiler", "curve", "end of W&B")),
    ("evaluation", "wait_in_c", signal.SIGINT),
]


@pytest.mark.parametrize(("place", "how", "number"), CASES)
def test_whatever_runs_a_stop_saves_and_ends(
    programs: Programs, tmp_path: Path, place: str, how: str, number: signal.Signals
) -> None:
    """The run can then go on, and ends like one that was never stopped."""
    code, err, seconds = stop(start(programs, tmp_path, place, how), number)
    assert code == 128 + number, err
    assert seconds < SECONDS + MARGIN
    assert "Traceback" not in err
    checkpoint = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    step, _ = load_checkpoint(checkpoint)
    assert PLACES[place][0] <= step < PLACES[place][0] + 3
    if how == "sleep" and seconds < GRACE and place not in ("curve", "end of W&B"):
        assert f"stopped at step {step} and saved; go on with: python train.py resume=run" in err
    if how == "sleep" and seconds < GRACE:
        assert ("the curve was left out: python compare.py run draws it" in err) == (place == "curve")
    result = programs.run("train", "env=slow:Slow-v0", "resume=run", cwd=tmp_path)
    assert result.code == (0 if step < 300 else 2), result.err
    assert ("done: evaluation return 10.0 over 2" if step < 300 else "run is complete at step") in result.err
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "slow.py").write_text(WORK)
    assert programs.run("train", *OPTIONS, *map(str, PLACES[place][1:]), cwd=whole).code == 0
    parameters = [
        load_checkpoint(latest_checkpoint(run) or run)[1]["agent"]["parameters"]
        for run in (tmp_path / "run", whole / "run")
    ]
    assert parameters[0].equal(parameters[1])


def test_the_last_evaluation_that_was_stopped_is_played_when_the_run_goes_on(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(WORK)
    process = programs.start("train", *OPTIONS, cwd=tmp_path, PLACE="evaluation", HOW="sleep")
    process.until((tmp_path / "begun").exists)
    code, err, _ = stop(process, signal.SIGTERM)
    assert code == 143
    assert re.search(r"stopped at step 30\d, before its last evaluation, and saved; go on with", err)
    result = programs.run("train", "env=slow:Slow-v0", "resume=run", cwd=tmp_path)
    assert result.code == 0
    assert "done: evaluation return 10.0 over 2 episodes" in result.err
    assert "complete" in programs.run("train", "env=slow:Slow-v0", "resume=run", cwd=tmp_path).err


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("how", ["sleep", "swallow", "wait_in_c"])
def test_an_environment_that_hangs_in_training_is_not_waited_for(
    programs: Programs, tmp_path: Path, how: str, vectorization: str
) -> None:
    """All steps before are saved. The rest of the episodes under way is unknown, so that they become truncations."""
    (tmp_path / "slow.py").write_text(WORK)
    options = (*OPTIONS, f"env.vectorization={vectorization}")
    process = programs.start("train", *options, cwd=tmp_path, PLACE="training", HOW=how)
    process.until((tmp_path / "begun").exists)
    code, err, seconds = stop(process, signal.SIGTERM)
    assert code == 143, err
    assert seconds < SECONDS + MARGIN
    step, _ = load_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path)
    assert 100 < step < 300
    result = programs.run("train", "env=slow:Slow-v0", "resume=run", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "begins new episodes in 2 of 2 copies (they were left in the middle of a step)" in result.err


@pytest.mark.parametrize("how", ["sleep", "wait_in_c"])
def test_a_second_signal_stops_at_once(programs: Programs, tmp_path: Path, how: str) -> None:
    process = start(programs, tmp_path, "evaluation", how)
    process.kill(signal.SIGTERM)
    time.sleep(0.3 if how == "wait_in_c" else 0.0)
    code, _, seconds = stop(process, signal.SIGINT)
    assert code in (130, 143)
    assert seconds < 2.0


# ---- the mechanism alone


def test_no_thread_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread would hold the last reference to the run and free it while Python ends, which aborts the process."""
    monkeypatch.setattr(beginning, "is_program", True)
    before = threading.enumerate()
    for _ in range(3):
        with Interrupt() as context:
            context.rescue = lambda: None
            assert len(threading.enumerate()) == len(before) + 1
        assert threading.enumerate() == before
        assert context.rescue is interrupt._nothing


def test_handlers_and_the_wakeup_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "is_program", True)
    handlers = [signal.getsignal(number) for number in Interrupt.SIGNALS]
    with Interrupt():
        assert [signal.getsignal(number) for number in Interrupt.SIGNALS] != handlers
    assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_work_that_is_dropped_is_left_at_once_and_not_begun_again() -> None:
    with Interrupt() as context:
        with pytest.raises(Stopped), droppable():
            signal.raise_signal(signal.SIGTERM)
        assert context.exit_code == 143
        with pytest.raises(Stopped), context.droppable():
            pytest.fail("it began")


def test_work_in_work_is_dropped_until_the_outer_work_ends() -> None:
    with Interrupt() as context:
        with pytest.raises(Stopped), context.droppable():
            _work_and_stop(context)
        with pytest.raises(Stopped), context.droppable():
            pytest.fail("it begins")


def _work_and_stop(context: Interrupt) -> None:
    with context.droppable():
        pass
    signal.raise_signal(signal.SIGTERM)
    pytest.fail("it goes on")


def test_what_is_not_dropped_is_not_disturbed() -> None:
    with droppable():  # there is no run
        pass
    with Interrupt() as context:
        with droppable():
            pass
        signal.raise_signal(signal.SIGINT)
        assert bool(context)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    handlers, failures = [signal.getsignal(number) for number in Interrupt.SIGNALS], list[BaseException]()

    def train() -> None:
        try:
            with Interrupt() as context, context.droppable(), droppable():
                assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == handlers
        except BaseException as error:
            failures.append(error)

    with Interrupt():  # another run, in the main thread
        handlers = [signal.getsignal(number) for number in Interrupt.SIGNALS]
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGTERM)  # it does not raise Stopped, since this thread has nothing to drop
    assert failures == []


def test_a_process_that_an_environment_forks_can_be_terminated(tmp_path: Path) -> None:
    """SIGTERM ends such a process like any other, without a line about saving, since it is not the run."""
    import multiprocessing

    with Interrupt() as context:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(5.0)
        assert child.exitcode == -signal.SIGTERM
        assert not context


# ---- closed terminals, and warnings of batch systems

SECONDS_TO_START = 60.0
WARNED = [(signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGXCPU, 152)]
ENDLESS = (*OPTIONS[1:-2], "backend=numpy", "steps=100000000", "eval.every=0", "log.every=100", "num_envs=2")


def logs(run: Path) -> bool:
    """Whether a run has begun to train."""
    return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 0


@pytest.fixture
def defaults() -> Iterator[None]:
    """The handlers of warnings as in a program that nobody has prepared."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in WARNINGS}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), WARNED)
def test_a_warning_saves_and_says_how_to_go_on(
    programs: Programs, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """All processes get it, as from a terminal that is closed or from Slurm."""
    process = programs.start("train", *ENDLESS, "env.vectorization=async", cwd=tmp_path)
    process.until(lambda: logs(tmp_path / "run"))
    process.kill(number, group=True)
    result = process.wait()
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    steps = re.findall(r"stopped at step (\d+) and saved; go on with: python train.py resume=run", result.err)
    assert steps, result.err
    step, _ = load_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path)
    assert step == int(steps[0])


def test_a_warning_that_comes_again_does_not_end_the_run_before_it_is_saved(defaults: None) -> None:
    """A shell and the system both tell of a closed terminal, and a limit of CPU time tells of itself each second."""
    with Interrupt() as context:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGXCPU)
        assert context.exit_code == 129


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "of one's own"])
def test_a_warning_that_others_handle_is_theirs(defaults: None, handler: signal.Handlers) -> None:
    signal.signal(signal.SIGHUP, handler)
    with Interrupt() as context:
        signal.raise_signal(signal.SIGHUP)
        assert not context
        signal.signal(signal.SIGUSR1, handler)  # as an environment may
        signal.raise_signal(signal.SIGUSR1)
        assert not context
    assert [signal.getsignal(number) for number in WARNINGS] == [handler, handler, signal.SIG_DFL]


@pytest.mark.parametrize("controlling", [True, False], ids=["with SIGHUP", "without"])
def test_a_terminal_that_is_closed_costs_nothing(tmp_path: Path, controlling: bool) -> None:
    """Nothing can be printed any more. A run whose terminal is its own gets SIGHUP, and saves; others go on."""
    ours, theirs = os.openpty()
    steps = "steps=100000000" if controlling else "steps=6000"

    def take_terminal() -> None:
        for number in (*WARNINGS, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if controlling:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *ENDLESS, steps, "log.progress=true"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=tmp_path,
        env=plain_environment(),
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    deadline = time.monotonic() + SECONDS_TO_START
    while not logs(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.05)
    os.close(ours)
    assert process.wait(SECONDS_TO_START) == (129 if controlling else 0)
    step, _ = load_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path)
    assert step > 0 if controlling else step == 6000
