"""The flags of both programs, which are Hydra's own: they are read in any order and on every Python."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from helpers import ROOT, Programs, plain_environment
from hydra._internal.utils import get_args_parser

from agent.command.arguments import Program, check_flags, check_overrides, hydra_parser
from agent.command.config_files import check_names
from agent.command.errors import sentence_of
from agent.command.presets import CONF
from agent.command.program import EVALUATE, TRAIN
from agent.common.errors import UserError
from agent.common.foreign import own_frames


@contextmanager
def checked_as_by_python_3_14() -> Iterator[None]:
    """Makes `add_argument` format the help of an argument, as argparse of Python 3.14 does."""
    add = argparse.ArgumentParser.add_argument

    def checked(parser: argparse.ArgumentParser, *names: Any, **settings: Any) -> Any:
        action = add(parser, *names, **settings)
        if action.help:
            assert "%" not in action.help or action.help % vars(action)
        return action

    with patch.object(argparse.ArgumentParser, "add_argument", checked):
        yield


def test_python_3_14_takes_the_parser() -> None:
    with checked_as_by_python_3_14():
        parser = hydra_parser()
        with pytest.raises(TypeError):  # the check finds the defect, until Hydra mends it
            get_args_parser()
    assert {action.dest for action in parser._actions} == {action.dest for action in get_args_parser()._actions}


PROGRAM = """
import argparse, runpy, sys
sys.path.insert(0, {tests!r})
from test_arguments import checked_as_by_python_3_14
sys.argv = sys.argv[1:]
with checked_as_by_python_3_14():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_both_programs_start_on_python_3_14(program: str) -> None:
    code = PROGRAM.format(tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", code, str(ROOT / f"{program}.py")]
    shown = [
        subprocess.run([*command, flag], env=plain_environment(), cwd=ROOT, capture_output=True, text=True)
        for flag in ("--help", "--hydra-help")
    ]
    assert [result.returncode for result in shown] == [0, 0], shown
    assert f"python {program}.py" in shown[0].stdout
    assert "Install or Uninstall shell completion" in shown[1].stdout


def read(words: str, program: Program) -> argparse.Namespace:
    """The flags and overrides of a command line, if the program takes them."""

    def check(flags: argparse.Namespace) -> None:
        check_flags(flags, program)
        check_overrides(flags.overrides, program)

    found = hydra_parser(check).parse_args(shlex.split(words))
    assert isinstance(found, argparse.Namespace)
    return found


@pytest.mark.parametrize("words", ["-m a=1,2 b=3", "a=1,2 -m b=3", "a=1,2 b=3 -m", "a=1,2 --multirun b=3"])
def test_a_flag_may_stand_anywhere(words: str) -> None:
    found = read(words, TRAIN)
    assert found.multirun
    assert found.overrides == ["a=1,2", "b=3"]


REFUSED = {
    "hydra.job.chdir=true": "hydra.job.chdir does not work here: .* leave it out",
    "+hydra.job.chdir=true": "hydra.job.chdir does not work here",
    "'hydra.job={chdir:true}'": "hydra.job.chdir does not work here",
    "hydra.output_subdir=x": "hydra.output_subdir does not work here: config.yaml",
    "hydra.sweep.dir=x": "hydra.sweep is for several runs: add -m, .* hydra.run.dir",
    "--experimental-rerun x": "--experimental-rerun reads a pickle",
    "--package agent": "--package goes with --cfg alone",
    "--resolve": "--resolve goes with --cfg job",
    "--cfg hydra --resolve": "--resolve goes with --cfg job",
    "--cfg job -m": "--cfg does not go with --multirun",
    "--info all --cfg job": "--cfg does not go with --info",
    "--shell-completion": "--shell-completion takes install=bash",
    "--shell-completion install=nope": "--shell-completion takes install=bash",
    "--shell-completion query=bash": "--shell-completion takes install=bash",
    "--shell-completion install=bash uninstall=bash": "--shell-completion takes install=bash",
    "hydra.runtime.cwd=/x": "hydra.runtime.cwd is what Hydra records of a run",
    "'hydra={runtime:{output_dir:x}}'": "hydra.runtime.output_dir is what Hydra records of a run",
    "hydra.overrides.task=[a]": "hydra.overrides.task is what Hydra records of a run",
    "+hydra.nope=3": "there is no option hydra.nope: leave it out",
    "hydra.env=3": "there is no option hydra.env: leave it out",
    "++hydra.job.nope.x=3": "there is no option hydra.job.nope.x: leave it out",
    "'+hydra={nope:3}'": "there is no option hydra.nope: leave it out",
    "~hydra.nope": "there is no option hydra.nope: leave it out",
    "--cfg job --package nope": "--package=nope: there is no such option or node; the nodes are .*agent, .*wandb",
    "--cfg job --package agent.nope": "--package=agent.nope: there is no such option or node",
    "--info steps=3": "argument --info/-i: invalid choice: 'steps=3'.*see --help",
    "--config-dir": "argument --config-dir/-cd: expected one argument; see --help",
    "--env CartPole-v1": "there is no flag --env: options have no dashes, env=CartPole-v1",
    "seed=3 --steps=3": "there is no flag --steps: options have no dashes, steps=3",
    "--total-timesteps 1000": "there is no flag --total-timesteps: options have no dashes, steps=1000",
    "--env-id=CartPole-v1 --seed 1": "there is no flag --env-id: options have no dashes, env=CartPole-v1",
    "--learning-rate 1e-4": "there is no flag --learning-rate: options have no dashes, agent.lr=1e-4",
    "--train-frequency 10": "there is no flag --train-frequency: options have no dashes, agent.replay_ratio=<value>",
    "--quiet": "there is no flag --quiet: options have no dashes, name=value",
    "checkpoint=a checkpoint=b": "checkpoint is given twice",
    "checkpoint=runs/a": "checkpoint=runs/a is not for train.py: resume a run with resume=runs/a",
    "episodes=3": "episodes=3 is not for train.py: for its evaluations write eval.episodes=3",
    "video=true": "video=true is not for train.py: for its evaluations write eval.video=true",
    "which=last": "which=last is not for train.py: evaluate.py",
    "render=human": "render=human is not for train.py: evaluate.py",
}


@pytest.mark.parametrize("words", REFUSED)
def test_training_refuses_by_name(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED[words]):
        read(words, TRAIN)


@pytest.mark.parametrize(
    "words",
    [
        *("hydra.verbose=true", "hydra.job.name=x", "hydra.job.env_set.A=3", "+hydra.callbacks.mine._target_=a.B"),
        *("hydra/launcher=joblib hydra.launcher.n_jobs=2", "hydra.run.dir=x", "hydra.searchpath=[]"),
        *("~hydra.callbacks", "hydra.sweep.subdir=x -m"),
        *("hydra.help.header=x", "hydra.job_logging.x=3", "hydra/job_logging=none", "hydra={run:{dir:x}}"),
        *(f"--cfg job --package {name}" for name in ("agent", "agent.lr", "env.id", "env.kwargs.size", "_global_")),
        *("--cfg hydra --package hydra.run", "--cfg all --package hydra"),
    ],
)
def test_training_accepts_what_hydra_has(words: str) -> None:
    read(words, TRAIN)


REFUSED_IN_EVALUATION = {
    "env=CartPole-v1": "env=CartPole-v1 is not for evaluate.py: an agent plays in the environment",
    "env.kwargs.size=2": "env.kwargs.size=2 is not for evaluate.py: an agent plays in the environment",
    "+env.kwargs.size=2": "env.kwargs.size=2 is not for evaluate.py: an agent plays in the environment",
    "'env={kwargs:{size:2}}'": "env.kwargs.size=2 is not for evaluate.py",
    "agent=dqn": "agent=dqn is not for evaluate.py: the algorithm",
    "agent.lr=1": "agent.lr=1 is not for evaluate.py: the algorithm",
    "steps=3": "steps=3 is not for evaluate.py: it is an option of train.py",
    "wandb.mode=offline": "wandb.mode=offline is not for evaluate.py",
    "task=atari": "task=atari is not for evaluate.py",
    "eval.episodes=3": "eval.episodes=3 is not for evaluate.py: its options are episodes",
    "resume=runs/a": "resume=runs/a is not for evaluate.py: .* checkpoint=runs/a",
    "-m seed=0,1": r"-m is for train.py: .*checkpoint=\[runs/a,runs/b\]",
    "seed=0,1 -m": "-m is for train.py",
    "hydra.mode=MULTIRUN": "hydra.mode is an option of train.py",
    "hydra.run.dir=x": "hydra.run.dir is an option of train.py",
    "hydra.sweep.dir=x": "hydra.sweep",
}


@pytest.mark.parametrize("words", REFUSED_IN_EVALUATION)
def test_evaluation_refuses_by_name(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED_IN_EVALUATION[words]):
        read(words, EVALUATE)


TAKEN = (
    *("hydra.job.chdir=false", "hydra.output_subdir=null", "-m hydra.sweep.dir=x", "hydra.run.dir=x", "env=a:B"),
    *("hydra.mode=MULTIRUN hydra.sweep.dir=x", "checkpoint.every=3", "'checkpoint={every:3}'", "noise=paper"),
    *("hydra.verbose=true", "agent.lr=[1", "--cfg job --resolve --package agent", "--info searchpath", "--help"),
)


@pytest.mark.parametrize("words", TAKEN)
def test_training_takes(words: str) -> None:
    assert read(words, TRAIN).overrides == [word for word in shlex.split(words) if "=" in word]


def test_every_option_of_an_evaluation_is_its_own() -> None:
    for name in EVALUATE.options:
        read(f"{name}=1", EVALUATE)


FILES = {
    "agent/mine.yaml": "defaults:\n  - dqn\n  - _self_\nepsilon:\n  end: 0.125\n",
    "exp.yaml": "defaults:\n  - train\n  - _self_\nsteps: 90\n",
    "elsewhere.yaml": "defaults:\n  - train\n  - _self_\nhydra:\n  job:\n    chdir: true\n",
}


def test_a_file_of_ones_own_that_the_project_s_hides_is_refused(tmp_path: Path) -> None:
    """Of two files with one name Hydra reads that of conf/, which comes first."""
    sources = [
        SimpleNamespace(provider="main", path=str(CONF)),
        SimpleNamespace(provider="command-line", path=tmp_path),
    ]
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "mine.yaml").write_text("defaults: [dqn]\n")
    (tmp_path / "agent" / "dqn.yaml").write_bytes((CONF / "agent" / "dqn.yaml").read_bytes())
    check_names(sources)  # an equal file is allowed
    (tmp_path / "agent" / "dqn.yaml").write_text("defaults: [noisy_dqn]\n")
    with pytest.raises(UserError, match=r"dqn.yaml has the name of .*conf/agent/dqn.yaml, which is read in its place"):
        check_names(sources)


@pytest.mark.parametrize("lines", ["agent: dqn", "agent: {}", "env: Acrobot-v1"])
def test_a_file_that_replaces_a_node_by_a_word_is_refused(programs: Programs, tmp_path: Path, lines: str) -> None:
    """Without an error the options of the node would be lost silently."""
    (tmp_path / "my" / "preset" / "task").mkdir(parents=True)
    (tmp_path / "my" / "preset" / "task" / "FrozenLake8x8-v1.yaml").write_text(f"# @package _global_\n{lines}\n")
    words = ("env=FrozenLake8x8-v1", "--config-dir=my", "hydra.run.dir=run", "steps=200", "eval.episodes=0")
    result = programs.run("train", *words, "wandb.mode=disabled", cwd=tmp_path)
    if lines == "agent: {}":  # this mapping changes nothing
        assert result.code == 0, result.err
    else:
        assert result.code == 2
        assert re.search(r"^error: a config file sets (agent|env), which .*defaults: \[override /", result.err, re.M)


def test_configs_of_ones_own(programs: Programs, tmp_path: Path) -> None:
    """Flags that name folders and files work between the options, and the options of these files are checked too."""
    for name, text in FILES.items():
        (tmp_path / "my" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my" / name).write_text(text)
    shown = programs.run("train", "seed=3", "--config-dir", "my", "agent=mine", "--cfg", "job", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert "end: 0.125" in shown.out
    shown = programs.run("train", "--config-dir=my", "--config-name", "exp", "--cfg=job", "seed=3", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert "steps: 90" in shown.out
    assert "seed: 3" in shown.out
    shown = programs.run("train", "--cfg", "job", "--package", "agent.epsilon", "agent=dqn", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert shown.out.startswith("# @package agent.epsilon")
    for words, expected in {
        "--config-dir nowhere": "error: Additional config directory '.*nowhere' not found: .* take a folder\n",
        "--config-path nowhere": "error: Primary config directory not found: .* take a folder\n",
        "--config-name nope": "error: there is no config nope: --config-name takes the name of a file in conf/.*\n",
        "--config-dir my --config-name elsewhere": "error: hydra.job.chdir does not work here: .*\n",
        "hydra/launcher=nope": "error: there is no hydra/launcher=nope: .* one of basic, .* an installed plugin\n",
        "noise=true": "error: options that choose a file, .* take its name; see --help\n",
    }.items():
        result = programs.run("train", "hydra.run.dir=run", *words.split(), cwd=tmp_path)
        assert result.code == 2, result
        assert re.fullmatch(expected, result.err), result.err
    assert not list(tmp_path.glob("run*/*"))


#: Command lines that Hydra refuses with an exception of Python, without a sentence of its own.
REFUSED_BY_HYDRA = {
    "hydra.verbose=3": r"Hydra cannot use hydra.verbose=3 \(AssertionError\): correct it, or leave it out",
    "-m seed=0,1 hydra.sweeper.max_batch_size=0": r"Hydra cannot use hydra.sweeper.max_batch_size=0 \(.*",
    "-m seed=0,1 hydra.launcher._target_=os.system": r"Hydra cannot use hydra.launcher._target_=os.system \(.*",
    "-m seed=0,1 hydra.launcher=null": r"Hydra cannot use hydra.launcher=null \(.*",
    "hydra.job.env_copy=[NONE]": r"Hydra cannot use hydra.job.env_copy=\[NONE\] \(KeyError: 'NONE'\).*",
    "hydra.searchpath=[ftp://x]": r"Hydra cannot use hydra.searchpath=\[ftp://x\] \(.*schema ftp.*",
    "--config-dir=. --config-name=bad": r"Hydra cannot use --config-dir=. --config-name=bad \(ParserError.*bad.yaml.*",
    "--config-dir=. --config-name=loop": r"Hydra cannot use --config-dir=. --config-name=loop \(RecursionError.*",
    "--config-dir=. --config-name=bytes": r"Hydra cannot use --config-dir=. --config-name=bytes \(UnicodeDecode.*",
    "--config-dir=. --config-name=empty": r"the config has no [\w.]+: .* begins with defaults: \[train, _self_\]",
    "--config-dir=. --config-name=empty seed=3": r"the config has no seed: .* begins with defaults: \[train, _self_\]",
    "-m seed=range(0)": r"seed=range\(0\) stands for no value, so that the sweep has no job: name at least one",
    "-m agent=glob(nope*)": r"agent=glob\(nope\*\) stands for no value.*",
    "-m seed=range(0,1000000000)": r"seed=range\(0,1000000000\) would make more than 100,000 jobs, too many .*",
    "-m seed=shuffle(range(0,1000000000))": r"seed=shuffle\(range.* would make more than 100,000 jobs, .*",
    "-m agent.lr=range(0,1,1e-9)": r"agent.lr=range\(0,1,1e-9\) would make more than 100,000 jobs, .*",
    "-m seed=range(0,1000) agent.gamma=0.9,0.99 agent.n_step=range(1,100)": r"seed=range.*,100\) would .*",
}


#: Values in ${…} that Hydra or OmegaConf refuses: the sentence names the override, and none of their own words.
REFUSED_REFERENCES = {
    "seed=${oc.env:NOPE}": r"seed=.* cannot be used: set the variable NOPE, or write \$\{oc.env:NOPE,<default>\}",
    "wandb.name=${oc.env:NOPE} seed=${oc.env:SEED,3}": r"wandb.name=\$\{oc.env:NOPE\} cannot be used: set the .*",
    "hydra/launcher=${oc.env:NOPE}": r"\$\{oc.env:NOPE\} cannot be used: set the variable NOPE, or .*",
    "seed=${seed}": r"seed=\$\{seed\} cannot be used: its \$\{…\} leads back to itself; write a value in its place",
    "seed=${agent.lrr}": r"seed=.*: \$\{agent.lrr\} names an option that the config does not have; did you .*",
    "seed=${oc.nope:3}": r"seed=.*: there is no function oc.nope; write \$\{<option>\} or \$\{oc.env:<variable>\}",
    "agent.lr=${oc.decode:1e-3}": r"agent.lr=.*: oc.decode reads a text, and 0.001 is none; write 0.001 by itself",
    "seed=${oc.dict.keys:nope}": r"seed=.*: its \$\{…\} has no value \(Key not found: 'nope'\); correct it, or .*",
    "env=${oc.env:ID,CartPole-v1}": r"env=.*: env takes a plain name, such as env=\$NAME, which the shell replaces",
    "-m seed=interval(0,3)": r"a sweep takes single values, and an interval has none: write range\(0,3\) or .*",
    "--config-dir=. --config-name=unset": r"the config cannot be used: set the variable NOPE, or write .*",
    "--config-dir=. --config-name=of_env": r"env takes one name, .*: write env=<name>, without \$\{…\}; see --help",
}


@pytest.mark.parametrize("words", REFUSED_REFERENCES)
def test_a_reference_without_a_value_is_one_sentence(programs: Programs, tmp_path: Path, words: str) -> None:
    (tmp_path / "unset.yaml").write_text("defaults: [train, _self_]\nseed: ${oc.env:NOPE}\n")
    (tmp_path / "of_env.yaml").write_text('defaults: [train, override /env: "${oc.env:ID}", _self_]\n')
    result = programs.run("train", *words.split(), cwd=tmp_path)
    assert result.code == 2, result
    assert re.fullmatch(f"error: {REFUSED_REFERENCES[words]}\n", result.err), result.err
    assert not re.search("full_key|object_type|hydra.run.dir|interpolation", result.err)


def test_a_config_of_ones_own_without_self_is_one_with_it(programs: Programs, tmp_path: Path) -> None:
    """Hydra's warning is silenced: it adds _self_ at the end, where it belongs."""
    shown = []
    for name, defaults in {"with": "train, _self_", "without": "train"}.items():
        (tmp_path / f"{name}.yaml").write_text(f"defaults: [{defaults}]\nsteps: 90\n")
        result = programs.run("train", "--config-dir=.", f"--config-name={name}", "--cfg=job", cwd=tmp_path)
        assert (result.code, result.err) == (0, ""), result
        shown.append(result.out)
    assert shown[0] == shown[1]
    assert "steps: 90" in shown[0]


@pytest.mark.parametrize("words", REFUSED_BY_HYDRA)
def test_what_hydra_refuses_is_one_sentence(programs: Programs, tmp_path: Path, words: str) -> None:
    for name, content in {"bad": b"a: [1\n", "loop": b"defaults: [loop]\n", "bytes": b"\xff\xfe", "empty": b""}.items():
        (tmp_path / f"{name}.yaml").write_bytes(content)
    result = programs.run("train", *words.split(), "wandb.mode=disabled", "steps=10", cwd=tmp_path)
    assert result.code == 2, result
    assert re.fullmatch(f"error: {REFUSED_BY_HYDRA[words]}\n", result.err), result.err


def test_an_empty_config_and_options_that_are_taken_out(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    result = programs.run("evaluate", "--config-dir=.", "--config-name=empty", cwd=tmp_path)
    assert (result.code, result.err.count("error: there is no run")) == (2, 1), result.err
    result = programs.run("train", "~imports", "steps=x", cwd=tmp_path)
    assert (result.code, result.err) == (2, "error: steps is 'x': it must be a whole number\n")


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    """Only an error below Hydra's own functions becomes a sentence, and not one below ours that Hydra calls."""

    def error(*modules: str) -> Exception:
        """An error with the traceback of modules of which each calls the next, and the last fails."""
        source, inner = "raise AssertionError", dict[str, Any]()
        for module in reversed(modules):
            folder = ROOT if module.startswith("agent") else Path("/usr/lib/site-packages")
            code = compile(source, str(folder / f"{module.replace('.', '/')}.py"), "exec")
            source, inner = "exec(code, names)", {"code": code, "names": {"__name__": module, **inner}}
        try:
            exec(inner["code"], inner["names"])
        except AssertionError as caught:
            trace = caught.__traceback__
            return caught.with_traceback(trace and trace.tb_next)  # without the frame of this function
        raise AssertionError

    assert sentence_of(error("agent.command.program", "hydra.main", "yaml.reader", "codecs"), TRAIN) is not None
    assert sentence_of(error("hydra.main", "agent.running.run", "numpy"), TRAIN) is None
    assert sentence_of(error("numpy"), TRAIN) is None


def test_a_program_is_this_project_s_under_each_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT)
    for file in (ROOT / "train.py", ROOT / "tests" / ".." / "evaluate.py", tmp_path / "link" / "tune.py"):
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("1 / 0", str(file), "exec"))
        assert file.name not in [Path(frame.filename).name for frame in own_frames(caught.value)]
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("1 / 0", str(tmp_path / "train.py"), "exec"))
    assert Path(own_frames(caught.value)[-1].filename) == tmp_path / "train.py"


@pytest.mark.parametrize("words", ["", "hydra.run.dir=here/run", "-m seed=0,1"])
def test_a_config_that_changes_the_folder_leaves_no_folder_behind(
    programs: Programs, tmp_path: Path, words: str
) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "elsewhere.yaml").write_text(FILES["elsewhere.yaml"])
    options = ("--config-dir", "my", "--config-name", "elsewhere", *words.split())
    result = programs.run("train", *options, cwd=tmp_path)
    assert result.code == 2, result
    assert result.err.splitlines()[-1].startswith("error: hydra.job.chdir does not work here"), result.err
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*_seed*")} | set(
        map(str, tmp_path.rglob("run"))
    )
    assert not left
