"""The description of a saved agent as plain data: enough to rebuild it and to judge it."""

from collections.abc import Mapping

from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from envs.make import Task


def describe(config: TrainConfig, task: Task, step: int, evaluation: Mapping[str, object] | None) -> dict[str, object]:
    """The description of an agent at a step; `evaluation` may belong to an earlier step."""
    others = {"eval_kwargs": task.eval_kwargs} if task.eval_kwargs else {}
    return {
        "env": {"id": task.id, "kwargs": task.kwargs, **others, **task.wrapping.description()},
        "time_limit": task.time_limit,
        **({} if task.action_mask == "off" else {"action_mask": task.action_mask}),
        "channels": task.observe.channels,
        "observation": task.observe.description(),
        "actions": task.actions,
        "agent": to_plain(config.agent),
        "seed": config.seed,
        "global_step": step,
        "evaluation": evaluation,
    }
