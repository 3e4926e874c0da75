"""Results of saved agents: played, written beside their files, filmed."""

import glob
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.common.errors import UserError
from agent.common.files import atomic_write_text
from agent.common.quoting import quote_override
from agent.common.seeding import environment_seeds
from agent.config.run import EvaluateConfig
from agent.records.comparison.finding import expand_pattern
from agent.records.evaluations import archived_results_path, label, results_path
from agent.records.plots import plot_evaluation
from agent.records.saved_agent import FILE_NAME, Which, find_agent
from agent.running.evaluation import evaluate
from agent.running.fetching import brought, is_remote
from agent.running.filming import record, watch
from agent.running.player import Player
from envs.video import write_video


def find_agents(paths: Sequence[str], which: Which) -> list[Path]:
    """The files of the agents that are named, each once.

    Args:
        paths: run folders, agent folders and files, and patterns of them, such as runs/CartPole-v1/*; hub:user/name
            brings an agent of the Hub below runs/hub/.
        which: of a run folder, the best agent or the last.

    Raises:
        UserError: a path names no agent, or a pattern matches none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _named(path, which):
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _named(path: str, which: Which) -> list[Path]:
    if is_remote(path):
        return [brought(path)]
    return [_find_agent(Path(path), which)] if Path(path).exists() else _matching(path, which)


def _find_agent(path: Path, which: Which) -> Path:
    try:
        return find_agent(path, which)
    except UserError as error:
        if not any(path.glob(f"*/*/{FILE_NAME}")):
            raise
        all_of_them = quote_override("checkpoint", f"{path}/*")
        raise UserError(f"{path} is a folder of runs: write {shlex.quote(all_of_them)} for all of them") from error


def _matching(path: str, which: Which) -> list[Path]:
    """The agents that a pattern matches; what else it matches, and what lies in a run that it matches, is left out."""
    if not glob.has_magic(path):
        return [find_agent(Path(path), which)]
    found: dict[Path, Path] = {}
    for place in expand_pattern(path):  # a folder comes before what lies in it
        if (place.is_dir() or place.suffix == ".safetensors") and not found.keys() & set(place.parents):
            with suppress(UserError):
                found[place] = find_agent(place, which)
    if not found:
        other = "last" if which == "best" else "best"
        raise UserError(f"checkpoint={path} matches no run with a {which} agent: name another, or try which={other}")
    return list(found.values())


def check_player(player: Player, config: EvaluateConfig) -> None:
    """Compares an agent with the options, before hundreds of episodes are played.

    Raises:
        UserError: where the agent or its task cannot do what they ask for.
    """
    if config.noise and not player.noise.size:
        raise UserError(f"{player.path} has no noisy layers: leave noise=true out")
    for option, given, mode in (
        ("video=true", config.video, "rgb_array"),
        ("render=human", config.render == "human", "human"),
    ):
        if given and mode not in player.task.render_modes:
            raise UserError(f"{player.task.id} cannot be shown: leave {option} out")


def evaluate_player(player: Player, config: EvaluateConfig) -> dict[str, Any]:
    """Plays one agent: the settings, the statistics, and every return."""
    noise = player.noise if config.noise else None
    seeds = environment_seeds(config.seed, "test", config.episodes)
    if config.render == "human":
        outcome = watch(player.task, player.network, seeds, noise)
    else:
        outcome = evaluate(player.task, player.network, seeds, noise, config.num_envs)
    return {
        "label": label(player.path),
        "agent": str(player.path),
        "env": player.task.id,
        "env_kwargs": player.task.kwargs,
        "global_step": player.description["global_step"],
        "episodes": config.episodes,
        "seed": config.seed,
        "noise": config.noise,
        **outcome.statistics(player.task.id),
        "returns": list(outcome.returns),
        "lengths": list(outcome.lengths),
    }


def write_result(player: Player, result: dict[str, Any]) -> None:
    """Writes the results as JSON and as a picture beside the agent's file, and the JSON once more under its own name.

    The next evaluation replaces the first two; only one of as many episodes, the same seed and noise replaces the last.
    """
    text = json.dumps(result, indent=1)
    with _place_of(player) as place:
        kept = archived_results_path(player.home, result["episodes"], result["seed"], result["noise"])
        atomic_write_text(Path(f"{kept}.json"), text)
        atomic_write_text(Path(f"{place}.json"), text)
        plot_evaluation([result], Path(f"{place}.png"))


@contextmanager
def _place_of(player: Player) -> Iterator[Path]:
    """Where an agent's results go, as an absolute path, which errors show as the agent's was named."""
    place = results_path(player.home)
    try:
        yield place
    except UserError as error:
        raise UserError(str(error).replace(str(place), str(results_path(player.path)))) from error


def film(player: Player, config: EvaluateConfig) -> None:
    """Writes a video of the first episode beside the agent."""
    seeds = environment_seeds(config.seed, "test", 1)
    frames, outcome = record(player.task, player.network, seeds, player.noise if config.noise else None)
    with _place_of(player) as place:
        path = write_video(frames, place, player.task.fps)
    cut = f": the first {len(frames)} frames" if len(frames) <= outcome.lengths[0] else ""
    print(f"wrote {player.path.parent / path.name}{cut}")
