"""The program in the README of an exported agent: it plays one episode with onnxruntime, without this project."""

import inspect
import keyword
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import gymnasium.envs

from agent.running.export.inputs import Input, kept_parts, literal
from agent.running.export.texts import DEEP_SEA, DRAWS, EPISODE, IDLE, MASKS, ON_PART, RESIZE
from agent.running.player import Player
from envs import deep_sea
from envs.atari import EMULATOR, NOOP_MAX, SIDE, SKIP, STACK, is_played_as_in_the_papers
from envs.make import Task
from envs.masks import mask_part
from envs.parts import KEEPING, OnPart
from envs.wrappers import Resize
from envs.wrapping import Wrap

#: The wrapper that this project replaces.
RESIZING = "ResizeObservation"
#: The calls that register the environments of packages whose import does not.
REGISTERING = {"ale_py": "gym.register_envs(ale_py)", "minatar": "minatar.gym.register_envs()"}
#: The packages that pip has to install, by the module of an environment.
PIP = {
    "ale_py": "gymnasium ale-py",
    "minatar": "gymnasium minatar",
    "gymnasium.envs.box2d": "'gymnasium[box2d]'",
    "gymnasium.envs.mujoco": "'gymnasium[mujoco]'",
}


@dataclass
class EnvironmentCode:
    """The code that makes an environment.

    Attributes:
        imports: the modules to import.
        definitions: the functions and classes to define.
        lines: the statements; after them `env` is the environment.
        install: the packages for pip.
        note: a sentence on what the program cannot do by itself.
    """

    imports: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    install: str = "gymnasium"
    note: str = ""

    def define(self, text: str) -> None:
        """Adds a definition, once."""
        if text not in self.definitions:
            self.definitions.append(text)


def program_of(player: Player, code: EnvironmentCode, inputs: Sequence[Input], noise: bool, file: str) -> str:
    """The text of the program.

    Args:
        player: the agent.
        code: the code that makes its environment.
        inputs: the inputs of the exported network, without the noise.
        noise: whether the network takes noise.
        file: the name of the exported file.
    """
    values = [f"{literal(item.name)}: np.asarray({item.source}, {literal(item.dtype.name)})[None]" for item in inputs]
    lines = list(code.lines)
    if noise:
        draw = DRAWS[player.noise.distribution].format(size=player.noise.size)
        values.append(f'"noise": {draw}.astype("float32")')
        lines.append("rng = np.random.default_rng(0)")
    joined = ", ".join(values)
    if len(joined) > 100:
        joined = "".join(f"\n        {value}," for value in values) + "\n    "
    episode = EPISODE.format(
        file=file,
        env="\n".join(lines),
        values=joined,
        action="int(action)" if player.task.plain_actions else "action",
    )
    imports = sorted({*code.imports, "gymnasium as gym", "numpy as np", "onnxruntime"})
    registered = [f"\n{REGISTERING[name]}" for name in code.imports if name in REGISTERING]
    registered += [f"\n{REGISTERING['minatar']}"] if "minatar.gym" in code.imports else []
    head = "\n".join([*(f"import {name}" for name in imports), *registered])
    return "\n\n\n".join([head, *code.definitions, episode]) if code.definitions else f"{head}\n\n{episode}"


def environment_code(task: Task) -> EnvironmentCode:
    """The code that makes the environment of a task with its wrappers."""
    code = EnvironmentCode()
    _unwrapped(task, code)
    kept = kept_parts(task) if task.wrapping.wraps else None
    if kept is not None:  # otherwise the inputs read the parts themselves
        if (mask := mask_part(task.action_mask)) is not None:
            code.define(MASKS.format(key=literal(mask)))
            code.lines.append("env = gym.wrappers.TransformObservation(env, keep_mask, None)")
        if len(kept) == 1:
            key = literal(kept[0])
            part = f"lambda observation: observation[{key}], env.observation_space[{key}]"
            code.lines.append(f"env = gym.wrappers.TransformObservation(env, {part})")
        else:
            code.lines.append(f"env = gym.wrappers.FilterObservation(env, {literal(kept)})")
    resizes = iter(_resizes(task) if any(wrap.name == RESIZING for wrap in task.wrapping.wraps) else ())
    for wrap in task.wrapping.wraps:
        if wrap.name in KEEPING:
            code.imports.append("copy")  # the environment may return one array again and again
            code.lines.append("env = gym.wrappers.TransformObservation(env, copy.deepcopy, None)")
        code.lines.append(f"env = {_wrapped(wrap, code, resizes)}")
    return code


def _resizes(task: Task) -> list[Resize]:
    """The wrappers of a task that resize images, in their order."""
    layer: Any = task.make()
    found: list[Resize] = []
    with closing(layer):
        while isinstance(layer, gym.Wrapper):
            function = layer.function if isinstance(layer, OnPart) else layer
            found += [function] if isinstance(function, Resize) else []
            layer = layer.env
    return found[::-1]


def _unwrapped(task: Task, code: EnvironmentCode) -> None:
    """Adds the code that makes the environment without the wrappers of the task."""
    spec = gym.spec(task.id)
    entry = spec.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "__main__")
    package = module.partition(".")[0]
    code.install = next((name for start, name in PIP.items() if f"{module}.".startswith(f"{start}.")), code.install)
    if is_played_as_in_the_papers(spec, task.kwargs):
        _atari(task, code)
        return
    if task.id == deep_sea.DEEP_SEA and package == "envs":
        values = {"size": 10, "stochastic": False, "mapping_seed": 0} | task.kwargs
        code.define(DEEP_SEA.format(**{name: literal(value) for name, value in values.items()}))
        code.lines.append("env = DeepSea()")
        _limit(task, code)
        return
    limit = {} if task.time_limit is None else {"max_episode_steps": task.time_limit}
    code.lines.append(f"env = gym.make({literal(task.id)}{arguments({**task.kwargs, **limit})})")
    if package == "__main__":
        code.note = f"Register `{task.id}` before: this program does not know where it is defined."
    elif package != "gymnasium":
        code.imports.append("minatar.gym" if package == "minatar" else package)
    elif f'"{task.id}"' not in inspect.getsource(gymnasium.envs):  # a class of Gymnasium under a user's own id
        others = {"kwargs": dict(spec.kwargs), "max_episode_steps": spec.max_episode_steps}
        code.lines.insert(0, f"gym.register({literal(task.id)}, {literal(entry)}{arguments(others)})")


def _atari(task: Task, code: EnvironmentCode) -> None:
    """Adds the code that makes a game as `envs.atari` does, with Gymnasium's wrappers where they do the same."""
    code.imports.append("ale_py")
    code.define(IDLE.format(most=NOOP_MAX))
    code.define(RESIZE)
    code.lines += [
        f"env = Idle(gym.make({literal(task.id)}{arguments({**EMULATOR, **task.kwargs})}))",
        f"env = gym.wrappers.MaxAndSkipObservation(env, skip={SKIP})",
        f"env = gym.wrappers.FrameStackObservation(resize(env, {(SIDE, SIDE)}), {STACK})",
    ]
    _limit(task, code)


def _limit(task: Task, code: EnvironmentCode) -> None:
    if task.time_limit is not None:
        code.lines.append(f"env = gym.wrappers.TimeLimit(env, {task.time_limit})")


def _wrapped(wrap: Wrap, code: EnvironmentCode, resizes: Iterator[Resize], env: str = "env") -> str:
    """The expression for `env` with a wrapper around it; `resizes` yields our own for the next that resizes."""
    if wrap.part is not None:
        code.define(ON_PART)
        inner = _wrapped(replace(wrap, part=None), code, resizes, "part")
        return f"on_part({env}, {literal(wrap.part)}, lambda part: {inner})"
    options = dict(wrap.arguments)
    if wrap.name == RESIZING:  # Gymnasium's needs OpenCV
        code.define(RESIZE)
        first = ", first=1" if next(resizes).first else ""
        return f"resize({env}, {literal(options['shape'])}{first})"
    return f"gym.wrappers.{wrap.name}({env}{arguments(options)})"


def arguments(values: Mapping[str, Any]) -> str:
    """The text of keyword arguments after another argument; a name that is no identifier goes into a mapping."""
    plain = {name: value for name, value in values.items() if name.isidentifier() and not keyword.iskeyword(name)}
    others = {name: value for name, value in values.items() if name not in plain}
    text = "".join(f", {name}={literal(value)}" for name, value in plain.items())
    return f"{text}, **{literal(others)}" if others else text
