"""Evaluates saved agents, and writes results and films beside their files."""

import glob
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.common.errors import UserError
from agent.common.files import RUN_FOLDERS, atomic_write_text, read_plain
from agent.common.kinds import PlainData
from agent.common.quoting import quote_override
from agent.common.seeding import environment_seeds
from agent.config.run import EvaluateConfig
from agent.config.which import Which
from agent.records.comparison.finding import expand_pattern
from agent.records.drawing import DrawingError
from agent.records.evaluations import archived_results_path, beside, label, results_path
from agent.records.names import AGENT
from agent.records.plots import plot_evaluation
from agent.running.evaluation import evaluate
from agent.running.fetching import copy_from_hub, is_remote, local_agent
from agent.running.filming import record_film, watch
from agent.running.player import Player
from envs.video import write_video

#: The largest file of results that is read, in bytes: ten million episodes.
MAX_RESULT_BYTES = 256 << 20


def find_agents(paths: Sequence[str], which: Which) -> list[Path]:
    """The files of the named agents, each once.

    Args:
        paths: run folders, agent folders and files, and patterns of them, such as runs/CartPole-v1/*; hub:user/name
            copies an agent of the Hub to a folder below runs/hub/.
        which: the best or the last agent of a run folder.

    Raises:
        UserError: a path names no agent, or a pattern matches none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _files_of(path, which):
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _files_of(path: str, which: Which) -> list[Path]:
    if is_remote(path):
        return [copy_from_hub(path)]
    return [_find_agent(Path(path), which)] if Path(path).exists() else _matching(path, which)


def _find_agent(path: Path, which: Which) -> Path:
    try:
        return local_agent(path, which)
    except UserError as error:
        if not any(path.glob(f"*/*/{AGENT}")):
            raise
        plain = quote_override("checkpoint", path) == f"checkpoint={path}"
        pattern = shlex.quote(f"checkpoint={path}/*" if plain else quote_override("checkpoint", f"{path}/*"))
        raise UserError(f"{path} is a folder of runs: name one of them, or write {pattern} for all of them") from error


def _matching(path: str, which: Which) -> list[Path]:
    """The agents that a pattern matches. Other files, and matches inside a matched run, are left out."""
    if not glob.has_magic(path):
        return [local_agent(Path(path), which)]
    found: dict[Path, Path] = {}
    for candidate in expand_pattern(path):  # a folder comes before its contents
        if (candidate.is_dir() or candidate.suffix == ".safetensors") and not found.keys() & set(candidate.parents):
            with suppress(UserError):
                found[candidate] = local_agent(candidate, which)
    if not found:
        other_kind = "last" if which == "best" else "best"
        raise UserError(
            f"checkpoint={path} matches no run with a {which} agent: name another, or try which={other_kind}"
        )
    return list(found.values())


def check_player(player: Player, config: EvaluateConfig) -> None:
    """Checks the options against an agent, before hundreds of episodes are played.

    Raises:
        UserError: if the agent or its task does not support an option.
    """
    if config.noise and not player.noise.size:
        raise UserError(f"{player.path} has no noisy layers: leave noise=true out")
    for option, requested, mode in (
        ("video=true", config.video, "rgb_array"),
        ("render=human", config.render == "human", "human"),
    ):
        if requested and mode not in player.task.render_modes:
            raise UserError(f"{player.task.id} cannot be shown: leave {option} out")


def check_places(file: Path) -> None:
    """Checks that the results of an agent replace no file of the user's, before hundreds of episodes are played.

    Raises:
        UserError: a file that no evaluation has written has the name of a result.
    """
    stem = results_path(file)
    if file.parent.name in RUN_FOLDERS or _is_result(stem.with_name(f"{stem.name}.json")):
        return
    for path in (*(stem.with_name(f"{stem.name}.{suffix}") for suffix in ("json", "png", "mp4", "gif")), picture(file)):
        if path.exists():
            raise UserError(f"{path} is no result of evaluate.py, which would replace it: move it or the agent away")


def _is_result(path: Path) -> bool:
    """Whether a file holds the results of an evaluation."""
    try:
        content = json.loads(read_plain(path, MAX_RESULT_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"agent", "returns", "return_mean"} <= content.keys()


def picture(file: Path) -> Path:
    """The path of the picture that compares several agents, of which this file is the first."""
    return beside(file, "comparison.png")


def evaluate_player(player: Player, config: EvaluateConfig) -> PlainData:
    """Plays one agent; returns the settings, the statistics, and every return."""
    noise = player.noise if config.noise else None
    seeds = environment_seeds(config.seed, "test", config.episodes)
    if config.render == "human":
        evaluation = watch(player.task, player.network, seeds, noise)
    else:
        evaluation = evaluate(player.task, player.network, seeds, noise, config.num_envs)
    return {
        "label": label(player.path),
        "agent": str(player.path),
        "env": player.task.id,
        "env_kwargs": player.task.kwargs,
        "global_step": player.description["global_step"],
        "episodes": config.episodes,
        "seed": config.seed,
        "noise": config.noise,
        **evaluation.statistics(player.task.id),
        "returns": list(evaluation.returns),
        "lengths": list(evaluation.lengths),
    }


def write_result(player: Player, result: PlainData) -> bool:
    """Writes the results as JSON and as a picture beside the agent's file, and the JSON once more under its own name.

    The next evaluation replaces the first two. The third is replaced only under the same episodes, seed and noise.

    Returns:
        Whether the picture could be drawn.

    Raises:
        UserError: a file cannot be written.
    """
    text = json.dumps(result, indent=1)
    with _result_stem(player) as stem:
        kept = archived_results_path(player.home, result["episodes"], result["seed"], result["noise"])
        atomic_write_text(Path(f"{kept}.json"), text)
        atomic_write_text(Path(f"{stem}.json"), text)
        return draw([result], Path(f"{stem}.png"), Path(f"{results_path(player.path)}.png"))


def draw(results: Sequence[PlainData], out: Path, named: Path) -> bool:
    """Draws results to the file `out`; if that fails, prints one line with its name `named`, and returns False.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        plot_evaluation(results, out)
    except DrawingError as error:  # the numbers are complete without their picture
        print(str(error).replace(str(out), str(named)), file=sys.stderr)
        return False
    return True


@contextmanager
def _result_stem(player: Player) -> Iterator[Path]:
    """The absolute path of an agent's results, without suffix; errors show it as the user named the agent."""
    stem = results_path(player.home)
    try:
        yield stem
    except UserError as error:
        raise UserError(str(error).replace(str(stem), str(results_path(player.path)))) from error


def film(player: Player, config: EvaluateConfig) -> None:
    """Writes a video of the first episode beside the agent."""
    seeds = environment_seeds(config.seed, "test", 1)
    frames, evaluation = record_film(player.task, player.network, seeds, player.noise if config.noise else None)
    with _result_stem(player) as stem:
        path = write_video(frames, stem, player.task.fps)
    cut = f": the first {len(frames)} frames" if len(frames) <= evaluation.lengths[0] else ""
    print(f"wrote {player.path.parent / path.name}{cut}")
