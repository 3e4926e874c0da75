"""Labels of a sweep's runs at W&B: its charts average over the runs of a group, which differ only in their seeds."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from agent.common.quoting import override_name

#: Options that are left out of a group's name, since they are not compared.
NOT_COMPARED = ("seed", "imports", "resume", "wandb", "log", "checkpoint", "tensorboard")
#: The most characters of a group's name at W&B.
MAX_GROUP_NAME = 128
JOB_TYPE = "train"
#: W&B's environment variables that correspond to our options.
VARIABLES = {"group": "WANDB_RUN_GROUP", "job_type": "WANDB_JOB_TYPE"}


def in_sweep_of_wandb() -> bool:
    """Whether the agent of a W&B sweep has started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def with_labels(options: dict[str, Any], overrides: Sequence[str], choices: Mapping[str, object]) -> dict[str, object]:
    """Adds a W&B group and job type to a run's options where neither the user nor an environment variable sets them.

    Args:
        options: the run's options, as Hydra composed them.
        overrides: the command line's overrides, with the values of this run.
        choices: the choices that Hydra made in its config groups.
    """
    wandb = options.get("wandb", {})  # missing after ~wandb
    if not isinstance(wandb, Mapping):
        return options  # the parser refuses such a value
    labels = {"group": group_name(str(options["env"]["id"]), str(choices["agent"]), overrides), "job_type": JOB_TYPE}
    overridden = {override_name(override) for override in overrides}
    added = {
        name: label
        for name, label in labels.items()
        if f"wandb.{name}" not in overridden and wandb.get(name) is None and not os.environ.get(VARIABLES[name])
    }
    return {**options, "wandb": {**wandb, **added}}


def group_name(env_id: str, agent: str, overrides: Sequence[str]) -> str:
    """Names the runs that differ only in their seeds: task, agent and all other compared overrides, sorted."""
    compared = sorted(override for override in overrides if not _is_not_compared(override))
    name = " ".join([env_id, agent, *compared])
    digest = f"… {crc32(name.encode()):08x}"
    return name if len(name) <= MAX_GROUP_NAME else name[: MAX_GROUP_NAME - len(digest)] + digest


def _is_not_compared(override: str) -> bool:
    key = override_name(override)
    return key in ("env", "agent") or key.partition(".")[0] in NOT_COMPARED
