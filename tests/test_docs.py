"""The documents: every example runs, every command composes, and every name stands for something that exists."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, Programs, plain_environment
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from agent.command.comparing import comparison_request, paths_to_override
from agent.command.composing import compose_training, evaluation_request, sharing_request, to_options
from agent.command.tuning import new_study, train_options_to_override
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.config.tune import TuneConfig

README, EXTENDING = ROOT / "README.md", ROOT / "docs" / "EXTENDING.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HELP = [
    ROOT / "conf" / name
    for name in ("train.yaml", "evaluate/evaluate.yaml", "compare/compare.yaml", "share/share.yaml", "tune/tune.yaml")
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Options for runs that take a second.
SHORT = {
    "train": (
        *("steps=300", "num_envs=2", "wandb.mode=disabled", "eval.video=false", "eval.episodes=2"),
        *("agent.learning_starts=64", "agent.batch_size=64"),
    ),
    "evaluate": ("episodes=2",),
}


# ---- reading Markdown


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages."""
    return [content for language, content in FENCED.findall(text) if language in languages]


def named(path: Path) -> str:
    """The text of a document in which the tests look for names of this project: all but Python, which is executed."""
    return FENCED.sub(lambda block: "" if block[1] == "python" else block[0], path.read_text())


def commands(path: Path, program: str) -> list[list[str]]:
    """The options of every `python <program> …` in shell blocks and code spans, or in the text that --help shows."""
    text = path.read_text()
    if path.suffix == ".yaml":  # in a line of --help a description follows the command
        shown = [re.split(r" {3,}", line.strip())[0] for line in text.partition("template:")[2].splitlines()]
    else:
        shown = [line for block in blocks(text, "sh", "bash") for line in block.splitlines()]
        shown += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    found = (re.search(rf"\bpython {re.escape(program)}(?![\w.])(.*)", line) for line in shown)
    return [shlex.split(match[1], comments=True) for match in found if match]


def every_command(program: str) -> list[tuple[Path, list[str]]]:
    return [(path, options) for path in (*DOCUMENTS, *HELP) for options in commands(path, program)]


def anchor(heading: str) -> str:
    """The anchor that GitHub makes from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def label(value: object) -> str | None:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else " ".join(value) if value else None  # type: ignore[arg-type]


# ---- the README


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 8_000


def test_the_first_shell_block_trains_and_the_second_tests() -> None:
    """.ci/run runs them: the n-th block that is marked bash."""
    training, testing = blocks(README.read_text(), "bash")
    assert training.rstrip().endswith("python train.py env=CartPole-v1")
    assert testing.rstrip().endswith("python -m pytest -n 2")


@pytest.mark.parametrize("path", [README, ROOT / "docs" / "AGENTS.md"], ids=label)
def test_returns_are_those_of_the_page_of_results(path: Path) -> None:
    """Every mean with an interval in these documents stands in docs/RESULTS.md as well."""
    found = re.findall(r"−?\d+\.\d \[−?\d+\.\d, −?\d+\.\d\]", path.read_text().replace("\n", " "))
    results = (ROOT / "docs" / "RESULTS.md").read_text()
    assert len(found) > 3
    assert [value for value in found if value not in results] == []


#: Code that runs before an example and makes all its runs short.
SHORT_RUNS = """
import agent
in_full = agent.train
agent.train = lambda *overrides, **options: in_full(*overrides, **options | {
    "steps": 300, "wandb": {"mode": "disabled"}, "eval": {"video": False, "episodes": 2},
    "agent": {**options.get("agent", {}), "learning_starts": 128}})
"""


@pytest.mark.parametrize("path", [README, ROOT / "docs" / "PYTHON.md"], ids=label)
def test_python_runs(path: Path, tmp_path: Path) -> None:
    """All blocks of a document, in its order, in one fresh interpreter and one fresh folder."""
    found = blocks(path.read_text(), "python")
    assert found
    code = SHORT_RUNS + "\n".join(found)
    environment = plain_environment() | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# ---- extensions: saved under the name in the first line, and run by the commands that are shown


def test_examples_of_extensions_run_as_they_stand(programs: Programs, tmp_path: Path) -> None:
    text = EXTENDING.read_text()
    for code in blocks(text, "python"):
        name = re.match(r"# (\w+\.py)\n", code)
        assert name, f"an example without a name: {code[:60]}"
        (tmp_path / name[1]).write_text(code)
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    assert len(lines) >= 2 * len(blocks(text, "python"))
    for line in lines:
        _, program, *options = shlex.split(line, comments=True)
        program = program.removesuffix(".py")
        options = [newest_run(option, tmp_path) for option in options]
        result = programs.run(program, *options, *SHORT[program], cwd=tmp_path)
        assert result.code == 0, f"{line}\n{result.err}"
    seen = {path.name for path in tmp_path.glob("my_*.py")}
    assert {name for line in lines for name in re.findall(r"my_\w+", line)} == {name[:-3] for name in seen}


def newest_run(option: str, folder: Path) -> str:
    """An option in which the newest existing run replaces <run>."""
    name, _, path = option.partition("=")
    if "<run>" not in path:
        return option
    found = max(folder.glob(path.replace("<run>", "*")), key=lambda run: run.stat().st_mtime_ns)
    return f"{name}={found.relative_to(folder)}"


# ---- commands


@pytest.mark.parametrize(("path", "options"), every_command("train.py"), ids=label)
def test_a_training_command_composes(
    path: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for overrides in sweep(options):
        composed, _ = compose_training(overrides)
        del composed["imports"], composed["resume"]
        composed["env"]["id"] = composed["env"]["id"].rpartition(":")[2]
        parse(TrainConfig, composed)


@pytest.mark.parametrize(("path", "options"), every_command("evaluate.py"), ids=label)
def test_an_evaluation_command_composes(path: Path, options: list[str]) -> None:
    for overrides in sweep(options):
        with initialize_config_dir(str(ROOT / "conf" / "evaluate"), version_base="1.3"):
            cfg = compose("evaluate", overrides)
        cfg.imports = []
        evaluation_request(to_options(cfg))


@pytest.mark.parametrize(("path", "options"), every_command("compare.py"), ids=label)
def test_a_comparing_command_composes(path: Path, options: list[str]) -> None:
    for overrides in sweep(paths_to_override(options)):
        with initialize_config_dir(str(ROOT / "conf" / "compare"), version_base="1.3"):
            cfg = compose("compare", overrides)
        assert comparison_request(to_options(cfg)).runs


@pytest.mark.parametrize(("path", "options"), every_command("share.py"), ids=label)
def test_a_sharing_command_composes(path: Path, options: list[str]) -> None:
    for overrides in sweep(options):
        with initialize_config_dir(str(ROOT / "conf" / "share"), version_base="1.3"):
            cfg = compose("share", overrides)
        sharing_request(to_options(cfg))


@pytest.mark.parametrize(("path", "options"), every_command("tune.py"), ids=label)
def test_a_tuning_command_composes(path: Path, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_space.yaml").write_text("agent.lr: {low: 1e-4, high: 1e-2}")
    for overrides in sweep(train_options_to_override(options)):
        with initialize_config_dir(str(ROOT / "conf" / "tune"), version_base="1.3"):
            cfg = compose("tune", overrides)
        config = parse(TuneConfig, to_options(cfg))
        if config.resume is None:
            space = None if config.space is None else str(tmp_path / config.space)
            new_study(replace(config, space=space))


def test_commands_are_found() -> None:
    assert len(every_command("tune.py")) > 8
    assert len(every_command("train.py")) > 50
    assert len(every_command("evaluate.py")) > 5
    assert len(every_command("compare.py")) > 5
    assert len(every_command("share.py")) > 3


def sweep(options: list[str]) -> Iterator[list[str]]:
    """The options of every job of a command: one job without -m, none of its own for --help."""
    parser, choices = OverridesParser.create(), []
    for option in options:
        if option.startswith("-"):
            assert option in ("-m", "--help"), option
            continue
        override = parser.parse_override(filled(option))
        key = override.get_key_element()
        many = override.is_sweep_override()
        assert not many or "-m" in options, f"{option} needs -m"
        choices.append([f"{key}={value}" for value in override.sweep_string_iterator()] if many else [filled(option)])
    yield from map(list, product(*choices))


def filled(option: str) -> str:
    """An option whose placeholders <id>, <env> and others are filled in."""
    return re.sub(r"<\w+>", "x", re.sub(r"<(id|env)>", "CartPole-v1", option))


@pytest.mark.parametrize("script", sorted(ROOT.glob("benchmarks/*.py")), ids=label)
def test_commands_of_benchmarks_name_options_that_are_there(script: Path) -> None:
    source = script.read_text() + (ROOT / "benchmarks" / "reporting.py").read_text()
    for path, options in every_command(f"benchmarks/{script.name}"):
        for option in options:
            assert not option.startswith("-") or f'"{option}"' in source, f"{path.name}: {script.name} {option}"


# ---- names


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", path.read_text())):
        if re.match(r"https?://", link):
            continue
        name, _, section = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{path.name} links to {link}, outside of the repository"
        if section:
            headings = re.findall(r"^#+ (.*)$", FENCED.sub("", target.read_text()), re.MULTILINE)
            assert section in map(anchor, headings), f"{path.name} links to {link}"


TOP = "agent|envs|conf|docs|tests|benchmarks|examples"


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_paths_that_are_named_exist(path: Path) -> None:
    for name in re.findall(rf"(?<![\w/.\-])((?:{TOP})/[\w<>/.\-]*[\w>/])", named(path)):
        pattern = re.sub(r"<\w+>", "*", name).rstrip("/")
        assert any(ROOT.glob(pattern)), f"{path.name} names {name}"


def launcher_options() -> set[str]:
    """The options of the launchers that the extras parallel and slurm bring."""
    for module in ("hydra_joblib_launcher", "hydra_submitit_launcher"):
        pytest.importorskip(f"hydra_plugins.{module}.config", reason="needs the extras parallel and slurm")
    return {str(name) for entry in ConfigStore.instance().repo["hydra"]["launcher"].values() for name in entry.node}


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_options_that_are_named_exist(path: Path) -> None:
    """Each a.b.c that begins with a node of the config is an option, unless it is a module or file of the project."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
    for name in re.findall(r"(?<![\w/.\-])((?:agent|env|eval|checkpoint|log|wandb|hydra)(?:\.[a-z]\w*)+)", named(path)):
        if name.endswith(".safetensors") or (ROOT / name.replace(".", "/")).with_suffix(".py").exists():
            continue
        if name.startswith("hydra.launcher."):
            assert name.split(".")[2] in launcher_options(), f"{path.name} names {name}"
            continue
        node: Any = cfg
        for part in name.split("."):
            free = any(
                node is n for n in (cfg.env.kwargs, cfg.env.eval_kwargs, cfg.agent.head_options)
            )  # names below these nodes are free
            assert free or part in node, f"{path.name} names {name}"
            if free:
                break
            node = node._get_node(part)


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_tests_and_extras_that_are_named_exist(path: Path) -> None:
    tests = {
        name for file in (ROOT / "tests").glob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    } | {file.stem for file in (ROOT / "tests").glob("*.py")}
    assert set(re.findall(r"(?<![\w/])test_\w+", path.read_text())) <= tests
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(\w+)\]'", path.read_text())) <= set(extras)
