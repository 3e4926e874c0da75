"""From mappings to dataclasses: every mistake has one clear sentence, and conf/ has the defaults of the dataclasses."""

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from agent.command.presets import register_presets
from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.checks import early_schedules, without_effect
from agent.config.parsing import leaf_names, nearest, parse, to_plain
from agent.config.parts import NetworkConfig, NoiseConfig
from agent.config.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, UNIT
from agent.config.run import EvaluateConfig, TrainConfig

CONF = Path(__file__).parent.parent / "conf"


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, UNIT] = 0.5
    word: str = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    count: Annotated[int, AT_LEAST_ONE] = 1
    rate: Annotated[float, POSITIVE] = 1.0
    maybe: Annotated[float | None, NOT_NEGATIVE] = None
    name: str | None = None
    flag: bool = False
    kind: Literal["left", "right"] = "left"
    widths: Annotated[tuple[int, ...], AT_LEAST_ONE] = (1,)
    tags: tuple[str, ...] = ()
    ratio: Annotated[Fraction, NOT_NEGATIVE] = Fraction(1, 2)
    free: dict[str, Any] = field(default_factory=dict)
    goal: float | Literal["solved"] | None = None


# ---- right input


def test_nothing_gives_the_defaults() -> None:
    assert parse(Outer, {}) == Outer()


def test_every_kind_of_value() -> None:
    given = {
        "inner": {"share": 1, "word": "b"},
        "count": 7,
        "rate": 1e-3,
        "maybe": 0,
        "name": "x",
        "flag": True,
        "kind": "right",
        "widths": [3, 4],
        "tags": ["p", "q"],
        "ratio": "3/4",
        "free": {"a": [1, None]},
    }
    expected = Outer(
        Inner(1.0, "b"), 7, 1e-3, 0.0, "x", True, "right", (3, 4), ("p", "q"), Fraction(3, 4), {"a": [1, None]}
    )
    assert parse(Outer, given) == expected
    assert type(parse(Outer, given).inner.share) is float
    assert parse(Outer, {"maybe": None, "name": None, "goal": None}) == Outer()
    assert parse(Outer, {"goal": "solved"}).goal == "solved"
    assert parse(Outer, {"goal": 3}).goal == 3.0
    with pytest.raises(UserError, match="goal is 'lost': it must be a number"):
        parse(Outer, {"goal": "lost"})


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    count = parse(Outer, {"count": 1e6}).count
    assert (count, type(count)) == (1_000_000, int)
    for large in (1e20, 10**20, 2.0**63):  # a file with such a number could not be read back
        with pytest.raises(UserError, match="count is far too large"):
            parse(Outer, {"count": large})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (1, Fraction(1)),
        ("1/4", Fraction(1, 4)),
        (0.1, Fraction(1, 10)),  # exact, and not the nearest double
        ("0.3", Fraction(3, 10)),
        (2.5, Fraction(5, 2)),
        (0, Fraction(0)),
        (1e-3, Fraction(1, 1000)),
    ],
)
def test_fractions_are_exact(text: object, value: Fraction) -> None:
    assert parse(Outer, {"ratio": text}).ratio == value


def test_plain_and_back_again() -> None:
    config = Outer(Inner(0.25, "z"), 3, 2.0, None, "n", True, "right", (5, 6), ("t",), Fraction(2, 3), {"k": {"l": 1}})
    plain = to_plain(config)
    assert parse(Outer, json.loads(json.dumps(plain))) == config
    assert plain["ratio"] == "2/3"
    assert to_plain(Outer(ratio=Fraction(4)))["ratio"] == 4
    assert plain["widths"] == [5, 6]


@pytest.mark.parametrize("cls", [TrainConfig, EvaluateConfig, AgentConfig])
def test_every_default_is_a_value_that_parse_accepts(cls: type[Any]) -> None:
    assert parse(cls, json.loads(json.dumps(to_plain(cls())))) == cls()


def test_leaf_names_are_all_options() -> None:
    def names(plain: Mapping[str, Any], prefix: str = "") -> set[str]:
        own = {f"{prefix}{key}" for key in plain}
        nodes = {key: value for key, value in plain.items() if isinstance(value, dict)}
        return own.union(*(names(value, f"{prefix}{key}.") for key, value in nodes.items()))

    assert set(leaf_names(TrainConfig)) == names(to_plain(TrainConfig()))
    assert {"agent.noise.sigma0", "env.kwargs", "wandb.mode"} <= set(leaf_names(TrainConfig))


# ---- wrong input


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"cuont": 1}, ["unknown option cuont", "count"]),
        ({"inner": {"shares": 1}}, ["unknown option inner.shares", "share"]),
        ({"zzz": 1}, ["unknown option zzz", "known here: inner, count"]),
        ({"count": 0}, ["count", "0", "at least 1"]),
        ({"count": -3}, ["count", "-3", "at least 1"]),
        ({"count": 1.5}, ["count", "1.5", "a whole number"]),
        ({"count": "many"}, ["count", "'many'", "a whole number"]),
        ({"count": True}, ["count", "True", "a whole number"]),
        ({"count": None}, ["count", "None", "a whole number"]),
        ({"count": [1]}, ["count", "[1]", "a whole number"]),
        ({"count": float("inf")}, ["count", "inf", "a whole number"]),
        ({"rate": 0}, ["rate", "0", "greater than 0"]),
        ({"rate": float("nan")}, ["rate", "nan", "finite"]),
        ({"rate": float("inf")}, ["rate", "inf", "finite"]),
        ({"rate": "fast"}, ["rate", "'fast'", "a number"]),
        ({"rate": False}, ["rate", "False", "a number"]),
        ({"rate": None}, ["rate", "None", "a number"]),
        ({"maybe": -0.5}, ["maybe", "-0.5", "at least 0"]),
        ({"inner": {"share": 1.01}}, ["inner.share", "1.01", "between 0 and 1"]),
        ({"inner": {"word": 3}}, ["inner.word", "3", "a word", "'\"3\"'"]),
        ({"inner": 3}, ["inner", "3", "inner.share"]),
        ({"inner": None}, ["inner", "None", "inner.share"]),
        ({"flag": "yes"}, ["flag", "'yes'", "true or false"]),
        ({"flag": 1}, ["flag", "1", "true or false"]),
        ({"kind": "up"}, ["kind", "'up'", "left, right"]),
        ({"kind": ["left"]}, ["kind", "left, right"]),
        ({"widths": 256}, ["widths", "256", "a list"]),
        ({"widths": "256"}, ["widths", "'256'", "a list"]),
        ({"widths": [2, 0]}, ["widths", "[2, 0]", "at least 1"]),
        ({"widths": [2, "x"]}, ["widths", "'x'", "a whole number"]),
        ({"tags": [1]}, ["tags", "1", "a word"]),
        ({"ratio": "1/0"}, ["ratio", "'1/0'", "fraction"]),
        ({"ratio": "half"}, ["ratio", "'half'", "fraction"]),
        ({"ratio": -1}, ["ratio", "-1", "at least 0"]),
        ({"ratio": True}, ["ratio", "True", "fraction"]),
        ({"ratio": float("nan")}, ["ratio", "nan", "fraction"]),
        ({"ratio": float("inf")}, ["ratio", "inf", "fraction"]),
        ({"ratio": None}, ["ratio", "None", "fraction"]),
        ({"ratio": [1]}, ["ratio", "[1]", "fraction"]),
        ({"free": 3}, ["free", "3", "a mapping"]),
    ],
)
def test_mistakes_name_key_value_and_range(given: Mapping[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(Outer, given)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_number_of_absurd_size_costs_nothing() -> None:
    """Such a number in a stranger's saved agent is refused, or read as 0, at once. A process has a timeout."""
    program = (
        "import sys\nfrom dataclasses import dataclass\nfrom fractions import Fraction\n"
        "from agent.common.errors import UserError\nfrom agent.config.parsing import parse\n"
        "@dataclass\nclass Config:\n    ratio: Fraction = Fraction(1)\n"
        "for text in sys.argv[1:]:\n"
        "    try: parse(Config, {'ratio': text})\n"
        "    except UserError: pass\n"
    )
    texts = ["1e999999999", "1e-999999999", "1/1e999999999", "1" * 5_000]
    subprocess.run([sys.executable, "-c", program, *texts], check=True, timeout=10, cwd=CONF.parent)


def test_the_nearest_words() -> None:
    assert nearest("sigma", ["sigma0", "draws"]) == "; did you mean sigma0?"
    assert nearest("zzz", ["sigma0", "draws"]) == ""


# ---- cross-field rules


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"network": {"hidden": []}}, ["agent.network.hidden", "at least one"]),
        ({"noise": {"draws": 7}}, ["agent.noise.draws", "7", "agent.batch_size", "64"]),
        ({"learning_starts": 10}, ["agent.learning_starts", "10", "agent.batch_size", "64"]),
        ({"epsilon": {"start": 0.1, "end": 0.2}}, ["agent.epsilon.end", "agent.epsilon.start"]),
        (
            {"epsilon": {"start": 0.1, "end": 0.2}, "noise": {"enabled": False}},
            ["agent.epsilon.end", "agent.epsilon.start"],
        ),
        ({"epsilon": {"start": 0.0, "end": 0.2}}, ["agent.epsilon.end", "agent.epsilon.start"]),
        ({"noise": {"sigma0": -1}}, ["agent.noise.sigma0", "-1", "at least 0"]),
        ({"noise": {"distribution": "cauchy"}}, ["agent.noise.distribution", "cauchy", "normal", "laplace"]),
        ({"tau": 0}, ["agent.tau", "0", "at most 1"]),
        ({"gamma": 1.5}, ["agent.gamma", "1.5", "between 0 and 1"]),
        ({"n_step": 0}, ["agent.n_step", "0", "at least 1"]),
        ({"replay_ratio": "-1/2"}, ["agent.replay_ratio", "-1/2", "at least 0"]),
        ({"munchausen": {"enabled": True}}, ["agent.double", "agent.munchausen.enabled"]),
        ({"head": "quantile", "loss": "squared"}, ["agent.loss=squared", "agent.head=quantile"]),
        ({"head": "categorical", "loss": "squared"}, ["agent.loss=squared", "agent.head=categorical"]),
        ({"categorical": {"v_min": 1.0, "v_max": 1.0}}, ["agent.categorical.v_min", "1.0", "agent.categorical.v_max"]),
        ({"categorical": {"v_max": -20}}, ["agent.categorical.v_min", "-10.0", "agent.categorical.v_max (-20.0)"]),
        ({"categorical": {"atoms": 1}}, ["agent.categorical.atoms", "1", "between 2 and 1024"]),
        ({"quantile": {"count": 0}}, ["agent.quantile.count", "0", "between 1 and 1024"]),
        ({"quantile": {"kappa": -1}}, ["agent.quantile.kappa", "-1", "at least 0"]),
        ({"implicit_quantile": {"acting": 10**9}}, ["agent.implicit_quantile.acting", "between 1 and 1024"]),
        ({"implicit_quantile": {"cosines": 0}}, ["agent.implicit_quantile.cosines", "0", "between 1 and 1024"]),
        ({"munchausen": {"temperature": 0}}, ["agent.munchausen.temperature", "0", "greater than 0"]),
        ({"munchausen": {"clip": 1}}, ["agent.munchausen.clip", "1", "at most 0"]),
        ({"munchausen": {"alpha": 2}}, ["agent.munchausen.alpha", "2", "between 0 and 1"]),
        ({"priority": {"exponent": 1.5}}, ["agent.priority.exponent", "1.5", "between 0 and 1"]),
        ({"priority": {"beta": 2}}, ["agent.priority.beta", "2", "between 0 and 1"]),
        ({"priority": {"beta_steps": 0}}, ["agent.priority.beta_steps", "0", "at least 1"]),
    ],
)
def test_agents_that_make_no_sense_are_refused(given: Mapping[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(AgentConfig, given, "agent.")
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_what_makes_sense_is_not_refused() -> None:
    parse(AgentConfig, {"noise": {"draws": 16}, "network": {"hidden": [8]}, "learning_starts": 64})
    parse(AgentConfig, {"replay_ratio": 0, "learning_starts": 0})  # this agent collects and never learns
    parse(AgentConfig, {"noise": {"enabled": False}, "epsilon": {"start": 1, "end": 0.05, "steps": 1e4}})
    for head in ("expected", "categorical", "quantile", "implicit_quantile"):
        parse(AgentConfig, {"head": head, "double": False, "munchausen": {"enabled": True}})
    parse(AgentConfig, {"loss": "squared", "quantile": {"kappa": 0}})
    parse(AgentConfig, {"epsilon": {"start": 1, "end": 0.01, "steps": 100}})  # ε-greedy on top of noise


def test_configs_are_frozen() -> None:
    def check(config: Any) -> None:
        for entry in fields(config):
            with pytest.raises(AttributeError):
                setattr(config, entry.name, None)
            value = getattr(config, entry.name)
            if is_dataclass(value):
                check(value)

    check(TrainConfig())
    check(EvaluateConfig())


# ---- conf/


def composed(name: str, *overrides: str, folder: Path = CONF) -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(config_name=name, overrides=list(overrides))


def train_mapping(*overrides: str) -> dict[str, Any]:
    """The mapping that train.py parses, with CartPole-v1 as `env.id`, since only a running Hydra sets it."""
    mapping: dict[str, Any] = json.loads(_train_json(overrides))
    return mapping


@functools.cache
def _train_json(overrides: tuple[str, ...]) -> str:
    register_presets(overrides)
    cfg = composed("train", *overrides, "env.id=CartPole-v1")
    mapping: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    assert mapping.pop("resume") is None
    assert mapping.pop("imports") == []
    return json.dumps(mapping)


def keys(mapping: Any, prefix: str = "") -> set[str]:
    if not isinstance(mapping, dict):
        return set()
    return {f"{prefix}{key}" for key in mapping}.union(*(keys(v, f"{prefix}{k}.") for k, v in mapping.items()))


def test_train_yaml_and_its_dataclasses_say_the_same() -> None:
    mapping = train_mapping("env=NoPreset-v0")  # presets of known tasks would change options
    assert parse(TrainConfig, mapping) == TrainConfig()
    assert keys(mapping) == keys(to_plain(TrainConfig()))  # every option can be seen and overridden


def test_evaluate_yaml_and_its_dataclass_say_the_same() -> None:
    mapping: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        composed("evaluate", folder=CONF / "evaluate"), resolve=True
    )
    assert mapping.pop("imports") == []
    assert keys(mapping) == keys(to_plain(EvaluateConfig()))
    assert mapping.pop("checkpoint") is None
    assert parse(EvaluateConfig, mapping) == EvaluateConfig()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "agent").glob("*.yaml")))
def test_every_agent_preset_parses(name: str) -> None:
    mapping = train_mapping(f"agent={name}")
    config = parse(TrainConfig, mapping)
    assert keys(mapping) == keys(to_plain(TrainConfig()))
    explores = config.agent.noise.enabled or config.agent.epsilon.start > 0
    assert explores


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ("env=CartPole-v1", ""),
        ("env=CartPole-v1 steps=3000", ""),
        ("env=CartPole-v1 steps=100000", "update 12,500 of 24,750 on: agent.lr_updates=24750 would spread"),
        ("env=CartPole-v1 agent.replay_ratio=1", "update 12,500 of 49,000 on: agent.lr_updates=49000 would spread"),
        ("env=CartPole-v1 steps=100000 agent.lr_updates=24750", ""),
        ("env=CartPole-v1 steps=100000 agent.lr_end=null", ""),
        ("env=CartPole-v1 steps=100000 agent.lr=1e-5", ""),
    ],
)
def test_a_learning_rate_that_ends_long_before_the_run_is_told(overrides: str, advice: str) -> None:
    found = list(early_schedules(parse(TrainConfig, train_mapping(*overrides.split()))))
    assert [advice in sentence for sentence in found] == [True] * bool(advice)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "noise").glob("*.yaml")))
def test_a_variant_of_the_noise_wins_over_agent_and_task_and_changes_nothing_else(name: str) -> None:
    """The task is Acrobot, whose preset sets draws, hold and other options of the noise."""
    before, after = (train_mapping("env=Acrobot-v1", *words)["agent"] for words in ((), (f"noise={name}",)))
    parse(TrainConfig, train_mapping("env=Acrobot-v1", f"noise={name}"))
    said = yaml.safe_load((CONF / "noise" / f"{name}.yaml").read_text()) or {}
    for part in ("noise", "epsilon"):
        changes = said.pop(part, {})
        if "change" in changes:  # a node with options of its own
            changes["change"] = {**before[part]["change"], **changes["change"]}
        assert after.pop(part) == {**before.pop(part), **changes}
    assert (said, after) == ({}, before)


def test_every_variant_of_the_noise_is_another_one() -> None:
    """A comparison of variants therefore has different groups, and each variant explores."""
    seen = []
    for path in (CONF / "noise").glob("*.yaml"):
        for agent in ("noisy_dqn", "rainbow"):
            config = parse(TrainConfig, train_mapping(f"agent={agent}", "env=NoPreset-v0", f"noise={path.stem}")).agent
            assert config.noise.enabled or config.epsilon.start == 1.0 > config.epsilon.end > 0.0
            assert config.epsilon.steps >= 8_000
            seen.append(config)
    names = [path.stem for path in (CONF / "noise").glob("*.yaml")]
    assert {"preset", "paper", "shared", "per_row", "per_episode", "independent", "none"} <= set(names)
    same = [(a, b) for a in range(len(seen)) for b in range(a) if seen[a] == seen[b]]
    assert len(same) <= 4  # one of the variants equals the preset's own noise


ENV = CONF / "preset" / "task"
SIZED = ("CartPole", "Acrobot", "MountainCar", "LunarLander", "MinAtar")  # tasks with smaller sizes than Atari
ENV_PRESETS = sorted(str(path.relative_to(ENV).with_suffix("")) for path in ENV.rglob("*.yaml"))
EPSILON = ("dqn", "munchausen_dqn", "c51", "qr_dqn", "iqn")  # agents that explore by ε alone
GAMES = ("ALE/Pong-v5", "ALE/Seaquest-v5", "PongNoFrameskip-v4")


@pytest.mark.parametrize("name", [*ENV_PRESETS, *GAMES, "NoPreset-v0", "my_module:NoPreset-v0"])
def test_every_env_preset_goes_with_every_agent(name: str) -> None:
    for path in (CONF / "agent").glob("*.yaml"):
        mapping = train_mapping(f"env={name}", f"agent={path.stem}")
        config = parse(TrainConfig, mapping)
        assert config.agent.noise.enabled == (path.stem not in EPSILON)
        mapping["env"]["kwargs"] = {}
        assert keys(mapping) == keys(to_plain(TrainConfig()))
        assert config.agent.learning_starts < config.steps / 5  # learning begins early enough
        if name.startswith(SIZED):
            assert config.agent.replay_size <= 100_000
            assert config.agent.epsilon.steps <= config.steps / 4
            assert config.agent.priority.beta_steps <= config.steps
            assert config.agent.quantile.count <= 50


def leaves(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every option, without the nodes above it, by its full name."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        node = isinstance(value, dict) and key != "kwargs"
        found |= leaves(value, f"{prefix}{key}.") if node else {f"{prefix}{key}": value}
    return found


def not_default(*overrides: str) -> dict[str, Any]:
    """The options to which the presets give other values than the dataclasses."""
    default = leaves(to_plain(TrainConfig()))
    options = leaves(to_plain(parse(TrainConfig, train_mapping(*overrides))))
    return {name: options[name] for name in sorted(options) if options[name] != default[name]}


def digest(options: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:8]


#: The digest of `not_default` for each task and agent. An intended change of a preset needs new digests here.
COMPOSED: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "composed.json").read_text())


@pytest.mark.parametrize("env", [*ENV_PRESETS, "ALE/Pong-v5", "PongNoFrameskip-v4", "NoPreset-v0"])
def test_every_agent_on_every_task_is_composed_as_ever(env: str) -> None:
    for path in (CONF / "agent").glob("*.yaml"):
        options = not_default(f"env={env}", f"agent={path.stem}")
        assert digest(options) == COMPOSED[env][path.stem], f"agent={path.stem} env={env}: {options}"


def test_presets_are_their_papers_components() -> None:
    """The components of each name; n, learning rate, batch and support are those of the papers' tables."""

    def parts(name: str) -> tuple[Any, ...]:
        a = parse(TrainConfig, train_mapping("env=ALE/Pong-v5", f"agent={name}")).agent
        switches = (a.network.dueling, a.double, a.munchausen.enabled, a.priority.enabled, a.noise.enabled)
        return a.head, "".join("-+"[on] for on in switches), a.n_step, a.lr, a.batch_size

    # dueling, double, Munchausen, priorities, noise
    assert parts("noisy_dqn") == ("expected", "-+--+", 3, 6.25e-5, 32)
    assert parts("dqn") == ("expected", "-+---", 3, 6.25e-5, 32)
    assert parts("noisy_dueling") == ("expected", "++--+", 3, 6.25e-5, 32)
    assert parts("munchausen_dqn") == ("expected", "--+--", 3, 6.25e-5, 32)
    assert parts("c51") == ("categorical", "-----", 1, 2.5e-4, 32)
    assert parts("qr_dqn") == ("quantile", "-----", 1, 5e-5, 32)
    assert parts("iqn") == ("implicit_quantile", "-----", 1, 5e-5, 32)
    assert parts("rainbow") == ("categorical", "++-++", 3, 6.25e-5, 32)
    assert parts("der") == ("categorical", "++-++", 20, 1e-4, 32)
    assert parts("index_dqn") == ("expected", "-+-++", 1, 6.25e-5, 32)
    assert parts("btr") == ("implicit_quantile", "+-+++", 3, 1e-4, 256)


@pytest.mark.parametrize("game", [*GAMES, "ALE/Pong", "PongNoFrameskip-v0"])
@pytest.mark.parametrize("agent", sorted(path.stem for path in (CONF / "agent").glob("*.yaml")))
def test_every_atari_game_is_played_as_in_the_papers(game: str, agent: str) -> None:
    mapping = train_mapping(f"env={game}", f"agent={agent}")
    config = parse(TrainConfig, mapping)
    assert config.env.clip_rewards
    assert config.env.life_loss
    assert not config.agent.network.layer_norm
    assert config.env.kwargs == {"repeat_action_probability": 0.0 if game.endswith("-v4") else 0.25}
    learns = (config.steps - config.agent.learning_starts) * config.agent.replay_ratio
    assert config.agent.learning_starts >= 1_600
    assert learns > 20_000
    # ε falls while the agent learns: over a large part of the run, and after the random steps.
    if agent in EPSILON:
        assert config.agent.epsilon.steps >= 5 * config.agent.learning_starts


def test_agents_of_papers_have_their_papers_sizes_on_atari_alone() -> None:
    """On Atari C51 has the sizes of conf/sizes, and elsewhere those of the noisy DQN."""
    said = yaml.safe_load((CONF / "sizes" / "atari_c51.yaml").read_text())
    atari, small = (train_mapping(f"env={env}", "agent=c51")["agent"] for env in ("ALE/Pong-v5", "NoPreset-v0"))
    noisy = train_mapping("env=NoPreset-v0")["agent"]
    sizes = ("lr", "batch_size", "replay_ratio", "target_every", "replay_size", "learning_starts")
    assert [atari[name] for name in sizes] == [said[name] for name in sizes]
    assert [small[name] for name in sizes] == [noisy[name] for name in sizes]
    assert train_mapping("env=NoPreset-v0", "task=atari", "agent=c51")["agent"] == atari
    encoders = [
        train_mapping(f"env={env}", "agent=der")["agent"]["network"]["encoder"] for env in ("ALE/Pong-v5", "X-v0")
    ]
    assert encoders == ["data_efficient", "auto"]


@pytest.mark.parametrize("agent", sorted(path.stem for path in (CONF / "agent").glob("*.yaml")))
def test_every_agent_has_small_sizes_where_no_preset_knows_better(agent: str) -> None:
    config = train_mapping("env=NoPreset-v0", f"agent={agent}")["agent"]
    assert [config[name] for name in ("lr", "replay_size", "learning_starts")] == [1e-3, 100_000, 1_000]


def test_an_id_without_its_version_is_the_newest_with_a_preset() -> None:
    register_presets(["env=CartPole,MinAtar/Breakout,CliffWalking,DeepSea"])
    for short, whole in {
        "CartPole": "CartPole-v1",
        "MinAtar/Breakout": "MinAtar/Breakout-v1",
        "CliffWalking": "CliffWalking-v1",
        "DeepSea": "DeepSea-v0",
    }.items():
        one, other = composed("train", f"env={short}"), composed("train", f"env={whole}", f"env.id={whole}")
        assert OmegaConf.select(one, "env.id") == whole
        assert one == other


@pytest.mark.parametrize("word", ["'{}'", " {}", "choice({},Acrobot-v1)", "Acrobot-v1,{}"])
def test_an_id_has_its_preset_however_hydra_is_told(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    monkeypatch.setattr(ConfigStore, "store", lambda self, name, *node: stored.append(name))
    register_presets([f"env={word.format('ALE/Pong-v5')}", f"env={word.format('CartPole')}"])
    assert stored == ["Pong-v5", "CartPole", "CartPole"]  # CartPole has a file of the task and one of settings


GAMES = {"Pong": 0.25, "Pong-v4": 0.0, "PongDeterministic-v0": 0.25, "PongNoFrameskip-v4": 0.0, "ALE/Pong": 0.25}


@pytest.mark.parametrize("env_id", [*GAMES, "Gong-v4", "Gong"])
def test_a_game_is_played_as_in_the_papers_by_each_of_its_names(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.command.presets.is_atari_game", lambda name: name == "Pong")
    register_presets([f"env={env_id}"])
    short = env_id in GAMES and "-v" not in env_id
    config = composed("train", f"env={env_id}", *([] if short else [f"env.id={env_id}"]))
    assert OmegaConf.select(config, "env.clip_rewards") == (env_id in GAMES)
    assert OmegaConf.select(config, "env.kwargs.repeat_action_probability") == GAMES.get(env_id)
    if short:
        assert OmegaConf.select(config, "env.id") == "ALE/Pong-v5"


EFFECTS = [
    ("agent=dqn", "agent.noise.sigma0=0.3", "agent.noise.enabled is false"),
    ("agent=noisy_dqn", "agent.noise.index=3", "agent.noise.form is factorised"),
    ("agent=index_dqn", "agent.noise.index=3", ""),
    ("agent=c51", "agent.quantile.count=20", "agent.head is categorical"),
    ("agent=c51", "agent.categorical.atoms=21", ""),
    ("agent=c51", "agent.huber_threshold=2", "agent.head is categorical"),
    ("agent=iqn", "agent.implicit_quantile.samples=4", ""),
    ("agent=qr_dqn", "agent.quantile.count=20", ""),
    ("agent=noisy_dqn", "agent.huber_threshold=2", ""),
    ("agent.loss=squared", "agent.huber_threshold=2", "agent.loss is squared"),
    ("agent=noisy_dqn", "agent.munchausen.alpha=0.5", "agent.munchausen.enabled is false"),
    ("agent=munchausen_dqn", "agent.munchausen.alpha=0.5", ""),
    ("agent=dqn", "agent.munchausen.enabled=false", ""),
    ("agent=dqn", "agent.noise.enabled=false", ""),
    ("agent=rainbow", "agent.priority.exponent=0.6", ""),
    ("agent=noisy_dqn", "++agent.network.impala.width=4", "agent.network.encoder is auto"),
    ("agent.network.encoder=impala", "agent.network.impala.width=4", ""),
    ("agent.lr_end=null", "agent.lr_updates=5", "agent.lr_end is null"),
    ("agent.lr_end=1e-5", "agent.lr_updates=5", ""),
    ("agent=noisy_dqn", "agent.epsilon.steps=5", "ε is 0 all along"),
    ("agent=dqn", "agent.epsilon.steps=5", ""),
    ("eval.video=false", "eval.video_every=1", "eval.video is false"),
    ("agent=noisy_dqn", "agent.lr=0.5", ""),
    (
        "agent.noise.learning=joint agent.noise.draws=1",
        "agent.noise.mean_rows=0.75",
        "it is a fraction of agent.noise.draws=1, and less than one",
    ),
    ("agent.noise.learning=joint agent.noise.draws=4", "agent.noise.mean_rows=0.25", ""),
    ("agent.noise.draws=1", "agent.noise.mean_rows=0.75", ""),
    ("agent.noise.mean_rows=1", "agent.noise.draws=7", "agent.noise.mean_rows is 1, so no row has noise to learn from"),
    ("num_envs=1", "agent.noise.mean_envs=3", "num_envs is 1, and one environment always explores"),
    ("num_envs=2", "agent.noise.mean_envs=3", ""),
    ("agent.replay_ratio=0", "agent.lr=5", "agent.replay_ratio is 0, so nothing is learned"),
    *(
        ("agent.replay_ratio=0", f"agent.{word}", "agent.replay_ratio is 0, so nothing is learned")
        for word in ("gamma=0.9", "n_step=2", "double=false", "batch_size=8", "loss=squared", "noise.draws=4")
    ),
    ("agent.replay_ratio=0", "agent.noise.hold=episode", ""),
    ("agent.replay_ratio=0", "agent.noise.learning=joint", ""),  # four environments act with the mean network
    (
        "agent.replay_ratio=0 agent.noise.mean_envs=0",
        "agent.noise.learning=joint",
        "agent.replay_ratio is 0, so nothing is learned",
    ),
    ("agent=dqn", "eval.noisy=true", "agent.noise.enabled is false"),
    ("agent=noisy_dqn", "eval.noisy=true", ""),
    ("wandb.mode=disabled", "wandb.project=x", "wandb.mode is disabled"),
    ("wandb.mode=offline", "wandb.project=x", ""),
    ("eval.episodes=0", "eval.every=500", "eval.episodes is 0"),
    ("eval.episodes=0", "eval.video=true", "eval.episodes is 0"),
    ("eval.episodes=1", "eval.every=500", ""),
]


@pytest.mark.parametrize(("base", "word", "why"), EFFECTS)
def test_what_nothing_reads_is_named(base: str, word: str, why: str) -> None:
    config = parse(TrainConfig, train_mapping(*base.split(), word))
    assert list(without_effect(config, [*base.split(), word])) == ([f"{word} does nothing: {why}"] if why else [])


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "noise").glob("*.yaml")))
def test_every_variant_of_the_noise_goes_with_every_agent(name: str) -> None:
    for path in (CONF / "agent").glob("*.yaml"):
        parse(TrainConfig, train_mapping("env=DeepSea-v0", f"agent={path.stem}", f"noise={name}"))


def test_what_is_no_game_and_has_no_preset_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    monkeypatch.setattr(ConfigStore, "store", lambda self, *node: stored.append(node))
    names = ("Cart.*", "NoPreset", "a/b/c-v0", "../CartPole-v1", "x:Cart[Pole", "", "CartPole-v1", "ALE/", "ALE")
    register_presets([*(f"env={name}" for name in names), "env", "-m", "envs=CartPole"])
    assert stored == []
    register_presets(["env=Nope-v0,CartPole,ALE/Pong-v5"])
    assert sorted(node[0] for node in stored) == ["CartPole", "CartPole", "Pong-v5"]


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_env_presets_leave_the_noisy_agent_its_parts(env: str) -> None:
    """The preset of a task changes sizes and rates, and not the algorithm."""
    agent, default = parse(TrainConfig, train_mapping(f"env={env}")).agent, AgentConfig()
    names = ("learning_starts", "double", "loss", "head", "munchausen")
    assert [getattr(agent, name) for name in names] == [getattr(default, name) for name in names]
    assert not agent.priority.enabled


def test_the_plain_preset_is_the_noisy_one_with_another_exploration() -> None:
    noisy, plain = (
        parse(TrainConfig, train_mapping("env=NoPreset-v0", f"agent={name}")).agent for name in ("noisy_dqn", "dqn")
    )
    assert not plain.noise.enabled
    assert plain.epsilon.start == 1.0
    assert replace(plain, noise=noisy.noise, epsilon=noisy.epsilon) == noisy


def test_the_command_line_wins_over_every_preset() -> None:
    for name in ENV_PRESETS:
        config = parse(TrainConfig, train_mapping(f"env={name}", "steps=123", "agent.lr=0.5"))
        assert (config.steps, config.agent.lr) == (123, 0.5)


def test_a_preset_that_stands_on_another_says_only_what_differs() -> None:
    games = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    configs = {
        f"{game}-v{v}": parse(TrainConfig, train_mapping(f"env=MinAtar/{game}-v{v}")) for game in games for v in (0, 1)
    }
    limits = {name: config.env.time_limit for name, config in configs.items()}
    assert limits == {name: 1000 if name.endswith("v1") else None for name in configs} | {"Freeway-v1": 2500}
    assert {config.agent for config in configs.values()} == {configs["Breakout-v1"].agent}
    assert configs["Breakout-v1"].agent.network.hidden == (128,)


def test_defaults_are_the_papers_where_the_paper_has_one() -> None:
    assert NoiseConfig().enabled
    assert (NoiseConfig().form, NoiseConfig().distribution, NoiseConfig().hold) == ("factorised", "normal", "step")
    assert AgentConfig().epsilon.start == AgentConfig().epsilon.end == 0.0
    assert NetworkConfig().hidden


def test_the_sizes_of_small_tasks_stand_once() -> None:
    """These sizes are in conf/sizes/small.yaml, which the presets of tasks include."""
    shared = yaml.safe_load((CONF / "sizes" / "small.yaml").read_text())
    assert {"network", "quantile", "implicit_quantile", "epsilon", "priority", "lr", "batch_size"} <= set(shared)
    for path in CONF.glob("preset/task/**/*.yaml"):
        agent = yaml.safe_load(path.read_text()).get("agent", {})
        repeated = [name for name in shared if name in agent and agent[name] == shared[name]]
        assert not repeated, f"{path.name} repeats {repeated}"


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"threads": 1_000_000}, "threads is 1000000: it must be at least 1 and at most 1024"),
        ({"num_envs": 10**9}, "num_envs is 1000000000: it must be at least 1 and at most 65536"),
        ({"agent": {"noise": {"sigma0": 1e11}}}, "agent.noise.sigma0 is 1.* at most 1000"),
        ({"agent": {"network": {"hidden": [1] * 60_000}}}, "has 60000 layers: it must have at most 64"),
        ({"agent": {"categorical": {"v_max": 1e300}}}, r"agent.categorical.v_max is 1e\+300: it must be between"),
        ({"agent": {"replay_ratio": f"1/{10**40}"}}, "agent.replay_ratio is .*below 10"),
    ],
)
def test_numbers_that_would_use_up_the_machine_are_refused(mapping: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(TrainConfig, mapping)
