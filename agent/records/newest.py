"""Which run is the newest: the one that was saved last. Every program means this by the word."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

from agent.common.files import read_plain
from agent.records.saved_agent import FILE_NAME

MAX_CONFIG = 1 << 20  # bytes of a config.yaml
#: What a run writes when it saves, below its folder.
_SAVED = (f"best/{FILE_NAME}", f"last/{FILE_NAME}", "checkpoints")


def newest_run(root: Path, accepts: Callable[[Path], bool]) -> Path | None:
    """The run folder below `root`, at any depth, that was saved last among those that are wanted; None without any.

    Of runs that were saved in the same instant it is the last by name, where numbers count: job 10 comes after job 9.
    """
    times: dict[Path, int] = {}
    for name in _SAVED:
        for path in root.glob(f"**/{name}"):
            run = path.parents[name.count("/")]
            with suppress(OSError):  # it was there a moment ago
                times[run] = max(times.get(run, 0), path.stat().st_mtime_ns)
    newest_first = sorted(times, key=lambda run: (times[run], _by_numbers(run.name)), reverse=True)
    return next((run for run in newest_first if accepts(run)), None)


def is_run_of(run: Path, env_id: str, seed: int) -> bool:
    """Whether a run folder holds a run of that environment and seed, by its config."""
    try:
        text = read_plain(run / "config.yaml", MAX_CONFIG).decode()
        if not re.search(rf"^seed: {seed}$", text, re.MULTILINE):
            return False  # most of them: quicker than to read it all
        config = yaml.safe_load(text)
        return bool((config["env"]["id"], config["seed"]) == (env_id, seed))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):  # it is none of ours
        return False


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
