"""The options that a resumed run may change, and the options that it then has."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.common.errors import UserError
from agent.common.quoting import override_name
from agent.config.run import upgraded

SPEED = ("backend", "cuda_graphs", "overlap", "autocast")
#: Options, and nodes of options, that do not affect learning: the machine, the protocol and the run's length.
FREE = (
    *("steps", "device", "threads", *SPEED, "eval", "checkpoint", "log", "wandb", "tensorboard", "resume"),
    *("collect.address", "collect.chunk", "collect.memory", "collect.publish", "collect.timeout"),
    "agent.replay_device",
)
#: Settings of the algorithm that control how fast a run learns and explores. All others may not change, so that a run
#: has one algorithm and one task.
PACE = (
    *("agent.lr", "agent.lr_end", "agent.lr_updates", "agent.adam_eps", "agent.max_grad_norm"),
    *("agent.target_every", "agent.tau", "agent.epsilon", "agent.priority.beta", "agent.priority.beta_steps"),
    *("agent.noise.change.start", "agent.noise.change.end", "agent.noise.change.steps"),
)
#: The options that may change on resume.
MAY_CHANGE = (*(name for name in FREE if name != "resume"), *PACE)

#: The config nodes that Hydra's groups set, for groups whose name is not that of their node.
GROUPS = {
    "env": ("env", "id"),
    "collect": ("collect", "engine"),
    "noise": ("agent", "noise"),
    "preset": ("agent",),
    "task": ("agent",),
    "sizes": ("agent",),
}


def merge_resumed(
    saved: Mapping[str, object], requested: Mapping[str, object], overrides: Iterable[str]
) -> dict[str, object]:
    """Returns the config of a resumed run: the saved one, with the requested changes that are allowed.

    An override changes the option that it names. A preset, such as agent=dqn, changes no option: every value that it
    sets must equal the run's, except for the options that other overrides name.

    Args:
        saved: the config in the checkpoint.
        requested: the config that the command line composed, with values written as in the saved one.
        overrides: the command line's overrides, `key=value`, one for each option.

    Raises:
        UserError: an override differs from the run's value and may not change it; the message names those that may.
    """
    saved = upgraded(saved)
    merged = copy.deepcopy(saved)
    targets = [(override, *_target(override)) for override in overrides if not _takes_out(override)]
    for _, key, path in targets:
        if key not in GROUPS and may_change(".".join(path)):
            _assign(merged, path, _select(requested, path))
    for override, key, path in targets:
        difference = first_difference(_select(merged, path), _select(requested, path), ".".join(path))
        if difference is not None:
            raise _refusal(override, key, *difference)
    merged.pop("resume", None)
    return merged


def may_change(name: str) -> bool:
    """Whether an option, by its full name, may change where a run is resumed."""
    return any(name == free or name.startswith(f"{free}.") for free in (*MAY_CHANGE, "resume"))


def _takes_out(override: str) -> bool:
    """Whether an override takes out an option that may change, as ~eval does: the run keeps its own value."""
    return override.startswith("~") and may_change(override_name(override))


def _target(override: str) -> tuple[str, tuple[str, ...]]:
    """Splits off an override's name; also returns the path of the config node or option that it sets."""
    key = override_name(override)
    return key, GROUPS.get(key) or tuple(key.split("."))


def _refusal(override: str, key: str, name: str, saved: object, requested: object) -> UserError:
    """Words the error for an option that may not change, or for a preset that would change one."""
    difference = f"the run to resume has {name}={saved}, and {name}={requested} was requested"
    if key != name:
        by_name = f", or write {name}={requested} beside it" if may_change(name) else ""
        return UserError(
            f"{difference} by {override}: leave {override} out{by_name}, or start a new run without resume"
        )
    return UserError(
        f"{difference}: leave {override} out, or start a new run without resume; a resumed run may change "
        f"{', '.join(MAY_CHANGE)} and nothing else"
    )


def first_difference(saved: object, requested: object, name: str) -> tuple[str, object, object] | None:
    """Finds the first leaf in which two configs differ; returns its name and both values, or None if they are equal."""
    if isinstance(saved, Mapping) and isinstance(requested, Mapping):
        for key in [*saved, *(key for key in requested if key not in saved)]:
            difference = first_difference(saved.get(key), requested.get(key), f"{name}.{key}")
            if difference is not None:
                return difference
        return None
    return None if saved == requested else (name, saved, requested)


def _assign(tree: dict[str, Any], path: Sequence[str], value: object) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _select(tree: object, path: Sequence[str]) -> object:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
