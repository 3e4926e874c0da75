"""Files with a search space: the user's own, and those of conf/tune/spaces that fit an agent."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent.common.errors import UserError, plain
from agent.common.files import read_plain, why
from agent.common.kinds import PlainData
from agent.config.run import TrainConfig

#: The largest space file that is read, in bytes.
MAX_BYTES = 1 << 20


def read_space(path: Path) -> PlainData:
    """Reads a space file, which holds a mapping.

    Raises:
        UserError: if it cannot be read, holds no mapping, or has an option twice.
    """
    try:
        text = read_plain(path, MAX_BYTES)
        space, repeated = yaml.safe_load(text), _repeated(yaml.compose(text, Loader=yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"space={path} cannot be read ({why(error)}): name a YAML file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"space={path} is no YAML: {plain(error)}") from error
    if not isinstance(space, dict) or not space:
        raise UserError(f"space={path} holds no options: write lines such as agent.lr: {{low: 1e-4, high: 1e-2}}")
    if repeated is not None:
        raise UserError(f"space={path} has {plain(repeated, 80)} twice: leave one of them out")
    return space


def _repeated(node: Any) -> str | None:
    """The first name that a file's mapping, or one in it, has twice; None if there is none. YAML takes the last."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for mapping in (node, *(value for _, value in node.value if isinstance(value, yaml.MappingNode))):
        counts = Counter(key.value for key, _ in mapping.value if isinstance(key, yaml.ScalarNode))
        if repeated := [name for name, count in counts.items() if count > 1]:
            return str(repeated[0])
    return None


def default_space(folder: Path, config: TrainConfig) -> PlainData:
    """The default space for an agent: the space of all agents, and the file of each of its parts."""
    space: PlainData = {}
    for part in parts_of(config):
        space |= read_space(folder / f"{part}.yaml")
    return space


def parts_of(config: TrainConfig) -> Iterator[str]:
    """The names of the space files for an agent."""
    agent = config.agent
    yield "every"
    if agent.target_range is None and agent.head != "categorical":  # its limits belong to one discount
        yield "discount"
    if agent.noise.enabled:
        yield agent.noise.form
    if agent.epsilon.start > 0:
        yield "epsilon"
    if agent.munchausen.enabled:
        yield "munchausen"
    if agent.priority.enabled:
        yield "priority"
    if agent.head in ("quantile", "implicit_quantile"):
        yield agent.head
