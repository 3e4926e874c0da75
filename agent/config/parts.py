"""The nodes of an agent's options: heads, targets, priorities, ε, network and noise."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

from agent.common.errors import UserError
from agent.common.schedule import linear
from agent.config import ranges
from agent.noise.acting_noise import Hold
from agent.noise.distributions import Distribution

#: Limits of the hidden layers: one machine cannot train a network with more layers or more weights.
MAX_LAYERS, MAX_WEIGHTS = 64, 2**28


@dataclass(frozen=True)
class CategoricalConfig:
    """C51: the distribution of the return over `atoms` values, evenly spaced from v_min to v_max."""

    atoms: Annotated[int, ranges.ATOMS] = 51
    v_min: Annotated[float, ranges.VALUE] = -10.0
    v_max: Annotated[float, ranges.VALUE] = 10.0

    def __post_init__(self) -> None:
        if self.v_min >= self.v_max:
            raise UserError(
                f"agent.categorical.v_min is {self.v_min}: it must be below agent.categorical.v_max ({self.v_max})"
            )
        spacing, largest = (self.v_max - self.v_min) / (self.atoms - 1), max(abs(self.v_min), abs(self.v_max))
        if spacing < max(1e-6 * largest, 1e-9):  # neighbouring atoms would be equal in float32
            raise UserError(
                f"agent.categorical.v_min and agent.categorical.v_max are {self.v_min} and {self.v_max}: they must be "
                f"further apart for {self.atoms} atoms"
            )


@dataclass(frozen=True)
class QuantileConfig:
    """QR-DQN: `count` quantiles of the return at fixed levels; `kappa` is the threshold of the quantile Huber loss."""

    count: Annotated[int, ranges.COUNT] = 200
    kappa: Annotated[float, ranges.SCALE] = 1.0


@dataclass(frozen=True)
class ImplicitQuantileConfig:
    """IQN: the numbers of levels τ: random ones for a prediction and for a target, fixed ones for acting."""

    samples: Annotated[int, ranges.COUNT] = 64
    target_samples: Annotated[int, ranges.COUNT] = 64
    acting: Annotated[int, ranges.COUNT] = 32
    cosines: Annotated[int, ranges.COUNT] = 64
    kappa: Annotated[float, ranges.SCALE] = 1.0


@dataclass(frozen=True)
class MunchausenConfig:
    """Munchausen targets: they add the scaled log-probability under a softmax policy to the reward."""

    enabled: bool = False
    alpha: Annotated[float, ranges.UNIT] = 0.9
    temperature: Annotated[float, ranges.positive(1e-6, 1e6)] = 0.03
    clip: Annotated[float, ranges.Range("at most 0 and at least -1e6", -1e6, 0)] = -1.0


@dataclass(frozen=True)
class PriorityConfig:
    """Proportional prioritised replay: P(i) ∝ priority^exponent; β rises from `beta` to 1 over `beta_steps` steps."""

    enabled: bool = False
    exponent: Annotated[float, ranges.UNIT] = 0.5
    beta: Annotated[float, ranges.UNIT] = 0.4
    beta_steps: Annotated[int, ranges.AT_LEAST_ONE] = 50_000

    def beta_at(self, step: int) -> float:
        """Returns β after `step` environment steps; it is never above 1 (Schaul et al. 2016, §3.4)."""
        return linear(self.beta, 1.0, step, self.beta_steps)


@dataclass(frozen=True)
class EpsilonConfig:
    """ε-greedy: ε falls linearly from `start` to `end` over `steps` environment steps. With both 0 it is off."""

    start: Annotated[float, ranges.UNIT] = 0.0
    end: Annotated[float, ranges.UNIT] = 0.0
    steps: Annotated[int, ranges.AT_LEAST_ONE] = 8_000

    def at(self, step: int) -> float:
        """Returns ε after `step` environment steps."""
        return linear(self.start, self.end, step, self.steps)


@dataclass(frozen=True)
class ActionChangeConfig:
    """The fraction of greedy actions that the acting noise changes: it falls linearly from `start` to `end`.

    With `enabled`, `ActingScale` in agent/noise/acting_scale.py scales the acting noise accordingly.
    """

    enabled: bool = True
    start: Annotated[float, ranges.UNIT] = 0.5
    end: Annotated[float, ranges.UNIT] = 0.05
    steps: Annotated[int, ranges.AT_LEAST_ONE] = 10_000

    def at(self, step: int) -> float | None:
        """Returns the fraction after `step` environment steps; None without scaling."""
        return linear(self.start, self.end, step, self.steps) if self.enabled else None


@dataclass(frozen=True)
class ImpalaConfig:
    """The options of `encoder: impala`; see `Impala` in agent/networks/trunks.py."""

    width: Annotated[int, ranges.SIDE] = 1
    pool: Annotated[int | None, ranges.SIDE] = 6
    spectral_norm: bool = False


@dataclass(frozen=True)
class NetworkConfig:
    """The network. `hidden` lists the widths of the linear hidden layers; each dueling stream has its own last one."""

    hidden: Annotated[tuple[int, ...], ranges.WIDTH] = (128, 128)
    dueling: bool = False
    layer_norm: bool = True
    encoder: str = "auto"
    impala: ImpalaConfig = field(default_factory=ImpalaConfig)

    def __post_init__(self) -> None:
        if not self.hidden:
            raise UserError("agent.network.hidden is empty: it needs at least one layer, such as [256]")
        if len(self.hidden) > MAX_LAYERS:
            raise UserError(f"agent.network.hidden has {len(self.hidden)} layers: it must have at most {MAX_LAYERS}")
        weights = sum(inputs * outputs for inputs, outputs in pairwise(self.hidden))
        if weights > MAX_WEIGHTS:
            raise UserError(
                f"agent.network.hidden has {weights:,} weights between its layers: it must have at most {MAX_WEIGHTS:,}"
            )


@dataclass(frozen=True)
class NoiseConfig:
    """Learned noise. conf/agent/noisy_dqn.yaml explains each option.

    agent/networks/build.py reads the options of the layers, `DQN.update_noise` those of updates (`learning`, `draws`,
    `repeat`, `share`, `mean_rows`), `ActingNoise` in agent/noise/acting_noise.py those of acting (`hold`, `mean_envs`),
    and `Collector.send` those of its scale (`change`).
    """

    enabled: bool = True
    form: Literal["factorised", "independent", "index"] = "factorised"
    index: Annotated[int, ranges.DIMENSIONS] = 8
    prior: Annotated[float, ranges.SCALE] = 0.0
    sigma0: Annotated[float | None, ranges.at_least(0, 1000)] = None
    distribution: Distribution = "normal"
    learning: Literal["separate", "joint"] = "separate"
    draws: Annotated[int, ranges.PARTS] = 0
    repeat: Annotated[int, ranges.DIMENSIONS] = 1
    share: bool = False
    hold: Hold = "step"
    change: ActionChangeConfig = field(default_factory=ActionChangeConfig)
    mean_envs: Annotated[int | None, ranges.PARTS] = None
    mean_rows: Annotated[float, ranges.UNIT] = 0.5

    def __post_init__(self) -> None:
        indexed = self.enabled and self.form == "index"
        unused = {name: off for name, off in (("prior", 0), ("repeat", 1)) if not indexed and getattr(self, name) > off}
        if self.share and not self.enabled:
            unused["share"] = False
        if unused:  # a preset may have set them: to leave them out would not help
            name, needs = next(iter(unused)), "needs an index: set agent.noise.enabled=true and agent.noise.form=index"
            if name == "share":
                needs = "has no draw to share: set agent.noise.enabled=true"
            without = " ".join(f"agent.noise.{each}={off}".lower() for each, off in unused.items())
            given = f"agent.noise.{name}={getattr(self, name)}".lower()
            raise UserError(f"{given} {needs}, or write {without}")
        if self.learning == "separate" and self.enabled and (indexed or self.share):
            option = "form=index" if indexed else "share=true"
            raise UserError(
                f"agent.noise.{option} does not go with agent.noise.learning=separate, in which targets have no noise: "
                "set agent.noise.learning=joint"
            )

    @property
    def acting_mean_envs(self) -> int:
        """`mean_envs`, where it is null the number that suits `learning`."""
        if self.mean_envs is not None:
            return self.mean_envs
        return 4 if self.learning == "joint" else 0

    def count_mean_envs(self, count: int) -> int:
        """How many of `count` environments, the first ones, act with the mean network: one always explores."""
        return min(self.acting_mean_envs, count - 1)

    @property
    def scales_acting(self) -> bool:
        """Whether the acting noise is scaled as `change` says."""
        return self.enabled and self.change.enabled

    def count_mean_rows(self, rows: int) -> int:
        """The number of the first rows, of `rows` in all, that have no noise to learn from (`mean_rows`)."""
        return int(rows * self.mean_rows + 1e-9)  # 0.29 · 100 is 28.999…
