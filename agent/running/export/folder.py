"""The folder of an exported agent: agent.onnx, and a README with a program that plays it."""

from collections.abc import Sequence
from pathlib import Path

from agent.common.files import atomic_write_text
from agent.running.export.card import check_readme
from agent.running.export.graph import write_onnx
from agent.running.export.inputs import Input
from agent.running.export.program import EnvironmentCode, environment_code, program_of
from agent.running.player import Player

ONNX, README = "agent.onnx", "README.md"
MARK = ", a saved agent as ONNX"
TEXT = """\
# {env_id}{mark}

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
One episode with onnxruntime (`pip install onnxruntime {install}`):

```python
{code}
```
"""


def write_folder(player: Player, folder: Path, noise: bool = False) -> tuple[Path, Path]:
    """Writes agent.onnx and README.md.

    Args:
        player: the agent.
        folder: created if it is missing.
        noise: whether the file takes one draw of noise for each observation; otherwise the mean network acts.

    Returns:
        The two files.

    Raises:
        UserError: if the agent cannot be exported, the folder holds a README.md of somebody else, or the disk refuses.
    """
    check_readme(folder / README, MARK)
    inputs = write_onnx(player, folder / ONNX, noise)
    atomic_write_text(folder / README, readme(player, inputs, noise))
    return folder / ONNX, folder / README


def readme(player: Player, inputs: Sequence[Input], noise: bool) -> str:
    """The README: inputs and outputs of the file, and a program that plays one episode."""
    task, size, environment = player.task, player.noise.size, environment_code(player.task)
    rows = [f"| `{item.name}` | {item.dtype} | {_shape(item.shape)} |" for item in inputs]
    rows += [f"| `noise` | float32 | {_shape((size,))} |"] if noise else []
    return TEXT.format(
        env_id=task.id,
        mark=MARK,
        file=ONNX,
        network="the noisy network, with one draw of its noise as an input" if noise else "the mean network",
        step=player.description["global_step"],
        inputs="\n".join(rows),
        actions=task.actions,
        notes=_notes(player, environment, noise),
        code=program_of(player, environment, inputs, noise, ONNX),
        install=environment.install,
    )


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(['batch', *map(str, shape)])}]"


def _notes(player: Player, environment: EnvironmentCode, noise: bool) -> str:
    notes = []
    if noise:
        drawn = f"independent numbers of the {player.noise.distribution} distribution with mean 0 and variance 1"
        notes.append(f"`noise` holds {drawn}; zeros give the mean network.")
    if player.task.observation.mask:
        notes.append("`action_mask` holds 1 for the actions that are allowed, and 0 for the others.")
    if environment.note:
        notes.append(environment.note)
    return "".join(f"\n{note}\n" for note in notes)
