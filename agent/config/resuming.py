"""Which options a run may change where it is resumed, and the options that it then has."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.common.errors import UserError
from agent.config.run import upgraded

SPEED = ("backend", "cuda_graphs", "overlap", "autocast")
#: Options that may differ between a run and its resumption: none of them belongs to the algorithm or the task.
FREE = (
    *("collect.address", "collect.chunk", "collect.memory", "collect.publish", "collect.timeout"),
    *("steps", "device", "threads", *SPEED, "eval", "checkpoint", "log", "wandb", "resume"),
)

#: The config nodes that Hydra's groups set, for groups that are not named like their node.
GROUPS = {
    "env": ("env", "id"),
    "collect": ("collect", "engine"),
    "noise": ("agent", "noise"),
    "task": ("agent",),
    "sizes": ("agent",),
}


def merge_resumed(saved: Mapping[str, Any], asked: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The config of a resumed run: the saved one, with what was asked on the command line and may change.

    Args:
        saved: the config in the checkpoint.
        asked: the config that the command line composed.
        overrides: the command line's own words, `key=value`, one for each option.

    Raises:
        UserError: where an option was asked that differs from the run's and changes what is learned.
    """
    saved = upgraded(saved)
    merged = copy.deepcopy(saved)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        path = GROUPS.get(key) or tuple(key.split("."))
        if path[0] in FREE or ".".join(path) in FREE:
            _assign(merged, path, _select(asked, path))
            continue
        difference = first_difference(_select(saved, path), _select(asked, path), ".".join(path))
        if difference is not None:
            name, was, now = difference
            by = "" if key == name else f" by {override}"
            raise UserError(
                f"the run to resume has {name}={was}, and {name}={now} was asked{by}: "
                f"leave {override} out, or start a new run without resume"
            )
    merged.pop("resume", None)
    return merged


def first_difference(saved: Any, asked: Any, name: str) -> tuple[str, Any, Any] | None:
    """Name and both values of the first leaf in which two configs differ; None where they agree."""
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        for key in [*saved, *(key for key in asked if key not in saved)]:
            difference = first_difference(saved.get(key), asked.get(key), f"{name}.{key}")
            if difference is not None:
                return difference
        return None
    return None if saved == asked else (name, saved, asked)


def _assign(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _select(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
