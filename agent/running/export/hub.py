"""Shares an agent on the Hugging Face Hub: writes a folder of plain files with a model card, and pushes it."""

import json
import shlex
from pathlib import Path

import yaml

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes, atomic_write_text, read_plain, why
from agent.common.kinds import PlainData
from agent.common.seeding import environment_seeds
from agent.config.run import EvaluateConfig
from agent.records.config_file import MAX_CONFIG, parse_config
from agent.records.evaluations import cut_episodes
from agent.records.names import AGENT, CONFIG, CURVE, EVALUATION
from agent.records.saved_agent import MAX_BYTES
from agent.running.export.card import card, check_readme
from agent.running.fetching import PREFIX, checked_repo, library, short_reason
from agent.running.filming import record_film
from agent.running.player import Player
from agent.running.results import evaluate_player
from envs.video import write_video

VIDEO, CARD = "replay", "README.md"
VIDEOS = (f"{VIDEO}.mp4", f"{VIDEO}.gif")
LIBRARY = "noisy-dqn"
#: A line of every card that this project writes.
MARK = f"library_name: {LIBRARY}"
MAX_CURVE = 64 << 20  # bytes


def write_hub_folder(player: Player, folder: Path, repo: str) -> list[Path]:
    """Writes the agent, its options, returns, learning curve, video and model card.

    A hundred greedy episodes give the returns. An agent without a run has no curve, and a task that cannot be drawn has
    no video.

    Args:
        player: the agent.
        folder: created if it is missing.
        repo: user/name.

    Raises:
        UserError: the name is invalid, the extra is missing, the folder holds something else, or the disk refuses.
    """
    checked_repo(repo, f"repo={repo}")
    library("to=hub")
    _check_folder(folder, player.home)
    evaluation = evaluate_player(player, EvaluateConfig()) | {"label": repo, "agent": AGENT}
    if cut := cut_episodes(evaluation["lengths"]):
        print(cut)
    _copy(player.home, folder / AGENT, MAX_BYTES)
    atomic_write_text(folder / EVALUATION, json.dumps(evaluation, indent=1))
    atomic_write_text(folder / CONFIG, yaml.safe_dump(_config(player), sort_keys=False, allow_unicode=True))
    written = [folder / name for name in (AGENT, EVALUATION, CONFIG)]
    for name in (CURVE, *VIDEOS):  # of an earlier agent
        (folder / name).unlink(missing_ok=True)
    if (curve := _beside(player.home, CURVE)) is not None:
        _copy(curve, folder / CURVE, MAX_CURVE)
        written.append(folder / CURVE)
    filmed = "rgb_array" in player.task.render_modes
    if filmed:
        frames, _ = record_film(player.task, player.network, environment_seeds(evaluation["seed"], "test", 1))
        written.append(write_video(frames, folder / VIDEO, player.task.fps))
    atomic_write_text(folder / CARD, model_card(player, evaluation, repo, filmed))
    return [*written, folder / CARD]


def _check_folder(folder: Path, agent: Path) -> None:
    """Refuses a folder that holds any other file, since everything in it would be pushed for everybody to see.

    Also refused is that of the agent itself, whose curve and evaluation would be replaced.

    Raises:
        UserError: it holds another file.
    """
    expected = {AGENT, EVALUATION, CONFIG, CURVE, CARD, *VIDEOS}
    others = sorted({path.name for path in folder.iterdir()} - expected) if folder.is_dir() else []
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is no part of an agent's folder: name another one by out=")
    if folder.resolve() == agent.parent.resolve():
        raise UserError(
            f"{folder} is the folder of the agent itself, whose files would be replaced: name another by out="
        )
    check_readme(folder / CARD, MARK)


def model_card(player: Player, evaluation: PlainData, repo: str, filmed: bool = True) -> str:
    """The card with its front matter: library, tags, and the returns as the Hub lists them.

    Args:
        player: the agent.
        evaluation: as evaluate.py writes it.
        repo: user/name.
        filmed: whether the task can be recorded.
    """
    hub = library("to=hub")
    env_id, (low, high) = evaluation["env"], evaluation["return_ci95"]
    metrics = {
        (
            "mean_reward",
            "mean ± standard deviation",
        ): f"{evaluation['return_mean']:.2f} +/- {evaluation['return_std']:.2f}",
        ("iqm_reward", "interquartile mean"): round(evaluation["return_iqm"], 2),
        ("mean_reward_ci95", "95 % interval of the mean"): f"[{low:.2f}, {high:.2f}]",
    }
    results = [
        hub.EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=env_id,
            dataset_name=env_id,
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for (kind, name), value in metrics.items()
    ]
    data = hub.ModelCardData(
        library_name=LIBRARY,
        tags=[env_id, "deep-reinforcement-learning", "reinforcement-learning", "dqn", "noisy-networks"],
        model_name=repo.partition("/")[2],
        eval_results=results,
    )
    text = card(player.description, evaluation, PREFIX + repo, EVALUATION, filmed)
    return str(hub.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def push(folder: Path, repo: str, private: bool) -> str | None:
    """Pushes the folder if the user is logged in.

    Args:
        folder: the folder to push.
        repo: user/name; created if it is missing.
        private: whether a new repository is private; an organisation may require it.

    Returns:
        The address of its page; None if nobody is logged in.

    Raises:
        UserError: the Hub cannot be reached, or refuses; the folder stays as it is.
    """
    hub = library("to=hub")
    if hub.get_token() is None:
        return None
    try:
        address = hub.create_repo(repo, private=private or None, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="An agent of noisy-dqn")
    except Exception as error:  # any failure of the network or the server
        reason = f"{repo} could not be pushed ({short_reason(error)})"
        raise UserError(f"{reason}: the folder is made; push it by {push_command(folder, repo, private)}") from error
    return str(address)


def push_command(folder: Path, repo: str, private: bool) -> str:
    """The command that pushes the folder."""
    return shlex.join(["hf", "upload", repo, str(folder), ".", *(["--private"] if private else [])])


def _config(player: Player) -> PlainData:
    """The options of the run, without W&B's, which name a person; without a run, the options in the agent's file."""
    path = _beside(player.home, CONFIG)
    if path is not None:
        try:
            config = parse_config(read_plain(path, MAX_CONFIG))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            config = None
        if isinstance(config, dict):
            return {name: value for name, value in config.items() if name != "wandb"}
    return {name: player.description[name] for name in ("env", "agent", "seed") if name in player.description}


def _beside(file: Path, name: str) -> Path | None:
    """A file of the agent's run: beside the agent, or in the folder above best/ and last/; None if there is none."""
    candidates = [file.with_name(name), *([file.parents[1] / name] if file.parent.name in ("best", "last") else [])]
    return next((path for path in candidates if path.is_file()), None)


def _copy(source: Path, target: Path, limit: int) -> None:
    try:
        data = read_plain(source, limit)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {why(error)}") from error
    atomic_write_bytes(target, data)
