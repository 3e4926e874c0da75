"""Presets for ids without a file of their own, registered with Hydra: `CartPole`, and all Atari games."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException

from envs.packages import is_atari_game

#: The folder of all config files.
CONF = Path(__file__).parent.parent.parent / "conf"
#: The groups of config files that are named after ids: the arguments of a task, and settings for it (preset=task).
ENV, SETTINGS = "env", "preset/task"


def register_presets(overrides: Sequence[str]) -> None:
    """Registers a preset for each id that `env=…` names and that has no file in conf/env or conf/preset/task.

    An id without a version gets the files of its newest version; all Atari games share conf/task/atari.yaml.
    """
    ids = {*_ids_with_files(ENV), *_ids_with_files(SETTINGS)}
    for env_id in dict.fromkeys(_env_ids(overrides)):
        if env_id in ids:
            continue
        if newest := _newest_version(env_id, ids):
            _store(ENV, env_id, {"defaults": [{f"optional /{ENV}@_global_": newest}], "env": {"id": newest}})
            _store(SETTINGS, env_id, {"defaults": [{f"optional /{SETTINGS}@_global_": newest}]})
        elif node := _atari_game(env_id):
            _store(ENV, env_id, node)


def choices(group: str) -> str:
    """The names of a group's config files, for --help."""
    return ", ".join(sorted(_ids_with_files(group)))


def _ids_with_files(group: str) -> list[str]:
    folder = CONF / group
    return [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]


def _store(group: str, env_id: str, node: Mapping[str, object]) -> None:
    group, _, name = f"{group}/{env_id}".rpartition("/")
    ConfigStore.instance().store(name, node, group, "_global_")


def _newest_version(env_id: str, ids: Iterable[str]) -> str | None:
    """Returns the newest version of `env_id` among `ids`; None if there is none."""
    versions = [name for name in ids if re.fullmatch(rf"{re.escape(env_id)}-v\d+", name)]
    return max(versions, key=lambda name: int(name.rpartition("-v")[2]), default=None)


def _atari_game(env_id: str) -> dict[str, object] | None:
    """Returns the preset of Atari if `env_id` is one of its games, in any of their spellings; otherwise None."""
    match = re.fullmatch(r"(ALE/)?(\w+?)(NoFrameskip|Deterministic)?(-v\d+)?", env_id)
    if not match:
        return None
    prefix, name, kind, version = match.groups()
    is_game = prefix or (kind == "NoFrameskip" and version) or is_atari_game(name)
    if not is_game or (kind and not version):
        return None
    # Sticky actions (Machado et al. 2018); the ids ending in -v4 use the older protocol without them.
    kwargs = {"repeat_action_probability": 0.0 if version == "-v4" else 0.25}
    env = {"kwargs": kwargs} if version else {"kwargs": kwargs, "id": f"ALE/{name}-v5"}
    return {"defaults": [{"override /task": "atari"}], "env": env}


def _env_ids(overrides: Sequence[str]) -> Iterator[str]:
    """Yields the ids in `env=…`, parsed with Hydra's grammar: in quotes, as a list for a sweep, in choice(…)."""
    parser = OverridesParser.create()
    for override in overrides:
        if not re.match(r"\+*env=", override):
            continue
        try:
            value = parser.parse_override(override).value()
        except HydraException:  # Hydra reports the error itself
            continue
        yield from map(str, value.list if isinstance(value, ChoiceSweep) else [value])
