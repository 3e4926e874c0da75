"""The two programs as a person uses them: their files and output, and one clear sentence for every error."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
import yaml
from helpers import ROOT, Process, Programs, Result, plain_environment
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from agent.common.quoting import quote_override
from agent.config.run import EvaluateConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint
from agent.records.comparison.finding import runs_at
from agent.records.saved_agent import read_agent
from agent.running.player import load_player
from agent.running.results import film

QUIET = ("wandb.mode=disabled", "eval.video=false")
SMALL = (
    *QUIET,
    "agent.network.hidden=[16]",
    "agent.learning_starts=64",
    "agent.batch_size=64",
    "eval.episodes=3",
    "num_envs=2",
)


@pytest.fixture(scope="module")
def home(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs: noisy, and plain with ε-greedy."""
    folder = tmp_path_factory.mktemp("home")
    options = (*SMALL, "steps=300", "log.every=100", "eval.every=100", "checkpoint.every=100")
    runs = [
        programs.start("train", *options, f"agent={agent}", f"hydra.run.dir={where}", cwd=folder)
        for agent, where in (("dqn", "plain"), ("noisy_dqn", "runs/CartPole-v1/noisy"))
    ]
    for run in runs:
        assert run.wait().code == 0
    return folder


NOISY = "runs/CartPole-v1/noisy"


def one_sentence(result: Result) -> str:
    """The sentence of a program that refuses: its output is one line on stderr and nothing else."""
    assert result.code == 2, result
    assert result.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    assert "Traceback" not in result.err
    return result.err.removeprefix("error: ").rstrip("\n")


# ---- one clear sentence for bad input, and nothing left behind

BAD_TRAINING = {
    "an environment spelt wrong": ("env=CartPol-v1", "'CartPol-v1'.*nearest.*CartPole-v1"),
    "an environment of another version": ("env=Acrobot-v7", "'Acrobot-v7'.*nearest.*Acrobot-v1"),
    "an environment's module that is not there": ("env=nowhere_at_all:Foo-v0", "nowhere_at_all"),
    "a module that is not there": ("imports=nowhere_at_all", "imports=nowhere_at_all: there is no such module"),
    "a module that is no name": ("imports=os:system", "'os:system' is not the name of a module"),
    "modules that are numbers": ("imports=[1]", r"imports is \[1\]: it must be the name of a module"),
    "a module without such an environment": ("env=json:Foo-v0", "there is no environment 'Foo-v0'"),
    "an environment without a name": ("env=", "env"),
    "continuous actions": ("env=Pendulum-v1", r"Pendulum-v1.*Box\(-2.0, 2.0, \(1,\), float32\).*Discrete"),
    "an encoder that nobody registered": ("agent.network.encoder=mine", r"'mine'.*auto, mlp, minatar.*imports="),
    "an encoder of images for vectors": (
        "agent.network.encoder=impala",
        r"agent\.network\.encoder=impala takes images.*vectors \[4\] of float32",
    ),
    "an argument that the environment does not know": ("+env.kwargs.wings=2", "CartPole-v1.*wings"),
    "an argument that no saved agent may have": (
        "+env.kwargs.max_episode_steps=9",
        "max_episode_steps.*the environment itself, not of gymnasium.make",
    ),
    "an unknown option": ("stepz=5", "unknown option stepz.*steps"),
    "an option spelt almost right": ("resum=x", "unknown option resum; did you mean resume"),
    "an option of the algorithm without its node": ("lr=0.1", r"unknown option lr; did you mean agent\.lr\?"),
    "the same, one level down": ("noise.sigma0=0.1", r"noise\.sigma0; did you mean agent\.noise\.sigma0\?"),
    "an unknown option of a node": ("agent.gama=1", r"unknown option agent\.gama.*agent\.gamma"),
    "an unknown option that is added": ("+agent.gama=1", r"unknown option agent\.gama.*gamma"),
    "an id by its option": ("env.id=Acrobot-v1", "write env=<id>"),
    "no preset": ("~env", "env takes one name, and cannot be left out: write env=<name>"),
    "no id": ("env=", "env= names no environment: write env=<id>"),
    "a name of another library's, one level down": ("agent.buffer_size=9", r"did you mean agent\.replay_size\?"),
    "a value with a mark of Hydra's": (
        "hydra.run.dir=~/run",
        r"cannot read hydra\.run\.dir=~/run: options are written name=value.*: hydra\.run\.dir=\$HOME/run$",
    ),
    "the same in quotes": ("hydra.run.dir='~/run'", r"hydra\.run\.dir is ~/run: write \$HOME in place of ~"),
    "the same for a sweep": (
        "-m seed=0,1 hydra.sweep.dir='~/run'",
        r"hydra\.sweep\.dir is ~/run: write \$HOME in place",
    ),
    "no folder for a sweep": ("-m seed=0,1 hydra.sweep.dir=", r"hydra\.sweep\.dir names no folder"),
    "a number for a run folder": ("hydra.run.dir=1e5", r"hydra\.run\.dir=1e5 reads as .* 'hydra\.run\.dir=\"1e5\"'$"),
    "a number that begins with 0": ("hydra.run.dir=007", r"hydra\.run\.dir=007 reads as another value"),
    "a truth value for a run folder": ("hydra.run.dir=True", r"hydra\.run\.dir=True reads as another value"),
    "a word for a number that has one": ("eval.stop_at=solvd", "it must be a number, or one of solved$"),
    "a number for two": ("agent.target_range=5", r"agent\.target_range is 5: it must be a list, such as \[-10,10\]"),
    "two runs to resume": ("resume=a resume=b", "resume is given twice, .*: name it once"),
    "arguments in braces": ("env.kwargs={wings:2}", r"no preset has env\.kwargs\.wings: write \+env\.kwargs\.wings="),
    "an unknown option in braces": ("wandb={mod:x}", r"unknown option wandb\.mod; did you mean wandb\.mode"),
    "a name below a list": ("wandb.tags.x=3", r"no item called 'x': write the whole list, such as"),
    "a name of another library's": ("learning_rate=1e-3", r"unknown option learning_rate; did you mean agent\.lr\?"),
    "a number for a list of words": ("wandb.tags=[1]", r"""on a command line write '\["1"\]', in both kinds of"""),
    "a word for a list of words": ("wandb.tags=a", r"wandb\.tags is 'a': it must be a list, such as \[a,b\]"),
    "no run to resume": ("resume=", "resume= names no run"),
    "the folder of the program": ("hydra.run.dir=", r"hydra\.run\.dir is the folder that this was started in"),
    "a file for a folder": ("hydra.run.dir=/dev/full", "/dev/full: it is not a folder"),
    "a batch that the replay does not hold": (
        "agent.replay_size=50 agent.batch_size=64",
        r"agent\.batch_size is 64: it must be at most agent\.replay_size \(50\)",
    ),
    "an option below a number": ("agent.lr.x=1", r"unknown option agent\.lr\.x.*agent\.lr"),
    "an unknown preset": ("agent=muzero", "muzero.*dqn.*noisy_dqn"),
    "an unknown preset of tasks": ("preset=nope", "there is no preset=nope: it must be one of none, task"),
    "no agent": ("~agent", "agent takes one name, and cannot be left out: write agent=<name>"),
    "two presets at once": ("preset=[task]", "preset takes one name, and cannot be left out"),
    "a number for a preset": ("agent=1", "agent.*name"),
    "a name without a value": ("seed", "cannot read seed: .*name=value"),
    "an unfinished list": ("agent.network.hidden=[1,2", r"\[1,2.*name=value"),
    "steps out of range": ("steps=0", "steps is 0: it must be at least 1"),
    "no environments": ("num_envs=0", "num_envs is 0: it must be at least 1"),
    "a negative seed": ("seed=-1", "seed is -1: it must be at least 0"),
    "a negative learning rate": ("agent.lr=-0.1", r"agent\.lr is -0\.1: it must be greater than 0"),
    "a discount above 1": ("agent.gamma=1.01", r"agent\.gamma is 1\.01: it must be between 0 and 1"),
    "a tau of 0": ("agent.tau=0", r"agent\.tau is 0: it must be greater than 0 and at most 1"),
    "n of 0": ("agent.n_step=0", r"agent\.n_step is 0: it must be at least 1"),
    "a width of 0": ("agent.network.hidden=[16,0]", r"agent\.network\.hidden is .*: it must be (at least|between) 1"),
    "a width that fits nowhere": ("agent.network.hidden=[1000000000]", r"agent\.network\.hidden is .*: it must be"),
    "no widths": ("agent.network.hidden=[]", r"agent\.network\.hidden is empty"),
    "a negative sigma": ("agent.noise.sigma0=-1", r"agent\.noise\.sigma0 is -1: it must be at least 0"),
    "a negative period": ("eval.every=-1", r"eval\.every is -1: it must be at least 0"),
    "fewer than no episodes": ("eval.episodes=-1", r"eval\.episodes is -1: it must be at least 0"),
    "nothing to keep": ("checkpoint.keep=0", r"checkpoint\.keep is 0: it must be at least 1"),
    "infinity": ("agent.lr=inf", r"agent\.lr is inf: it must be a finite number"),
    "half a step": ("steps=10.5", r"steps is 10\.5: it must be a whole number"),
    "a word for a number": ("agent.lr=fast", r"agent\.lr is 'fast': it must be a number"),
    "a number for a switch": ("agent.double=2", r"agent\.double is 2: it must be true or false"),
    "nothing for a number": ("seed=null", "seed is None: it must be a whole number"),
    "a word for a fraction": ("agent.replay_ratio=1/0", r"agent\.replay_ratio is '1/0'.*fraction"),
    "a word that is none of the choices": ("agent.loss=l1", r"agent\.loss is 'l1': it must be one of huber, squared"),
    "a value for a node": ("eval=5", r"eval is 5.*eval\.every"),
    "a batch that the first steps do not fill": ("agent.learning_starts=5", r"agent\.learning_starts.*batch_size"),
    "draws that do not divide the batch": ("agent.noise.draws=7", r"agent\.noise\.draws is 7.*divide.*batch_size"),
    "a vector class that there is not": (
        "env=Acrobot-v1 env.vectorization=native",
        "Acrobot-v1.*env.vectorization=sync",
    ),
    "a device that does not exist": ("device=gpu", "device is 'gpu'.*auto, cpu, cuda, mps"),
    "half a device": ("device=cuda:", "device is 'cuda:'.*auto, cpu, cuda, mps"),
    "a CUDA device that is not there": ("device=cuda:99", "device=cuda:99 is not there.*device=auto"),
    "a replay that does not fit": (
        "agent.replay_size=1000000000000",
        r"GiB \(\d{13,} bytes\) on cpu and .* GiB \(\d+ bytes\) are free: use agent\.replay_size=\d+ \(\d+\.\d+ GiB\)$",
    ),
    "a list of runs to resume": ("resume=[a]", "resume takes one run folder"),
    "options for a run to resume": ("resume={a:1}", "resume takes one run folder"),
    "nothing for a run folder": ("hydra.run.dir=null", r"hydra\.run\.dir takes a folder, such as hydra\.run\.dir="),
    "a list for a run folder": ("hydra.run.dir=[a]", r"hydra\.run\.dir takes a folder"),
    "options for a sweep's folder": ("hydra.sweep.dir={a:1} -m seed=0,1", r"hydra\.sweep\.dir takes a folder"),
    "a threshold that is not known": ("env=CliffWalking-v1 eval.stop_at=solved", "Gymnasium does not say at which"),
    "a run to resume that is not there": ("resume=nowhere", "resume=nowhere: there is no such run"),
    "a run folder that cannot be made": ("hydra.run.dir=/dev/null/run", "/dev/null/run.*Not a directory"),
    "a run folder in a place for nobody": ("hydra.run.dir=/proc/run", "/proc/run.*No such file"),
    "no equals sign at all": ("+", "name=value"),
}


@pytest.mark.parametrize(("options", "pattern"), BAD_TRAINING.values(), ids=BAD_TRAINING.keys())
def test_bad_training_options(programs: Programs, tmp_path: Path, options: str, pattern: str) -> None:
    sentence = one_sentence(programs.run("train", *QUIET, *options.split(), cwd=tmp_path))
    assert re.search(pattern, sentence), sentence
    assert not [path for path in tmp_path.rglob("*") if path.name != "runs"], "it left something behind"


def test_what_is_probably_not_meant_is_told_and_done(programs: Programs, tmp_path: Path) -> None:
    words = ("steps=300", "agent.lr_updates=10", "eval.video_every=7")
    result = programs.run("train", *SMALL, *words, cwd=tmp_path)
    assert result.code == 0
    assert "eval.video_every=7 does nothing: eval.video is false" in result.err
    assert re.search(r"agent\.lr is at agent\.lr_end=\S+ from update 10 of \d+ on: agent\.lr_updates=", result.err)


def test_a_place_where_no_run_can_be_written(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    assert re.search("runs/CartPole-v1.*Not a directory", one_sentence(programs.run("train", *QUIET, cwd=tmp_path)))
    assert contents(tmp_path) == {"runs": b"a file"}


def test_the_same_from_a_new_interpreter(programs: Programs, tmp_path: Path) -> None:
    bad = [
        ("train", "env=CartPol-v1"),
        ("train", "agent=muzero"),
        ("evaluate", "checkpoint=x"),
        ("evaluate", "seed=a"),
    ]
    started = [(programs.start(*words, cwd=tmp_path, real=True), programs.run(*words, cwd=tmp_path)) for words in bad]
    for real, copy in started:
        assert one_sentence(real.wait()) == one_sentence(copy)


def test_an_account_that_is_not_there_can_be_mended(programs: Programs, tmp_path: Path) -> None:
    words = ("train", *SMALL, "steps=100", "hydra.run.dir=run")
    result = programs.run(*words, "wandb.mode=online", cwd=tmp_path, HOME=str(tmp_path))
    assert result.code == 2
    assert re.fullmatch("error: wandb.mode=online: .*wandb login.*", result.err.splitlines()[-1])
    assert programs.run(*words, cwd=tmp_path).code == 0  # the refused run has left the folder free


def test_a_new_run_does_not_write_into_an_old_one(programs: Programs, home: Path) -> None:
    before = contents(home / "plain")
    sentence = one_sentence(programs.run("train", *SMALL, "hydra.run.dir=plain", cwd=home))
    assert "plain holds a run already: go on with resume=plain" in sentence
    assert contents(home / "plain") == before


def test_a_new_run_does_not_write_into_what_is_not_its_own(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.jsonl").write_text('{"loss": 2}\n')
    for options in ((), ("resume=auto",)):
        sentence = one_sentence(programs.run("train", *SMALL, *options, "hydra.run.dir=other", cwd=tmp_path))
        assert "other holds metrics.jsonl, which a new run would replace" in sentence
    assert contents(tmp_path / "other") == {"metrics.jsonl": b'{"loss": 2}\n'}


def test_whoever_reads_what_it_prints_may_go(tmp_path: Path) -> None:
    """The reader may leave, as in `2>&1 | head -1`: the run goes on and is complete."""
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "steps=300", "eval.every=20", "hydra.run.dir=run"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env=plain_environment())
    assert run.stderr
    run.stderr.readline()
    run.stderr.close()
    assert run.wait(90) == 0
    assert (tmp_path / "run" / "last" / "agent.safetensors").exists()
    assert (tmp_path / "run" / "learning_curve.png").exists()


def test_a_path_that_is_shown_is_read_as_it_was() -> None:
    for path in (
        "runs/CartPole-v1/x_seed0",
        "a=b",
        "it's",
        "x,y",
        "a b",
        "ünder",
        "back\\slash\\",
        "\\'",
        "",
        "{}",
        "[1]",
        *("7", "2026", "1e5", "-3", "1_000", "0.5", ".5", "nan", "inf", "-Inf", "true", "False", "null"),
        *("2026-12-01", "2026/x", "1e5/x", "none", "truer"),
    ):
        value = OverridesParser.create().parse_override(quote_override("checkpoint", path)).value()
        assert (value, type(value)) == (path, str)


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_ctrl_c_while_it_imports_shows_no_traceback(program: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / f"{program}.py")]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=plain_environment())
    assert run.stderr
    next(line for line in run.stderr if "hydra" in line or "numpy" in line)
    run.send_signal(signal.SIGINT)
    assert "Traceback" not in run.stderr.read()
    assert run.wait(90) == 130


@pytest.mark.parametrize("program", ["train", "evaluate", "compare", "share", "tune"])
def test_a_deleted_current_folder_is_one_sentence(program: str, tmp_path: Path) -> None:
    """There, libraries of torch would end the process with words of their own, and with the exit code 0 or a signal."""
    here = tmp_path / "here"
    here.mkdir()
    words = ["/bin/sh", "-c", 'rmdir "$0" && exec "$@"', str(here), sys.executable, str(ROOT / f"{program}.py")]
    result = subprocess.run(words, cwd=here, capture_output=True, text=True, env=plain_environment())
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr == "error: the current folder has been deleted: go to another one, by cd for example\n"


def test_ctrl_c_is_handled_before_anything_is_imported_that_takes_long() -> None:
    """`signal` takes a quarter of the time from the start of Python to the handler, since it makes enumerations."""
    code = (
        "from agent.common.beginning import at_once, begin; begin(); import sys, _signal; "
        "assert _signal.getsignal(_signal.SIGINT) is at_once; "
        "print(*sorted({'signal', 'enum', 're', 'typing', 'types', 'functools'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result


def test_two_processes_do_not_share_a_folder(programs: Programs, tmp_path: Path) -> None:
    first = programs.start("train", *SMALL, "steps=1000000", "hydra.run.dir=run", cwd=tmp_path)
    first.until((tmp_path / "run" / "metrics.jsonl").exists)
    for words in ("hydra.run.dir=run", "resume=run", "resume=auto hydra.run.dir=run"):
        assert "another process trains in run" in one_sentence(
            programs.run("train", *SMALL, *words.split(), cwd=tmp_path)
        )
    first.kill(signal.SIGKILL)
    first.wait()
    # Nothing was saved: only resume=auto takes the folder, since it begins a run if there is none to resume.
    assert "run without a checkpoint" in one_sentence(programs.run("train", "hydra.run.dir=run", cwd=tmp_path))
    assert "no checkpoint in it" in one_sentence(programs.run("train", "resume=run", cwd=tmp_path))
    again = programs.run("train", *SMALL, "steps=100", "resume=auto", "hydra.run.dir=run", cwd=tmp_path)
    assert again.code == 0


def test_runs_that_start_in_the_same_second_get_their_own_folders(programs: Programs, tmp_path: Path) -> None:
    runs = [programs.start("train", *SMALL, "steps=100", f"agent.lr={lr}", cwd=tmp_path) for lr in (0.1, 0.01, 0.001)]
    assert [run.wait().code for run in runs] == [0, 0, 0]
    configs = [path.read_text() for path in tmp_path.glob("runs/CartPole-v1/*/config.yaml")]
    assert sorted(re.findall(r"^  lr: (.*)$", "\n".join(configs), re.MULTILINE)) == ["0.001", "0.01", "0.1"]


@pytest.mark.parametrize(
    "options",
    [("log.every=50", "checkpoint.every=50"), ("log.every=100000", "checkpoint.every=60", "eval.every=100")],
    ids=["seen in the loss", "seen in the parameters"],
)
def test_what_is_not_finite_stops_training(programs: Programs, tmp_path: Path, options: tuple[str, ...]) -> None:
    words = ("train", *SMALL, "agent.lr=1e30", "steps=3000", "hydra.run.dir=run")
    result = programs.run(*words, *options, cwd=tmp_path)
    assert result.code == 2
    sentence = result.err.splitlines()[-1]
    good = latest_checkpoint(tmp_path / "run")
    assert good is not None
    assert re.match(r"error: training stopped at step \d+ because .*(is nan|is inf|not finite)", sentence), sentence
    assert f"the last good checkpoint is {good.relative_to(tmp_path)}" in sentence
    assert "agent.lr" in sentence
    step, state = load_checkpoint(good)
    assert step < int(re.findall(r"at step (\d+)", sentence)[0])
    assert torch.isfinite(state["agent"]["parameters"]).all()
    for line in (tmp_path / "run" / "metrics.jsonl").open():
        json.loads(line, parse_constant=pytest.fail)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the files and output of a run


def test_a_run_leaves_what_it_says(programs: Programs, home: Path) -> None:
    folder = home / NOISY
    found = set(contents(folder))
    agents = {f"{which}/agent.safetensors" for which in ("best", "last")}
    steps = sorted(path.name for path in folder.glob("checkpoints/step_*"))
    assert [int(name.removeprefix("step_")) // 100 for name in steps] == [2, 3]  # the newest two
    saved = {
        f"checkpoints/{step}/{name}"
        for step in steps
        for name in ("state.json", "tensors.safetensors", "evaluation.json")
    }
    assert found == {"config.yaml", "metrics.jsonl", "learning_curve.png", "checkpoints/latest", *agents, *saved}
    Image.open(folder / "learning_curve.png").verify()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    names = set().union(*rows)
    assert {
        *("global_step", "train/episode_return", "train/episode_length", "eval/return_mean", "eval_noisy/return_mean"),
        *("train/loss", "q/mean", "q/max", "train/grad_norm", "noise/action_change", "replay/size"),
        *("speed/env_steps_per_second", "speed/updates_per_second", "sigma/head.advantage.output"),
    } <= names
    assert [row["global_step"] // 100 for row in rows if "eval/return_mean" in row] == [1, 2, 3]


def test_training_says_what_to_do_next(programs: Programs, tmp_path: Path) -> None:
    options = (*SMALL, "steps=400", "eval.every=100", "hydra.run.dir=my run")
    result = programs.run("train", *options, cwd=tmp_path)
    assert result.code == 0
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0] == "CartPole-v1 · cpu · my run"
    assert re.fullmatch(r"network: MLPEncoder and ExpectedHead, [\d,]+ parameters", lines[1])
    assert "NoisyLinear" not in result.err  # log.network=true shows the modules
    assert "\r" not in result.err  # not a terminal: lines, no bar
    assert "\x1b" not in result.err
    assert len([line for line in lines if re.match(r" *\d+% [\d,]+/400 steps .*eval \d", line)]) >= 4
    for file in ("best", "last", "learning_curve.png"):
        assert any(f"my run/{file}" in line for line in lines)
    command = next(line for line in lines if line.startswith("evaluate:")).partition("python evaluate.py ")[2]
    played = programs.run("evaluate", *shlex.split(command), "episodes=2", cwd=tmp_path)
    assert played.code == 0, played.err


def test_help_shows_examples_that_work(programs: Programs, tmp_path: Path) -> None:
    for program, wanted in (
        ("train", "env agent seed steps num_envs device every: episodes resume mode:"),
        ("evaluate", "checkpoint which episodes seed noise video render"),
    ):
        shown = programs.run(program, "--help", cwd=tmp_path).out
        assert all(name in shown for name in wanted.split())
        examples = [line.split("  ")[0] for line in shown.splitlines() if line.startswith("python ")]
        assert len(examples) >= 5
        for example in examples:
            name, *words = shlex.split(example.removeprefix("python "))
            # --cfg job composes the config and shows it, without a run; a placeholder stands for a folder.
            if "-m" in words:
                continue  # another test covers sweeps
            words = [word.replace("<run>", "a") for word in words]
            shown = programs.run(name.removesuffix(".py"), *words, "--cfg", "job", cwd=tmp_path)
            assert shown.code == 0, (example, shown.err)


def test_help_names_what_can_be_chosen(programs: Programs, tmp_path: Path) -> None:
    shown = programs.run("train", "--help", cwd=tmp_path).out
    lines = [line.partition(": ")[::2] for line in shown.partition("Choices")[2].partition("\n\n")[0].splitlines()[1:]]
    assert [name for name, _ in lines] == ["agent", "noise", "collect", "env", "preset"]  # no other program's
    for name, names in lines:
        files = {path.stem for path in (ROOT / "conf" / name).glob("*.yaml")}
        assert name == "env" or set(names.split(", ")) == files
    tasks = shown.partition("settings of their own:\n")[2].partition("\n")[0].split(", ")
    assert {"CartPole-v1", "MinAtar/Breakout-v1"} < set(tasks)
    assert len(tasks) == len(list((ROOT / "conf/preset/task").rglob("*.yaml")))


def test_multirun_makes_a_folder_for_each_job(programs: Programs, tmp_path: Path) -> None:
    options = ("-m", *SMALL, "steps=100")
    tasks = programs.start("train", *options, "env=CartPole-v1,Acrobot-v1", "seed=0,1", cwd=tmp_path)
    rates = programs.start("train", *options, "env=MountainCar-v0", "agent.lr=0.1,0.01", cwd=tmp_path)
    assert tasks.wait().code == rates.wait().code == 0
    runs = [path.parent.parent for path in tmp_path.glob("runs/*/*/last/agent.safetensors")]
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert sorted((config["env"]["id"], config["seed"], config["agent"]["lr"]) for config in configs) == [
        *(("Acrobot-v1", 0, 0.0006), ("Acrobot-v1", 1, 0.0006), ("CartPole-v1", 0, 0.001), ("CartPole-v1", 1, 0.001)),
        *(("MountainCar-v0", 0, 0.01), ("MountainCar-v0", 0, 0.1)),
    ]
    assert all(run.parent.name == config["env"]["id"] for run, config in zip(runs, configs, strict=True))
    assert all(re.fullmatch(r"[-_0-9]+_seed\d_noisy_dqn_job\d", run.name) for run in runs)
    head = (runs[0] / "config.yaml").read_text().splitlines()[0]
    assert head.startswith("# python train.py ")
    assert f"seed={configs[0]['seed']}" in head or f"agent.lr={configs[0]['agent']['lr']}" in head
    sentence = one_sentence(programs.run("train", "-m", "seed=0,1", "resume=auto", cwd=tmp_path))
    assert "resume" in sentence
    assert "-m" in sentence


def test_sweeps_that_start_in_the_same_second_get_their_own_folders(programs: Programs, tmp_path: Path) -> None:
    now = datetime.now()
    times = [f"{now + timedelta(seconds=i):%Y-%m-%d_%H-%M-%S}" for i in range(60)]
    for time in times:  # whenever this sweep begins, another one has begun in that second
        (tmp_path / "runs" / "multirun" / time).mkdir(parents=True)
        other = tmp_path / "runs" / "CartPole-v1" / f"{time}_seed0_noisy_dqn_job0"
        other.mkdir(parents=True)
        (other / "config.yaml").write_text("seed: 0\n")
    result = programs.run("train", "-m", *SMALL, "steps=100", "seed=0,1", cwd=tmp_path)
    assert result.code == 0, result.err
    (sweep,) = tmp_path.glob("runs/multirun/*_2")
    assert [path.name for path in sweep.iterdir()] == ["multirun.yaml"]
    runs = sorted(path.name for path in tmp_path.glob("runs/CartPole-v1/*_2_*"))
    assert runs == [f"{sweep.name}_seed{seed}_noisy_dqn_job{seed}" for seed in (0, 1)]
    assert [run.name for run in runs_at(sweep)] == runs


def test_sweeps_of_the_same_second_may_share_a_folder_that_is_named(programs: Programs, tmp_path: Path) -> None:
    now = datetime.now()
    for time in (f"{now + timedelta(seconds=i):%Y-%m-%d_%H-%M-%S}" for i in range(-1, 120)):
        other = tmp_path / "study" / "CartPole-v1" / f"{time}_seed0_noisy_dqn_job0"
        other.mkdir(parents=True)
        (other / "config.yaml").write_text("seed: 0\n")
    words = ("train", "-m", *SMALL, "steps=100", "seed=0,1", "hydra.sweep.dir=study")
    result = programs.run(*words, cwd=tmp_path)
    assert result.code == 0, result.err
    runs = [path.parent.parent.name for path in tmp_path.glob("study/CartPole-v1/*/last/agent.safetensors")]
    assert len(runs) == 2
    assert len({name.partition("_seed")[0] for name in runs}) == 1  # the time of the sweep, for all jobs


def test_a_sweep_has_a_folder_of_its_own_where_one_is_named(programs: Programs, tmp_path: Path) -> None:
    words = ("train", "-m", *SMALL, "steps=100", "seed=3,4")
    result = programs.run(*words, "hydra.sweep.dir=study/one", cwd=tmp_path)
    assert result.code == 0, result.err
    assert {path.name for path in tmp_path.iterdir()} == {"study"}
    assert {path.name for path in (tmp_path / "study" / "one").iterdir()} == {"CartPole-v1", "multirun.yaml"}
    assert len(list((tmp_path / "study" / "one" / "CartPole-v1").glob("*/last/agent.safetensors"))) == 2
    told = [line for line in result.err.splitlines() if line.startswith("job ")]
    assert [line.partition(":")[0] for line in told] == ["job 0", "job 1"]
    assert [line.split()[-1] for line in told] == ["seed=3", "seed=4"]
    assert "hydra.sweep.dir" in one_sentence(programs.run(*words, "hydra.run.dir=elsewhere", cwd=tmp_path))


NOT_NUMBERS = """
import gymnasium as gym
import numpy as np


class Broken(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, what="rewards"):
        self.what, self.steps = what, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        observation, reward = np.zeros(3, np.float32), 0.0
        if self.steps > 90:
            reward, observation[1] = (np.nan, 0.0) if self.what == "rewards" else (0.0, np.inf)
        return observation, reward, False, False, {}


gym.register("Broken-v0", entry_point=Broken, max_episode_steps=9)
"""


@pytest.mark.parametrize("what", ["rewards", "observations"])
def test_an_environment_that_gives_no_numbers_is_to_blame(programs: Programs, tmp_path: Path, what: str) -> None:
    (tmp_path / "broken.py").write_text(NOT_NUMBERS)
    words = ("env=broken:Broken-v0", f"+env.kwargs.what={what}", "steps=600", "log.every=200", "eval.every=0")
    result = programs.run("train", *SMALL, *words, cwd=tmp_path)
    assert result.code == 2
    sentence = result.err.splitlines()[-1]
    reason = f"because {what} that Broken-v0 gave are NaN, infinite or beyond float32: fix the environment"
    assert reason in sentence, sentence


HUGE = """
import gymnasium as gym
import numpy as np


class Huge(gym.Env):
    observation_space, action_space = gym.spaces.Box(-np.inf, np.inf, (3,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(3, 1e300), {}

    def step(self, action):
        return np.full(3, 1e300), 0.0, False, True, {}


gym.register("Huge-v0", entry_point=Huge)
"""


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_numbers_beyond_float32_end_in_the_sentence_alone(
    programs: Programs, tmp_path: Path, vectorization: str
) -> None:
    (tmp_path / "huge.py").write_text(HUGE)
    words = ("env=huge:Huge-v0", f"env.vectorization={vectorization}", "steps=300", "eval.every=0")
    result = programs.run("train", *SMALL, *words, cwd=tmp_path)
    assert "beyond float32: fix the environment" in result.err.splitlines()[-1]
    assert "Warning" not in result.err


def test_what_has_no_effect_is_told(programs: Programs, tmp_path: Path) -> None:
    words = ("train", *SMALL, "steps=100", "agent=dqn", "agent.noise.draws=1", "noise=shared", "agent.gamma=0.9")
    result = programs.run(*words, "agent.priority={beta:0.5}", cwd=tmp_path)
    assert result.code == 0, result.err
    told = [line for line in result.err.splitlines() if "does nothing" in line]
    assert told == [
        "agent.noise.draws=1 does nothing: agent.noise.enabled is false",
        "noise=shared does nothing: agent.noise.enabled is false",
        "agent.priority.beta=0.5 does nothing: agent.priority.enabled is false",
    ]


#: A callback of Hydra's that writes the value of each job that a sweeper gets to a file.
LISTENER = """
from hydra.experimental.callback import Callback

class Listener(Callback):
    def on_job_end(self, config, job_return, **kwargs):
        with open("scores.txt", "a") as file:
            print(config.seed, job_return.return_value, file=file)
"""


def test_a_sweeper_gets_the_score_of_each_job(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "listener.py").write_text(LISTENER)
    listens = "+hydra.callbacks.listener._target_=listener.Listener"
    words = ("train", "-m", *SMALL, "steps=100", listens)
    result = programs.run(*words, "seed=3,4", cwd=tmp_path, real=True, PYTHONPATH=str(tmp_path))
    assert result.code == 0, result.err
    assert (
        programs.run(*words, "seed=5", "eval.episodes=0", cwd=tmp_path, real=True, PYTHONPATH=str(tmp_path)).code == 0
    )
    scores = dict(line.split() for line in (tmp_path / "scores.txt").read_text().splitlines())
    assert scores.pop("5") == "None"
    assert set(scores) == {"3", "4"}
    for seed, score in scores.items():
        (metrics,) = tmp_path.glob(f"runs/*/*_seed{seed}_*/metrics.jsonl")
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        assert float(score) == [row["eval/return_mean"] for row in rows if "eval/return_mean" in row][-1]


#: A callback of Hydra's that ends the program by a given statement.
LEAVING = """
import sys
from hydra.experimental.callback import Callback

class Mine(BaseException):
    pass

class Leave(Callback):
    def on_run_start(self, config, **kwargs):
        {statement}

    def on_job_start(self, config, **kwargs):
        {statement}
"""


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("sys.exit()", r"it ended the program, by sys\.exit\(None\)"),
        ("raise Mine('enough')", "Mine: enough"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
    ids=["exit", "an exception of its own", "a Ctrl-C of its own"],
)
def test_a_callback_that_ends_the_program_is_one_sentence(
    programs: Programs, tmp_path: Path, statement: str, error: str
) -> None:
    """Before the first job of a sweep as well: Hydra then ends the sweep as it ends a single run."""
    (tmp_path / "cb.py").write_text(LEAVING.format(statement=statement))
    words = ("+hydra.callbacks.mine._target_=cb.Leave", "-m", "seed=0")[: 1 if statement == "sys.exit()" else 3]
    result = programs.run("train", *SMALL, *words, cwd=tmp_path, real=True, PYTHONPATH=str(tmp_path))
    assert result.code == 2, result
    assert re.match(rf"error: cb\.py failed \({error}\): fix it\n  File .*cb\.py", result.err), result.err
    assert "Traceback" not in result.err


def test_a_sweep_goes_on_after_a_job_that_fails(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("train", "-m", *SMALL, "steps=100", "env=Nope-v0,CartPole-v1", "seed=5", cwd=tmp_path)
    assert result.code == 2
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "there is no environment 'Nope-v0'" in lines[0]
    assert re.fullmatch(r"error: 1 of the jobs failed: .*env=Nope-v0.*", lines[1])
    assert len(lines) == 2
    assert list(tmp_path.glob("runs/CartPole-v1/*/last/agent.safetensors"))


def test_a_task_that_cannot_be_shown_is_not_played_first(programs: Programs, tmp_path: Path) -> None:
    words = ("train", *SMALL, "steps=100", "env=DeepSea-v0", "hydra.run.dir=run")
    assert programs.run(*words, cwd=tmp_path).code == 0
    for option in ("video=true", "render=human"):
        result = programs.run("evaluate", "checkpoint=run", "which=last", option, cwd=tmp_path)
        assert one_sentence(result) == f"DeepSea-v0 cannot be shown: leave {option} out"


# ---- evaluate.py

STATISTICS = {f"return_{name}" for name in ("mean", "std", "iqm", "ci95")}
KEYS = {"env", "episodes", "returns", "length_mean", "global_step"} | STATISTICS


def evaluation(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(result, dict)
    return result


def test_evaluation_is_written_and_repeats(programs: Programs, home: Path) -> None:
    options = (f"checkpoint={NOISY}", "episodes=7")
    first = programs.run("evaluate", *options, cwd=home)
    assert first.code == 0, first.err
    assert first.err == ""
    written = (home / NOISY / "best" / "evaluation.json").read_bytes()
    result = evaluation(home / NOISY / "best")
    assert result.keys() >= KEYS
    assert (result["env"], result["episodes"], len(result["returns"])) == ("CartPole-v1", 7, 7)
    assert result["return_mean"] == pytest.approx(sum(result["returns"]) / 7)
    assert f"{result['return_mean']:.1f}" in first.out
    assert result["global_step"] == read_agent(home / NOISY / "best" / "agent.safetensors").description["global_step"]
    Image.open(home / NOISY / "best" / "evaluation.png").verify()
    again = programs.run("evaluate", *options, cwd=home, real=True)
    assert again.code == 0, again.err
    assert (home / NOISY / "best" / "evaluation.json").read_bytes() == written
    more = programs.run("evaluate", f"checkpoint={home / NOISY / 'best'}", "episodes=9", "num_envs=3", cwd=home)
    assert more.code == 0, more.err
    assert evaluation(home / NOISY / "best")["returns"][:7] == result["returns"]
    other = programs.run("evaluate", f"checkpoint={NOISY}/best/agent.safetensors", "seed=1", "episodes=7", cwd=home)
    assert other.code == 0, other.err
    assert evaluation(home / NOISY / "best")["returns"] != result["returns"]


def test_results_that_cannot_be_written_cost_no_other_result(programs: Programs, home: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(home / "plain", tmp_path / name)
    (tmp_path / "a" / "best" / "evaluation.json").unlink(missing_ok=True)
    (tmp_path / "a" / "best" / "evaluation.json").mkdir()
    result = programs.run("evaluate", "checkpoint=[a,b]", "episodes=3", cwd=tmp_path)
    assert result.code == 2
    assert [line.split()[0] for line in result.out.splitlines() if "CartPole-v1  " in line] == ["a/best", "b/best"]
    assert evaluation(tmp_path / "b" / "best")["episodes"] == 3
    assert "wrote b/best/evaluation.json" in result.out
    assert "wrote a/" not in result.out
    advice = "to keep the results, evaluate a copy of agent.safetensors in a folder of your own"
    assert re.fullmatch(rf"error: could not write a/best/evaluation.json .*; {advice}\n", result.err)


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.png", "evaluation.gif", "comparison.png"])
@pytest.mark.parametrize("file", ["agent.safetensors", "mine.safetensors"])
def test_a_file_of_ones_own_is_not_replaced_by_results(
    programs: Programs, home: Path, tmp_path: Path, name: str, file: str
) -> None:
    shutil.copy(home / "plain" / "best" / "agent.safetensors", tmp_path / file)
    own = tmp_path / (name if file == "agent.safetensors" else f"mine_{name}")
    own.write_text('{"agent": "mine"}')
    words = ("evaluate", f"checkpoint=[{file},{home / 'plain'}]", "episodes=2")
    result = programs.run(*words, cwd=tmp_path)
    assert result.code == 2
    assert result.err == (
        f"error: {own.name} is no result of evaluate.py, which would replace it: move it or the agent away\n"
    )
    assert own.read_text() == '{"agent": "mine"}'
    own.unlink()
    for _ in range(2):  # the second time it replaces its own files
        result = programs.run(*words, cwd=tmp_path)
        assert result.code == 0, result.err
    stem = "" if file == "agent.safetensors" else "mine_"
    assert f"compared in {stem}comparison.png" in result.out
    assert (tmp_path / f"{stem}comparison.png").exists()


def test_several_agents_in_one_table(programs: Programs, home: Path) -> None:
    result = programs.run("evaluate", f"checkpoint=[plain,{NOISY}]", "episodes=3", "which=last", cwd=home)
    assert result.code == 0, result.err
    table = [line for line in result.out.splitlines() if "CartPole-v1  " in line]
    assert [line.split()[0] for line in table] == ["plain/last", f"{NOISY}/last"]
    Image.open(home / "plain" / "last" / "comparison.png").verify()
    assert 300 <= evaluation(home / "plain" / "last")["global_step"] < 308
    assert evaluation(home / NOISY / "last")["episodes"] == 3


def test_patterns_stand_for_the_agents_that_they_match(programs: Programs, home: Path) -> None:
    """Each agent is played once, and other files that match are left out."""
    for pattern, expected in (
        ("runs/CartPole-v1/*", [f"{NOISY}/last"]),
        ("[plain,pl*,*/*/noisy]", ["plain/last", f"{NOISY}/last"]),
        ("*/last/agent.safetensors", ["plain/last"]),
        ("{home}/runs/**", [f"{home}/{NOISY}/last"]),
    ):
        (home / "runs" / "notes").mkdir(exist_ok=True)
        word = f"checkpoint={pattern.format(home=home)}"
        result = programs.run("evaluate", word, "episodes=2", "which=last", cwd=home)
        assert result.code == 0, result.err
        labels = [line.split()[0] for line in result.out.splitlines() if "CartPole-v1  " in line]
        assert sorted(labels) == sorted(expected), pattern


def test_the_newest_run_is_evaluated_and_named(programs: Programs, home: Path) -> None:
    result = programs.run("evaluate", "episodes=2", "which=last", cwd=home)
    assert result.code == 0, result.err
    assert NOISY in result.out.splitlines()[0]
    assert evaluation(home / NOISY / "last")["episodes"] == 2


def test_playing_with_noise_is_another_policy_that_repeats(programs: Programs, home: Path) -> None:
    returns = {}
    for noise, envs in (("false", 4), ("true", 4), ("true", 9)):
        words = (f"noise={noise}", f"num_envs={envs}", "episodes=20", f"checkpoint={NOISY}")
        assert programs.run("evaluate", *words, cwd=home).code == 0
        assert evaluation(home / NOISY / "best")["noise"] == (noise == "true")
        returns[noise, envs] = evaluation(home / NOISY / "best")["returns"]
    assert returns["true", 4] == returns["true", 9] != returns["false", 4]


def test_a_video_can_be_played(programs: Programs, home: Path) -> None:
    result = programs.run("evaluate", f"checkpoint={NOISY}", "episodes=2", "video=true", cwd=home)
    assert result.code == 0, result.err
    (film,) = (home / NOISY / "best").glob("evaluation.[mg][pi]*")
    assert str(film.relative_to(home)) in result.out
    frames = evaluation(home / NOISY / "best")["lengths"][0] + 1
    if film.suffix == ".mp4":
        reader = pytest.importorskip("imageio_ffmpeg").count_frames_and_secs
        assert reader(str(film))[0] == frames
    else:
        assert Image.open(film).n_frames == pytest.approx(frames / 2, abs=1)  # at 25 frames per second


def test_a_long_video_has_the_first_frames_and_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copied(home, tmp_path)
    monkeypatch.setattr("envs.video.MAX_BYTES", 5 * 400 * 600 * 3)
    film(load_player(file), EvaluateConfig())
    (path,) = tmp_path.glob("evaluation.[mg][pi]*")
    assert capsys.readouterr().out == f"wrote {path}: the first 5 frames\n"


def copied(home: Path, folder: Path, name: str = "agent.safetensors", of: str = NOISY) -> Path:
    """A trained agent under another name."""
    return shutil.copy(home / of / "best" / "agent.safetensors", folder / name)


@pytest.mark.parametrize("option", ["video=true", "render=human"])
def test_a_machine_that_cannot_draw_says_so_in_one_sentence(
    programs: Programs, home: Path, tmp_path: Path, option: str
) -> None:
    """The video comes last: the results of the episodes are printed and written before it."""
    copied(home, tmp_path)
    words = ("checkpoint=agent.safetensors", "episodes=2", option)
    result = programs.run("evaluate", *words, cwd=tmp_path, SDL_VIDEODRIVER="nowhere")
    sentence = one_sentence(result._replace(out=""))
    assert re.match(r"CartPole-v1 cannot be (filmed|shown) \(.*nowhere not available\): leave .* out", sentence)
    played = option == "video=true"
    assert ("SDL_VIDEODRIVER" in sentence) == ("CartPole-v1  " in result.out) == played
    assert {path.name for path in tmp_path.iterdir()} == {
        "agent.safetensors",
        *(("evaluation.json", "evaluation.png", "evaluation_2_episodes_seed0.json") if played else ()),
    }


def test_agents_in_one_folder_have_names_and_results_of_their_own(
    programs: Programs, home: Path, tmp_path: Path
) -> None:
    files = {"one": NOISY, "two.v1": "plain"}
    for name, of in files.items():
        copied(home, tmp_path, f"{name}.safetensors", of)
    asked = ",".join(f"{name}.safetensors" for name in files)
    result = programs.run("evaluate", f"checkpoint=[{asked}]", "episodes=2", "video=true", cwd=tmp_path)
    assert result.code == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines() if "CartPole-v1  " in line] == list(files)
    for name in files:
        written = json.loads((tmp_path / f"{name}_evaluation.json").read_text())
        assert (written["label"], written["agent"]) == (name, f"{name}.safetensors")
        Image.open(tmp_path / f"{name}_evaluation.png").verify()
        assert len(list(tmp_path.glob(f"{name}_evaluation.[mg][pi]*"))) == 1
        assert all(f"{name}_evaluation.{suffix}" in result.out for suffix in ("json", "png"))
    assert not list(tmp_path.glob("evaluation.*"))


def test_a_disk_that_is_full_for_pictures(programs: Programs, home: Path, tmp_path: Path) -> None:
    """The results are printed and written. The picture that cannot be written is named, and no part of it stays."""
    copied(home, tmp_path)
    words = ("checkpoint=agent.safetensors", "episodes=2")
    result = programs.run("evaluate", *words, cwd=tmp_path, file_limit=8_000)
    assert re.match(r"could not write evaluation\.png \(File too large\)", one_sentence(result._replace(out="")))
    assert "CartPole-v1  " in result.out
    assert evaluation(tmp_path)["episodes"] == 2
    written = {"agent.safetensors", "evaluation.json", "evaluation_2_episodes_seed0.json"}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_evaluating_again_keeps_what_was_played_in_another_way(programs: Programs, home: Path, tmp_path: Path) -> None:
    copied(home, tmp_path)
    words = ("checkpoint=agent.safetensors", "episodes=2")
    for options in ((), ("seed=1",), ("noise=true",), ("episodes=3",)):
        assert programs.run("evaluate", *words, *options, cwd=tmp_path).code == 0
    kept = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("evaluation_*.json")}
    assert {name: (found["episodes"], found["seed"], found["noise"]) for name, found in kept.items()} == {
        "evaluation_2_episodes_seed0.json": (2, 0, False),
        "evaluation_2_episodes_seed1.json": (2, 1, False),
        "evaluation_2_episodes_seed0_noise.json": (2, 0, True),
        "evaluation_3_episodes_seed0.json": (3, 0, False),
    }
    assert evaluation(tmp_path) == kept["evaluation_3_episodes_seed0.json"]  # that of the last evaluation


def test_a_terminal_with_few_characters_shows_the_results(programs: Programs, home: Path, tmp_path: Path) -> None:
    copied(home, tmp_path)
    words = ("checkpoint=agent.safetensors", "episodes=2")
    result = programs.run("evaluate", *words, cwd=tmp_path, real=True, PYTHONIOENCODING="ascii")
    assert result.code == 0, result.err
    assert re.search(r"CartPole-v1 .* \d+\.\d \? \d+\.\d ", result.out)
    assert evaluation(tmp_path)["episodes"] == 2


def forge(source: Path, target: Path, **changes: Any) -> None:
    """Writes a saved agent with changes in its description."""
    with safe_open(source, framework="pt") as file:
        ((key, text),) = file.metadata().items()
    content = json.loads(text)
    content["agent"] |= changes
    save_file(load_file(source), target, {key: json.dumps(content)})


@pytest.fixture(scope="module")
def hostile(home: Path) -> Path:
    """A folder of files that evaluate.py must refuse."""
    folder, good = home / "hostile", home / NOISY / "best" / "agent.safetensors"
    folder.mkdir()
    torch.save({"weight": torch.zeros(2)}, folder / "pickle.safetensors")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-9])
    (folder / "head.safetensors").write_bytes(good.read_bytes()[:200])
    (folder / "json.safetensors").write_text('{"model": "another program", "layers": [1, 2, 3]}')
    (folder / "empty.safetensors").write_bytes(b"")
    save_file({"weight": torch.zeros(2)}, folder / "foreign.safetensors", {"format": "pt"})
    forge(good, folder / "module.safetensors", env={"id": "hostile_module:Id-v0", "kwargs": {}})
    forge(good, folder / "task.safetensors", env={"id": "Acrobot-v1", "kwargs": {}})
    forge(good, folder / "unknown.safetensors", env={"id": "CartPol-v1", "kwargs": {}})
    forge(good, folder / "shape.safetensors", agent={"network": {"hidden": [17]}})
    forge(good, folder / "option.safetensors", agent={"network": {"depth": 3}})
    with safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(good)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, folder / "nan.safetensors", metadata)
    (home / "hostile_module.py").write_text(f"open({str(home / 'ran')!r}, 'w')\n")
    (home / "nothing" / "runs").mkdir(parents=True)
    return home


BAD_EVALUATION = {
    "a path that is not there": ("checkpoint=nowhere", "nowhere does not exist"),
    "a folder without an agent": ("checkpoint=nothing", "nothing holds no saved agent"),
    "a folder of runs": (
        "checkpoint=runs/CartPole-v1",
        r"a folder of runs: name one of them, or write 'checkpoint=runs/CartPole-v1/\*' for all of them",
    ),
    "a pattern of nothing": ("checkpoint=nothing/*", r"checkpoint=nothing/\* matches no run with a best agent"),
    "a pattern of foreign files": ("checkpoint=hostile/*.safetensors", "cannot be used"),
    "two, one of them not there": ("checkpoint=[plain,nowhere]", "nowhere does not exist"),
    "a pickle with another name": ("checkpoint=hostile/pickle.safetensors", "pickle"),
    "a file cut short": ("checkpoint=hostile/cut.safetensors", "cut.safetensors.*cut short"),
    "the head of a file": ("checkpoint=hostile/head.safetensors", "head.safetensors.*cut short"),
    "JSON": ("checkpoint=hostile/json.safetensors", "json.safetensors.*not a safetensors file"),
    "an empty file": ("checkpoint=hostile/empty.safetensors", "empty.safetensors.*not a safetensors file"),
    "a safetensors file of another program": ("checkpoint=hostile/foreign.safetensors", "another program"),
    "an environment in a module": ("checkpoint=hostile/module.safetensors", "hostile_module:Id-v0"),
    "an environment that does not fit": ("checkpoint=hostile/task.safetensors", "Acrobot-v1"),
    "an environment that nobody has": ("checkpoint=hostile/unknown.safetensors", "CartPol-v1.*CartPole-v1"),
    "a network that does not fit": ("checkpoint=hostile/shape.safetensors", r"shape.*\(17, 4\)"),
    "an option of another version": ("checkpoint=hostile/option.safetensors", r"agent\.network\.depth"),
    "parameters that are not numbers": ("checkpoint=hostile/nan.safetensors", "nan.safetensors.*not finite"),
    "noise of an agent without": ("checkpoint=plain noise=true", "plain/best/agent.safetensors.*no noisy layers"),
    "an agent that is neither": ("which=first", "which is 'first': it must be one of best, last"),
    "no episodes": ("episodes=0", "episodes is 0: it must be at least 1"),
    "no environments": ("num_envs=0", "num_envs is 0"),
    "an unknown option": ("episode=3", "unknown option episode; did you mean episodes"),
    "a device that is not there": ("checkpoint=plain device=cuda:99", "cuda:99 is not there"),
    "a number for a path": ("checkpoint=3", "checkpoint.*3"),
}


@pytest.mark.parametrize(("options", "pattern"), BAD_EVALUATION.values(), ids=BAD_EVALUATION.keys())
def test_bad_evaluation_options(programs: Programs, hostile: Path, options: str, pattern: str) -> None:
    before = contents(hostile)
    sentence = one_sentence(programs.run("evaluate", *options.split(), cwd=hostile, PYTHONPATH=str(hostile)))
    assert re.search(pattern, sentence), sentence
    assert contents(hostile) == before, "it wrote something, or ran what a file named"


def test_nothing_to_evaluate(programs: Programs, tmp_path: Path) -> None:
    assert "no run under runs/" in one_sentence(programs.run("evaluate", cwd=tmp_path))
    (tmp_path / "runs").mkdir()
    assert "no run under runs/" in one_sentence(programs.run("evaluate", cwd=tmp_path))


# ---- Weights & Biases without an account


@pytest.fixture(scope="module", autouse=True)
def offline(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Process]:
    """A run without an account, and one with a key but without a network; they wait for W&B while other tests run."""
    folder = tmp_path_factory.mktemp("offline")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    options = ("train", *SMALL[1:], "steps=100", "hydra.run.dir=run")
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": nobody}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))  # an activated venv
    started = {}
    for name, environment in (("no account", {}), ("no network", key)):
        (folder / name).mkdir()
        environment |= {"HOME": str(folder / name), "MPLCONFIGDIR": matplotlib.get_cachedir(), "PATH": path}
        started[name] = programs.start(*options, cwd=folder / name, real=True, **environment)
    return started


@pytest.mark.parametrize("name", ["no account", "no network"])
def test_wandb_goes_offline_by_itself(offline: dict[str, Process], name: str) -> None:
    result = offline[name].wait()
    assert result.code == 0, result.err
    assert "W&B is offline, watch: wandb leet run/wandb   upload: wandb sync run/wandb" in result.err
    folder = offline[name].cwd / "run"
    (run,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert run.stat().st_size > 0
    _, state = load_checkpoint(latest_checkpoint(folder) or folder)
    assert state["wandb_run_id"] in run.name


def test_a_run_that_ends_before_it_learns_says_so(programs: Programs, tmp_path: Path) -> None:
    late = programs.run("train", *SMALL, "steps=64", cwd=tmp_path)
    assert late.code == 0
    assert "it will not learn: agent.learning_starts=64" in late.err
    assert "it will not learn" not in programs.run("train", *SMALL, "steps=66", cwd=tmp_path).err
    rare = programs.run("train", *SMALL, "steps=66", "agent.replay_ratio=1/50", cwd=tmp_path)
    assert "it will not learn: agent.replay_ratio=1/50 makes no update within steps=66" in rare.err


def test_a_sigma_of_another_form_is_told(programs: Programs, tmp_path: Path) -> None:
    """In the independent form σ0 is σ itself, and a usual σ0 of the factorised form would drown the values in noise."""
    words = ("train", *SMALL, "agent.noise.form=independent", "steps=66")
    loud = programs.run(*words, "env=MountainCar-v0", "agent.noise.sigma0=0.25", cwd=tmp_path)
    assert "agent.noise.sigma0=0.25 is σ itself in the independent form" in loud.err
    for fine in (
        ("env=CartPole-v1",),
        ("env=CartPole-v1", "agent=rainbow"),
        ("env=MountainCar-v0", "noise=independent"),
    ):
        assert "σ itself" not in programs.run(*words, *fine, cwd=tmp_path).err
