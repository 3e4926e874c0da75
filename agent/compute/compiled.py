"""torch.compile, with its failures: it makes a few kernels of a function that would launch hundreds."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from agent.common.errors import UserError
from agent.common.interrupt import droppable


class Compiled:
    """A function of tensors, compiled at its first call.

    Args:
        function: takes tensors; the first one has as many rows as the batch.
        strict: True: a function that cannot be compiled is an error. False: it is called as it is, and a line says so.
        size: rows of the batches for which it is compiled; batches of other sizes take the function as it is. None:
            every batch takes the compiled one.

    Raises:
        UserError: at the first call, with `strict`, where it cannot be compiled.
    """

    def __init__(self, function: Callable[..., object], strict: bool, size: int | None = None) -> None:
        self._function, self._strict, self._size = function, strict, size
        self._compiled: Callable[..., object] = torch.compile(function, fullgraph=True, dynamic=False)
        self._first = True

    def __call__(self, *arguments: Any) -> Any:
        """The result of the function."""
        if self._size is not None and len(arguments[0]) != self._size:
            return self._function(*arguments)
        if not self._first:
            return self._compiled(*arguments)
        self._first = False
        try:
            with droppable(), warnings.catch_warnings():  # a stop does not wait for the compiler
                warnings.simplefilter("ignore")  # the compiler's, one of them about TF32, for which there is an option
                return self._compiled(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {reason_of(error):.300}"
            if self._strict:
                raise UserError(f"the update could not be compiled ({reason}): use backend=torch") from error
            print(f"\nthe update could not be compiled and runs uncompiled ({reason})", file=sys.stderr, flush=True)
            self._compiled = self._function
            return self._function(*arguments)


def reason_of(error: Exception) -> str:
    """The first line of the compiler's message, and the line of the program that it could not compile."""
    lines = str(error).strip().splitlines() or [""]
    place = [line.strip() for line in lines if line.strip().startswith("File ") and "site-packages" not in line]
    return ", ".join([lines[0], *place[-1:]])
