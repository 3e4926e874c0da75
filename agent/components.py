"""Options of the parts that the algorithm is put together from: heads, targets, priorities. Nodes of AgentConfig."""

from dataclasses import dataclass
from typing import Annotated, Literal

from agent.errors import UserError
from agent.options import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, UNIT, Range
from agent.schedule import linear

HeadName = Literal["expected", "categorical", "quantile", "implicit_quantile"]

#: A file from a stranger may name these numbers, so that they bound what is allocated.
COUNT = Range("between 1 and 1024", lambda x: 1 <= x <= 1024)
SEVERAL = Range("between 2 and 1024", lambda x: 2 <= x <= 1024)
NOT_POSITIVE = Range("at most 0", lambda x: x <= 0)


@dataclass(frozen=True)
class CategoricalConfig:
    """C51: the value's distribution over `atoms` values, evenly spaced from v_min to v_max."""

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
    """QR-DQN: `count` quantiles of the value at fixed levels; `kappa` is the threshold of the quantile Huber loss."""

    count: Annotated[int, COUNT] = 200
    kappa: Annotated[float, NOT_NEGATIVE] = 1.0


@dataclass(frozen=True)
class ImplicitQuantileConfig:
    """IQN: levels τ are drawn, so many for prediction and for target; the actor's are fixed and evenly spaced."""

    samples: Annotated[int, COUNT] = 64
    target_samples: Annotated[int, COUNT] = 64
    acting: Annotated[int, COUNT] = 32
    cosines: Annotated[int, COUNT] = 64
    kappa: Annotated[float, NOT_NEGATIVE] = 1.0


@dataclass(frozen=True)
class MunchausenConfig:
    """Munchausen targets: a soft policy of this temperature, whose scaled log-probability is added to the reward."""

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
    """ε-greedy: from `start` to `end`, linearly, over `steps` environment steps. Both 0: none."""

    start: Annotated[float, UNIT] = 0.0
    end: Annotated[float, UNIT] = 0.0
    steps: Annotated[int, AT_LEAST_ONE] = 8_000

    def at(self, step: int) -> float:
        """ε after `step` environment steps."""
        return linear(self.start, self.end, step, self.steps)
