"""The search space: options with a range of numbers or a list of choices."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from agent.common.errors import UserError, plain
from agent.common.kinds import PlainData
from agent.config.parsing import leaf_names, nearest, parse, to_plain, with_numbers
from agent.config.run import TrainConfig

#: Options that all trials must share, so that their scores are comparable.
SHARED = ("steps", "seed", "eval", "checkpoint", "log", "wandb", "resume", "imports", "env", "hydra")
#: Options of the environment that choose the task of training, or that of the evaluations.
TASK = ("env.id", "env.eval_kwargs")
#: The most steps of a range; Optuna counts them with 28 decimal digits.
MAX_STEPS = 1e12
#: Where between the ends of a range an option is tried before training: no whole number in a range of any size.
BETWEEN = (3 - math.sqrt(5)) / 2
RANGE = ("low", "high", "log", "step", "first")
CHOICES = ("choices", "first")


@dataclass(frozen=True)
class Domain:
    """The values that an option may take.

    Attributes:
        name: the name of the option, such as agent.lr.
        choices: the choices as JSON, in which studies of older releases may repeat one; empty for a range of numbers.
        low: the least number of a range.
        high: the greatest number of a range.
        log: whether the search is on a logarithmic scale.
        step: the distance between two numbers; None for any number.
        whole: whether its numbers are whole.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is in the domain."""
        if self.choices:
            return json.dumps(value) in self.choices
        if not isinstance(value, int if self.whole else int | float) or isinstance(value, bool):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def examples(self) -> list[object]:
        """Its choices, or the ends of its range and a number between them."""
        between = min(self.low + (self.step or BETWEEN * (self.high - self.low)), self.high)
        numbers = [self.number(value) for value in (self.low, self.high, between)]
        return [json.loads(choice) for choice in self.choices] or list(numbers)

    def number(self, value: float) -> int | float:
        """A number of the range as int or float, like the range."""
        return int(value) if self.whole else float(value)


def parse_space(space: PlainData) -> tuple[Domain, ...]:
    """The domains of a space.

    Raises:
        UserError: an entry is invalid; the message names the option.
    """
    return tuple(_domain(str(name), entry) for name, entry in space.items())


def _domain(name: str, entry: object) -> Domain:
    clean = "".join(character for character in name if character.isprintable() and character != " ")
    if name != clean:  # such as a space without a break, copied from a page
        options = leaf_names(TrainConfig)
        near = nearest(clean, [clean] if clean in options else options)
        raise UserError(f"the space has {plain(ascii(name), 80)}, which is no option{near}")
    shown = plain(name, 80)
    if (name.split(".")[0] in SHARED and not name.startswith("env.")) or name.startswith(TASK):
        raise UserError(f"{shown} cannot be tuned: scores of trials that differ in it cannot be compared")
    if not isinstance(entry, Mapping) or not ("choices" in entry or {"low", "high"} <= set(entry)):
        raise UserError(
            f"{shown} in the space takes {{low: …, high: …}}, with log: true or step: …, or {{choices: […]}}"
        )
    known = CHOICES if "choices" in entry else RANGE
    if unknown := [str(key) for key in entry if key not in known]:
        raise UserError(f"{shown} in the space has no {plain(unknown[0], 80)}{nearest(unknown[0], known)}")
    return replace(_choices(shown, entry) if "choices" in entry else _range(shown, entry), name=name)


def _choices(name: str, entry: Mapping[str, object]) -> Domain:
    choices = entry["choices"]
    if not isinstance(choices, list) or not choices:
        raise UserError(f"{name}.choices in the space must be a list, such as [1, 2, 4]")
    try:
        encoded = tuple(json.dumps(with_numbers(TrainConfig, name, choice), allow_nan=False) for choice in choices)
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{name}.choices in the space must be numbers, words, truth values or lists of them") from None
    return Domain(name, encoded)


def _range(name: str, entry: Mapping[str, object]) -> Domain:
    low, high = _number(name, "low", entry["low"]), _number(name, "high", entry["high"])
    step = None if entry.get("step") is None else _number(name, "step", entry["step"])
    log = entry.get("log", False)
    if low > high:
        raise UserError(f"{name} in the space has low={low} above high={high}: exchange them")
    if not math.isfinite(high - low):
        raise UserError(f"{name} in the space has low={low} and high={high}: give it a smaller range")
    if not isinstance(log, bool):
        raise UserError(f"{name}.log in the space must be true or false")
    if log and step is not None:
        raise UserError(f"{name} in the space has log and step: leave one of them out")
    if log and low <= 0:
        raise UserError(f"{name} in the space has log: true and low={low}: low must be greater than 0")
    if step is not None and step <= 0:
        raise UserError(f"{name}.step in the space is {step}: it must be greater than 0")
    if step is not None and (high - low) / step > MAX_STEPS:
        raise UserError(f"{name}.step in the space is {step}, far too small for its range: leave it out")
    whole = all(isinstance(value, int) for value in (low, high, step) if value is not None)
    return Domain(name, low=low, high=high, log=log, step=step, whole=whole)


def _number(name: str, key: str, value: object) -> int | float:
    """A number of a space file. YAML reads 1e-4, without a point, as a text.

    Raises:
        UserError: it is not a number.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{name}.{key} in the space is {plain(value, 80)}, far too large: give a smaller number")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"{name}.{key} in the space is {plain(value, 80)}: it must be a number")
    return value


def check_domains(domains: Sequence[Domain], training: TrainConfig) -> None:
    """Raises a UserError if an option does not exist, or a value of its domain is repeated or not allowed."""
    for domain in domains:
        shown = plain(domain.name, 80)
        if (repeated := _repeated(domain.choices)) is not None:
            raise UserError(f"{shown}.choices in the space has {plain(repeated, 80)} twice: leave one of them out")
        for value in domain.examples():
            options: PlainData = to_plain(training)
            *path, leaf = domain.name.split(".")
            node: object = options
            for key in path:
                if not isinstance(node, dict):
                    raise UserError(f"the space has {shown}, and {plain(key, 80)} has no options of its own")
                node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"the space has {shown}, and {plain(path[-1], 80)} has no options of its own")
            node[leaf] = value
            try:
                parse(TrainConfig, options)
            except UserError as error:
                raise UserError(f"the space has {shown}={value}, which does not work: {error}") from error


def _repeated(choices: Sequence[str]) -> str | None:
    """The first choice that equals an earlier one, such as 1.0 after 1; None if there is none."""
    seen: set[str] = set()
    for choice in choices:
        if (key := json.dumps(_whole(json.loads(choice)), sort_keys=True)) in seen:
            return choice
        seen.add(key)
    return None


def _whole(value: object) -> object:
    """Turns floats without a fraction into whole numbers, also in lists and mappings."""
    match value:
        case float():
            return int(value) if value.is_integer() else value
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {key: _whole(item) for key, item in value.items()}
    return value


def first_settings(space: PlainData, domains: Sequence[Domain], options: PlainData) -> PlainData:
    """The settings of the first trial: those of training without the study, where the space contains them.

    Raises:
        UserError: the `first` of an option is not in its domain.
    """
    settings: PlainData = {}
    for domain in domains:
        if "first" in space[domain.name]:
            settings[domain.name] = _first(domain, space[domain.name]["first"])
        elif domain.holds(value := select(options, domain.name)):
            settings[domain.name] = value
    return settings


def _first(domain: Domain, value: object) -> object:
    if not domain.choices:
        number = _number(plain(domain.name, 80), "first", value)
        value = int(number) if domain.whole and number == int(number) else number
    with suppress(TypeError, ValueError, RecursionError):  # a choice that is no JSON
        value = with_numbers(TrainConfig, domain.name, value)
        if domain.holds(value):
            return value
    kind = "whole number" if domain.whole else "number"
    steps = f" in steps of {domain.step}" if domain.step else ""
    allowed = "one of its choices" if domain.choices else f"a {kind} from {domain.low} to {domain.high}{steps}"
    raise UserError(f"{plain(domain.name, 80)}.first in the space is {plain(value, 80)}: it must be {allowed}")


def select(tree: object, name: str) -> object:
    """The value of an option in nested mappings; None if it is missing."""
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
