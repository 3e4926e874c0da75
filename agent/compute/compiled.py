"""torch.compile, and the handling of its failures."""

import sys
import warnings
from collections.abc import Callable, Sized
from typing import Generic, ParamSpec, TypeVar, cast

import torch

from agent.common.errors import UserError
from agent.common.interrupt import droppable

P = ParamSpec("P")
R = TypeVar("R")


class Compiled(Generic[P, R]):
    """A function of tensors that is compiled at its first call: a few kernels in place of hundreds.

    Args:
        function: takes tensors; with `size`, the first one has as many rows as the batch.
        strict: whether a function that cannot be compiled is an error. Otherwise it runs uncompiled, and a line says
            so. If a compiled function changes later and cannot be compiled again, it always goes on uncompiled.
        size: the batch size for which the function is compiled; batches of other sizes use the uncompiled function.
            None: all batches use the compiled function.

    Raises:
        UserError: at the first call, if `strict` is set and the function cannot be compiled.
    """

    def __init__(self, function: Callable[P, R], strict: bool, size: int | None = None) -> None:
        self._function, self._strict, self._size = function, strict, size
        self._compiled: Callable[P, R] = torch.compile(function, fullgraph=True, dynamic=False)
        self._succeeded = False

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> R:
        """The result of the function."""
        if self._size is not None and len(cast(Sized, arguments[0])) != self._size:
            return self._function(*arguments, **options)
        if self._succeeded:
            try:
                return self._compiled(*arguments, **options)
            except _errors_of_the_compiler() as error:  # a module of the user's own has changed
                self._give_up(error)
                return self._function(*arguments, **options)
        try:
            with droppable(), warnings.catch_warnings():  # Ctrl-C does not wait for the compiler
                warnings.simplefilter("ignore")  # those of the compiler, such as one on TF32, which is an option
                result = self._compiled(*arguments, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._give_up(error)
            result = self._function(*arguments, **options)
        self._succeeded = True
        return result

    def _give_up(self, error: Exception) -> None:
        """Says why the function cannot be compiled; it runs uncompiled from now on."""
        reason = f"{type(error).__name__}: {reason_of(error):.300}"
        if type(error).__name__ == "FailOnRecompileLimitHit":
            reason = "it is another function at each call, as with an encoder or head of your own that counts its calls"
        if self._strict and not self._succeeded:
            raise UserError(f"the update could not be compiled ({reason}): use backend=torch") from error
        print(f"\nthe update could not be compiled and runs uncompiled ({reason})", file=sys.stderr, flush=True)
        self._compiled = self._function


def _errors_of_the_compiler() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # takes a second to load

    return TorchDynamoException, FailOnRecompileLimitHit


def reason_of(error: Exception) -> str:
    """The first line of the compiler's message, and the line of the program that it could not compile."""
    lines = str(error).strip().splitlines() or [""]
    place = [line.strip() for line in lines if line.strip().startswith("File ") and "site-packages" not in line]
    return ", ".join([lines[0], *place[-1:]])
