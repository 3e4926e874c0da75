"""The options of the algorithm: AgentConfig and its nodes, for noise, network, heads, targets and priorities.

conf/agent/noisy_dqn.yaml explains each option.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal

from agent.common.errors import UserError
from agent.common.schedule import linear
from agent.config.parsing import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, POSITIVE_UNIT, UNIT, Range
from agent.noise.distributions import Distribution

#: The heads of this package, as agent/networks/heads/registry.py knows them; a user's module may register others.
HEADS = ("expected", "categorical", "quantile", "implicit_quantile")
Loss = Literal["huber", "squared"]


#: A stranger's file may name a number with one of these bounds; they limit how much memory it makes us allocate.
COUNT = Range("between 1 and 1024", lambda x: 1 <= x <= 1024)


SEVERAL = Range("between 2 and 1024", lambda x: 2 <= x <= 1024)


NOT_POSITIVE = Range("at most 0", lambda x: x <= 0)


@dataclass(frozen=True)
class CategoricalConfig:
    """C51: the distribution of the return over `atoms` values, evenly spaced from v_min to v_max."""

    atoms: Annotated[int, SEVERAL] = 51
    v_min: float = -10.0
    v_max: float = 10.0

    def __post_init__(self) -> None:
        if self.v_min >= self.v_max:
            raise UserError(
                f"agent.categorical.v_min is {self.v_min}: it must be below agent.categorical.v_max ({self.v_max})"
            )


@dataclass(frozen=True)
class QuantileConfig:
    """QR-DQN: `count` quantiles of the return at fixed levels; `kappa` is the threshold of the quantile Huber loss."""

    count: Annotated[int, COUNT] = 200
    kappa: Annotated[float, NOT_NEGATIVE] = 1.0


@dataclass(frozen=True)
class ImplicitQuantileConfig:
    """IQN: a prediction takes `samples` random levels τ, a target `target_samples`, and acting `acting` fixed ones."""

    samples: Annotated[int, COUNT] = 64
    target_samples: Annotated[int, COUNT] = 64
    acting: Annotated[int, COUNT] = 32
    cosines: Annotated[int, COUNT] = 64
    kappa: Annotated[float, NOT_NEGATIVE] = 1.0


@dataclass(frozen=True)
class MunchausenConfig:
    """Munchausen targets: the scaled log-probability of a soft policy of this temperature is added to the reward."""

    enabled: bool = False
    alpha: Annotated[float, UNIT] = 0.9
    temperature: Annotated[float, POSITIVE] = 0.03
    clip: Annotated[float, NOT_POSITIVE] = -1.0


@dataclass(frozen=True)
class PriorityConfig:
    """Proportional prioritised replay: P(i) ∝ priority^exponent; β rises from `beta` to 1 over `beta_steps` steps."""

    enabled: bool = False
    exponent: Annotated[float, UNIT] = 0.5
    beta: Annotated[float, UNIT] = 0.4
    beta_steps: Annotated[int, AT_LEAST_ONE] = 50_000

    def beta_at(self, step: int) -> float:
        """β after `step` environment steps: it never passes 1 (Schaul et al. 2016, §3.4)."""
        return linear(self.beta, 1.0, step, self.beta_steps)


@dataclass(frozen=True)
class EpsilonConfig:
    """ε-greedy: ε falls linearly from `start` to `end` over `steps` environment steps. With both 0 it is off."""

    start: Annotated[float, UNIT] = 0.0
    end: Annotated[float, UNIT] = 0.0
    steps: Annotated[int, AT_LEAST_ONE] = 8_000

    def at(self, step: int) -> float:
        """ε after `step` environment steps."""
        return linear(self.start, self.end, step, self.steps)


WIDTH = Range("between 1 and 65536", lambda x: 1 <= x <= 65536)


DIMENSIONS = Range("between 1 and 256", lambda x: 1 <= x <= 256)


SIGMA = Range("at least 0 and at most 1000", lambda x: 0 <= x <= 1000)
ROWS = Range("at least 1 and at most 1048576", lambda x: 1 <= x <= 2**20)
WINDOW = Range("at least 1 and at most 10000", lambda x: 1 <= x <= 10_000)
MAX_LAYERS = 64
SIDE = Range("between 1 and 64", lambda x: 1 <= x <= 64)


@dataclass(frozen=True)
class ImpalaConfig:
    """The trunk of `encoder` impala; see `Impala` in agent/networks/trunks.py."""

    width: Annotated[int, SIDE] = 1
    pool: Annotated[int | None, SIDE] = 6
    spectral_norm: bool = False


@dataclass(frozen=True)
class NetworkConfig:
    """The network. `hidden` holds the widths of the linear hidden layers; the last is the head's, one per stream."""

    hidden: Annotated[tuple[int, ...], WIDTH] = (128, 128)
    dueling: bool = False
    layer_norm: bool = True
    encoder: str = "auto"
    impala: ImpalaConfig = field(default_factory=ImpalaConfig)


@dataclass(frozen=True)
class NoiseConfig:
    """Learned noise. conf/agent/noisy_dqn.yaml explains each option.

    agent/networks/build.py reads those of the layers, `DQN.update_noise` those of updates (`draws`, `repeat`, `share`,
    `mean_rows`), and `ActingNoise` in agent/noise/acting_noise.py those of acting (`hold`, `mean_envs`).
    """

    enabled: bool = True
    form: Literal["factorised", "independent", "index"] = "factorised"
    index: Annotated[int, DIMENSIONS] = 8
    prior: Annotated[float, NOT_NEGATIVE] = 0.0
    sigma0: Annotated[float | None, SIGMA] = None
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
    head: str = "expected"
    head_options: dict[str, Any] = field(default_factory=dict, hash=False)
    categorical: CategoricalConfig = field(default_factory=CategoricalConfig)
    quantile: QuantileConfig = field(default_factory=QuantileConfig)
    implicit_quantile: ImplicitQuantileConfig = field(default_factory=ImplicitQuantileConfig)
    double: bool = True
    munchausen: MunchausenConfig = field(default_factory=MunchausenConfig)
    priority: PriorityConfig = field(default_factory=PriorityConfig)
    loss: Loss = "huber"
    huber_threshold: Annotated[float, POSITIVE] = 1.0
    gamma: Annotated[float, UNIT] = 0.99
    n_step: Annotated[int, WINDOW] = 3
    lr: Annotated[float, POSITIVE] = 1e-3
    lr_end: Annotated[float | None, NOT_NEGATIVE] = None
    lr_updates: Annotated[int, AT_LEAST_ONE] = 25_000
    adam_eps: Annotated[float, POSITIVE] = 1e-8
    target_range: tuple[float, ...] | None = None
    max_grad_norm: Annotated[float, POSITIVE] = 10.0
    batch_size: Annotated[int, ROWS] = 64
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
        if len(self.network.hidden) > MAX_LAYERS:
            raise UserError(
                f"agent.network.hidden has {len(self.network.hidden)} layers: it must have at most {MAX_LAYERS}"
            )
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
        for name, value in self.head_options.items():
            if not isinstance(value, bool | int | float) and not (isinstance(value, str) and len(value) <= 100):
                raise UserError(f"agent.head_options.{name!s:.80} must be a number, a truth value or a short word")
        if self.head_options and self.head in HEADS:
            raise UserError(
                f"agent.head_options are those of heads of your own, and agent.head={self.head} has options of its own "
                "name: leave agent.head_options out"
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
