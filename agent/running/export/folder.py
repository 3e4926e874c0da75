"""The folder of an exported agent: agent.onnx, and a README with a program that plays it."""

from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym

from agent.common.files import atomic_write_text
from agent.records.saved_agent import FILE_NAME
from agent.running.export.graph import write_onnx
from agent.running.export.inputs import Input
from agent.running.player import Player
from envs.make import Task
from envs.masks import source_of

ONNX, README = "agent.onnx", "README.md"
#: NumPy code that draws ε from the base distributions, with mean 0 and variance 1.
DRAWS = {
    "normal": "rng.normal(0, 1, (1, {size}))",
    "uniform": "rng.uniform(-(3**0.5), 3**0.5, (1, {size}))",
    "laplace": "rng.laplace(0, 0.5**0.5, (1, {size}))",
    "logistic": "rng.logistic(0, 3**0.5 / np.pi, (1, {size}))",
}
#: Packages whose environments are Gymnasium's own, or that this project makes.
KNOWN_PACKAGES = {"gymnasium", "envs", "ale_py", "shimmy", "__main__"}
#: Packages that do not register their environments when they are imported.
REGISTERING = {"minatar": "import minatar.gym\n\nminatar.gym.register_envs()\n"}
TEXT = """\
# {env_id}, a saved agent as ONNX

`{file}` maps observations to the values of all actions and to the greedy action. It holds {network}, with the
preprocessing of observations inside. It was trained for {step:,} steps by noisy-dqn.

| input | type | shape |
|---|---|---|
{inputs}

| output | type | shape |
|---|---|---|
| `q_values` | float32 | [batch, {actions}] |
| `action` | int64 | [batch], as the environment takes it |
{notes}
One episode with onnxruntime (`pip install onnxruntime gymnasium`):

```python
{code}
```
"""
CODE = """\
import gymnasium as gym
import numpy as np
import onnxruntime
{imports}
session = onnxruntime.InferenceSession("{file}")
env = {env}
observation, info = env.reset(seed=0)
episode_return, ended = 0.0, False
while not ended:
    inputs = {{{values}}}
    (action,) = session.run(["action"], inputs)[0]
    observation, reward, terminated, truncated, info = env.step({action})
    episode_return, ended = episode_return + float(reward), terminated or truncated
print(episode_return)"""


def folder_for(file: Path) -> Path:
    """The folder for the export of an agent's file: `onnx` beside it, or `<name>_onnx` for a file with another name."""
    return file.with_name("onnx" if file.name == FILE_NAME else f"{file.name.removesuffix('.safetensors')}_onnx")


def write_folder(player: Player, folder: Path, noise: bool = False) -> tuple[Path, Path]:
    """Writes agent.onnx and README.md.

    Args:
        player: the agent.
        folder: created if it is missing.
        noise: whether the file takes one draw of noise for each observation; otherwise the mean network acts.

    Returns:
        The two files.

    Raises:
        UserError: if the agent cannot be exported, or the disk refuses.
    """
    inputs = write_onnx(player, folder / ONNX, noise)
    atomic_write_text(folder / README, readme(player, inputs, noise))
    return folder / ONNX, folder / README


def readme(player: Player, inputs: Sequence[Input], noise: bool) -> str:
    """A README with the inputs and outputs of the file, and a program that plays one episode."""
    task, size = player.task, player.noise.size
    rows = [f"| `{item.name}` | {item.dtype} | {_shape(item.shape)} |" for item in inputs]
    rows += [f"| `noise` | float32 | {_shape((size,))} |"] if noise else []
    return TEXT.format(
        env_id=task.id,
        file=ONNX,
        network="the noisy network, with one draw of its noise as an input" if noise else "the mean network",
        step=player.description["global_step"],
        inputs="\n".join(rows),
        actions=task.actions,
        notes=_notes(player, noise),
        code=_program(player, inputs, noise),
    )


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(['batch', *map(str, shape)])}]"


def _notes(player: Player, noise: bool) -> str:
    notes = []
    if noise:
        drawn = f"independent numbers of the {player.noise.distribution} distribution with mean 0 and variance 1"
        notes.append(f"`noise` holds {drawn}; zeros give the mean network.")
    if player.task.observation.mask:
        notes.append("`action_mask` holds 1 for the actions that are allowed, and 0 for the others.")
    if not _is_plain(player.task) and not _of_package(player.task):
        notes.append("The observations are those of the environment as noisy-dqn makes it, with its wrappers.")
    return "".join(f"\n{note}\n" for note in notes)


def _program(player: Player, inputs: Sequence[Input], noise: bool) -> str:
    task = player.task
    values = [f"{item.name!r}: np.asarray({item.source}, {item.dtype.name!r})[None]" for item in inputs]
    imports, env = _of_package(task) or _environment(task)
    if noise:
        draw = DRAWS[player.noise.distribution].format(size=player.noise.size)
        values.append(f"'noise': {draw}.astype('float32')")
        env += "\nrng = np.random.default_rng(0)"
    feeds = ", ".join(values).replace("'", '"') if not any('"' in value for value in values) else ", ".join(values)
    action = "int(action)" if task.plain_actions else "action"
    return CODE.format(file=ONNX, imports=imports, env=env, values=feeds, action=action)


def _of_package(task: Task) -> tuple[str, str] | None:
    """As `_environment`, for a task of another package that this project does not wrap; otherwise None."""
    entry = gym.spec(task.id).entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "__main__")
    package = module.partition(".")[0]
    if package in KNOWN_PACKAGES or task.wrapping.description() or task.observation.mask:
        return None
    arguments = "".join(f", {name}={value!r}" for name, value in task.kwargs.items())
    limit = "" if task.time_limit is None else f", max_episode_steps={task.time_limit}"
    call = f"gym.make({task.id!r}{arguments}{limit})".replace("'", '"')
    return REGISTERING.get(package, f"import {package}  # registers the environment\n"), call


def _environment(task: Task) -> tuple[str, str]:
    """The imports, and the expression that makes the environment."""
    if not _is_plain(task):
        description = task.wrapping.description()
        wrapping = f"wrapping_of({description.get('observation', [])!r}, {description.get('wrappers', [])!r})"
        mask = f", {task.action_mask!r}" if _has_observed_mask(task) else ""
        call = f"make_single({task.id!r}, {task.kwargs!r}, None, False, {task.time_limit}, {wrapping}{mask})"
        return "\nfrom envs.single import make_single\nfrom envs.wrapping import wrapping_of\n", call
    arguments = "".join(f", {name}={value!r}" for name, value in task.kwargs.items())
    limit = "" if task.time_limit is None else f", max_episode_steps={task.time_limit}"
    return "", f"gym.make({task.id!r}{arguments}{limit})".replace("'", '"')


def _is_plain(task: Task) -> bool:
    """Whether Gymnasium alone makes the environment, without wrappers."""
    entry = gym.spec(task.id).entry_point
    is_bare = not task.wrapping.description() and not _has_observed_mask(task)
    return is_bare and isinstance(entry, str) and entry.startswith("gymnasium.envs.")


def _has_observed_mask(task: Task) -> bool:
    """Whether its masks are a part of the environment's own observations."""
    source = source_of(task.action_mask)
    return source is not None and source[0] == "observation"
