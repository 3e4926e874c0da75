"""The program in the README of an exported agent: it plays one episode with onnxruntime, without this project."""

import inspect
import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import gymnasium.envs

from agent.running.export.inputs import Input, is_pair, kept_parts, literal
from agent.running.export.texts import DEEP_SEA, DRAWS, EPISODE, IDLE, MASKS, ON_PART, RESIZE
from agent.running.player import Player
from envs import deep_sea
from envs.atari import EMULATOR, NOOP_MAX, SIDE, SKIP, STACK, is_played_as_in_the_papers
from envs.make import Task
from envs.wrapping import Wrap

#: Packages that do not register their environments when they are imported, and the call that does.
REGISTERING = {"ale_py": "gym.register_envs(ale_py)", "minatar": "minatar.gym.register_envs()"}
#: What else pip has to install, by the module of an environment.
PIP = {
    "ale_py": "gymnasium ale-py",
    "minatar": "gymnasium minatar",
    "gymnasium.envs.box2d": "'gymnasium[box2d]'",
    "gymnasium.envs.mujoco": "'gymnasium[mujoco]'",
}


@dataclass
class Made:
    """How a program makes an environment.

    Attributes:
        imports: modules.
        definitions: of functions and classes.
        lines: the last of them leave the environment in `env`.
        install: arguments of pip.
        note: of what the program cannot do by itself.
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


def program_of(player: Player, made: Made, inputs: Sequence[Input], noise: bool, file: str) -> str:
    """The program.

    Args:
        player: the agent.
        made: its environment.
        inputs: of the file, without the noise.
        noise: whether the file takes noise.
        file: its name.
    """
    values = [f"{literal(item.name)}: np.asarray({item.source}, {literal(item.dtype.name)})[None]" for item in inputs]
    lines = list(made.lines)
    if noise:
        draw = DRAWS[player.noise.distribution].format(size=player.noise.size)
        values.append(f'"noise": {draw}.astype("float32")')
        lines.append("rng = np.random.default_rng(0)")
    joined = ", ".join(values)
    if len(joined) > 100:
        joined = "".join(f"\n        {value}," for value in values) + "\n    "
    played = EPISODE.format(
        file=file,
        env="\n".join(lines),
        values=joined,
        action="int(action)" if player.task.plain_actions else "action",
    )
    imports = sorted({*made.imports, "gymnasium as gym", "numpy as np", "onnxruntime"})
    registered = [f"\n{REGISTERING[name]}" for name in made.imports if name in REGISTERING]
    registered += [f"\n{REGISTERING['minatar']}"] if "minatar.gym" in made.imports else []
    head = "\n".join([*(f"import {name}" for name in imports), *registered])
    return "\n\n\n".join([head, *made.definitions, played]) if made.definitions else f"{head}\n\n{played}"


def made_of(task: Task) -> Made:
    """The environment of a task, with all that the task has around it."""
    made = Made()
    _bare(task, made)
    kept = kept_parts(task) if task.wrapping.wraps else None
    if kept is not None:  # else the sources of the inputs say where the parts are
        if is_pair(task):
            made.define(MASKS.format(key=literal(task.action_mask.partition(".")[2])))
            made.lines.append("env = gym.wrappers.TransformObservation(env, keep_mask, None)")
        if len(kept) == 1:
            key = literal(kept[0])
            part = f"lambda observation: observation[{key}], env.observation_space[{key}]"
            made.lines.append(f"env = gym.wrappers.TransformObservation(env, {part})")
        else:
            made.lines.append(f"env = gym.wrappers.FilterObservation(env, {literal(kept)})")
    for wrap in task.wrapping.wraps:
        made.lines.append(f"env = {_wrapped(wrap, made)}")
    return made


def _bare(task: Task, made: Made) -> None:
    """The environment of the id."""
    spec = gym.spec(task.id)
    entry = spec.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "__main__")
    package = module.partition(".")[0]
    made.install = next((name for start, name in PIP.items() if f"{module}.".startswith(f"{start}.")), made.install)
    if is_played_as_in_the_papers(spec, task.kwargs):
        _atari(task, made)
        return
    if task.id == deep_sea.DEEP_SEA and package == "envs":
        values = {"size": 10, "stochastic": False, "mapping_seed": 0} | task.kwargs
        made.define(DEEP_SEA.format(**{name: literal(value) for name, value in values.items()}))
        made.lines.append("env = DeepSea()")
        _limit(task, made)
        return
    limit = {} if task.time_limit is None else {"max_episode_steps": task.time_limit}
    made.lines.append(f"env = gym.make({literal(task.id)}{arguments({**task.kwargs, **limit})})")
    if package == "__main__":
        made.note = f"Register `{task.id}` before: this program does not know where it is defined."
    elif package != "gymnasium":
        made.imports.append("minatar.gym" if package == "minatar" else package)
    elif f'"{task.id}"' not in inspect.getsource(gymnasium.envs):  # one of Gymnasium's under an id of somebody's own
        others = {"kwargs": dict(spec.kwargs), "max_episode_steps": spec.max_episode_steps}
        made.lines.insert(0, f"gym.register({literal(task.id)}, {literal(entry)}{arguments(others)})")


def _atari(task: Task, made: Made) -> None:
    """A game as `envs.atari` plays it, by Gymnasium's wrappers where these do the same."""
    made.imports.append("ale_py")
    made.define(IDLE.format(most=NOOP_MAX))
    made.define(RESIZE)
    made.lines += [
        f"env = Idle(gym.make({literal(task.id)}{arguments({**EMULATOR, **task.kwargs})}))",
        f"env = gym.wrappers.MaxAndSkipObservation(env, skip={SKIP})",
        f"env = gym.wrappers.FrameStackObservation(resize(env, {(SIDE, SIDE)}), {STACK})",
    ]
    _limit(task, made)


def _limit(task: Task, made: Made) -> None:
    if task.time_limit is not None:
        made.lines.append(f"env = gym.wrappers.TimeLimit(env, {task.time_limit})")


def _wrapped(wrap: Wrap, made: Made, env: str = "env") -> str:
    """The expression that puts a wrapper on `env`."""
    if wrap.part is not None:
        made.define(ON_PART)
        on_it = _wrapped(replace(wrap, part=None), made, "part")
        return f"on_part({env}, {literal(wrap.part)}, lambda part: {on_it})"
    given = dict(wrap.arguments)
    if wrap.name == "ResizeObservation":  # Gymnasium's needs OpenCV
        made.define(RESIZE)
        return f"resize({env}, {literal(given['shape'])})"
    return f"gym.wrappers.{wrap.name}({env}{arguments(given)})"


def arguments(values: Mapping[str, Any]) -> str:
    """Keyword arguments, after another argument; a name that is none goes into a mapping, as data."""
    plain = {name: value for name, value in values.items() if name.isidentifier() and not keyword.iskeyword(name)}
    others = {name: value for name, value in values.items() if name not in plain}
    text = "".join(f", {name}={literal(value)}" for name, value in plain.items())
    return f"{text}, **{literal(others)}" if others else text
