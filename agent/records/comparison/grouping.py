"""Grouping of runs: runs of one task that differ only in their seeds are a group, which may span several tasks.

A group's name consists of its runs' command-line options that differ between groups, such as agent=dqn. If these do not
distinguish the groups (a config without a command line, or a preset that has changed), the name has the options of
config.yaml that do.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.common.errors import UserError
from agent.config.resuming import FREE
from agent.records.comparison.configs import clean
from agent.records.comparison.reading import Run

#: Options that do not define a group: the seed, the machine, the protocol and the run's length.
IGNORED = ("seed", "imports", "hydra", *FREE)
#: Options that define the task, and how its environments run side by side.
TASK_OPTIONS = (
    *("env.id", "env.kwargs", "env.eval_kwargs", "env.observation", "env.wrappers"),
    *("env.time_limit", "env.vectorization"),
)
ENV, KWARGS = "env.", "env.kwargs."
#: The agent of a command line without one, from conf/train.yaml.
DEFAULT_AGENT = "agent=noisy_dqn"
#: Nodes whose options the user names, so that a run without such an option has another setting.
FREE_NODES = ("agent.head_options", "env.kwargs", "env.eval_kwargs")
#: The value of an option that a run has not.
MISSING = "–"
#: The most options in one name, unless groups are the same in these.
MAX_OPTIONS = 6

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds, by task."""

    name: str
    runs: Mapping[str, tuple[Run, ...]]

    @property
    def seeds(self) -> int:
        """The greatest number of runs on one task."""
        return max(len(runs) for runs in self.runs.values())


def below(name: str, roots: Iterable[str]) -> bool:
    """Whether an option is one of `roots` or below one of them."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def task_of(run: Run, by: Sequence[str] = ()) -> str:
    """Returns the name of a run's task: the id and its arguments, without the options `by`, which define groups."""
    options = {name: value for name, value in run.options.items() if not below(name, by)}
    kwargs = [f"{name.removeprefix(KWARGS)}={value}" for name, value in options.items() if name.startswith(KWARGS)]
    kwargs += [
        f"{name.removeprefix(ENV)}={value}" for name, value in options.items() if name.startswith("env.eval_kwargs.")
    ]
    if options.get("env.time_limit", "null") != "null":
        kwargs.append(f"time_limit={options['env.time_limit']}")
    for part in ("observation", "wrappers"):
        if (value := options.get(f"env.{part}", "[]")) != "[]":
            kwargs.append(f"{part}={value}")
    name = options.get("env.id", "all tasks" if "env.id" in run.options else "unknown task")
    return f"{name} ({', '.join(kwargs)})" if kwargs else name


def group_runs(runs: Sequence[Run], by: Sequence[str] = ()) -> list[Group]:
    """Returns the groups, in the order of their first runs.

    Args:
        runs: runs of any tasks.
        by: options, or nodes of options, that define the groups; (): all settings in which the runs differ.

    Raises:
        UserError: no run has an option that `by` names.
    """
    for name in by:
        if not any(below(option, (name,)) for run in runs for option in run.options):
            raise UserError(f"by={name}: no run has such an option; name one as config.yaml has it, such as agent.lr")
    options = differing(runs, by)
    tasks: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        tasks[task_of(run, options)].append(run)
    chosen = options or [name for name in by if any(name in run.options for run in runs)]
    parts = {task: _parts(members, chosen if by else differing(members)) for task, members in tasks.items()}
    names = _names_by(parts, chosen, by) if by else _names(parts)
    groups: dict[str, dict[str, tuple[Run, ...]]] = defaultdict(dict)
    for task, task_parts in parts.items():
        for name, members in zip(names[task], task_parts.values(), strict=True):
            groups[name][task] = groups[name].get(task, ()) + members
    return [Group(name, members) for name, members in groups.items()]


def differing(runs: Sequence[Run], by: Sequence[str] = ()) -> list[str]:
    """Lists the options in which runs differ: among those in `by`, or else among all settings of the agent."""
    values: dict[str, set[str]] = {}
    for name in dict.fromkeys(option for run in runs for option in run.options):
        if below(name, by) if by else not below(name, IGNORED) and not _is_task_option(name):
            # A run without an option of ours comes from another release, where its value is unknown.
            having = runs if _is_free(name) else [run for run in runs if name in run.options]
            values[name] = {run.options.get(name, MISSING) for run in having}
    return [name for name, distinct in values.items() if len(distinct) > 1]


def _is_free(name: str) -> bool:
    return name not in FREE_NODES and below(name, FREE_NODES)


def _is_task_option(name: str) -> bool:
    return name == "env" or below(name, TASK_OPTIONS)


def _parts(runs: Sequence[Run], options: Sequence[str]) -> dict[Key, tuple[Run, ...]]:
    """Groups runs by their values of some options."""
    parts: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        parts[tuple((name, run.options.get(name, MISSING)) for name in options)].append(run)
    return {key: tuple(members) for key, members in parts.items()}


# ---- names


def _names_by(
    parts: Mapping[str, Mapping[Key, tuple[Run, ...]]], chosen: Sequence[str], by: Sequence[str]
) -> dict[str, list[str]]:
    """Names the parts of every task by the options that `by` names, and by others below it that distinguish them."""
    keys = list(dict.fromkeys(key for task_parts in parts.values() for key in task_parts))
    shown = _separating(keys, chosen, [name for name in chosen if name in by])
    names = dict(zip(keys, _option_names(keys, shown), strict=True))
    return {task: [names[key] for key in task_parts] for task, task_parts in parts.items()}


def _names(parts: Mapping[str, Mapping[Key, tuple[Run, ...]]]) -> dict[str, list[str]]:
    """Names the parts of every task after their command lines, and adds options where these are not distinct."""
    settings = {task: [_command_settings(runs) for runs in task_parts.values()] for task, task_parts in parts.items()}
    all_settings = [options for rows in settings.values() for options in rows if options is not None]
    common = set.intersection(*map(set, all_settings)) if all_settings else set()
    names = {}
    for task, task_parts in parts.items():
        keys = list(task_parts)
        options = [name for name, _ in keys[0]]
        option_names = _option_names(keys, _separating(keys, options))
        rows = [None if row is None else _distinct_settings(row, common, len(all_settings)) for row in settings[task]]
        counts = Counter(rows)
        names[task] = [
            option_name if row is None else row if counts[row] == 1 else f"{row} {option_name}"
            for option_name, row in zip(option_names, rows, strict=True)
        ]
    return names


def _command_settings(runs: Sequence[Run]) -> tuple[str, ...] | None:
    """Returns the most frequent settings in the command lines of a part's runs; None if there is no command line."""
    counts = Counter(settings for run in runs if (settings := settings_of_commands(run.commands)) is not None)
    return counts.most_common(1)[0][0] if counts else None


def settings_of_commands(commands: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the settings in a run's command lines, sorted after the agent itself; None if they cannot be parsed."""
    options: dict[str, str] = {}
    for command in commands:
        try:
            arguments = shlex.split(command)
        except ValueError:
            return None
        for argument in arguments[2:]:
            name, equals_sign, value = argument.lstrip("+~").partition("=")
            if equals_sign and not below(name, IGNORED) and not _is_task_option(name):
                options[name] = value
    if not commands:
        return None
    first = f"agent={options.pop('agent')}" if "agent" in options else DEFAULT_AGENT
    return (clean(first), *sorted(clean(f"{name}={value}") for name, value in options.items()))


def _distinct_settings(settings: tuple[str, ...], common: set[str], parts: int) -> str:
    """Returns the settings that are not common to all parts; the agent if none are left."""
    distinct = [setting for setting in settings if setting not in common] if parts > 1 else list(settings)
    return " ".join(distinct or settings[:1])


def _separating(keys: Sequence[Key], options: Sequence[str], first: Sequence[str] = ()) -> list[str]:
    """Selects greedily a few options that distinguish all keys, after those in `first`; short names are preferred."""
    table = [dict(key) for key in keys]
    chosen = list(first)

    def count_distinct(names: Sequence[str]) -> int:
        return len({tuple(row[name] for name in names) for row in table})

    while count_distinct(chosen) < len(keys):
        chosen.append(max(sorted(options, key=len), key=lambda name: count_distinct([*chosen, name])))
    return chosen


def _option_names(keys: Sequence[Key], options: Sequence[str]) -> list[str]:
    """Names keys by their values of options: by a few of these, or by all where a few do not distinguish them."""
    names = [_option_name(key, options, MAX_OPTIONS) for key in keys]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else _option_name(key, options, len(key))
        for key, name in zip(keys, names, strict=True)
    ]


def _option_name(key: Key, options: Sequence[str], most: int) -> str:
    settings = [f"{name}={value}" for name, value in key if name in options]
    more = [f"and {len(settings) - most} more"] if len(settings) > most else []
    return " ".join([*settings[:most], *more]) or "all runs"


def safe_command(command: str) -> str | None:
    """Quotes every argument of a train.py command line again, so that it is safe to copy; None for other commands."""
    try:
        arguments = shlex.split(command)
    except ValueError:
        return None
    if arguments[:2] != ["python", "train.py"] or any(
        re.search(r"[\x00-\x1f\x7f]", argument) for argument in arguments
    ):
        return None
    return shlex.join(arguments)
