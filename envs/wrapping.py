"""The wrappers of a task as plain data: kept parts of its observation, and wrappers of Gymnasium.

A saved agent names wrappers, and may come from a stranger. Only those in `ALLOWED` can be named, with arguments that
are numbers, booleans or lists of integers within bounds. This file imports and makes no wrapper.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.common.errors import UserError, plain
from agent.common.kinds import PlainData

#: The largest length of a part's name, and numbers of parts and of wrappers.
MAX_NAME_LENGTH, MAX_PARTS, MAX_WRAPPERS = 64, 256, 16

#: Tells whether an argument may have a value.
Check = Callable[[object], bool]


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: (type(value) is int or type(value) is float) and math.isfinite(value) and low <= value <= high


def _list_of(check: Check, shortest: int, longest: int) -> Check:
    return lambda value: (
        isinstance(value, list | tuple) and shortest <= len(value) <= longest and all(map(check, value))
    )


def _boolean(value: object) -> bool:
    return type(value) is bool


@dataclass(frozen=True)
class Allowed:
    """A wrapper of Gymnasium that may be named.

    Attributes:
        arguments: the arguments that it may have, with their checks.
        required: the arguments that it must have.
        changes_observations: whether it changes observations.
        fits_a_part: whether it is a function of one observation alone, so that it can be applied to one part.
    """

    arguments: Mapping[str, Check] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    changes_observations: bool = True
    fits_a_part: bool = False


_SIDE = _integer(1, 1_024)
ALLOWED: dict[str, Allowed] = {
    "ClipReward": Allowed(dict.fromkeys(("min_reward", "max_reward"), _number(-1e9, 1e9)), changes_observations=False),
    "DelayObservation": Allowed({"delay": _integer(0, 1_000)}, ("delay",)),
    "DiscretizeAction": Allowed(
        {"bins": lambda value: _integer(1, 1_000)(value) or _list_of(_integer(1, 1_000), 1, 8)(value)},
        ("bins",),
        changes_observations=False,
    ),
    "FlattenObservation": Allowed(),
    "FrameStackObservation": Allowed({"stack_size": _integer(1, 64)}, ("stack_size",)),
    "GrayscaleObservation": Allowed({"keep_dim": _boolean}, fits_a_part=True),
    "MaxAndSkipObservation": Allowed({"skip": _integer(2, 1_000)}),
    "RepeatAction": Allowed({"num_repeats": _integer(2, 1_000)}, ("num_repeats",)),
    "RescaleObservation": Allowed(
        dict.fromkeys(("min_obs", "max_obs"), _number(-1e9, 1e9)), ("min_obs", "max_obs"), fits_a_part=True
    ),
    "ReshapeObservation": Allowed({"shape": _list_of(_integer(1, 10**7), 1, 4)}, ("shape",), fits_a_part=True),
    "ResizeObservation": Allowed({"shape": _list_of(_SIDE, 2, 2)}, ("shape",), fits_a_part=True),
    "StickyAction": Allowed(
        {"repeat_action_probability": _number(0, 0.999), "repeat_action_duration": _integer(1, 1_000)},
        ("repeat_action_probability",),
        changes_observations=False,
    ),
    "TimeAwareObservation": Allowed({"flatten": _boolean, "normalize_time": _boolean}),
}

#: Limits over all wrappers of a list: argument, default, limit, how the values combine, and the wrappers' effect.
TOGETHER: tuple[tuple[str, int, int, Callable[[Iterable[int]], int], str], ...] = (
    ("stack_size", 1, 64, math.prod, "stacks observations"),
    ("delay", 0, 1_000, sum, "delays observations by steps"),
    ("skip", 4, 1_000, math.prod, "repeats actions"),
    ("num_repeats", 1, 1_000, math.prod, "repeats actions"),
)

_OWN = "register an environment with this wrapper, and name its module with imports="
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
    """One wrapper: its name in gymnasium.wrappers, its arguments, and the part of the observation that it changes."""

    name: str
    arguments: tuple[tuple[str, object], ...] = ()
    part: str | None = None

    def plain(self) -> object:
        """The form that an option or a file has."""
        arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in self.arguments}
        arguments |= {} if self.part is None else {"part": self.part}
        return {self.name: arguments} if arguments else self.name


@dataclass(frozen=True)
class Wrapping:
    """The wrappers of an environment; none by default.

    Attributes:
        parts: the names of the kept parts of a Dict or Tuple observation (in a Tuple: "0", "1", …); () for all.
        wraps: wrappers of Gymnasium, in the order in which they are applied.
    """

    parts: tuple[str, ...] = ()
    wraps: tuple[Wrap, ...] = ()

    def description(self) -> dict[str, object]:
        """The differences from the default, as plain data."""
        parts = {"observation": list(self.parts)} if self.parts else {}
        return parts | ({"wrappers": [wrap.plain() for wrap in self.wraps]} if self.wraps else {})

    @property
    def first_option(self) -> str | None:
        """The first option that adds a wrapper, for error messages; None if there is none."""
        return "env.observation" if self.parts else "env.wrappers" if self.wraps else None

    @property
    def changes_observations(self) -> bool:
        """Whether any wrapper changes observations."""
        return bool(self.parts) or any(ALLOWED[wrap.name].changes_observations for wrap in self.wraps)

    @property
    def frames(self) -> int:
        """The number of observations that the last wrapper which changes them stacks; 1 if it stacks none."""
        changing = [wrap for wrap in self.wraps if ALLOWED[wrap.name].changes_observations]
        last = dict(changing[-1].arguments) if changing and changing[-1].name == "FrameStackObservation" else {}
        stack = last.get("stack_size", 1)
        return stack if isinstance(stack, int) else 1


#: An environment without wrappers.
BARE = Wrapping()


def wrapping_of(parts: object = (), wrappers: object = ()) -> Wrapping:
    """Checks the wrappers that options or a saved file name.

    Args:
        parts: a list of names.
        wrappers: a list of names of wrappers, or of {name: {argument: value}}.

    Raises:
        UserError: for the first error.
    """
    if isinstance(parts, list | tuple) and len(parts) > MAX_PARTS:
        raise UserError(f"env.observation names {len(parts)} parts: {MAX_PARTS} is the most")
    if not isinstance(parts, list | tuple):
        shown = plain(repr(parts), 80)
        raise UserError(f"env.observation is {shown}: it must be a list of parts, such as [image,direction]")
    names = tuple(str(part) if type(part) is int else part for part in parts)
    for name in names:
        _check_part(name, "env.observation names")
        if names.count(name) > 1:
            raise UserError(f"env.observation names {name!r} twice")
    if isinstance(wrappers, list | tuple) and len(wrappers) > MAX_WRAPPERS:
        raise UserError(f"env.wrappers names {len(wrappers)} wrappers: {MAX_WRAPPERS} is the most")
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
    for argument, default, limit, combined, effect in TOGETHER:
        values = (
            dict(wrap.arguments).get(argument, default) for wrap in wraps if argument in ALLOWED[wrap.name].arguments
        )
        whole = combined(value for value in values if isinstance(value, int))
        if whole > limit:
            raise UserError(f"env.wrappers {effect}, {whole:,} in all: {limit:,} is the most"[:300])


def _check_part(name: object, prefix: str) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise UserError(f"{prefix} {plain(repr(name), 80)}: a part has a short name, or a number in a Tuple")


def _wrap_of(entry: object) -> Wrap:
    """Checks one entry of the list of wrappers.

    Raises:
        UserError: if it is not allowed.
    """
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        shown = plain(repr(entry), 80)
        raise UserError(f"env.wrappers holds {shown}: each is the name of a wrapper, or {{name:{{argument:value}}}}")
    ((name, arguments),) = entry.items()
    if not isinstance(name, str) or name not in ALLOWED:
        shown = plain(repr(name), 80)
        allowed_names = f"those that it can have are {', '.join(ALLOWED)}"
        raise UserError(f"env.wrappers cannot have {shown}: {REFUSED.get(str(name), allowed_names)}")
    if not isinstance(arguments, Mapping):
        raise UserError(f"env.wrappers gives {name} {plain(repr(arguments), 80)}: it takes {{argument:value}}")
    return _checked(name, dict(arguments))


def _checked(name: str, arguments: PlainData) -> Wrap:
    allowed, part = ALLOWED[name], arguments.pop("part", None)
    if part is not None:
        part = str(part) if type(part) is int else part
        _check_part(part, f"env.wrappers puts {name} on")
        if not allowed.fits_a_part:
            raise UserError(f"env.wrappers puts {name} on the part {part!r}: it goes on whole observations only")
    for key, value in arguments.items():
        if not isinstance(key, str) or key not in allowed.arguments:
            known = ", ".join((*allowed.arguments, *(["part"] if allowed.fits_a_part else [])))
            raise UserError(f"env.wrappers: {name} takes {known or 'no arguments'}, not {plain(repr(key), 80)}")
        if not allowed.arguments[key](value):
            raise UserError(f"env.wrappers: {key} of {name} cannot be {plain(repr(value), 80)}")
    if missing := [key for key in allowed.required if key not in arguments]:
        raise UserError(f"env.wrappers: {name} needs {missing[0]}, such as {{{name}:{{{missing[0]}:…}}}}")
    items = ((key, tuple(value) if isinstance(value, list | tuple) else value) for key, value in arguments.items())
    return Wrap(name, tuple(items), part)
