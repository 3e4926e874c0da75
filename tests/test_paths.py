"""Options that are paths: an empty one, and one with ~, which only a shell replaces, are refused by every program."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import Programs
from runs import write_run

from agent import train
from agent.common.errors import UserError
from agent.config.compare import CompareConfig
from agent.config.parsing import parse
from agent.config.run import EvaluateConfig
from agent.config.share import ShareConfig
from agent.config.tune import TuneConfig
from agent.records.comparison.finding import find_runs

OPTIONS: list[tuple[type[Any], str, bool]] = [
    (CompareConfig, "runs", True),
    (CompareConfig, "out", False),
    (EvaluateConfig, "checkpoint", True),
    (ShareConfig, "checkpoint", False),
    (ShareConfig, "out", False),
    *((TuneConfig, name, False) for name in ("space", "out", "resume")),
]


@pytest.mark.parametrize(("config", "name", "several"), OPTIONS)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        *((text, "{name} is empty: it must be a path") for text in ("", " ", "\t")),
        *((text, "{name} is " + text + ": it must be a path with $HOME in place of ~") for text in ("~", "~/runs")),
    ],
)
def test_a_path_that_nobody_means_is_refused(config: Any, name: str, several: bool, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(sentence.format(name=name))}"):
        parse(config, {name: ["runs/a", text] if several else text})


@pytest.mark.parametrize(("config", "name", "several"), OPTIONS)
@pytest.mark.parametrize("text", [".", "runs/a b", "~mine", "a~", "..", "/"])
def test_any_other_path_is_taken(config: Any, name: str, several: bool, text: str) -> None:
    assert getattr(parse(config, {name: [text] if several else text}), name) == ((text,) if several else text)


@pytest.mark.parametrize(
    "words",
    [
        *(("compare", word) for word in ("", "runs=", "out=", "runs=[a,'']")),
        *(("evaluate", word) for word in ("checkpoint=", "checkpoint=['']")),
        *(("share", word) for word in ("checkpoint=", "out=")),
        *(("tune", word) for word in ("out=", "resume=", "space=")),
    ],
)
def test_an_empty_path_ends_a_program_in_one_sentence(
    programs: Programs, tmp_path: Path, words: tuple[str, str]
) -> None:
    result = programs.run(*words, cwd=tmp_path)
    assert result.code == 2
    assert re.fullmatch(r"error: \w+ is empty: it must be a path\n", result.err)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "words",
    [("tune", "out=a", "out=b"), ("compare", "a", "out=b", "out=c"), ("tune", "resume=a", "resume=b")],
)
def test_a_path_that_is_named_twice_is_refused(programs: Programs, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = programs.run(*words, cwd=tmp_path)
    assert result.code == 2
    assert "is given twice, and the last alone would count: name it once" in result.err
    assert not [*tmp_path.iterdir()]


#: Options with several values, and the advice on them.
VALUES = {
    ("train", "seed=0,1"): "add -m for a run with each",
    ("train", "agent.loss=huber,squared"): "add -m for a run with each",
    ("train", "wandb.name=a,b"): "add -m for a run with each, or write it as one text, 'wandb.name=\"a,b\"'",
    ("train", "env.kwargs.x=a,b"): "add -m for a run with each, or write it as one text, 'env.kwargs.x=\"a,b\"'",
    ("train", "wandb.tags=a,b"): "add -m for a run with each, or write it as a list, wandb.tags=[a,b]",
    ("train", "agent.network.hidden=64,64"): "add -m .*, or write it as a list, agent.network.hidden=[64,64]",
    ("evaluate", "episodes=3,4"): "episodes takes one value",
    ("evaluate", "checkpoint=a,b"): "name several agents with checkpoint=[runs/a,runs/b]",
    ("compare", "by=a,b"): "write it as a list, by=[a,b]",
    ("compare", "metric=a,b"): "metric takes one value, or write it as one text, 'metric=\"a,b\"'",
    ("share", "checkpoint=a,b"): "name one agent at a time",
    ("tune", "trials=3,4"): "trials takes one value",
}


@pytest.mark.parametrize("words", VALUES, ids=" ".join)
def test_advice_on_several_values_fits_the_option(programs: Programs, tmp_path: Path, words: tuple[str, str]) -> None:
    result = programs.run(*words, cwd=tmp_path)
    pattern = re.escape(VALUES[words]).replace(r"\.\*", ".*")
    assert re.fullmatch(f"error: {re.escape(words[1])} reads as several values: {pattern}\n", result.err), result.err


@pytest.mark.parametrize("path", ["checkpoints", "config.yaml", "metrics.jsonl", "checkpoints/latest"])
def test_a_part_of_a_run_leads_to_it(programs: Programs, tmp_path: Path, path: str) -> None:
    run = write_run(tmp_path / "runs" / "Game" / "a")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "latest").write_text("step_000000000300")
    for words, sentence in (
        (
            ("evaluate", f"checkpoint=runs/Game/a/{path}"),
            "is no agent, but a part of the run runs/Game/a: give the run's",
        ),
        (("share", f"checkpoint=runs/Game/a/{path}"), "is no agent, but a part of the run runs/Game/a: give the run's"),
        (("train", f"resume=runs/Game/a/{path}"), "the run runs/Game/a.*resume=runs/Game/a"),
        (("train", "resume=runs/Game"), "name a run in it, such as resume=runs/Game/a"),
        (("evaluate", "checkpoint=runs"), "holds no saved agent, but runs: name one of them, such as runs/Game/a"),
    ):
        result = programs.run(*words, cwd=tmp_path)
        assert result.code == 2
        assert re.search(sentence, result.err), result.err
    assert [found.name for found in find_runs([str(run / path)])] == ["a"]


@pytest.mark.parametrize("env", ["ALE/Pnog-v5", "a/b/Nope-v3", "../Nope-v3", "../../Nope-v3", "/Nope-v3", "./Nope-v3"])
def test_a_misspelt_id_leaves_no_folder(programs: Programs, tmp_path: Path, env: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert programs.run("train", f"env={env}", cwd=folder).code == 2
    assert programs.run("tune", f"env={env}", cwd=folder).code == 2
    assert set(tmp_path.rglob("*")) <= {tmp_path / "a", folder, folder / "runs"}


@pytest.mark.parametrize("option", ["resume", "hydra.run.dir"])
def test_folders_made_for_a_run_that_does_not_begin_are_removed(
    programs: Programs, tmp_path: Path, option: str
) -> None:
    (tmp_path / "mine").mkdir()
    for place in ("mine/a/b", "other/a/b", "new"):
        result = programs.run("train", "env=Nope-v1", f"{option}={place}", cwd=tmp_path)
        assert result.code == 2, result.err
        with pytest.raises(UserError):
            train("env=Nope-v1", f"{option}={tmp_path / place}")
    assert [*tmp_path.rglob("*")] == [tmp_path / "mine"], "an empty folder of the user's stays"


def test_a_run_is_not_resumed_from_within(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("train", "resume=.", cwd=tmp_path)
    assert result.err == "error: resume=. is the folder that this was started in: name the run from another folder\n"
    with pytest.raises(UserError, match="the folder that this was started in"):
        train("hydra.run.dir=")


def test_a_number_names_an_agent_only_in_quotes(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("evaluate", "checkpoint=2026", cwd=tmp_path)
    assert result.err == (
        "error: checkpoint is 2026: it must be a word: on a command line write '[\"2026\"]', in both kinds of quotes\n"
    )
