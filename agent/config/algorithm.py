"""The options of the algorithm: AgentConfig and its nodes, for noise, network, heads, targets and priorities.

conf/agent/noisy_dqn.yaml explains each option.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Literal

from agent.common.errors import UserError, plain
from agent.config import ranges
from agent.config.parts import (
    CategoricalConfig,
    EpsilonConfig,
    ImplicitQuantileConfig,
    MunchausenConfig,
    NetworkConfig,
    NoiseConfig,
    PriorityConfig,
    QuantileConfig,
)

#: The heads that agent/networks/heads/registry.py builds; a user's module may register others.
BUILT_IN_HEADS = ("expected", "categorical", "quantile", "implicit_quantile")
Loss = Literal["huber", "squared"]


@dataclass(frozen=True)
class AgentConfig:
    """The algorithm. The defaults are the noisy DQN of conf/agent/noisy_dqn.yaml."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    epsilon: EpsilonConfig = field(default_factory=EpsilonConfig)
    head: str = "expected"
    head_options: dict[str, object] = field(default_factory=dict, hash=False)
    categorical: CategoricalConfig = field(default_factory=CategoricalConfig)
    quantile: QuantileConfig = field(default_factory=QuantileConfig)
    implicit_quantile: ImplicitQuantileConfig = field(default_factory=ImplicitQuantileConfig)
    double: bool = True
    munchausen: MunchausenConfig = field(default_factory=MunchausenConfig)
    priority: PriorityConfig = field(default_factory=PriorityConfig)
    loss: Loss = "huber"
    huber_threshold: Annotated[float, ranges.positive(1e-6, 1e9)] = 1.0
    gamma: Annotated[float, ranges.UNIT] = 0.99
    n_step: Annotated[int, ranges.at_least(1, 10_000)] = 3
    lr: Annotated[float, ranges.STEP_SIZE] = 1e-3
    lr_end: Annotated[float | None, ranges.at_least(0, ranges.STEP_SIZE.high)] = None
    lr_updates: Annotated[int, ranges.AT_LEAST_ONE] = 25_000
    adam_eps: Annotated[float, ranges.positive(1e-15, 1e6)] = 1e-8
    target_range: Annotated[tuple[float, ...] | None, ranges.VALUE] = None
    max_grad_norm: Annotated[float, ranges.positive(1e-6, 1e9)] = 10.0
    batch_size: Annotated[int, ranges.ROWS] = 64
    replay_ratio: Annotated[Fraction, ranges.at_least(0, 1024)] = Fraction(1, 2)
    target_every: Annotated[int, ranges.AT_LEAST_ONE] = 32
    tau: Annotated[float, ranges.POSITIVE_UNIT] = 1.0
    replay_size: Annotated[int, ranges.AT_LEAST_ONE] = 100_000
    replay_device: Literal["auto", "cpu"] = "auto"
    learning_starts: Annotated[int, ranges.NOT_NEGATIVE] = 1_000
    warmup: Literal["random", "policy"] = "random"
    act_with: Literal["online", "target"] = "online"

    def __post_init__(self) -> None:
        """Refuses combinations that make no sense; each message names the options and one way to correct them."""
        _check_learning(self)
        _check_head(self)
        _check_head_options(self)
        _check_noise(self)


def _check_learning(agent: AgentConfig) -> None:
    limits = agent.target_range
    if limits is not None and (len(limits) != 2 or limits[0] >= limits[1]):
        raise UserError(f"agent.target_range is {list(limits)!s:.80}: it must be null or two rising numbers")
    if agent.double and agent.munchausen.enabled:
        raise UserError(
            "agent.double does not go with agent.munchausen.enabled, whose soft policy takes no greatest value: "
            "set agent.double=false"
        )
    if agent.epsilon.end > agent.epsilon.start:
        raise UserError(
            f"agent.epsilon.end={agent.epsilon.end:g} is above agent.epsilon.start={agent.epsilon.start:g}: ε may only "
            f"fall; set agent.epsilon.start to {agent.epsilon.end:g} or more"
        )
    if agent.learning_starts < agent.batch_size and agent.replay_ratio > 0:
        raise UserError(
            f"agent.learning_starts is {agent.learning_starts}: it must be at least agent.batch_size "
            f"({agent.batch_size}), so that the first batch can be filled"
        )


def _check_head(agent: AgentConfig) -> None:
    if agent.head == "expected":
        return
    if agent.loss != "huber":
        raise UserError(
            f"agent.loss={agent.loss} does not go with agent.head={agent.head}, which has its own loss: "
            "leave agent.loss at huber"
        )
    if agent.noise.prior > 0.0:
        raise UserError(
            f"agent.noise.prior does not go with agent.head={agent.head}: it is added to action values, and that head "
            "learns distributions; set agent.noise.prior=0"
        )


def _check_head_options(agent: AgentConfig) -> None:
    for name, value in agent.head_options.items():
        number = isinstance(value, bool | int | float) and ranges.VALUE.holds(value)
        if not number and not (isinstance(value, str) and len(value) <= 100):
            kinds = f"a number {ranges.VALUE.text}, a truth value or a short word"
            raise UserError(f"agent.head_options.{plain(name, 80)} must be {kinds}")
    if agent.head_options and agent.head in BUILT_IN_HEADS:
        raise UserError(
            f"agent.head_options are for heads of your own, and agent.head={agent.head} is none: leave "
            "agent.head_options out"
        )


def _check_noise(agent: AgentConfig) -> None:
    if agent.noise.repeat > 1 and agent.head == "implicit_quantile":
        raise UserError(
            "agent.noise.repeat does not go with agent.head=implicit_quantile, which already has several levels for "
            "each row: set agent.noise.repeat=1"
        )
    if agent.noise.change.end > agent.noise.change.start:
        start, end = agent.noise.change.start, agent.noise.change.end
        raise UserError(
            f"agent.noise.change.end={end:g} is above agent.noise.change.start={start:g}: the fraction may only fall; "
            f"set agent.noise.change.start to {end:g} or more"
        )
    rows, whose = agent.batch_size, f"agent.batch_size ({agent.batch_size})"
    if agent.noise.learning == "separate":
        rows -= agent.noise.count_mean_rows(rows)
        whose = f"the {rows} rows of agent.batch_size ({agent.batch_size}) from which σ learns (agent.noise.mean_rows)"
    if agent.noise.draws and rows % agent.noise.draws:
        raise UserError(
            f"agent.noise.draws is {agent.noise.draws}: it must divide {whose}, or be 0 for one draw per row"
        )
