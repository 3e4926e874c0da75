"""Every config node as a frozen dataclass. conf/ holds the presets; a test keeps the defaults of both equal."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal

from agent.components import (
    CategoricalConfig,
    EpsilonConfig,
    HeadName,
    ImplicitQuantileConfig,
    MunchausenConfig,
    PriorityConfig,
    QuantileConfig,
)
from agent.errors import UserError
from agent.noise import Distribution
from agent.options import AT_LEAST_ONE, COUNTED, NOT_NEGATIVE, POSITIVE, POSITIVE_UNIT, UNIT, Range
from agent.targets import Loss

WIDTH = Range("between 1 and 65536", lambda x: 1 <= x <= 65536)
DIMENSIONS = Range("between 1 and 256", lambda x: 1 <= x <= 256)
SIDE = Range("between 1 and 64", lambda x: 1 <= x <= 64)


@dataclass(frozen=True)
class ImpalaConfig:
    """The IMPALA trunk, where `encoder` is impala. See agent/convolutions.py."""

    width: Annotated[int, SIDE] = 1
    pool: Annotated[int | None, SIDE] = 6
    spectral_norm: bool = False


@dataclass(frozen=True)
class NetworkConfig:
    """The network. `hidden` are the widths of the hidden layers; dueling gives each stream its own last one."""

    hidden: Annotated[tuple[int, ...], WIDTH] = (128, 128)
    dueling: bool = False
    layer_norm: bool = True
    encoder: str = "auto"
    impala: ImpalaConfig = field(default_factory=ImpalaConfig)


@dataclass(frozen=True)
class NoiseConfig:
    """Learned noise. Each word is explained in conf/agent/noisy_dqn.yaml and where it is read, agent/noise.py first."""

    enabled: bool = True
    form: Literal["factorised", "independent", "index"] = "factorised"
    index: Annotated[int, DIMENSIONS] = 8
    prior: Annotated[float, NOT_NEGATIVE] = 0.0
    sigma0: Annotated[float | None, NOT_NEGATIVE] = None
    distribution: Distribution = "normal"
    draws: Annotated[int, NOT_NEGATIVE] = 1
    repeat: Annotated[int, DIMENSIONS] = 1
    share: bool = False
    hold: Literal["step", "update", "episode"] = "step"
    mean_envs: Annotated[int, NOT_NEGATIVE] = 4
    mean_rows: Annotated[float, UNIT] = 0.5

    def __post_init__(self) -> None:
        indexed = self.enabled and self.form == "index"
        for name, asked in (("prior", self.prior > 0.0), ("repeat", self.repeat > 1)):
            if asked and not indexed:
                raise UserError(
                    f"agent.noise.{name}={getattr(self, name)} needs an index: set agent.noise.enabled=true and "
                    "agent.noise.form=index, or leave it out"
                )
        if self.share and not self.enabled:
            raise UserError(
                "agent.noise.share=true has no draw to share: set agent.noise.enabled=true, or leave it out"
            )


@dataclass(frozen=True)
class AgentConfig:
    """The algorithm. The defaults are the noisy DQN of conf/agent/noisy_dqn.yaml."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    epsilon: EpsilonConfig = field(default_factory=EpsilonConfig)
    head: HeadName = "expected"
    categorical: CategoricalConfig = field(default_factory=CategoricalConfig)
    quantile: QuantileConfig = field(default_factory=QuantileConfig)
    implicit_quantile: ImplicitQuantileConfig = field(default_factory=ImplicitQuantileConfig)
    double: bool = True
    munchausen: MunchausenConfig = field(default_factory=MunchausenConfig)
    priority: PriorityConfig = field(default_factory=PriorityConfig)
    loss: Loss = "huber"
    huber_threshold: Annotated[float, POSITIVE] = 1.0
    gamma: Annotated[float, UNIT] = 0.99
    n_step: Annotated[int, AT_LEAST_ONE] = 3
    lr: Annotated[float, POSITIVE] = 1e-3
    lr_end: Annotated[float | None, NOT_NEGATIVE] = None
    lr_updates: Annotated[int, AT_LEAST_ONE] = 25_000
    adam_eps: Annotated[float, POSITIVE] = 1e-8
    target_range: tuple[float, ...] | None = None
    max_grad_norm: Annotated[float, POSITIVE] = 10.0
    batch_size: Annotated[int, AT_LEAST_ONE] = 64
    replay_ratio: Annotated[Fraction, NOT_NEGATIVE] = Fraction(1, 2)
    target_every: Annotated[int, AT_LEAST_ONE] = 32
    tau: Annotated[float, POSITIVE_UNIT] = 1.0
    replay_size: Annotated[int, AT_LEAST_ONE] = 100_000
    replay_device: Literal["auto", "cpu"] = "auto"
    learning_starts: Annotated[int, NOT_NEGATIVE] = 1_000
    warmup: Literal["random", "policy"] = "random"

    def __post_init__(self) -> None:
        if not self.network.hidden:
            raise UserError("agent.network.hidden is empty: it needs at least one layer, such as [256]")
        if self.target_range is not None and (
            len(self.target_range) != 2 or self.target_range[0] >= self.target_range[1]
        ):
            raise UserError(f"agent.target_range is {list(self.target_range)}: it must be null or two rising numbers")
        if self.double and self.munchausen.enabled:
            raise UserError(
                "agent.double does not go with agent.munchausen.enabled, whose soft policy takes no greatest value: "
                "set agent.double=false"
            )
        if self.head != "expected" and self.loss != "huber":
            raise UserError(
                f"agent.loss={self.loss} does not go with agent.head={self.head}, which has a loss of its own: "
                "leave agent.loss at huber"
            )
        if self.noise.prior > 0.0 and self.head != "expected":
            raise UserError(
                f"agent.noise.prior does not go with agent.head={self.head}: it is added to action values, which that "
                "head does not learn as such; set agent.noise.prior=0"
            )
        if self.noise.repeat > 1 and self.head == "implicit_quantile":
            raise UserError(
                "agent.noise.repeat does not go with agent.head=implicit_quantile, which has several levels for each "
                "row already: set agent.noise.repeat=1"
            )
        if self.epsilon.end > self.epsilon.start:
            raise UserError("agent.epsilon.end is above agent.epsilon.start: ε may only fall")
        if self.noise.draws and self.batch_size % self.noise.draws:
            raise UserError(
                f"agent.noise.draws is {self.noise.draws}: it must divide agent.batch_size ({self.batch_size}), "
                "or be 0 for one draw per row"
            )
        if self.learning_starts < self.batch_size and self.replay_ratio > 0:
            raise UserError(
                f"agent.learning_starts is {self.learning_starts}: it must be at least agent.batch_size "
                f"({self.batch_size}), so that the first batch can be filled"
            )


@dataclass(frozen=True)
class EnvConfig:
    """The task: a Gymnasium id, the keyword arguments of its constructor, and how copies of it run side by side."""

    id: str = "CartPole-v1"
    kwargs: dict[str, Any] = field(default_factory=dict)
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    time_limit: Annotated[int | None, COUNTED] = None
    clip_rewards: bool = False
    life_loss: bool = False


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation while training: every `every` environment steps (0: only at the end), `episodes` episodes each."""

    every: Annotated[int, NOT_NEGATIVE] = 2_500
    episodes: Annotated[int, AT_LEAST_ONE] = 20
    noisy: bool = True
    video: bool = True
    video_every: Annotated[int, NOT_NEGATIVE] = 0


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints: every `every` environment steps (0: only at the end), the last `keep` of them are kept."""

    every: Annotated[int, NOT_NEGATIVE] = 10_000
    keep: Annotated[int, AT_LEAST_ONE] = 2


@dataclass(frozen=True)
class LogConfig:
    """Metrics are averaged and written every `every` environment steps; `progress` shows the bar."""

    every: Annotated[int, AT_LEAST_ONE] = 1_000
    progress: bool = True


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases. `auto` is online where the user is logged in and offline everywhere else."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "noisy-dqn"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """The root of conf/train.yaml."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    seed: Annotated[int, NOT_NEGATIVE] = 0
    steps: Annotated[int, AT_LEAST_ONE] = 50_000
    num_envs: Annotated[int, AT_LEAST_ONE] = 8
    device: str = "auto"
    threads: Annotated[int, AT_LEAST_ONE] = 1
    compile: Literal["auto", "off", "on"] = "auto"
    cuda_graphs: Literal["auto", "off", "on"] = "auto"
    overlap: Literal["auto", "off", "on"] = "auto"
    autocast: Literal["none", "tf32", "bf16"] = "none"
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        needed = max(self.agent.n_step, 2) * self.num_envs
        if self.agent.replay_size < needed:
            raise UserError(
                f"agent.replay_size is {self.agent.replay_size}: it must be at least {needed}, "
                "n_step (or 2) transitions of each of the num_envs environments"
            )
        if self.agent.replay_size < self.agent.batch_size:
            raise UserError(
                f"agent.batch_size is {self.agent.batch_size}: it must be at most agent.replay_size "
                f"({self.agent.replay_size})"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """The root of conf/evaluate/evaluate.yaml. `checkpoint` is one path or several; none means the newest run."""

    checkpoint: tuple[str, ...] = ()
    which: Literal["best", "last"] = "best"
    episodes: Annotated[int, AT_LEAST_ONE] = 100
    num_envs: Annotated[int, POSITIVE] = 20
    seed: Annotated[int, NOT_NEGATIVE] = 0
    noise: bool = False
    video: bool = False
    render: Literal["none", "human"] = "none"
    device: str = "cpu"


def without_effect(config: TrainConfig, words: Iterable[str]) -> Iterator[str]:
    """A sentence for each word of the command line, `key=value`, that names what nothing reads as the others stand."""
    agent, idle = config.agent, {}
    for head in ("categorical", "quantile", "implicit_quantile"):
        if agent.head != head:
            idle[f"agent.{head}"] = f"agent.head is {agent.head}"
    for part in ("munchausen", "priority", "noise"):
        if not getattr(agent, part).enabled:
            idle[f"agent.{part}"] = f"agent.{part}.enabled is false"
    if agent.noise.form != "index":
        idle["agent.noise.index"] = f"agent.noise.form is {agent.noise.form}"
    if agent.network.encoder != "impala":
        idle["agent.network.impala"] = f"agent.network.encoder is {agent.network.encoder}"
    if agent.head != "expected":
        idle |= dict.fromkeys(("agent.loss", "agent.huber_threshold"), f"agent.head is {agent.head}")
    elif agent.loss != "huber":
        idle["agent.huber_threshold"] = f"agent.loss is {agent.loss}"
    if agent.lr_end is None:
        idle["agent.lr_updates"] = "agent.lr_end is null"
    if agent.epsilon.start == agent.epsilon.end:
        idle["agent.epsilon.steps"] = f"ε is {agent.epsilon.end:g} all along"
    if not config.eval.video:
        idle["eval.video_every"] = "eval.video is false"
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key == "noise" and value not in ("preset", "none"):  # the group: a variant of agent.noise
            key = "agent.noise"
        for name, why in idle.items():
            if (key == name or key.startswith(f"{name}.")) and not why.startswith(f"{key} "):
                yield f"{word} does nothing: {why}"
                break
