"""Every option that a resume changes has an effect, or is refused by its name."""

from __future__ import annotations

import json
import re
import shutil
import typing
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
import yaml
from helpers import Programs, Result
from test_ranges import options, select

from agent.command import composing
from agent.common.errors import UserError
from agent.common.state import Checkpoint
from agent.config.parsing import parse, to_plain
from agent.config.resuming import MAY_CHANGE, may_change, merge_resumed
from agent.config.run import TrainConfig
from agent.records.run_folder import note_on_edits
from agent.records.saved_agent import read_agent

ROOT = Path(__file__).resolve().parent.parent
#: A run in which every option that may change has an effect.
RUN: dict[str, Any] = {
    "agent": {
        "noise": {"enabled": False},
        "epsilon": {"start": 1.0, "end": 0.1, "steps": 1500},
        "priority": {"enabled": True},
        "lr_end": 0.0001,
        "lr_updates": 1000,
        "batch_size": 32,
        "learning_starts": 64,
        "network": {"hidden": [16]},
        "replay_size": 600,
        "target_every": 40,
    },
    "num_envs": 2,
    "steps": 400,
    "eval": {"every": 300, "episodes": 2, "num_envs": 2, "video": False},
    "checkpoint": {"every": 300},
    "log": {"every": 300},
    "wandb": {"mode": "disabled"},
}
OTHER = {
    "agent.head": "quantile",
    "agent.network.encoder": "impala",
    "agent.head_options": {"x": 1},
    "agent.target_range": [-1.0, 1.0],
    "device": "cpu",
    "env.id": "Acrobot-v1",
    "env.action_mask": "info.mask",
    "env.observation": ["image"],
    "env.wrappers": ["FlattenObservation"],
    "env.kwargs": {"sutton_barto_reward": True},
    "env.eval_kwargs": {"sutton_barto_reward": True},
    "eval.stop_at": 475.0,
    "agent.epsilon.end": 0.05,
    "agent.epsilon.start": 0.5,
}


def other(name: str, hint: Any, value: Any) -> Any:
    """Another valid value of an option."""
    if name in OTHER:
        return OTHER[name]
    while get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    if get_origin(hint) is Literal:
        return next(choice for choice in kinds if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    if isinstance(value, float):
        return value / 2 or 0.25
    if isinstance(value, Fraction):
        return 1
    if isinstance(value, tuple):
        return [8] if name.endswith("hidden") else ["word"]
    return {str: "word", int: 3, float: 0.25}[kinds[0]]


def resumed(name: str, value: Any, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The config of the run RUN, resumed with one option."""
    saved = to_plain(parse(TrainConfig, RUN))
    monkeypatch.setattr(composing, "open_run", lambda *given: Checkpoint(200, {"config": saved}))
    asked = to_plain(TrainConfig())
    *path, leaf = name.split(".")
    node = asked
    for part in path:
        node = node[part]
    node[leaf] = value
    return composing.training_request({**asked, "resume": "run", "imports": []}, [override], tmp_path).config


@pytest.mark.parametrize(("name", "hint"), [pytest.param(*option, id=option[0]) for option in options(TrainConfig)])
def test_an_option_is_changed_or_refused_by_its_name(
    name: str, hint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = other(name, hint, select(parse(TrainConfig, RUN), name))
    override = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
    if name == "env.id":
        override = f"env={value}"
    if name == "collect.engine":
        override = f"collect={value}"
    if may_change(name):
        config = resumed(name, value, re.sub(r"[{}]", "", override), tmp_path, monkeypatch)
        assert to_plain(select(config, name)) == value
        assert select(config, name) != select(parse(TrainConfig, RUN), name)
        return
    with pytest.raises(UserError) as refusal:
        resumed(name, value, override.replace('"', ""), tmp_path, monkeypatch)
    said = str(refusal.value)
    assert re.search(rf"{re.escape(name)}(\.\w+)?=", said)
    assert "was requested" in said
    if override.startswith(name):
        assert "may change steps, device" in said
        assert "agent.lr, " in said


def test_what_may_change_is_documented_and_exists() -> None:
    text = (ROOT / "docs" / "RUNS.md").read_text()
    section = text[text.index("## Stop and resume") : text.index("## Evaluate")]
    names = {name for name, _ in options(TrainConfig)}
    for name in MAY_CHANGE:
        assert f"`{name}`" in section, name
        assert any(full == name or full.startswith(f"{name}.") for full in names), name


def test_an_option_is_compared_with_the_run_and_not_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ε that ends at 0.05 is right for the run, and wrong for the default agent, whose ε starts at 0."""
    config = resumed("agent.epsilon.end", 0.05, "agent.epsilon.end=0.05", tmp_path, monkeypatch)
    assert (config.agent.epsilon.start, config.agent.epsilon.end) == (1.0, 0.05)
    with pytest.raises(UserError, match=r"agent\.epsilon\.start=0\.05: ε may only fall"):  # the run's ε ends at 0.1
        resumed("agent.epsilon.start", 0.05, "agent.epsilon.start=0.05", tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"agent\.lr is -1"):
        resumed("agent.lr", -1, "agent.lr=-1", tmp_path, monkeypatch)


def test_a_preset_changes_nothing_but_goes_with_what_is_named_beside_it() -> None:
    saved = {"agent": {"lr": 0.1, "gamma": 0.9}, "steps": 5}
    preset = {"agent": {"lr": 0.2, "gamma": 0.9}, "steps": 5}
    with pytest.raises(
        UserError, match=r"agent\.lr=0\.2 was requested by agent=x: .*or write agent\.lr=0\.2 beside it"
    ):
        merge_resumed(saved, preset, ["agent=x"])
    for overrides in (["agent=x", "agent.lr=0.2"], ["agent.lr=0.2", "agent=x"]):
        assert merge_resumed(saved, preset, overrides) == preset
    with pytest.raises(UserError, match=r"agent\.gamma=0\.5 was requested by agent=x: leave agent=x out, or start"):
        merge_resumed(saved, {"agent": {"lr": 0.1, "gamma": 0.5}}, ["agent=x"])


# ---- options with an effect


def words(node: dict[str, Any], prefix: str = "") -> list[str]:
    """A config as overrides."""
    found = []
    for name, value in node.items():
        below = isinstance(value, dict)
        found += words(value, f"{prefix}{name}.") if below else [f"{prefix}{name}={json.dumps(value)}"]
    return found


class Resumed:
    """A run that was resumed with other options, and its output."""

    def __init__(self, run: Path, result: Result) -> None:
        self.run, self.text = run, result.out + result.err
        self.rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        self.tensors = read_agent(run / "last" / "agent.safetensors").tensors

    def steps(self, name: str) -> list[int]:
        """The steps at which a metric was logged after the resume."""
        return [row["global_step"] for row in self.rows if name in row and row["global_step"] > 410]

    def last(self, name: str) -> float:
        return float([row[name] for row in self.rows if name in row][-1])

    def learned(self, like: Resumed) -> bool:
        """Whether the run ended with other parameters than `like`."""
        return any(not torch.equal(value, like.tensors[name]) for name, value in self.tensors.items())


@pytest.fixture(scope="module")
def go_on(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Resumed]:
    """Resumes a copy of one run with some options, to step 900."""
    home = tmp_path_factory.mktemp("home")
    assert programs.run("train", *words(RUN), "hydra.run.dir=run", cwd=home).code == 0

    def go(*overrides: str) -> Resumed:
        place = tmp_path_factory.mktemp("copy")
        shutil.copytree(home / "run", place / "run")
        result = programs.run(
            "train",
            "resume=run",
            *overrides,
            *([] if overrides and overrides[0].startswith("steps") else ["steps=900"]),
            cwd=place,
        )
        assert result.code == 0, result.err
        assert "does nothing" not in result.err
        assert "the options of its checkpoint" not in result.out + result.err
        return Resumed(place / "run", result)

    return go


@pytest.fixture(scope="module")
def plain(go_on: Callable[..., Resumed]) -> Resumed:
    """The run, resumed without other options."""
    return go_on()


def test_an_option_that_was_edited_in_the_file_is_named(programs: Programs, plain: Resumed, tmp_path: Path) -> None:
    """A resumed run does not read config.yaml. Without the line a person would believe the edited options."""
    run = Path(shutil.copytree(plain.run, tmp_path / "run"))
    text = (run / "config.yaml").read_text()
    saved = parse(TrainConfig, yaml.safe_load(text))
    for line, name in [("  batch_size: 32", "agent.batch_size"), ("num_envs: 2", "num_envs"), ("steps: 900", "steps")]:
        edited = re.sub(f"^{line}$", f"{line.partition(':')[0]}: 0.5", text, flags=re.MULTILINE)
        assert edited != text
        (run / "config.yaml").write_text(edited)
        note = note_on_edits(run, to_plain(saved))
        assert note is not None
        assert f"has {name}=0.5, and the checkpoint {line.split()[1]}: a resumed run has" in note
    result = programs.run("train", "resume=run", "steps=950", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "has steps=0.5, and the checkpoint 900" in result.out + result.err
    for same in ("[", "5", "", text):
        (run / "config.yaml").write_text(same)
        assert note_on_edits(run, to_plain(saved)) is None


LEARNED: dict[str, str | None] = {
    "agent.lr=0.05": "train/learning_rate",
    "agent.lr_end=0.0009": "train/learning_rate",
    "agent.lr_updates=300": "train/learning_rate",
    "agent.adam_eps=0.1": None,
    "agent.max_grad_norm=0.001": None,
    "agent.target_every=3": None,
    "agent.tau=0.1": None,
    "agent.epsilon.start=0.2": "train/epsilon",
    "agent.epsilon.end=0.05": "train/epsilon",
    "agent.epsilon.steps=500": "train/epsilon",
    "agent.priority.beta=0.9": "replay/beta",
    "agent.priority.beta_steps=900": "replay/beta",
}


@pytest.mark.parametrize("override", LEARNED)
def test_a_changed_pace_is_learned_with_and_shown(override: str, go_on: Callable[..., Resumed], plain: Resumed) -> None:
    changed, metric = go_on(override), LEARNED[override]
    assert changed.learned(plain)
    assert len(changed.steps("train/loss")) == len(plain.steps("train/loss")) == 2
    if metric is not None:
        assert changed.last(metric) != plain.last(metric)
    name, _, value = override.partition("=")
    assert re.search(rf"^ *{name.rpartition('.')[2]}: {value}$", (changed.run / "config.yaml").read_text(), re.M)


def checkpoints(resumed: Resumed) -> int:
    return len(list((resumed.run / "checkpoints").glob("step_*")))


SHOWN: dict[str, Callable[[Resumed, Resumed], bool]] = {
    "steps=700": lambda now, plain: 700 <= now.rows[-1]["global_step"] < 710,
    "backend=torch": lambda now, plain: "updates: autograd" in now.text and "updates: NumPy" in plain.text,
    "overlap=on": lambda now, plain: "while the environments step" in now.text and now.learned(plain),
    "threads=2": lambda now, plain: "error" not in now.text,
    "device=cpu": lambda now, plain: not now.learned(plain),
    "cuda_graphs=off": lambda now, plain: not now.learned(plain),
    "agent.replay_device=cpu": lambda now, plain: not now.learned(plain),
    "eval.every=100": lambda now, plain: [step // 100 for step in now.steps("eval/return_mean")] == [5, 6, 7, 8, 9],
    "eval.episodes=3": lambda now, plain: "over 3 episodes" in now.text,
    "eval.num_envs=1": lambda now, plain: not now.learned(plain),
    "eval.share=true": lambda now, plain: bool(now.steps("eval/return_mean")),
    "eval.stop_at=1": lambda now, plain: "solved at step 60" in now.text,
    "eval={stop_at:1,stop_patience:2}": lambda now, plain: "solved at step 90" in now.text,
    "eval.noisy=false": lambda now, plain: not now.steps("eval_noisy/return_mean"),
    "eval.video=true": lambda now, plain: len(list((now.run / "videos").iterdir())) == 1,
    "eval={video:true,video_every:1}": lambda now, plain: len(list((now.run / "videos").iterdir())) == 2,
    "checkpoint={every:100,keep:9}": lambda now, plain: checkpoints(now) >= 6 and not now.learned(plain),
    "checkpoint.keep=1": lambda now, plain: checkpoints(now) == 1 < checkpoints(plain),
    "log.every=50": lambda now, plain: len(now.steps("train/loss")) > 2 * len(plain.steps("train/loss")),
    "log.progress=false": lambda now, plain: not now.learned(plain),
    "log.network=true": lambda now, plain: "QNetwork(" in now.text and "QNetwork(" not in plain.text,
    "wandb.mode=offline": lambda now, plain: bool(list(now.run.glob("wandb/offline-run-*"))),
}


@pytest.mark.parametrize("override", SHOWN)
def test_a_changed_option_of_the_run_acts(override: str, go_on: Callable[..., Resumed], plain: Resumed) -> None:
    assert SHOWN[override](go_on(override), plain)


def test_the_options_of_actors_change_and_the_actors_go_on(programs: Programs, tmp_path: Path) -> None:
    """With chunks of 64 steps of 2 environments a run overshoots its steps by far more than with chunks of 2."""
    pytest.importorskip("ray")
    ray = ("collect=ray", "collect.actors=1", "collect.sync=true", "collect.chunk=64", "seed=1")
    result = programs.run("train", *words(RUN), *ray, "hydra.run.dir=run", cwd=tmp_path)
    assert result.code == 0, result.err
    first = int((tmp_path / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))
    assert first > 430  # there are whole chunks of 128 rows, some of which are resets
    changed = ("collect.chunk=2", "collect.publish=3", "collect.timeout=100", "collect.memory=0.2")
    result = programs.run("train", "resume=run", *changed, f"steps={first + 50}", cwd=tmp_path)
    assert result.code == 0, result.err
    last = int((tmp_path / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))
    assert first + 50 <= last < first + 50 + 10
    refused = programs.run("train", "resume=run", "collect.actors=2", f"steps={last + 50}", cwd=tmp_path)
    assert refused.code == 2
    assert "collect.actors=2 was requested: leave collect.actors=2 out" in refused.err


def test_the_schedule_of_the_noise_may_change(programs: Programs, tmp_path: Path) -> None:
    small = ("agent.network.hidden=[16]", "agent.learning_starts=64", "agent.batch_size=64", "wandb.mode=disabled")
    quiet = (*small, "env=CartPole-v1", "num_envs=2", "eval.episodes=0", "agent.noise.change.steps=1000")
    assert programs.run("train", *quiet, "steps=300", "hydra.run.dir=as_it_was", cwd=tmp_path).code == 0
    shutil.copytree(tmp_path / "as_it_was", tmp_path / "changed")
    schedule = [f"agent.noise.change.{name}" for name in ("start=0.9", "end=0.9", "steps=500")]
    found = []
    for folder, overrides in (("as_it_was", []), ("changed", schedule)):
        result = programs.run("train", f"resume={folder}", "steps=900", *overrides, cwd=tmp_path)
        assert result.code == 0, result.err
        found.append(read_agent(tmp_path / folder / "last" / "agent.safetensors").tensors)
    assert any(not torch.equal(value, found[1][name]) for name, value in found[0].items())
