"""The options that every kind of replay takes."""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypedDict, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Compile(Protocol):
    """Compiles a function that gathers batches."""

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Returns a function with the same result."""


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function itself, uncompiled."""
    return function


class ReplayOptions(TypedDict, total=False):
    """The options of a Replay that every kind of replay passes on."""

    n_step: int
    gamma: float
    device: torch.device | str
    tensors: bool | None
