"""Checks of a run's state in a checkpoint, which may be a stranger's, before any part of it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agent.common.errors import UserError, plain
from agent.common.tensor_file import dtype_name
from agent.config.parsing import parse, to_plain
from agent.config.run import TrainConfig, upgraded

MAX_INTEGER = 2**53
#: The parts of every state and their types; LATER_PARTS are those that later versions have added.
PARTS: dict[str, type] = {
    **{"config": dict, "agent": dict, "replay": dict, "monitor": dict},
    **{"best_return": float, "evaluations": int, "seconds": float},
}
LATER_PARTS: dict[str, type] = {
    "collector": dict,
    "evaluation_due": bool,
    "failures": int,
    "reached": int,
    "under_way": dict,
    "updates_due": bool,
}
#: The form of W&B's run id, which becomes the name of a folder.
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_parts(state: Mapping[str, Any]) -> dict[str, object]:
    """Checks a state; returns it with its config in this version's options.

    Raises:
        ValueError: a part is missing, or no run could have written it.
    """
    for name, kind in PARTS.items():
        _check_plain(state.get(name), kind, name)
    for name, kind in LATER_PARTS.items():
        if name in state:
            _check_plain(state[name], kind, name)
    if "under_way" in state:
        _check_plain(state["under_way"].get("step"), int, "under_way.step")
    run_id = state.get("wandb_run_id")
    if run_id is not None and not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
        raise ValueError(f"its W&B run is {run_id!r:.40}")
    _check_evaluation(state.get("evaluation"))
    try:
        config = to_plain(parse(TrainConfig, upgraded(state["config"])))
    except (UserError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise ValueError(f"its config cannot be used: {error!s:.200}") from error
    return {**state, "config": config}


def _check_evaluation(value: Any) -> None:
    """Checks the last evaluation: its step and, if there was one, the returns and lengths of its episodes."""
    is_valid = isinstance(value, tuple | list) and len(value) in (1, 3) and type(value[0]) is int
    if is_valid and len(value) == 3:
        returns, lengths = value[1:]
        is_valid = all(isinstance(column, tuple | list) for column in (returns, lengths)) and (
            0 < len(returns) == len(lengths)
            and all(type(number) is float and math.isfinite(number) for number in returns)
            and all(type(number) is int and 0 <= number <= MAX_INTEGER for number in lengths)
        )
    if not is_valid:
        raise ValueError(f"its last evaluation is {plain(value, 40)}")


def check_like(value: object, template: object, name: str = "state") -> None:
    """Compares a part of a state with the same part of a new run, the template.

    Arrays must have the template's shape and dtype, and whole numbers must be in range. The state of a random generator
    or of a stream of noise may be of another kind, and it then starts again. Where the template has None, nothing is
    checked here.

    Raises:
        ValueError: the two differ; the message names the first difference.
    """
    if template is None or (_is_generator(template) and _is_generator(value)):
        return
    if isinstance(template, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is a {type(value).__name__}")
        if "kind" in template and value.get("kind") != template["kind"]:
            return  # a stream of noise of another device, which starts anew
        for key, template_item in template.items():
            if key not in value:
                raise ValueError(f"{name} lacks {key}")
            check_like(value[key], template_item, f"{name}.{key}")
    elif isinstance(template, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(template):
            raise ValueError(f"{name} is not a list of {len(template)}")
        for number, (item, template_item) in enumerate(zip(value, template, strict=True)):
            check_like(item, template_item, f"{name}.{number}")
    elif hasattr(template, "shape"):
        _check_array(value, template, name)
    else:
        _check_plain(value, type(template), name)


def _check_array(value: object, template: object, name: str) -> None:
    kinds = [(tuple(x.shape), dtype_name(x)) if isinstance(x, _ARRAYS) else type(x).__name__ for x in (value, template)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{name} is {kinds[0]}, expected {kinds[1]}")


def _check_plain(value: object, kind: type, name: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r:.40}, not of type {kind.__name__}")
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"{name} is {value!r:.40}, which is out of range")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name} is not a number")


_ARRAYS = (torch.Tensor, np.ndarray)


def _is_generator(state: object) -> bool:
    """Whether this is the state of a random generator of NumPy or torch."""
    if isinstance(state, dict):
        return "bit_generator" in state
    return isinstance(state, torch.Tensor) and state.dtype == torch.uint8 and state.ndim == 1
