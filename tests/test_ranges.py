"""Every numeric option has a finite range, so that no config, not even a stranger's, asks for too much of a machine."""

import dataclasses
import math
import time
import types
import typing
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from agent.command import composing
from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.common.state import Checkpoint
from agent.config.algorithm import AgentConfig
from agent.config.compare import CompareConfig
from agent.config.parsing import parse, to_plain
from agent.config.parts import MAX_LAYERS, NetworkConfig
from agent.config.ranges import Range, above_zero, at_least, between, positive
from agent.config.run import EvaluateConfig, TrainConfig, upgraded
from agent.config.share import ShareConfig
from agent.config.tune import TuneConfig
from agent.networks import build
from agent.networks.build import build_network

ROOTS = (TrainConfig, EvaluateConfig, CompareConfig, ShareConfig, TuneConfig)
NUMBERS = (int, float, Fraction)


def plain_types(hint: Any) -> set[Any]:
    """The types in a hint, without None, literals and the tuple around them."""
    if get_origin(hint) is Annotated:
        return plain_types(get_args(hint)[0])
    if get_origin(hint) in (types.UnionType, typing.Union, tuple):
        return set().union(*(plain_types(part) for part in get_args(hint)))
    return set() if hint in (type(None), ...) or get_origin(hint) is Literal else {hint}


def options(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The full name and the type hint of every option of a dataclass, without the nodes above it."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from options(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", hint


def ranges(hint: Any) -> list[Range]:
    return [bound for bound in get_args(hint)[1:] if isinstance(bound, Range)] if get_origin(hint) is Annotated else []


NUMERIC = [
    pytest.param(cls, name, hint, id=f"{cls.__name__}.{name}")
    for cls in ROOTS
    for name, hint in options(cls)
    if plain_types(hint) & set(NUMBERS)
]
HOSTILE: tuple[Any, ...] = (
    *(1e300, -1e300, 1e39, -1e39, 10**30, -(10**30), 10**400, 2**63 - 1, 2**63, -(2**63), 0, -1, 0.0, -0.0),
    *(5e-324, 1e-300, math.nan, math.inf, -math.inf, True, None, 0.5, 1, 2, Fraction(1, 3)),
    *("", "x", "1e300", "-1e300", "1e999999999", "1/0", "1/3", "9" * 10**6, "\x1b[2J\n", " -1/2\n"),
    *(f"1/{10**4000}", f"{10**4000}/{10**4000 - 1}", [], [0], [1e300], [math.nan], [1] * 10**5, ["x"] * 10**5),
    *([[]], {}, {"a": 1}, {1: 2}, [True], (1, 2)),
)  # fmt: skip


def nested(name: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the name a.b."""
    for key in reversed(name.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, NUMBERS) and not isinstance(value, bool):
        yield value


def outcome(cls: type[Any], mapping: dict[str, Any]) -> tuple[Any, str]:
    """(config, "") for a right mapping, and (None, sentence) for a wrong one."""
    try:
        return parse(cls, mapping), ""
    except UserError as error:
        return None, str(error)


def select(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = getattr(config, key)
    return config


def test_the_options_are_found() -> None:
    names = {param.values[1] for param in NUMERIC}
    assert {"threads", "agent.noise.sigma0", "agent.network.hidden", "agent.replay_ratio", "eval.stop_at"} <= names
    assert not names & {"env.id", "agent.double", "device", "env.kwargs", "wandb.tags"}


@pytest.mark.parametrize(("cls", "name", "hint"), NUMERIC)
def test_every_number_has_a_finite_range_that_holds_its_default(cls: type[Any], name: str, hint: Any) -> None:
    (bound,) = ranges(hint)
    assert math.isfinite(bound.low)
    assert math.isfinite(bound.high)
    assert bound.low < bound.high
    assert all(bound.low <= number <= bound.high for number in numbers(select(cls(), name)))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("cls", "name", "hint"), NUMERIC)
def test_whatever_is_given_for_a_number_is_refused_in_a_sentence_or_in_its_range(
    cls: type[Any], name: str, hint: Any
) -> None:
    (bound,) = ranges(hint)
    for value in HOSTILE:
        begun = time.process_time()
        config, sentence = outcome(cls, nested(name, value))
        assert len(sentence) < 500
        assert sentence.isprintable()
        if any(not bound.low <= number <= bound.high for number in numbers(value)):  # also for NaN
            assert config is None
        if config is not None:
            assert all(bound.low <= number <= bound.high for number in numbers(select(config, name)))
            assert parse(cls, to_plain(config)) == config
        assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(("cls", "name", "hint"), NUMERIC)
def test_what_is_out_of_a_range_is_told_the_range(cls: type[Any], name: str, hint: Any) -> None:
    """Numbers far outside and just beyond each end are refused. The ends are allowed, except by other options."""
    (bound,) = ranges(hint)
    whole = int in plain_types(hint)
    step = 1 if whole else max(1e-9, abs(bound.high) * 1e-9)
    lowest = bound.low if bound.above and not whole else bound.low - step
    outside = [lowest, bound.high + step, -1e31, 1e31]
    several = tuple in {get_origin(part) for part in (hint, get_args(hint)[0], *get_args(get_args(hint)[0]))}
    for number in outside:
        with pytest.raises(UserError) as caught:
            parse(cls, nested(name, [number, number] if several else number))
        assert str(caught.value).startswith(f"{name} is ")
        assert str(caught.value).endswith((f"it must be {bound.text}", "far too large", "below 10¹⁵"))
    for number in (bound.high, bound.low):
        _, sentence = outcome(cls, nested(name, [number, number] if several else number))
        assert (bound.text in sentence) == (bound.above and number == bound.low)


def test_a_range_says_what_it_holds() -> None:
    for bound, text, inside, outside in (
        (between(1, 1024), "between 1 and 1024", (1, 7, 1024), (0, 1025, math.nan)),
        (at_least(0, 1e9), "at least 0 and at most 1e9", (0, 1e9, Fraction(1, 3)), (-1e-9, 1.1e9, math.inf)),
        (above_zero(1), "greater than 0 and at most 1", (1e-300, 1), (0, -0.0, 1.1)),
        (positive(1e-6, 1e6), "greater than 0, from 1e-6 to 1e6", (1e-6, 1), (0, 9e-7)),
        (between(-1e9, 65_536), "between -1e9 and 65536", (-1e9, 0), (-1.1e9,)),
    ):
        assert bound.text == text
        assert all(bound.holds(number) for number in inside)
        assert not any(bound.holds(number) for number in outside)


@pytest.mark.parametrize("ratio", [f"1/{10**4000}", f"{10**4000}/{10**4000 - 1}", "1/9999999999999999999"])
def test_a_fraction_is_one_of_numbers_that_are_not_huge(ratio: Any) -> None:
    with pytest.raises(UserError, match=r"agent\.replay_ratio is .*: it must be a fraction of numbers below 10¹⁵"):
        parse(AgentConfig, {"replay_ratio": ratio}, "agent.")
    assert parse(AgentConfig, {"replay_ratio": "1/1000003"}).replay_ratio == Fraction(1, 1_000_003)


@pytest.mark.parametrize("value", [1e300, math.nan, 10**30, "x" * 101, [1], None, {"a": 1}])
def test_options_of_registered_heads_are_small(value: Any) -> None:
    with pytest.raises(UserError, match=r"agent\.head_options\.width must be a number between -1e9 and 1e9"):
        parse(AgentConfig, {"head": "mine", "head_options": {"width": value}}, "agent.")
    for good in (3, 0.5, True, "word"):
        assert parse(AgentConfig, {"head": "mine", "head_options": {"width": good}}).head_options == {"width": good}


@pytest.mark.parametrize("key", ["\x1b[2J", "a\nb", "x" * 10**6, 7, None, ("a",)])
def test_the_name_of_an_unknown_option_is_short_and_printable(key: Any) -> None:
    for mapping in ({key: 1}, {"agent": {key: 1}}):
        with pytest.raises(UserError, match="unknown option") as caught:
            parse(TrainConfig, mapping)
        assert len(str(caught.value)) < 800
        assert str(caught.value).isprintable()


# ---- numbers together


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "hidden", [[1] * (MAX_LAYERS + 1), [1] * 60_000, [65_536, 65_536], [65_536] * 100, [20_000, 20_000]]
)
def test_networks_too_large_are_refused_at_once(hidden: list[int]) -> None:
    begun = time.process_time()
    with pytest.raises(UserError, match=r"network\.hidden has [\d,]+ (layers|weights).*: it must have at most [\d,]+"):
        parse(AgentConfig, {"network": {"hidden": hidden}}, "agent.")
    assert time.process_time() - begun < 1.0
    assert NetworkConfig(hidden=(1,) * MAX_LAYERS).hidden
    assert NetworkConfig(hidden=(65_536, 1, 65_536, 1)).hidden


@pytest.mark.parametrize(
    ("v_min", "v_max", "atoms"), [(0.0, 1e-10, 51), (1e9 - 1, 1e9, 51), (-1e-300, 1e-300, 2), (1.0, 1.0 + 1e-5, 1024)]
)
def test_atoms_that_float32_cannot_tell_apart_are_refused(v_min: float, v_max: float, atoms: int) -> None:
    given = {"categorical": {"v_min": v_min, "v_max": v_max, "atoms": atoms}}
    with pytest.raises(UserError, match=r"agent\.categorical\.v_min and agent\.categorical\.v_max .* further apart"):
        parse(AgentConfig, given, "agent.")


@pytest.mark.parametrize(
    ("v_min", "v_max", "atoms"), [(-1e9, 1e9, 1024), (-1e-4, 1e-4, 51), (0.0, 1.0, 1024), (999.0, 1000.0, 51)]
)
def test_atoms_that_are_accepted_are_apart_in_float32(v_min: float, v_max: float, atoms: int) -> None:
    config = parse(AgentConfig, {"categorical": {"v_min": v_min, "v_max": v_max, "atoms": atoms}}).categorical
    values = torch.linspace(config.v_min, config.v_max, config.atoms)
    assert (values.diff() > 0.0).all()


NOISE: dict[str, dict[str, Any]] = {
    "plain": {"enabled": False},
    "factorised": {},
    "index": {"form": "index", "learning": "joint", "index": 4},
    "prior": {"form": "index", "learning": "joint", "index": 4, "prior": 1.0},
}


@pytest.mark.parametrize("form", NOISE)
@pytest.mark.parametrize("dueling", [False, True])
def test_a_network_is_counted_before_it_is_made(form: str, dueling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is exact. It covers linear layers; other checks bound normalisation, which this network lacks."""
    network = {"hidden": [5, 7], "dueling": dueling, "layer_norm": False}
    config = parse(AgentConfig, {"network": network, "noise": NOISE[form]})
    size = sum(tensor.numel() for tensor in build_network(config, 3, 2).state_dict().values())
    monkeypatch.setattr(build, "MOST_PARAMETERS", size)
    build_network(config, 3, 2)
    monkeypatch.setattr(build, "MOST_PARAMETERS", size - 1)
    with pytest.raises(UserError, match=f"{size:,} parameters or more, and {size - 1:,} are the most"):
        build_network(config, 3, 2)


@pytest.mark.parametrize("encoder", ["minatar", "nature", "data_efficient", "impala"])
def test_convolutions_count_as_well(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ObservationSpec((4, 84, 84), "uint8", 255.0)
    config = parse(AgentConfig, {"network": {"encoder": encoder, "hidden": [5]}})
    size = sum(parameter.numel() for parameter in build_network(config, images, 2).parameters())
    monkeypatch.setattr(build, "MOST_PARAMETERS", size)
    build_network(config, images, 2)
    monkeypatch.setattr(build, "MOST_PARAMETERS", size - 1)
    with pytest.raises(UserError, match=f"{size - 1:,} are the most"):
        build_network(config, images, 2)


def test_a_network_too_large_for_its_task_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither 65 536 units on an image of 84×84 nor 65 536 × 1024 atoms are allocated."""
    empty = torch.empty

    def checked(*sizes: Any, **options: Any) -> torch.Tensor:
        assert empty(*sizes, **options | {"device": "meta"}).numel() < 1e6, f"allocates {sizes}"
        return empty(*sizes, **options)

    monkeypatch.setattr(torch, "empty", checked)
    for agent, inputs, actions in (
        ({"network": {"hidden": [65_536, 1]}}, 84 * 84 * 4, 4),
        ({"network": {"hidden": [65_536]}, "head": "categorical", "categorical": {"atoms": 1024}}, 1, 18),
    ):
        with pytest.raises(UserError, match=r"lower agent\.network\.hidden"):
            build_network(parse(AgentConfig, agent), inputs, actions)


# ---- configs of other releases


def test_a_config_of_an_older_release_has_the_defaults_of_options_that_it_lacks() -> None:
    """Each option in turn is missing in the saved config; the other options are kept."""
    saved = to_plain(parse(TrainConfig, {"steps": 123, "agent": {"lr": 0.5}, "eval": {"every": 7}}))
    default = TrainConfig()
    for name, _ in options(TrainConfig):
        older = parse(TrainConfig, saved)
        tree = to_plain(older)
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node[key]
        del node[leaf]
        resumed = parse(TrainConfig, composing.merge_resumed(tree, to_plain(default), []))
        # Version 0.1 had no masks, and learning was joint.
        earlier = {"env.action_mask": "off", "agent.noise.learning": "joint"}
        expected = earlier[name] if name in earlier else select(default, name)
        assert select(resumed, name) == expected
        if name != "steps":
            assert resumed.steps == 123
    for node in ("eval", "wandb", "log"):
        tree = {key: value for key, value in saved.items() if key != node}
        assert getattr(parse(TrainConfig, upgraded(tree)), node) == getattr(default, node)


@pytest.mark.parametrize("override", ["agent.noise.share=false", "eval.share=true", "env.channels=auto", "steps=50"])
def test_an_option_that_an_older_run_lacks_may_be_named_on_resume(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option may have its default, or another value if it may change. A whole node may be missing as well."""
    older = to_plain(parse(TrainConfig, {"steps": 40}))
    del older["agent"]["noise"]["share"], older["eval"], older["env"]["channels"], older["log"]
    monkeypatch.setattr(composing, "open_run", lambda *given: Checkpoint(20, {"config": older}))
    name, _, value = override.partition("=")
    typed: Any = {"true": True, "false": False, "50": 50}.get(value, value)
    given = {"env": {}, **nested(name, typed), "resume": "run", "imports": []}
    given["env"]["id"] = older["env"]["id"]
    request = composing.training_request(given, [override], tmp_path)
    assert select(request.config, name) == typed
    assert request.config.log == TrainConfig().log
    assert request.checkpoint is not None
    assert request.checkpoint.state["config"] == to_plain(parse(TrainConfig, older))
