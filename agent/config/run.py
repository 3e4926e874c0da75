"""The options of a run and of an evaluation, except the algorithm's, as frozen dataclasses; conf/ has the presets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.common.errors import UserError
from agent.config.algorithm import AgentConfig
from agent.config.collect import CollectConfig
from agent.config.paths import Paths
from agent.config.ranges import AT_LEAST_ONE, COPIES, EPISODES, NOT_NEGATIVE, SEED, THREADS, TIME_LIMIT, VALUE, at_least
from agent.config.which import Which


@dataclass(frozen=True)
class EnvConfig:
    """The task: a Gymnasium id, the keyword arguments of its constructor, wrappers, and vectorisation."""

    id: str = "CartPole-v1"
    kwargs: dict[str, object] = field(default_factory=dict)
    eval_kwargs: dict[str, object] = field(default_factory=dict)
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    time_limit: Annotated[int | None, TIME_LIMIT] = None
    channels: Literal["auto", "first", "last"] = "auto"
    observation: tuple[object, ...] = ()  # checked when the environment is made, as `kwargs` are
    wrappers: tuple[object, ...] = ()
    action_mask: str = "auto"
    clip_rewards: bool = False
    life_loss: bool = False


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation while training: `episodes` episodes after every `every` environment steps (0: only at the end)."""

    every: Annotated[int, NOT_NEGATIVE] = 2_500
    episodes: Annotated[int, at_least(0, EPISODES.high)] = 20
    num_envs: Annotated[int | None, COPIES] = None
    share: bool = False
    stop_at: Annotated[float | Literal["solved"] | None, VALUE] = None
    stop_patience: Annotated[int, AT_LEAST_ONE] = 1
    noisy: bool = True
    video: bool = True
    video_every: Annotated[int, NOT_NEGATIVE] = 0

    def __post_init__(self) -> None:
        if self.stop_at is not None and not (self.every and self.episodes):
            raise UserError(
                f"eval.stop_at={self.stop_at} needs evaluations while training: eval.every and eval.episodes must not "
                "be 0"
            )


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints: one after every `every` environment steps (0: only at the end); the last `keep` are kept."""

    every: Annotated[int, NOT_NEGATIVE] = 10_000
    keep: Annotated[int, at_least(1, 1e6)] = 2


@dataclass(frozen=True)
class LogConfig:
    """Logging: metrics are written every `every` environment steps; and the printed output."""

    every: Annotated[int, AT_LEAST_ONE] = 1_000
    progress: bool = True
    network: bool = False


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases. Mode `auto` is online if the user is logged in, and offline otherwise."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """The root of conf/train.yaml."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    seed: Annotated[int, SEED] = 0
    steps: Annotated[int, AT_LEAST_ONE] = 50_000
    num_envs: Annotated[int, COPIES] = 8
    device: str = "auto"
    threads: Annotated[int, THREADS] = 1
    backend: Literal["auto", "torch", "numpy", "compiled"] = "auto"
    cuda_graphs: Literal["auto", "off", "on"] = "auto"
    overlap: Literal["auto", "off", "on"] = "auto"
    autocast: Literal["none", "tf32", "bf16"] = "none"
    collect: CollectConfig = field(default_factory=CollectConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    tensorboard: bool = False

    @property
    def updates(self) -> int:
        """The number of updates of the whole run, from its first step to its last."""
        steps, ratio = self.steps - self.agent.learning_starts, self.agent.replay_ratio
        return max(0, steps * ratio.numerator // ratio.denominator)

    def __post_init__(self) -> None:
        if self.env.eval_kwargs and self.eval.share:
            raise UserError(
                "eval.share=true plays in training's own environment, without env.eval_kwargs: leave one out"
            )
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
        if self.collect.engine == "ray":
            self._check_ray()

    def _check_ray(self) -> None:
        if self.collect.actors > self.num_envs:
            raise UserError(
                f"collect.actors is {self.collect.actors} and num_envs is {self.num_envs}: each actor plays at least "
                "one environment; raise num_envs or lower collect.actors"
            )
        if self.eval.share:
            raise UserError("eval.share=true does not go with collect=ray: only the actors have environments")
        if self.cuda_graphs == "on":
            raise UserError("cuda_graphs=on does not go with collect=ray, whose replay is in the machine's memory")


@dataclass(frozen=True)
class EvaluateConfig:
    """The root of conf/evaluate/evaluate.yaml. `checkpoint` has any number of paths; none means the newest run."""

    checkpoint: Paths = ()
    which: Which = "best"
    episodes: Annotated[int, EPISODES] = 100
    num_envs: Annotated[int, COPIES] = 20
    seed: Annotated[int, SEED] = 0
    noise: bool = False
    video: bool = False
    render: Literal["none", "human"] = "none"
    device: str = "cpu"


def upgraded(saved: Mapping[str, object]) -> dict[str, object]:
    """Converts the mapping of a TrainConfig that an earlier release saved to the current options."""
    config = dict(saved)
    if isinstance(env := config.get("env"), Mapping):  # until 0.1 there were no action masks
        config["env"] = {"action_mask": "off", **env}
    agent = config.get("agent")
    if isinstance(agent, Mapping) and isinstance(noise := agent.get("noise"), Mapping):
        before = {"change": {"enabled": False}, "learning": "joint"}  # until 0.1, as in the paper
        config["agent"] = {**agent, "noise": {**before, **noise}}
    if "compile" in config:  # until 0.1 `compile` was on, off or auto
        config["backend"] = {"on": "compiled", "off": "torch"}.get(str(config.pop("compile")), "auto")
    return config
