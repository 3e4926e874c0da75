"""A run that is stopped or killed, or that fails, goes on as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from helpers import Programs, Result
from runs import write_run

from agent.common.errors import UserError
from agent.common.interrupt import Interrupt
from agent.config.parsing import parse
from agent.config.resuming import first_difference, merge_resumed
from agent.config.run import TrainConfig
from agent.records import run_folder
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.saved_agent import read_agent
from agent.running.build import build_agent, build_replay
from agent.running.progress import with_evaluation
from agent.running.resources import bytes_left_in_group
from agent.running.trainer import Trainer
from envs.make import load_task
from envs.vector import make_vector

QUIET = (
    "wandb.mode=disabled",
    "eval.video=false",
    "agent.learning_starts=64",
    "agent.batch_size=64",
    "agent.network.hidden=[16]",
)
# No two of these events have the same step.
OFTEN = ("eval.every=350", "eval.episodes=2", "log.every=300", "checkpoint.every=250", "agent.replay_size=600")
CLOCK = ("time/", "speed/")
PLAIN = ("agent=dqn", "agent.epsilon.steps=1500")
AGENTS = {
    "noisy": ("num_envs=1",),
    "noisy, held for an episode, 4 environments": ("num_envs=4", "agent.noise.hold=episode"),
    "noisy, held for an update, Polyak": (
        "num_envs=1",
        "agent.noise.hold=update",
        "agent.tau=0.1",
        "agent.learning_starts=65",
    ),
    "noisy, rate that falls, native environments": ("num_envs=4", "agent.lr_end=0", "agent.lr_updates=900"),
    # backend=auto would compile the longest of these runs, which would then agree to float precision only.
    "index": ("num_envs=4", "agent=index_dqn", "backend=torch"),
    "plain": ("num_envs=1", *PLAIN),
    "C51, priorities": ("num_envs=4", "agent.head=categorical", "agent.priority.enabled=true"),
    "BTR": ("num_envs=4", "agent=btr", "agent.noise.draws=4", "agent.noise.mean_rows=0.5", "backend=torch"),
    "noisy, learning while processes step": ("num_envs=2", "env.vectorization=async", "overlap=on"),
    "plain, 4 environments": ("num_envs=4", *PLAIN, "env.vectorization=sync"),
    "windows of 5 steps, priorities, a time limit": (
        "num_envs=3",
        "env=Acrobot-v1",
        "env.time_limit=40",
        "agent.n_step=5",
        "agent.priority.enabled=true",
    ),
    "8 processes, noise held for an episode": ("num_envs=8", "env.vectorization=async", "agent.noise.hold=episode"),
    "a state that looks like others": ("num_envs=3", "env=FrozenLake-v1", "env.vectorization=async"),
    "masks": (
        "num_envs=3",
        "env=Taxi-v4",
        "env.vectorization=async",
        "agent.n_step=3",
        "env.wrappers=[TimeAwareObservation]",
    ),
}


# ---- equal runs


def same(a: Any, b: Any, path: str = "state") -> None:
    """Fails at the first leaf in which two states differ, in type, shape or any bit."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor | np.ndarray):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), path
    else:
        assert a == b, path


def loaded(run: Path) -> tuple[int, dict[str, Any]]:
    """The newest checkpoint, without times and the id of W&B."""
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    step, state = load_checkpoint(checkpoint)
    del state["seconds"], state["wandb_run_id"]
    state["monitor"]["last"] = state["monitor"]["last"][:2]
    return step, state


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without times and speeds."""
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (run / "metrics.jsonl").open()]
    return [{name: value for name, value in row.items() if not name.startswith(CLOCK)} for row in rows]


def same_runs(first: Path, second: Path) -> None:
    """Checks that two runs have saved equal checkpoints, metrics, best agents and last agents."""
    same(loaded(first), loaded(second))
    assert metrics(first) == metrics(second)
    for which in ("best", "last"):
        a, b = (read_agent(run / which / "agent.safetensors") for run in (first, second))
        same((a.tensors, a.description), (b.tensors, b.description))


def reached(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    try:
        return int((run / "checkpoints" / "latest").read_text().removeprefix("step_"))
    except FileNotFoundError:
        return 0


def logged(run: Path) -> int:
    """The last step in metrics.jsonl so far."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["global_step"]) if lines and lines[-1].endswith("}") else 0


# ---- killed


@pytest.mark.parametrize("options", AGENTS.values(), ids=AGENTS.keys())
def test_a_killed_run_goes_on_bit_for_bit(programs: Programs, tmp_path: Path, options: tuple[str, ...]) -> None:
    words = ("train", *QUIET, *OFTEN, *options)
    killed = programs.start(*words, "hydra.run.dir=killed", "steps=10000000", cwd=tmp_path)
    killed.until(lambda: logged(tmp_path / "killed") > reached(tmp_path / "killed") >= 1000)
    killed.kill(signal.SIGKILL)
    assert killed.wait().code == -signal.SIGKILL
    end = f"steps={reached(tmp_path / 'killed') + 1000}"
    resumed = programs.start("train", "resume=killed", end, cwd=tmp_path)
    assert programs.run(*words, "hydra.run.dir=whole", end, cwd=tmp_path).code == 0
    assert resumed.wait().code == 0
    assert len({row["global_step"] for row in metrics(tmp_path / "whole") if "train/loss" in row}) >= 6
    same_runs(tmp_path / "whole", tmp_path / "killed")


def test_a_resumed_run_may_be_saved_more_often(programs: Programs, tmp_path: Path) -> None:
    """More saves change only the metrics: a save logs losses as well."""
    words = (*QUIET, "num_envs=3", "env.vectorization=sync", "log.every=100000", "eval.every=350")
    legs = {"whole": ((1500, 0),), "parts": ((600, 500), (1100, 130), (1500, 0))}
    for run, parts in legs.items():
        for i, (steps, every) in enumerate(parts):
            where = f"resume={run}" if i else f"hydra.run.dir={run}"
            options = (where, f"steps={steps}", f"checkpoint.every={every}")
            process = programs.run("train", *(() if i else words), *options, cwd=tmp_path)
            assert process.code == 0, process.err
            assert "bit-equal" not in process.err
    (_, one), (_, two) = (loaded(tmp_path / run) for run in legs)
    for name in ("agent", "replay", "collector", "sampling_generator"):
        same(one[name], two[name], name)
    episodes = [[row for row in metrics(tmp_path / run) if "train/episode_return" in row] for run in legs]
    assert episodes[0] == episodes[1] != []


def test_kills_at_random_instants_lose_nothing(programs: Programs, tmp_path: Path) -> None:
    words = ("train", *QUIET, "eval.every=70", "eval.episodes=1", "log.every=30", "checkpoint.every=40")
    words = (*words, "num_envs=2", "agent.replay_size=300")
    run, pick, kills, saved = tmp_path / "killed", random.Random(), 0, 0
    for leg in range(14):  # no machine is fast enough to complete the run meanwhile
        process = programs.start(*words, "resume=auto", "hydra.run.dir=killed", "steps=10000000", cwd=tmp_path)
        if leg % 2:  # these get on; the others are killed at any time, also before the first step
            process.until(lambda saved=saved: reached(run) > saved)
        time.sleep(pick.uniform(0.0, 0.06 if leg % 2 else 0.8))
        process.kill(signal.SIGKILL)
        kills += process.wait().code == -signal.SIGKILL
        assert reached(run) >= saved
        if saved := reached(run):
            assert loaded(run)[0] >= saved
    assert kills == 14
    end = f"steps={saved + 400}"
    assert programs.run(*words, "resume=auto", "hydra.run.dir=killed", end, cwd=tmp_path).code == 0
    assert programs.run(*words, "hydra.run.dir=whole", end, cwd=tmp_path).code == 0
    same_runs(tmp_path / "whole", run)


# ---- asked to stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    programs: Programs, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    options = (*QUIET, *OFTEN, "checkpoint.every=0", "num_envs=2", "steps=1000000", "hydra.run.dir=a run")
    process = programs.start("train", *options, cwd=tmp_path)
    process.until(lambda: logged(tmp_path / "a run") >= 300)
    process.kill(number)
    result = process.wait()
    assert result.code == code
    assert "Traceback" not in result.err
    step, words = re.findall(r"stopped at step (\d+) and saved; go on with: python train.py (.*)", result.err)[0]
    assert loaded(tmp_path / "a run")[0] == int(step) == reached(tmp_path / "a run")
    assert metrics(tmp_path / "a run")[-1]["global_step"] <= int(step)
    more = f"steps={int(step) + 400}"
    assert programs.run("train", *shlex.split(words), more, cwd=tmp_path).code == 0
    assert programs.run("train", *options[:-2], more, "hydra.run.dir=whole", cwd=tmp_path).code == 0
    same_runs(tmp_path / "whole", tmp_path / "a run")


def test_a_second_signal_stops_at_once(programs: Programs, tmp_path: Path) -> None:
    slow = ("eval.every=300", "eval.episodes=20000", "checkpoint.every=100", "log.every=100")
    process = programs.start("train", *QUIET, *slow, "hydra.run.dir=run", cwd=tmp_path)
    process.until(lambda: reached(tmp_path / "run") >= 200 and logged(tmp_path / "run") >= 300)
    process.kill(signal.SIGTERM)  # during an evaluation that lasts minutes
    process.until(lambda: "a second signal stops at once" in process.stream("err"))
    began = time.monotonic()
    process.kill(signal.SIGINT)
    assert process.wait().code == 130
    assert time.monotonic() - began < 5.0
    assert 200 <= loaded(tmp_path / "run")[0] < 300


class LooksLater(Interrupt):
    """Pretends that a signal has come after `looks` looks at it."""

    exit_code = 143  # type: ignore[assignment]

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def __bool__(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Trainer]]:
    """Builds small trainers of one run, as train.py does."""
    small = {"network": {"hidden": [8]}, "learning_starts": 64, "replay_size": 200}
    often = {"eval": {"every": 100, "video": False}, "log": {"every": 3}}
    config = parse(TrainConfig, {"num_envs": 2, "steps": 150, "agent": small, **often})
    task, device, envs = load_task("CartPole-v1", {}), torch.device("cpu"), []
    console = SimpleNamespace(update=lambda *_, **__: None, line=lambda _: None)
    tracker = SimpleNamespace(log=lambda *_: None, run_id="run", console=console)

    def build() -> Trainer:
        envs.append(make_vector(task, 2))
        agent, plan = build_agent(config, task, device)
        replay = build_replay(config, task, device, plan)
        return Trainer(config, task, envs[-1], agent, replay, tracker, tmp_path, plan)  # type: ignore[arg-type]

    yield build
    for env in envs:
        env.close()


@pytest.mark.parametrize("looks", range(6))
def test_whenever_the_signal_comes_the_last_step_is_saved(
    trainer: Callable[[], Trainer], tmp_path: Path, looks: int
) -> None:
    outcome = trainer().run(LooksLater(looks))
    assert outcome.exit_code == 143
    assert loaded(tmp_path)[0] == reached(tmp_path) == outcome.step


def test_what_is_loaded_is_what_was_saved(trainer: Callable[[], Trainer], tmp_path: Path) -> None:
    trained, fresh = trainer(), trainer()
    trained.run(LooksLater(1000))
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    step, state = load_checkpoint(checkpoint)
    fresh.load_state(step, with_evaluation(tmp_path, step, state))  # the evaluation came after the save
    assert fresh.step == trained.step >= 150
    assert fresh.evaluator.best_return > 0
    same(fresh.state(), trained.state())
    described = trained._recorder.description(trained.step)
    assert fresh._recorder.description(fresh.step) == described
    assert described["evaluation"]["global_step"] >= 100


def test_ctrl_c_and_resume_continue_the_same_wandb_run(programs: Programs, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    options = (*QUIET[1:], *OFTEN, "num_envs=2", "steps=1000000", "wandb.mode=offline", "hydra.run.dir=run")
    process = programs.start("train", *options, cwd=tmp_path, real=True, **environment)
    process.until(lambda: reached(tmp_path / "run") >= 250)
    process.kill(signal.SIGINT, group=True)  # as from a terminal: W&B's process gets it, too
    result = process.wait()
    assert result.code == 130, result.err
    assert "saved; go on with: python train.py resume=run" in result.err
    steps = f"steps={reached(tmp_path / 'run') + 300}"
    again = programs.run("train", "resume=run", steps, cwd=tmp_path, real=True, **environment)
    assert again.code == 0, again.err
    _, state = load_checkpoint(latest_checkpoint(tmp_path / "run") or tmp_path)
    folders = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert all(name.endswith(state["wandb_run_id"]) for name in folders)


# ---- a disk that is full


def test_a_full_disk_leaves_the_checkpoint_before_it(programs: Programs, tmp_path: Path) -> None:
    words = ("train", *QUIET, *OFTEN, "num_envs=1")
    assert programs.run(*words, "steps=500", "hydra.run.dir=run", cwd=tmp_path).code == 0
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    tensors = latest_checkpoint(tmp_path / "run").joinpath("tensors.safetensors")  # type: ignore[union-attr]
    limit = int(0.95 * tensors.stat().st_size)  # the sizes differ a little by the episodes under way
    result = programs.run("train", "resume=run", "steps=1000", cwd=tmp_path, file_limit=limit)
    assert result.code == 2
    (sentence,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert re.search(
        "could not save the checkpoint of step 750 .*File too large.*step_000000000500 is intact", sentence
    )
    assert loaded(tmp_path / "run")[0] == 500
    same(loaded(tmp_path / "run"), loaded(tmp_path / "copy"))
    for run in ("run", "copy"):
        assert programs.run("train", f"resume={run}", "steps=1000", cwd=tmp_path).code == 0
    same_runs(tmp_path / "run", tmp_path / "copy")


# ---- the choice of the run, and its options


@pytest.fixture(scope="module")
def done(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of three seeds, which no test changes."""
    folder = tmp_path_factory.mktemp("done")
    seeds = programs.run("train", "-m", *QUIET, *OFTEN, "num_envs=2", "steps=500", "seed=0,1,2", cwd=folder)
    assert seeds.code == 0
    return folder


@pytest.fixture
def home(done: Path, tmp_path: Path) -> Path:
    """A copy of the folder with three runs."""
    return shutil.copytree(done, tmp_path / "home")


def run_of(home: Path, seed: int) -> Path:
    (found,) = home.glob(f"runs/CartPole-v1/*_seed{seed}_*")
    return found


def refused(result: Result, lines: int = 1) -> str:
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.splitlines()[-1].startswith("error: ")
    assert result.err.count("\n") == lines
    return result.err


def test_auto_finds_the_newest_run_of_its_seed_or_begins_one(programs: Programs, home: Path) -> None:
    old, task = run_of(home, 1), home / "runs" / "CartPole-v1"
    newest = task / "2999-01-01_00-00-00_seed1"
    shutil.copytree(old, newest)
    shutil.copytree(newest, task / "2999-01-02_00-00-00_seed1")
    shutil.rmtree(task / "2999-01-02_00-00-00_seed1" / "checkpoints")  # a run without checkpoints cannot be resumed
    other = shutil.copytree(newest, task / "2999-01-03_00-00-00_seed11")
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("seed: 1", "seed: 11"))
    before = reached(old)
    said = refused(programs.run("train", "resume=auto", "seed=1", cwd=home), lines=2)
    taken = f"resume=auto: going on with {newest.relative_to(home)} from step {reached(newest)}\n"
    assert said.startswith(taken)
    assert re.search(r"error: .*_seed1 is complete at step 50\d: ask for more with steps=<more than 50\d>", said)
    result = programs.run("train", "resume=auto", "seed=1", "steps=800", cwd=home)
    assert result.code == 0, result.err
    assert result.err.startswith(taken)
    assert reached(newest) >= 800
    assert reached(old) == before
    folders = set(task.iterdir())
    result = programs.run("train", *QUIET, "resume=auto", "seed=3", "steps=200", cwd=home)
    assert result.code == 0
    assert result.err.startswith(
        "resume=auto: there is no run of CartPole-v1 and seed=3 to go on with; beginning runs/"
    )
    (new,) = set(task.iterdir()) - folders
    assert new.name.endswith("_seed3")
    assert reached(new) >= 200


def test_what_a_resumed_run_may_change(programs: Programs, home: Path) -> None:
    run = run_of(home, 0)
    words = ("train", f"resume={run.relative_to(home)}")
    for options, difference in (
        ("agent=dqn", r"agent\.[a-z.]+=.*agent\.[a-z.]+=.* was requested by agent=dqn: leave agent=dqn out"),
        (
            "noise=per_episode",
            r"change\.enabled=True, and .*change\.enabled=False was requested by noise=per_episode",
        ),
        ("agent.noise.hold=episode", r"agent\.noise\.hold=step, and agent\.noise\.hold=episode was requested"),
        ("seed=1", "seed=0, and seed=1 was requested"),
        ("num_envs=3", "num_envs=2, and num_envs=3 was requested"),
        ("env=Acrobot-v1", r"env\.id=CartPole-v1, and env\.id=Acrobot-v1 was requested by env=Acrobot-v1"),
        ("agent.network.hidden=[16,16]", r"agent\.network\.hidden=\[16\], and agent\.network\.hidden=\[16, 16\]"),
        ("steps=100", "at step 50. already, and steps=100 was requested"),
        ("hydra.run.dir=elsewhere", "does not go with hydra.run.dir=elsewhere"),
        ("agent.lr=-1", r"agent\.lr is -1"),
        ("task=atari", r"was requested by task=atari: leave task=atari out"),
    ):
        assert re.search(difference, refused(programs.run(*words, *options.split(), cwd=home)))
    same(loaded(run), loaded(run_of(home, 0)))
    assert not (home / "elsewhere").exists()
    assert "is complete at step 50" in refused(programs.run(*words, cwd=home))
    options = (
        "steps=900",
        "eval={every:100}",
        "agent.lr=0.001",
        "checkpoint.keep=5",
        "log.every=50",
        "env=CartPole-v1",
    )
    result = programs.run(*words, *options, cwd=home)
    assert result.code == 0, result.err
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert (written["steps"], written["eval"]["every"], written["eval"]["episodes"]) == (900, 100, 2)
    evaluated = [row["global_step"] for row in metrics(run) if "eval/return_mean" in row]
    assert [step // 100 for step in evaluated] == [3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("first", ["false", "true"])
def test_a_run_that_goes_on_with_another_vector_class_says_so(first: str, programs: Programs, tmp_path: Path) -> None:
    """With eval.share the copies of CartPole play one after the other; otherwise its vector class plays them."""
    words = ("env=CartPole-v1", *QUIET, "num_envs=8", "eval.episodes=1", "eval.every=0", f"eval.share={first}")
    begun = programs.run("train", *words, "steps=200", "hydra.run.dir=run", cwd=tmp_path)
    assert begun.code == 0, begun
    assert "begins new episodes" not in begun.err
    other = "true" if first == "false" else "false"
    resumed = programs.run("train", "resume=run", "steps=300", f"eval.share={other}", cwd=tmp_path)
    assert resumed.code == 0, resumed
    assert "begins new episodes in 8 of 8 copies (another vector class has played them: eval.share" in resumed.err


def test_agents_whose_checkpoints_are_gone_are_kept(programs: Programs, home: Path) -> None:
    run = run_of(home, 0)
    shutil.rmtree(run / "checkpoints")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = (*QUIET, "resume=auto", f"hydra.run.dir={run.relative_to(home)}", "steps=100")
    assert "agents of a run without its checkpoints" in refused(programs.run("train", *words, cwd=home))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    shutil.rmtree(run / "last")  # a job that was stopped before its first checkpoint begins again
    assert programs.run("train", *words, cwd=home).code == 0
    assert reached(run) >= 100


CHANGES = """
import os
import gymnasium as gym
import numpy as np


class Game(gym.Env):
    def __init__(self):
        self.observation_space = gym.spaces.Box(-1, 1, (int(os.environ.get("INPUTS", 3)),), np.float32)
        self.action_space = gym.spaces.Discrete(int(os.environ.get("ACTIONS", 2)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        return self.observation_space.sample() * 0, 0.0, False, False, {}


gym.register("Game-v0", entry_point=Game, max_episode_steps=20)
"""


def content(folder: Path) -> dict[Path, bytes]:
    """The bytes of all files of a folder, without logs and locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock"))
    return {path: path.read_bytes() for path in files}


def test_an_environment_that_has_changed_is_named(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "changes.py").write_text(CHANGES)
    words = (*QUIET, "env=changes:Game-v0", "num_envs=2", "eval.episodes=1")
    assert programs.run("train", *words, "steps=200", "hydra.run.dir=run", cwd=tmp_path).code == 0
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"global_step": 250}\n')  # a later step than the checkpoint: only a run that goes on drops it
    before = content(tmp_path / "run")
    for changed in ({"INPUTS": "4"}, {"ACTIONS": "3"}):
        result = programs.run("train", *words, "resume=run", "steps=300", "agent.lr=0.5", cwd=tmp_path, **changed)
        assert result.code == 2
        assert content(tmp_path / "run") == before
        assert re.search("error: run cannot be resumed: what it saved does not fit Game-v0", result.err)
        assert "Traceback" not in result.err


def test_a_strangers_run_imports_nothing(programs: Programs, home: Path) -> None:
    """The checkpoint of the run names a module, as `env=module:Id` does on the command line."""
    (home / "harm.py").write_text("open('harmed', 'w').close()\n")
    run = run_of(home, 0)
    step, state = loaded(run)
    state["seconds"], state["config"]["env"]["id"] = 1.0, "harm:CartPole-v1"
    shutil.rmtree(run / "checkpoints")
    save_checkpoint(run, step, state, 1)
    sentence = refused(programs.run("train", f"resume={run.relative_to(home)}", "steps=900", cwd=home))
    assert "harm:CartPole-v1" in sentence
    assert not (home / "harmed").exists()


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_named(programs: Programs, home: Path) -> None:
    run = run_of(home, 2)
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    content = bytearray((checkpoint / "tensors.safetensors").read_bytes())
    content[-100] ^= 1
    (checkpoint / "tensors.safetensors").write_bytes(content)
    words = ("train", f"resume={run.relative_to(home)}", "steps=800")
    before = metrics(run)
    sentence = refused(programs.run(*words, cwd=home))
    assert re.search(r"is not a whole checkpoint .*To go on from (step_\d+) instead, delete (.*)\.", sentence)
    assert metrics(run) == before
    shutil.rmtree(home / re.findall(r"delete (.*)\.$", sentence)[0])
    assert programs.run(*words, cwd=home).code == 0
    rows = [row["global_step"] for row in metrics(run)]
    assert rows == sorted(rows)


def test_a_checkpoint_that_is_cut_short_is_named(programs: Programs, home: Path) -> None:
    """Either only the newest checkpoint is damaged, or all of them are."""
    run = run_of(home, 2)
    steps = sorted((run / "checkpoints").glob("step_*"))
    assert len(steps) == 2
    words = ("train", f"resume={run.relative_to(home)}", "steps=800")
    (steps[1] / "state.json").write_text("{")
    result = programs.run(*words, cwd=home)
    assert result.code == 0
    assert f"{steps[1].name} is not a whole checkpoint: going on from {steps[0].name}" in result.err
    for path in (run / "checkpoints").glob("step_*"):
        (path / "tensors.safetensors").write_bytes(b"")
    sentence = refused(programs.run(*words, cwd=home))
    assert re.search(r"cannot be resumed: step_\d+, step_\d+ in it is not a whole checkpoint", sentence)


# ---- the parts


def test_the_first_difference_is_named() -> None:
    env = {"id": "A", "kwargs": {}, "action_mask": "off"}
    paper = {"learning": "joint", "change": {"enabled": False}}
    saved = {"agent": {"lr": 0.1, "noise": {"sigma0": 0.5, **paper}}, "env": env, "steps": 5}
    asked_agent = {"lr": 0.1, "noise": {"sigma0": 0.4, **paper}}
    asked = {"agent": asked_agent, "env": env | {"kwargs": {"x": 1}}, "steps": 7}
    assert first_difference(saved, saved, "config") is None
    assert first_difference(saved["agent"], asked["agent"], "agent") == ("agent.noise.sigma0", 0.5, 0.4)
    assert first_difference(saved["env"], asked["env"], "env") == ("env.kwargs.x", None, 1)
    assert merge_resumed(saved, asked, []) == saved
    assert merge_resumed(saved, asked, ["steps=7", "env=A"]) == saved | {"steps": 7}
    without = {name: value for name, value in asked.items() if name != "steps"}  # the option ~steps has this effect
    assert merge_resumed(saved, without, ["~steps", "~agent.lr=1"]) == saved
    for overrides in (["agent.noise.sigma0=0.4"], ["agent=other"], ["+env.kwargs.x=1"], ["++agent.noise={}"]):
        with pytest.raises(UserError, match="was requested"):
            merge_resumed(saved, asked, overrides)
    assert saved["steps"] == 5


@pytest.mark.parametrize("parent", ["link", "file"])
def test_a_folder_below_one_that_cannot_be_is_not_sought_for_ever(tmp_path: Path, parent: str) -> None:
    if parent == "link":
        (tmp_path / "runs").symlink_to(tmp_path / "not mounted")
    else:
        (tmp_path / "runs").touch()
    folder = run_folder.new_folder(tmp_path / "runs" / "CartPole-v1" / "a")
    assert folder.name == "a"
    assert not folder.exists()


@pytest.mark.parametrize("place", ["a", "CartPole-v1/a", "multirun/sweep/a"])
def test_a_run_does_not_begin_in_the_folder_of_other_runs(tmp_path: Path, place: str) -> None:
    """compare.py would take that folder for one run, and would not find the runs in it."""
    run = tmp_path / "runs" / place
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    run_folder.open_run(tmp_path / "runs", None)  # a config.yaml alone may belong to something else
    (run / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=f"runs holds other runs, such as .*{place}, and would hide them"):
        run_folder.open_run(tmp_path / "runs", None)


@pytest.mark.parametrize("inner", ["best", "checkpoints/step_000000000700", "last/mine"])
def test_a_run_does_not_begin_in_another_run(tmp_path: Path, inner: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=r"lies in the run .*run: choose another hydra.run.dir"):
        run_folder.open_run(tmp_path / "run" / inner, None)
    with pytest.raises(UserError, match=r"lies in the run .*run: write resume=.*run$"):
        run_folder.open_run(tmp_path / "run" / inner, str(tmp_path / "run" / inner))


def test_no_run_begins_below_another_but_one_that_is_there_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """compare.py takes a run's folder for one run, and does not look into it."""
    outer = write_run(tmp_path / "run")
    inner = outer / "more" / "mine"
    with pytest.raises(UserError, match=r"more/mine lies in the run .*run: choose another hydra.run.dir"):
        run_folder.open_run(inner, None)
    with pytest.raises(UserError, match=r"more/mine lies in the run .*run: choose another hydra.run.dir"):
        run_folder.open_run(inner, "auto")
    with pytest.raises(UserError, match=r"more/mine lies in the run .*run: write resume=.*run$"):
        run_folder.open_run(inner, str(inner))
    run_folder.open_run(outer / ".." / "other", None)
    (inner / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(run_folder, "latest_checkpoint", lambda folder: folder / "checkpoints" / "step_1")
    monkeypatch.setattr(run_folder, "_load", lambda path: path)
    assert run_folder.open_run(inner, str(inner)) == inner / "checkpoints" / "step_1"
    with pytest.raises(UserError, match=r"best/mine lies in the run .*run: write resume=.*run$"):
        run_folder.open_run(outer / "best" / "mine", str(outer / "best" / "mine"))


def test_new_folders_never_collide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5)
    monkeypatch.setattr(run_folder, "datetime", SimpleNamespace(now=lambda: now))  # all folders are made in one second
    monkeypatch.chdir(tmp_path)
    names = [run_folder.run_folder(None, "CartPole-v1", 3) for _ in range(5)]
    assert len(set(names)) == 5
    assert all(Path(name).is_dir() and Path(name).name.startswith("2026-01-02_03-04-05_seed3") for name in names)
    assert run_folder.run_folder("some/where", "CartPole-v1", 3) == "some/where"


def test_what_a_container_leaves_of_the_memory(tmp_path: Path) -> None:
    assert bytes_left_in_group(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert bytes_left_in_group(tmp_path) == 1000 - 700 + 150
    (tmp_path / "memory.max").write_text("max\n")
    assert bytes_left_in_group(tmp_path) == float("inf")
