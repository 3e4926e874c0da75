"""What a task has around the environment of its id, as plain data: parts of the observation, and wrappers.

A saved agent names wrappers, and may come from a stranger: only those of `ALLOWED` can be named, with arguments that
are numbers, truth values or lists of whole numbers in a range. Nothing is imported or made here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.common.errors import UserError, plain

#: Letters of a part's name, and how many parts or wrappers may be named.
LONGEST_NAME, MOST_PARTS, MOST_WRAPPERS = 64, 256, 16

#: Says whether an argument may have a value.
Check = Callable[[Any], bool]


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _list_of(check: Check, shortest: int, longest: int) -> Check:
    return lambda value: (
        isinstance(value, list | tuple) and shortest <= len(value) <= longest and all(map(check, value))
    )


def _truth(value: object) -> bool:
    return type(value) is bool


@dataclass(frozen=True)
class Allowed:
    """A wrapper of Gymnasium that may be named.

    Attributes:
        arguments: those that may be given, with their checks.
        needed: those that must be given.
        observes: whether it changes observations.
        of_a_part: whether it is a function of one observation alone, and so can be put on one part.
    """

    arguments: Mapping[str, Check] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    observes: bool = True
    of_a_part: bool = False


_SIDE = _whole(1, 1_024)
ALLOWED: dict[str, Allowed] = {
    "ClipReward": Allowed(dict.fromkeys(("min_reward", "max_reward"), _number(-1e9, 1e9)), observes=False),
    "DelayObservation": Allowed({"delay": _whole(0, 1_000)}, ("delay",)),
    "DiscretizeAction": Allowed(
        {"bins": lambda value: _whole(1, 1_000)(value) or _list_of(_whole(1, 1_000), 1, 8)(value)},
        ("bins",),
        observes=False,
    ),
    "FlattenObservation": Allowed(),
    "FrameStackObservation": Allowed({"stack_size": _whole(1, 64)}, ("stack_size",)),
    "GrayscaleObservation": Allowed({"keep_dim": _truth}, of_a_part=True),
    "MaxAndSkipObservation": Allowed({"skip": _whole(2, 1_000)}),
    "RepeatAction": Allowed({"num_repeats": _whole(2, 1_000)}, ("num_repeats",)),
    "RescaleObservation": Allowed(
        dict.fromkeys(("min_obs", "max_obs"), _number(-1e9, 1e9)), ("min_obs", "max_obs"), of_a_part=True
    ),
    "ReshapeObservation": Allowed({"shape": _list_of(_whole(1, 10**7), 1, 4)}, ("shape",), of_a_part=True),
    "ResizeObservation": Allowed({"shape": _list_of(_SIDE, 2, 2)}, ("shape",), of_a_part=True),
    "StickyAction": Allowed(
        {"repeat_action_probability": _number(0, 0.999), "repeat_action_duration": _whole(1, 1_000)},
        ("repeat_action_probability",),
        observes=False,
    ),
    "TimeAwareObservation": Allowed({"flatten": _truth, "normalize_time": _truth}),
}

#: Arguments of which a list has so much in all, their defaults, how they come together, and what the wrappers do.
TOGETHER: tuple[tuple[str, int, int, Callable[[Iterable[int]], int], str], ...] = (
    ("stack_size", 1, 64, math.prod, "stacks observations"),
    ("delay", 0, 1_000, sum, "delays observations by steps"),
    ("skip", 4, 1_000, math.prod, "repeats actions"),
    ("num_repeats", 1, 1_000, math.prod, "repeats actions"),
)

_OWN = "register an environment that has it on, and name its module with imports="
REFUSED = {
    **dict.fromkeys(
        ("NormalizeObservation", "NormalizeReward"),
        "its running statistics would be lost with every checkpoint and saved agent",
    ),
    **dict.fromkeys(("TransformObservation", "TransformReward", "TransformAction"), f"it takes a function: {_OWN}"),
    "TimeLimit": "write env.time_limit=<steps>",
    "FilterObservation": "write env.observation=[<part>,…]",
    "AtariPreprocessing": "games ALE/… are played so by themselves",
}


@dataclass(frozen=True)
class Wrap:
    """One wrapper: its name in gymnasium.wrappers, its arguments, and the part of the observation that it is put on."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    part: str | None = None

    def plain(self) -> object:
        """As an option or a file says it."""
        arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in self.arguments}
        arguments |= {} if self.part is None else {"part": self.part}
        return {self.name: arguments} if arguments else self.name


@dataclass(frozen=True)
class Wrapping:
    """What is put around an environment. The default is nothing.

    Attributes:
        parts: names of the parts of a Dict or Tuple observation that are kept (of a Tuple: "0", "1", …); () for all.
        wraps: wrappers of Gymnasium, in the order in which they are put on.
    """

    parts: tuple[str, ...] = ()
    wraps: tuple[Wrap, ...] = ()

    def description(self) -> dict[str, object]:
        """As plain data: what differs from the default."""
        parts = {"observation": list(self.parts)} if self.parts else {}
        return parts | ({"wrappers": [wrap.plain() for wrap in self.wraps]} if self.wraps else {})

    @property
    def first(self) -> str | None:
        """The first option that puts something on, for errors; None where nothing is put on."""
        return "env.observation" if self.parts else "env.wrappers" if self.wraps else None

    @property
    def observes(self) -> bool:
        """Whether the observations are not the environment's own."""
        return bool(self.parts) or any(ALLOWED[wrap.name].observes for wrap in self.wraps)

    @property
    def frames(self) -> int:
        """How many observations are stacked by the last wrapper that changes them; 1 where it stacks none."""
        changing = [wrap for wrap in self.wraps if ALLOWED[wrap.name].observes]
        last = dict(changing[-1].arguments) if changing and changing[-1].name == "FrameStackObservation" else {}
        return int(last.get("stack_size", 1))


#: The environment as it is.
BARE = Wrapping()


def wrapping_of(parts: object = (), wrappers: object = ()) -> Wrapping:
    """Checks what options or a saved file say.

    Args:
        parts: a list of names.
        wrappers: a list of names of wrappers, or of {name: {argument: value}}.

    Raises:
        UserError: for the first thing that is wrong.
    """
    if isinstance(parts, list | tuple) and len(parts) > MOST_PARTS:
        raise UserError(f"env.observation names {len(parts)} parts: {MOST_PARTS} is the most")
    if not isinstance(parts, list | tuple):
        shown = plain(repr(parts), 80)
        raise UserError(f"env.observation is {shown}: it must be a list of parts, such as [image,direction]")
    names = tuple(str(part) if type(part) is int else part for part in parts)
    for name in names:
        _check_part(name, "env.observation names")
        if names.count(name) > 1:
            raise UserError(f"env.observation names {name!r} twice")
    if isinstance(wrappers, list | tuple) and len(wrappers) > MOST_WRAPPERS:
        raise UserError(f"env.wrappers names {len(wrappers)} wrappers: {MOST_WRAPPERS} is the most")
    if not isinstance(wrappers, list | tuple):
        shown = plain(repr(wrappers), 80)
        raise UserError(
            f"env.wrappers is {shown}: it must be a list, such as [{{FrameStackObservation:{{stack_size:4}}}}]"
        )
    wraps = tuple(map(_wrap_of, wrappers))
    _check_together(wraps)
    return Wrapping(names, wraps)


def _check_together(wraps: Sequence[Wrap]) -> None:
    """Refuses wrappers that are small one by one and use up the machine together, since a file may name them.

    Raises:
        UserError: they stack, delay or repeat too much.
    """
    for argument, default, most, combined, said in TOGETHER:
        having = (wrap for wrap in wraps if argument in ALLOWED[wrap.name].arguments)
        whole = combined(dict(wrap.arguments).get(argument, default) for wrap in having)
        if whole > most:
            raise UserError(f"env.wrappers {said}, {whole:,} in all: {most:,} is the most"[:300])


def _check_part(name: object, said: str) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError(f"{said} {plain(repr(name), 80)}: a part has a short name, or a number in a Tuple")


def _wrap_of(said: object) -> Wrap:
    """One entry of the list.

    Raises:
        UserError: where it is not allowed.
    """
    if isinstance(said, str):
        said = {said: {}}
    if not isinstance(said, Mapping) or len(said) != 1:
        shown = plain(repr(said), 80)
        raise UserError(f"env.wrappers holds {shown}: each is the name of a wrapper, or {{name:{{argument:value}}}}")
    ((name, given),) = said.items()
    if not isinstance(name, str) or name not in ALLOWED:
        shown = plain(repr(name), 80)
        others = f"those that it can have are {', '.join(ALLOWED)}"
        raise UserError(f"env.wrappers cannot have {shown}: {REFUSED.get(str(name), others)}")
    if not isinstance(given, Mapping):
        raise UserError(f"env.wrappers gives {name} {plain(repr(given), 80)}: it takes {{argument:value}}")
    return _checked(name, dict(given))


def _checked(name: str, given: dict[Any, Any]) -> Wrap:
    allowed, part = ALLOWED[name], given.pop("part", None)
    if part is not None:
        part = str(part) if type(part) is int else part
        _check_part(part, f"env.wrappers puts {name} on")
        if not allowed.of_a_part:
            raise UserError(f"env.wrappers puts {name} on the part {part!r}: it goes on whole observations only")
    for key, value in given.items():
        if not isinstance(key, str) or key not in allowed.arguments:
            known = ", ".join((*allowed.arguments, *(["part"] if allowed.of_a_part else [])))
            raise UserError(f"env.wrappers: {name} takes {known or 'no arguments'}, not {plain(repr(key), 80)}")
        if not allowed.arguments[key](value):
            raise UserError(f"env.wrappers: {key} of {name} cannot be {plain(repr(value), 80)}")
    if missing := [key for key in allowed.needed if key not in given]:
        raise UserError(f"env.wrappers: {name} needs {missing[0]}, such as {{{name}:{{{missing[0]}:…}}}}")
    items = ((key, tuple(value) if isinstance(value, list | tuple) else value) for key, value in given.items())
    return Wrap(name, tuple(items), part)
