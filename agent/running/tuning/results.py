"""Writes the results of a study: the trials as CSV and JSON, and the best settings as a preset of train.py."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from agent.common.files import atomic_write_text
from agent.common.kinds import PlainData
from agent.common.quoting import quote_override
from agent.config.tune import StudyConfig
from agent.running.tuning.journal import JOURNAL
from agent.running.tuning.result import Result

CONF, GROUP, BEST = "preset", "tuned", "best"
#: The files and folders that a study writes, beside its own file and its lock.
OUTPUTS = (JOURNAL, "trial_*", "trials.csv", "trials.json", "history.png", "importances.png", CONF)
#: Number of seeds in the suggested test.
FRESH_SEEDS = 5


def best_of(results: Sequence[Result]) -> Result | None:
    """The completed trial with the highest score; the earliest of equal ones."""
    complete = [result for result in results if result.state == "complete" and result.score is not None]
    return max(complete, key=lambda result: (result.score or 0.0, -result.number), default=None)


def write_trials(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Writes trials.csv and trials.json; returns their paths.

    Raises:
        UserError: if the disk refuses.
    """
    table, as_json = folder / "trials.csv", folder / "trials.json"
    names = list(dict.fromkeys(name for result in results for name in result.settings))
    seeds = list(dict.fromkeys(seed for result in results for seed in result.seeds))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "score", *(f"seed{seed}" for seed in seeds), "seconds", *names, "error"])
    for result in results:
        scores = [result.seeds.get(seed, "") for seed in seeds]
        settings = [result.settings.get(name, "") for name in names]
        score, seconds = ("" if value is None else value for value in (result.score, result.seconds))
        writer.writerow([result.number, result.state, score, *scores, seconds, *settings, result.error])
    atomic_write_text(table, text.getvalue())
    atomic_write_text(as_json, json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False))
    return [table, as_json]


def write_preset(folder: Path, config: StudyConfig, best: Result, imports: Sequence[str]) -> Path:
    """Writes the settings of the best trial as a preset of train.py; returns its path.

    It also holds the options that all trials shared, except those that choose a file, such as env and agent, and those
    that belong neither to the algorithm nor to the task. `imports` has the option that names the user's own modules.

    Raises:
        UserError: if the disk refuses.
    """
    path = folder / CONF / GROUP / f"{BEST}.yaml"
    lines = [
        "# @package _global_",
        f"# The best trial of a study, number {best.number}: mean return {best.score:.1f} on the study's own seeds.",
        f"# {train_command(folder, config, imports)}".replace("\n", " "),
    ]
    options = _tree({**config.preset_values, **best.settings})
    atomic_write_text(path, "\n".join(lines) + "\n" + yaml.safe_dump(options, sort_keys=False, allow_unicode=True))
    return path


def _tree(options: Mapping[str, object]) -> PlainData:
    """Turns {"a.b": 1} into {"a": {"b": 1}}."""
    tree: PlainData = {}
    for name, value in options.items():
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree


def train_command(
    folder: Path, config: StudyConfig, imports: Sequence[str], *overrides: str, flags: Sequence[str] = ()
) -> str:
    """The command that trains with the best settings; `imports` has the option that names the user's own modules."""
    preset = f"--config-dir={folder / CONF}", f"+{GROUP}={BEST}"
    return shlex.join(["python", "train.py", *flags, *preset, *config.not_in_preset, *imports, *overrides])


def fresh_seeds(seeds: Sequence[int]) -> list[int]:
    """Seeds that the study has not used, from the next hundred after its highest seed on."""
    first = (max(seeds) // 100 + 1) * 100
    return [first + number for number in range(FRESH_SEEDS)]


def commands_of_test(folder: Path, config: StudyConfig, imports: Sequence[str]) -> list[str]:
    """The commands that train with and without the best settings on fresh seeds, and compare the two."""
    seeds = "seed=" + ",".join(map(str, fresh_seeds(config.seeds)))
    tuned, untuned = (quote_override("hydra.sweep.dir", folder / "test" / name) for name in ("tuned", "before"))
    return [
        train_command(folder, config, imports, seeds, tuned, flags=["-m"]),
        shlex.join(["python", "train.py", "-m", *config.overrides, *imports, seeds, untuned]),
        shlex.join(["python", "compare.py", str(folder / "test")]),
    ]
