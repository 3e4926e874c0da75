"""The page of a comparison: one file that needs no network, in which every text from a run is escaped.

Its Content-Security-Policy forbids loading anything, and allows only the script that this module writes.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from agent.records.comparison.canvas import Picture, color, dash
from agent.records.comparison.comparing import Comparison
from agent.records.comparison.grouping import Group, differing, safe_command
from agent.records.comparison.numbers import table_rows
from agent.records.comparison.reading import Run
from agent.records.comparison.scoring import AGENTS, TaskResult, score
from agent.records.console import format_return

FOLDER = Path(__file__).parent
#: The most rows in the table of settings.
MAX_SETTINGS = 200
STROKES = {"-": "", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}


def page(
    comparison: Comparison, pictures: Sequence[tuple[str, str, Sequence[Picture]]], folder: Path, reload: float
) -> str:
    """Builds the HTML of the page.

    Args:
        comparison: the comparison to show.
        pictures: the sections, each with a heading, a text, and its pictures.
        folder: the page's folder, for links to videos.
        reload: seconds after which an open page is loaded again; 0: never.
    """
    script, css = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    body = [
        f"<h1>{escape(title(comparison))}</h1>",
        f"<p>{escape(run_count(comparison))} Compared by <code>{escape(comparison.metric)}</code>.</p>",
        *(f"<p>⚠ {escape(note)}</p>" for note in comparison.notes),
        switches(comparison.groups),
        *results(comparison),
    ]
    for heading, text, section_pictures in pictures:
        if section_pictures:
            body += [f"<h2>{escape(heading)}</h2>", f"<p>{escape(text)}</p>", *map(figure, section_pictures)]
    body += [*settings(comparison.groups), *runs_table(comparison, folder)]
    data = {
        "groups": [{"name": group.name, "color": color(i)} for i, group in enumerate(comparison.groups)],
        "pictures": {picture.name: picture.axes for _, _, section_pictures in pictures for picture in section_pictures},
        "reload": reload,
    }
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title(comparison))}</title>\n<style>\n{css}</style>\n</head>\n<body>",
            *body,
            f'<script type="application/json" id="data">{embedded(data)}</script>',
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def embedded(data: object) -> str:
    """Converts to JSON that cannot close the HTML element around it."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")


def title(comparison: Comparison) -> str:
    """Returns the page's title: the number of groups, and the tasks."""
    names = [task.name for task in comparison.tasks]
    return f"{len(comparison.groups)} groups on {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def run_count(comparison: Comparison) -> str:
    """Says how many runs and groups there are."""
    runs = sum(len(runs) for group in comparison.groups for runs in group.runs.values())
    return f"{runs} runs in {len(comparison.groups)} group{'s' if len(comparison.groups) != 1 else ''}."


def switches(groups: Sequence[Group]) -> str:
    """Builds a checkbox for each group, in the colour and line style of its curves."""
    rows = ['<label><input type="checkbox" id="all" checked> all</label>']
    for i, group in enumerate(groups):
        stroke = f'stroke="{color(i)}" stroke-width="3" stroke-dasharray="{STROKES[dash(i)]}"'
        line = f'<line x1="0" y1="4" x2="26" y2="4" {stroke}/>'
        rows.append(
            f'<label><input type="checkbox" data-group="{i}" checked><svg viewBox="0 0 26 8">{line}</svg>'
            f'<span>{escape(group.name)} <span class="quiet">{seeds(group)}</span></span></label>'
        )
    return f'<div id="groups">{"".join(rows)}</div>'


def seeds(group: Group) -> str:
    """Says how many seeds a group has."""
    return "one seed" if group.seeds == 1 else f"{group.seeds} seeds"


def results(comparison: Comparison) -> Iterable[str]:
    """Yields the tables of scores."""
    yield "<h2>Scores</h2>"
    index = {group.name: i for i, group in enumerate(comparison.groups)}
    for name, rows in table_rows(comparison):
        yield f"<h3>{escape(name)}</h3>"
        yield table(rows[0], rows[1:], [f"g{index[row[0]]}" for row in rows[1:]])
    for task in comparison.tasks:
        scale = task.scale
        yield (
            f"<p>{escape(task.name)}: last agent by {escape(task.score_sources['last'])}, best by "
            f"{escape(task.score_sources['best'])}. "
            f"Normalised scores: 0 is {scale.low:g} and 1 is {scale.high:g}, {escape(scale.source)}.</p>"
        )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = (), kind: str = "") -> str:
    """Builds a table of texts."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    for i, row in enumerate(rows):
        cells = "".join(f"<td{'' if j == 0 else NUMBER}>{escape(cell)}</td>" for j, cell in enumerate(row))
        lines.append(f"<tr{f' class={QUOTE}{classes[i]}{QUOTE}' if classes else ''}>{cells}</tr>")
    return f'<div class="wide {kind}"><table>{"".join(lines)}</table></div>'


NUMBER, QUOTE = ' class="n"', '"'


def figure(picture: Picture) -> str:
    """Builds a figure with the cursor and the numbers that follow the mouse."""
    return (
        f'<figure class="picture" data-name="{escape(picture.name)}">{picture.svg}'
        f'<div class="cursor"></div><div class="numbers"></div><figcaption>{escape(picture.caption)} '
        f'<a href="{quote(picture.name)}.png">PNG</a></figcaption></figure>'
    )


def settings(groups: Sequence[Group]) -> Iterable[str]:
    """Yields a table of the options in which groups differ, with a column for each group."""
    runs = [run for group in groups for members in group.runs.values() for run in members]
    names = differing(runs)
    if not names:
        return
    yield "<h2>Settings that differ</h2>"
    rows = [[name, *(values_of(group, name) for group in groups)] for name in names[:MAX_SETTINGS]]
    yield table(["option", *(group.name for group in groups)], rows, kind="settings")


def values_of(group: Group, name: str) -> str:
    """Returns the values of an option in a group's runs."""
    values = dict.fromkeys(run.options.get(name, "–") for runs in group.runs.values() for run in runs)
    return " | ".join(list(values)[:5])


def runs_table(comparison: Comparison, folder: Path) -> Iterable[str]:
    """Yields a table of all runs: progress, scores, folder and videos, and the command that repeats the run."""
    yield "<h2>Runs</h2>"
    names = ("group", "task", "seed", "step", "last agent", "best agent", "folder and videos", "made by")
    lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
    tasks = {task.name: task for task in comparison.tasks}
    for i, group in enumerate(comparison.groups):
        for task, runs in group.runs.items():
            for run in runs:
                numbers = [format_score(run, tasks[task], comparison.metric, which) for which in AGENTS]
                cells = (group.name, task, run.seed or "–", progress(run), *numbers)
                texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
                lines.append(f'<tr class="g{i}">{texts}<td>{links(run, folder)}</td><td>{commands(run)}</td></tr>')
    yield f'<div class="wide"><table>{"".join(lines)}</table></div>'


def format_score(run: Run, task: TaskResult, metric: str, which: str) -> str:
    """Formats the score of a run's last or best agent, as it enters the group's numbers."""
    value = score(run, metric, which, task.evaluated[which])
    return "–" if value is None else format_return(value)


def progress(run: Run) -> str:
    """Formats the progress of a run."""
    return f"{run.step:,}" if run.steps is None or run.step >= run.steps else f"{run.step:,} of {run.steps:,}"


def links(run: Run, folder: Path) -> str:
    """Builds links to a run's folder and videos, relative to the page."""
    links = [f'<a href="{link(run.folder, folder)}">{escape(str(run.folder))}</a>']
    links += [f'<a href="{link(video, folder)}">{escape(video.name)}</a>' for video in run.videos]
    return "<br>".join(links)


def link(target: Path, folder: Path) -> str:
    """Returns the URL of a file relative to the page's folder."""
    try:
        relative = Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return escape(target.resolve().as_uri())
    return escape(quote(relative if relative.startswith(".") else f"./{relative}"))


def commands(run: Run) -> str:
    """Returns the command lines of a run, quoted again so that they are safe to copy."""
    safe = [command for line in run.commands[:5] if (command := safe_command(line)) is not None]
    return "<br>".join(f"<code>{escape(command)}</code>" for command in safe) or '<span class="quiet">unknown</span>'
