"""Options that are paths: an empty one, and one with ~, which only a shell replaces, are refused by every program."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import Programs

from agent.common.errors import UserError
from agent.config.compare import CompareConfig
from agent.config.parsing import parse
from agent.config.run import EvaluateConfig
from agent.config.share import ShareConfig
from agent.config.tune import TuneConfig

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
    assert "is given twice, and the last one alone would count: name it once" in result.err
    assert not [*tmp_path.iterdir()]


def test_a_number_names_an_agent_only_in_quotes(programs: Programs, tmp_path: Path) -> None:
    result = programs.run("evaluate", "checkpoint=2026", cwd=tmp_path)
    assert result.err == (
        "error: checkpoint is 2026: it must be a word: on a command line write '[\"2026\"]', in both kinds of quotes\n"
    )
