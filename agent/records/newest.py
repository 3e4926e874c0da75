"""The newest run: the one that was saved last. train.py, evaluate.py and share.py use this definition."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from agent.common.errors import UserError
from agent.common.files import RUN_FOLDERS, check_readable, read_plain
from agent.common.folders import walk
from agent.common.texts import natural_order
from agent.config.which import Which
from agent.records.config_file import MAX_CONFIG, parse_config
from agent.records.names import AGENT, CONFIG, RUNS

_VERSION = r"-v\d+$"
#: The paths below a run's folder that a save writes to.
_SAVED = (f"best/{AGENT}", f"last/{AGENT}", "checkpoints")


def newest_run(root: Path, accepts: Callable[[Path], bool]) -> Path | None:
    """Finds the run folder below `root` that was saved last among the accepted ones; None without any.

    Among runs that were saved at the same instant it is the last by name, in natural order: job 10 comes after job 9.
    """
    times: dict[Path, int] = {}
    for folder, names in walk(root):
        for name in _SAVED:
            with suppress(OSError):  # there is none
                times[folder] = max(times.get(folder, 0), (folder / name).stat().st_mtime_ns)
        if folder in times:
            names[:] = [name for name in names if name not in RUN_FOLDERS]  # they hold many files and no other run
    newest_first = sorted(times, key=lambda run: (times[run], natural_order(run.name)), reverse=True)
    return next((run for run in newest_first if accepts(run)), None)


def is_run_of(run: Path, env_id: str, seed: int) -> bool:
    """Whether a run folder's config names that seed and environment; an id without a version is any of its versions."""
    try:
        text = read_plain(run / CONFIG, MAX_CONFIG).decode()
        if not re.search(rf"^seed: {seed}$", text, re.MULTILINE):
            return False  # most runs end here, which is faster than parsing the YAML
        config: Any = parse_config(text)
        found = config["env"]["id"]
        return bool(config["seed"] == seed) and isinstance(found, str) and _is_same(found, env_id)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, RecursionError):  # no run of this program
        return False


def _is_same(one: str, other: str) -> bool:
    names = [re.sub(_VERSION, "", env_id) for env_id in (one, other)]
    return one == other or (names[0] == names[1] and names[0] in (one, other))


def newest_agent(which: Which, doing: str) -> str:
    """The folder of the newest run under runs/ that has such an agent; prints a line that says so.

    Args:
        which: the best or the last agent.
        doing: the verb of that line, such as "evaluating".

    Raises:
        UserError: there is none, or runs/ cannot be read.
    """
    check_readable(RUNS)
    found = newest_run(RUNS, lambda run: (run / which / AGENT).is_file())
    if found is None:
        other = "last" if which == "best" else "best"
        if newest_run(RUNS, lambda run: (run / other / AGENT).is_file()) is not None:
            raise UserError(f"no run under runs/ has a {which} agent: try which={other}")
        raise UserError("there is no run under runs/: train one with python train.py, or name one with checkpoint=")
    print(f"checkpoint=… was not given: {doing} the newest run, {found}")
    return str(found)
