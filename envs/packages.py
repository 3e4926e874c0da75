"""Packages with environments that this project supports; each is imported when one of its ids is requested."""

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

    ids: str  # a pattern that matches all of their ids, and misspelt ones
    module: str  # has to be importable
    extra: str
    register: Callable[[], None]  # registers the ids with Gymnasium
    channels: Channels | None = None  # the dimension of its images that holds the channels, if it is always the same


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
    """Registers an id with Gymnasium, if it belongs to this project or to a supported package.

    Raises:
        UserError: if the package is not installed; the message names the extra.
    """
    deep_sea.register()
    for package in PACKAGES:
        if re.fullmatch(package.ids, env_id):
            if not is_installed(package.module):
                raise UserError(f"{env_id} needs the extra {package.extra}: pip install -e '.[{package.extra}]'")
            package.register()
    if "/" not in env_id and env_id not in gym.registry and is_installed("ale_py"):
        _atari()  # it also has ids without a namespace, such as Pong-v4


def channels_of_package(env_id: str) -> Channels | Literal["auto"]:
    """The dimension that holds the channels in images of a supported package; `auto` if unknown."""
    known = (package.channels for package in PACKAGES if re.fullmatch(package.ids, env_id))
    return next((channels for channels in known if channels is not None), "auto")


def is_atari_game(name: str) -> bool:
    """Whether ale-py is installed and has a game of this name, such as SpaceInvaders; it is not imported."""
    found = importlib.util.find_spec("ale_py")
    if found is None or found.origin is None:
        return False
    return name.lower() in {path.stem.replace("_", "") for path in (Path(found.origin).parent / "roms").glob("*.bin")}


def is_installed(module: str) -> bool:
    """Whether a top-level module could be imported, without importing it."""
    return module in sys.modules or importlib.util.find_spec(module) is not None
