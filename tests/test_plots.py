"""Pictures: they are drawn from the existing data, however incomplete, without global state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import agent.records.plots
from agent.common.errors import UserError
from agent.records.comparison.canvas import inline
from agent.records.plots import plot_evaluation, plot_learning_curve
from agent.running.results import draw


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of every picture that is written."""
    seen: list[Axes] = []
    save = Figure.savefig

    def spy(figure: Figure, *args: Any, **kwargs: Any) -> None:
        seen.extend(figure.axes)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return seen


def metrics(tmp_path: Path, rows: list[dict[str, Any]], tail: str = "") -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [item for item in axes.get_lines() if str(item.get_label()).startswith(label)]
    return list(np.asarray(found.get_xdata())), list(np.asarray(found.get_ydata()))


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return image.format == "PNG" and pixels.shape[1] > 600 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_the_curve_has_the_returns_where_they_were_logged(tmp_path: Path, drawn: list[Axes]) -> None:
    rows: list[dict[str, Any]] = [{"global_step": 10 * i, "train/episode_return": float(i)} for i in range(1, 31)]
    evaluated = {"eval/return_std": 5.0, "eval/return_min": 44.0, "eval/return_max": 104.0}
    rows += [{"global_step": 100 * i, "eval/return_mean": 50.0 * i, **evaluated} for i in (1, 2)]
    rows += [{"global_step": 100 * i, "eval_noisy/return_mean": 40.0 * i} for i in (1, 2)]
    path = metrics(tmp_path, rows, tail='{"global_step": 400, "train/episode_ret')
    plot_learning_curve(path, tmp_path / "deep" / "curve.png", "CartPole-v1", 475.0)
    (axes,) = drawn
    assert line(axes, "evaluation (mean") == ([100.0, 200.0], [50.0, 100.0])
    assert line(axes, "evaluation with noise") == ([100.0, 200.0], [40.0, 80.0])
    assert line(axes, "solved")[1] == [475.0, 475.0]
    steps, means = line(axes, "mean of the last 20")
    assert steps == [10.0 * i for i in range(1, 31)]
    naive = [np.mean(list(range(max(1, i - 19), i + 1))) for i in range(1, 31)]
    assert means == pytest.approx(naive)
    band, named = axes.collections
    ys = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (ys.min(), ys.max()) == (45.0, 104.0), "no higher than the highest return that was seen"
    assert "standard deviation" in str(named.get_label())
    assert line(axes, "an episode of training")[1] == [float(i) for i in range(1, 31)]
    assert axes.get_title(loc="left") == "CartPole-v1"
    assert axes.get_xlabel() == "environment steps"
    assert "return" in axes.get_ylabel()
    assert is_picture(tmp_path / "deep" / "curve.png")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "\n\n{torn",
        "[1, 2]\n3\nnull\n",
        '{"global_step": null, "train/episode_return": 1}\n',
        '{"global_step": 5, "train/episode_return": null, "eval/return_mean": "x"}\n',
        '{"global_step": 5, "loss": 1.0}\n',
    ],
)
def test_a_curve_without_returns_is_a_picture_too(text: str | None, tmp_path: Path, drawn: list[Axes]) -> None:
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    plot_learning_curve(path, tmp_path / "curve.png", "x", None)
    assert [item.get_text() for item in drawn[0].texts] == ["no finished episode yet"]


def test_an_unfinished_character_is_a_torn_line(tmp_path: Path, drawn: list[Axes]) -> None:
    path = metrics(tmp_path, [{"global_step": 5, "train/episode_return": 1.0}])
    path.write_bytes(path.read_bytes() + b'{"global_step": 6, "\xe2')
    plot_learning_curve(path, tmp_path / "curve.png", "x", None)
    assert line(drawn[0], "an episode of training") == ([5.0], [1.0])


def test_one_evaluation_alone_and_rows_out_of_order(tmp_path: Path, drawn: list[Axes]) -> None:
    plot_learning_curve(metrics(tmp_path, [{"global_step": 0, "eval/return_mean": 9}]), tmp_path / "a.png", "x", 1.0)
    assert line(drawn[0], "evaluation") == ([0.0], [9.0])
    rows = [{"global_step": step, "eval/return_mean": float(step)} for step in (3, 1, 2)]
    plot_learning_curve(metrics(tmp_path, rows), tmp_path / "b.png", "x", None)
    assert line(drawn[1], "evaluation")[0] == [1.0, 2.0, 3.0]


def test_a_long_run_is_drawn_with_few_dots(tmp_path: Path, drawn: list[Axes]) -> None:
    rows = [{"global_step": i, "train/episode_return": 1.0} for i in range(20_001)]
    plot_learning_curve(metrics(tmp_path, rows), tmp_path / "curve.png", "x", None)
    dots = max(len(np.asarray(item.get_xdata())) for item in drawn[0].get_lines() if item.get_marker() == ".")
    assert 1000 < dots <= agent.records.plots.MAX_DOTS


def result(label: str, returns: list[float]) -> dict[str, Any]:
    mean = float(np.mean(returns))
    return {
        "label": label,
        "returns": returns,
        "return_mean": mean,
        "return_iqm": mean + 1.0,
        "return_ci95": (mean - 2.0, mean + 3.0),
    }


def test_an_evaluation_shows_every_return_and_the_marks(tmp_path: Path, drawn: list[Axes]) -> None:
    results = [result("best", [1.0, 2.0, 3.0, 10.0]), result("last", [5.0])]
    plot_evaluation(results, tmp_path / "evaluation.png")
    (axes,) = drawn
    dots = [sorted(np.asarray(item.get_xdata())) for item in axes.get_lines() if item.get_marker() == "."]
    assert dots == [[1.0, 2.0, 3.0, 10.0], [5.0]]
    assert line(axes, "mean")[0] == [4.0]
    assert line(axes, "interquartile mean")[0] == [5.0]
    assert line(axes, "95 %")[0] == [2.0, 7.0]
    labels = [item.get_text() for item in axes.get_yticklabels()]
    assert labels == [
        "best\n4 episodes\nmean 4.0 [2.0, 7.0]\nIQM 5.0",
        "last\n1 episode\nmean 5.0 [3.0, 8.0]\nIQM 6.0",
    ]
    low, high = axes.get_xlim()
    assert low < 1.0
    assert high > 10.0
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first agent is on top
    assert is_picture(tmp_path / "evaluation.png")


def test_an_evaluation_names_its_task_its_step_and_its_episodes(tmp_path: Path, drawn: list[Axes]) -> None:
    named = {**result("runs/a/best", [1.0, 2.0]), "env": "CartPole-v1", "global_step": 20_000}
    plot_evaluation([named], tmp_path / "evaluation.png")
    assert drawn[0].get_title(loc="left") == "CartPole-v1: return of each episode"
    assert drawn[0].get_yticklabels()[0].get_text().splitlines()[1] == "2 episodes, step 20,000"
    plot_evaluation([named, {**named, "env": "Acrobot-v1", "global_step": "<b>"}], tmp_path / "evaluation.png")
    assert drawn[1].get_title(loc="left") == "CartPole-v1, Acrobot-v1: return of each episode"
    assert drawn[1].get_yticklabels()[1].get_text().splitlines()[1] == "2 episodes"


def test_equal_returns_and_many_agents(tmp_path: Path, drawn: list[Axes]) -> None:
    plot_evaluation([result(f"agent {i}", [500.0] * 100) for i in range(9)], tmp_path / "evaluation.png")
    (axes, *_) = drawn
    assert len({round(float(y), 3) for y in np.asarray(axes.get_lines()[0].get_ydata())}) > 90  # seen apart
    assert is_picture(tmp_path / "evaluation.png")


def test_a_full_disk_leaves_the_old_picture_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "evaluation.png"
    plot_evaluation([result("a", [1.0])], path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"evaluation\.png \(No space left on device\)"):
        plot_evaluation([result("b", [2.0])], path)
    with pytest.raises(UserError, match=r"evaluation\.png \(No space left on device\)"):
        plot_learning_curve(tmp_path / "none", path, "x", None)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_uses_no_global_state_and_importing_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.records.plots import plot_learning_curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_learning_curve(Path('none'), Path(sys.argv[1]), 'x', None)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True, cwd=root)


@pytest.mark.parametrize(
    ("file", "backend"),
    [
        (b"text.usetex: True", ""),
        (b"\xff\xfe\xff", ""),
        (b"", "nonsense"),
        (b"", "module://nowhere.backend_inline"),
    ],
    ids=["LaTeX", "no text", "no backend", "missing backend"],
)
def test_the_user_s_settings_of_matplotlib_change_no_picture(tmp_path: Path, file: bytes, backend: str) -> None:
    (tmp_path / "matplotlibrc").write_bytes(file)
    code = (
        "from pathlib import Path; from agent.records.comparison.canvas import Canvas\n"
        "from agent.records.drawing import default_settings; from agent.records.plots import plot_learning_curve\n"
        "with default_settings():\n"
        "    canvas = Canvas('name', 'title', 1, 1, 3.0)\n"
        "    canvas.axes[0].set_yscale('log')\n"
        "    Path('canvas.png').write_bytes(canvas.finish('caption', ['group']).png)\n"
        "plot_learning_curve(Path('none'), Path('curve.png'), 'x', 1.0)\n"
    )
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(root), "MPLBACKEND": backend}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert is_picture(tmp_path / "canvas.png")
    plot_learning_curve(tmp_path / "none", tmp_path / "expected.png", "x", 1.0)
    assert (tmp_path / "curve.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize("attributes", ["{w}{h}{v}", "{h}{w}{v}", "{v}{h}{w}", "{w}{v}{h}", "{h}{v}", "{v}{w}", "{v}"])
@pytest.mark.parametrize("space", [" ", "\n "])
def test_a_picture_inside_the_page_has_no_size_of_its_own(attributes: str, space: str) -> None:
    """Only the outer tag loses its width and height, in any order of its attributes."""
    head = attributes.format(w=f'{space}width="7pt"', h=f'{space}height="3pt"', v=' viewBox="0 0 7 3" stroke-width="2"')
    inner = '<g width="7" height="3"/></svg>'
    assert inline(f"<?xml?><svg{head}>{inner}") == f'<svg viewBox="0 0 7 3" stroke-width="2">{inner}'


def test_a_picture_that_cannot_be_drawn_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(agent.records.plots, "new_figure", fails)
    named = Path("best") / "evaluation.png"
    assert not draw([result("a", [1.0])], tmp_path / "evaluation.png", named)
    assert capsys.readouterr().err == f"{named} could not be drawn (RuntimeError: no fonts)\n"
