"""The card of a shared agent: its task, its training, its returns with their spread, and how to play it."""

from pathlib import Path

from agent.common.files import not_written_by, read_plain
from agent.common.kinds import PlainData
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse

TEXT = """\
# {env_id}

{algorithm}, trained for {step:,} environment steps{seed}.

| returns of {episodes} episodes of {policy} | |
|---|---|
| mean ± standard deviation | {mean:.2f} ± {std:.2f} |
| 95 % interval of the mean | [{low:.2f}, {high:.2f}] |
| interquartile mean | {iqm:.2f} |
| lowest, highest | {least:.2f}, {most:.2f} |

Every episode has a seed of its own, made from evaluation seed {evaluation_seed}; `{evaluation}` holds each return.
The interval is of episodes of this one agent, and says nothing of others that the same training would give.

```bash
{shell}
```

```python
from agent import load_agent

agent = load_agent("{name}")
action = agent.act(observation{mask})  # one of {env_id}, or a batch
```
"""
#: Bytes of a README that are read.
MAX_README_BYTES = 1 << 20
_HEADS = {"categorical": "C51", "quantile": "QR-DQN", "implicit_quantile": "IQN"}


def card(
    description: PlainData,
    evaluation: PlainData,
    name: str,
    file: str,
    filmed: bool = True,
    train: str = "",
) -> str:
    """The card in Markdown.

    Args:
        description: the description in the agent's file.
        evaluation: as evaluate.py writes it.
        name: the agent's name for `load_agent` and `checkpoint=`.
        file: the name of the file that holds the evaluation.
        filmed: whether its task can be recorded.
        train: the command that trained the agent, if it is known.
    """
    low, high = evaluation["return_ci95"]
    play = f"python evaluate.py checkpoint={name}{' video=true' if filmed else ''}"
    seed = description.get("seed")
    return TEXT.format(
        env_id=evaluation["env"],
        algorithm=algorithm(description["agent"]),
        step=description["global_step"],
        seed="" if seed is None else f" with seed {seed}",
        episodes=evaluation["episodes"],
        policy="the noisy network" if evaluation["noise"] else "the greedy mean network",
        mean=evaluation["return_mean"],
        std=evaluation["return_std"],
        low=low,
        high=high,
        iqm=evaluation["return_iqm"],
        least=evaluation["return_min"],
        most=evaluation["return_max"],
        evaluation_seed=evaluation["seed"],
        evaluation=file,
        shell=f"{train}\n{play}" if train else play,
        name=name,
        mask="" if description.get("action_mask", "off") == "off" else ", mask=mask",
    )


def algorithm(agent: PlainData) -> str:
    """An algorithm in words: its head, and the extensions that are on.

    Args:
        agent: the mapping of an AgentConfig; options that it lacks have their defaults, as when the agent plays.

    Raises:
        UserError: an option is unknown or wrong.
    """
    config = parse(AgentConfig, agent, "agent.")
    extensions = [
        (config.noise.enabled, f"noisy layers ({config.noise.form})"),
        (config.epsilon.start > 0, "ε-greedy exploration"),
        (config.double, "double Q-learning"),
        (config.munchausen.enabled, "Munchausen targets"),
        (config.network.dueling, "dueling streams"),
        (config.priority.enabled, "prioritised replay"),
        (config.n_step > 1, f"{config.n_step}-step returns"),
    ]
    parts = [text for on, text in extensions if on]
    name = _HEADS.get(config.head, "DQN")
    return name if not parts else f"{name} with {' and '.join([', '.join(parts[:-1]), parts[-1]][len(parts) == 1 :])}"


def check_readme(path: Path, mark: str) -> None:
    """Refuses to write a README over somebody's own.

    Args:
        path: of the README that would be written.
        mark: a text that every README of ours contains.

    Raises:
        UserError: the README there lacks the mark.
    """
    if not path.exists():
        return
    try:
        ours = mark.encode() in read_plain(path, MAX_README_BYTES)
    except OSError:
        ours = False
    if not ours:
        raise not_written_by("share.py", path)
