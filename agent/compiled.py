"""Functions that torch.compile makes a few kernels of, where they are hundreds."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from agent.errors import UserError


class Compiled:
    """A function of tensors, compiled at its first call.

    Args:
        function: whose first argument has as many rows as the batch.
        size: of the batches for which it is compiled: others are computed as they would be without.

    Raises:
        UserError: at the first call, where it cannot be compiled.
    """

    def __init__(self, function: Callable[..., Any], size: int | None = None) -> None:
        self._function, self._size = function, size
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False)
        self._first = True

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        if self._size is not None and len(arguments[0]) != self._size:
            return self._function(*arguments)
        if not self._first:
            return self._compiled(*arguments)
        self._first = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the compiler's own, and that there is TF32, which is an option
                return self._compiled(*arguments)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            raise UserError(f"the update could not be compiled ({reason:.300}): use compile=off") from error
