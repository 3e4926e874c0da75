"""The labels at W&B of a sweep's runs, by which its charts average over seeds."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

#: Options that say nothing of what is compared.
NOT_COMPARED = ("seed", "imports", "resume", "wandb", "log", "checkpoint", "tensorboard")
#: Letters of a group's name at W&B.
MAX_GROUP_NAME = 128
JOB_TYPE = "train"
#: The variables of W&B's that say the same as an option of ours.
VARIABLES = {"group": "WANDB_RUN_GROUP", "job_type": "WANDB_JOB_TYPE"}


def in_sweep_of_wandb() -> bool:
    """Whether W&B's own agent has started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def with_labels(options: dict[str, Any], overrides: Sequence[str], choices: Mapping[str, object]) -> dict[str, object]:
    """The options of a sweep's run, with its group and job type at W&B where neither a person nor a variable says them.

    Args:
        options: of the run, as Hydra composed them.
        overrides: of the command line, with the values of this run.
        choices: of Hydra's groups.
    """
    if not isinstance(options["wandb"], Mapping):
        return options  # which is refused where options are read
    labels = {"group": group_name(str(options["env"]["id"]), str(choices["agent"]), overrides), "job_type": JOB_TYPE}
    overridden = {override.lstrip("+").partition("=")[0] for override in overrides}
    added = {
        name: label
        for name, label in labels.items()
        if f"wandb.{name}" not in overridden and options["wandb"][name] is None and not os.environ.get(VARIABLES[name])
    }
    return {**options, "wandb": {**options["wandb"], **added}}


def group_name(env_id: str, agent: str, overrides: Sequence[str]) -> str:
    """What a run shares with those that differ in their seeds alone: task, agent and all other options, sorted."""
    compared = sorted(override for override in overrides if not _is_not_compared(override))
    name = " ".join([env_id, agent, *compared])
    digest = f"… {crc32(name.encode()):08x}"
    return name if len(name) <= MAX_GROUP_NAME else name[: MAX_GROUP_NAME - len(digest)] + digest


def _is_not_compared(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return key in ("env", "agent") or key.partition(".")[0] in NOT_COMPARED
