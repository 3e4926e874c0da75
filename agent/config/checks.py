"""Options that the user sets and that have no effect together with the others, and schedules that end early."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

from agent.common.quoting import split_override
from agent.config.algorithm import BUILT_IN_HEADS, AgentConfig
from agent.config.run import TrainConfig, WandbConfig

#: Options of the agent that only updates read, and those that decide between the online and the target network.
LEARNING = (
    *("lr", "lr_end", "lr_updates", "adam_eps", "max_grad_norm", "target_every", "tau", "target_range", "act_with"),
    *("batch_size", "gamma", "n_step", "double", "loss", "huber_threshold", "munchausen", "priority"),
    *(f"noise.{name}" for name in ("learning", "draws", "repeat", "share", "mean_rows")),
)


def advice(config: TrainConfig, overrides: Iterable[str]) -> Iterator[str]:
    """Yields a sentence for each option that the user probably does not mean as it is."""
    yield from without_effect(config, overrides)
    yield from early_schedules(config)


def without_effect(config: TrainConfig, overrides: Iterable[str]) -> Iterator[str]:
    """Yields a sentence for each override, `key=value`, that has no effect in this config."""
    idle = _idle_options(config)
    for override in overrides:
        key, value = split_override(override)
        if key == "noise" and value not in ("preset", "none"):  # a config group: a variant of agent.noise
            key = "agent.noise"
        for name, reason in idle.items():
            is_the_reason = reason.startswith(f"{key} ")
            if (key == name or key.startswith(f"{name}.")) and not is_the_reason:
                yield f"{override} does nothing: {reason}"
                break


def early_schedules(config: TrainConfig) -> Iterator[str]:
    """Yields a sentence if the learning rate is at its end long before the run is, as after steps=<more>."""
    agent, updates = config.agent, config.updates
    if agent.lr_end not in (None, agent.lr) and updates > 1.1 * agent.lr_updates:
        yield (
            f"agent.lr is at agent.lr_end={agent.lr_end:g} from update {agent.lr_updates:,} of {updates:,} on: "
            f"agent.lr_updates={updates} would spread its decrease over the run"
        )


def _idle_options(config: TrainConfig) -> dict[str, str]:
    """Returns the options, or nodes of options, that nothing reads in this config, with the reasons."""
    idle = _idle_in_agent(config.agent)
    if config.num_envs == 1:
        idle["agent.noise.mean_envs"] = "num_envs is 1, and one environment always explores"
    if not config.eval.video:
        idle["eval.video_every"] = "eval.video is false"
    if config.eval.share:
        idle["eval.num_envs"] = "eval.share is true, so evaluations use a training environment"
    if config.collect.engine == "local":
        idle["collect"] = "collect is local"
    else:
        idle |= _idle_beside_ray(config)
    if config.wandb.mode == "disabled":
        names = (field.name for field in fields(WandbConfig) if field.name != "mode")
        idle |= dict.fromkeys((f"wandb.{name}" for name in names), "wandb.mode is disabled")
    if config.eval.noisy and not config.agent.noise.enabled:
        idle["eval.noisy"] = "agent.noise.enabled is false"
    if config.eval.stop_at is None:
        idle["eval.stop_patience"] = "eval.stop_at is null"
    if not config.eval.episodes:
        unread = ("every", "noisy", "num_envs", "share", "video", "video_every")
        idle |= dict.fromkeys((f"eval.{name}" for name in unread), "eval.episodes is 0")
    return idle


def _idle_in_agent(agent: AgentConfig) -> dict[str, str]:
    """Returns the options of the agent that nothing reads, with the reasons."""
    idle = {}
    for head in BUILT_IN_HEADS:
        if agent.head != head:
            idle[f"agent.{head}"] = f"agent.head is {agent.head}"
    for node in ("munchausen", "priority", "noise"):
        if not getattr(agent, node).enabled:
            idle[f"agent.{node}"] = f"agent.{node}.enabled is false"
    if agent.noise.form != "index":
        idle["agent.noise.index"] = f"agent.noise.form is {agent.noise.form}"
    if not agent.noise.change.enabled:
        idle["agent.noise.change"] = "agent.noise.change.enabled is false"
    elif agent.noise.change.start == agent.noise.change.end:
        idle["agent.noise.change.steps"] = f"the fraction is {agent.noise.change.end:g} all along"
    if agent.noise.learning == "separate" and agent.noise.mean_rows == 1.0:
        idle["agent.noise.draws"] = "agent.noise.mean_rows is 1, so no row has noise to learn from"
    if agent.noise.learning == "joint" and 0.0 < agent.noise.draws * agent.noise.mean_rows < 1.0:
        idle["agent.noise.mean_rows"] = f"it is a fraction of agent.noise.draws={agent.noise.draws}, and less than one"
    if agent.replay_ratio == 0:
        idle |= dict.fromkeys((f"agent.{name}" for name in LEARNING), "agent.replay_ratio is 0, so nothing is learned")
        if agent.noise.mean_envs is None:  # then agent.noise.learning decides how many environments explore
            del idle["agent.noise.learning"]
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
    return idle


def _idle_beside_ray(config: TrainConfig) -> dict[str, str]:
    """Returns the options that nothing reads while actors collect, with the reasons."""
    collect = config.collect
    idle = {
        "overlap": "with collect=ray the actors step during updates",
        "agent.act_with": "with collect=ray the actors act with the weights that they get",
    }
    if collect.address is not None:
        idle["collect.memory"] = "the cluster at collect.address has its own"
    if collect.sync:
        idle["collect.publish"] = "with collect.sync=true each chunk is played with the newest weights"
    if collect.ladder:
        idle["agent.epsilon"] = "with collect.ladder=true each actor has its own ε"
    return idle
