"""Environments of other packages that this project knows: imported when one of their ids is asked for, never before."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium as gym

from agent.common.errors import UserError
from envs import deep_sea
from envs.channels import Channels


class Package(NamedTuple):
    """Environments that come with an extra of this project."""

    ids: str  # a pattern that matches all of their ids, and others of their kind that are spelt wrong
    module: str  # what has to be importable
    extra: str
    register: Callable[[], None]  # makes them known to Gymnasium
    channels: Channels | None = None  # where its images have them, if that is always the same


def _atari() -> None:
    import ale_py  # type: ignore[import-not-found, unused-ignore]

    gym.register_envs(ale_py)  # importing it registered them


def _minatar() -> None:
    import minatar.gym  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if "MinAtar/Breakout-v1" not in gym.registry:
        minatar.gym.register_envs()


def _nothing() -> None:
    """Box2D's environments are Gymnasium's own."""


PACKAGES = (
    Package(r"ALE/.*|.*NoFrameskip-v[04]", "ale_py", "atari", _atari),
    Package(r"MinAtar/.*", "minatar", "minatar", _minatar, "last"),
    Package(r"(LunarLander|BipedalWalker|CarRacing).*", "Box2D", "box2d", _nothing),
)


def register(env_id: str) -> None:
    """Makes sure that Gymnasium knows an id, where it is one of ours or of a package known here.

    Raises:
        UserError: where the package is not installed, naming the extra.
    """
    deep_sea.register()
    for package in PACKAGES:
        if re.fullmatch(package.ids, env_id):
            if not is_installed(package.module):
                raise UserError(f"{env_id} needs the extra {package.extra}: pip install -e '.[{package.extra}]'")
            package.register()
    if "/" not in env_id and env_id not in gym.registry and is_installed("ale_py"):
        _atari()  # it has ids of its own without a name in front, such as Pong-v4


def channels_of_package(env_id: str) -> Channels | Literal["auto"]:
    """Where the images of a known package have their channels; `auto` where that is not known."""
    known = (package.channels for package in PACKAGES if re.fullmatch(package.ids, env_id))
    return next((channels for channels in known if channels is not None), "auto")


def is_atari_game(name: str) -> bool:
    """Whether ale-py is here and has a game of this name, such as SpaceInvaders; by its files, without importing it."""
    found = importlib.util.find_spec("ale_py")
    if found is None or found.origin is None:
        return False
    return name.lower() in {path.stem.replace("_", "") for path in (Path(found.origin).parent / "roms").glob("*.bin")}


def is_installed(module: str) -> bool:
    """Whether a top-level module could be imported, without importing it."""
    return module in sys.modules or importlib.util.find_spec(module) is not None
