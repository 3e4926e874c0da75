"""The registry of a kind of part: encoders or heads, built in or of the user's own, by name."""

import re
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from agent.common.errors import UserError

F = TypeVar("F")


class Registry(Generic[F]):
    """Factories by name. A module of the user's own adds to them.

    Args:
        kind: the kind of part with its article, such as "a head".
        option: the option that names one, such as agent.head.
        built_in: the factories of this project.
        reserved: further names that a factory of the user's own must not have.
    """

    def __init__(self, kind: str, option: str, built_in: Mapping[str, F], reserved: Sequence[str] = ()) -> None:
        self.kind, self.option = kind, option
        self.built_in = (*reserved, *built_in)
        self._factories = dict(built_in)

    def register(self, name: str, factory: F) -> None:
        """Adds a factory. Registering a name again replaces its factory.

        Raises:
            ValueError: if the name is not a plain word or is the name of a built-in part.
            TypeError: if the factory cannot be called.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
            raise ValueError(f"{name!r} cannot name {self.kind}: the name must be a word of letters, digits, _ and -")
        if name in self.built_in:
            raise ValueError(f"{name!r} is the name of a built-in {self._noun}")
        if not callable(factory):
            raise TypeError(f"{name!r}: a {type(factory).__name__} makes no {self._noun}; register a function")
        self._factories[name] = factory

    def find(self, name: str) -> F:
        """The factory of this name.

        Raises:
            UserError: if there is none.
        """
        if name not in self._factories:
            known = ", ".join(dict.fromkeys((*self.built_in, *self._factories)))
            raise UserError(
                f"{self.option} is {name!r:.80}: there is no {self._noun} of this name (there are {known}); one of "
                "your own is registered by the module that you name with imports="
            )
        return self._factories[name]

    def is_own(self, name: str) -> bool:
        """Whether this name is not that of a built-in part."""
        return name not in self.built_in

    def own(self) -> dict[str, F]:
        """The factories of the user's own, by name. Actor processes register them as well."""
        return {name: factory for name, factory in self._factories.items() if self.is_own(name)}

    @property
    def _noun(self) -> str:
        return self.kind.split()[-1]
