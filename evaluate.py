"""Plays saved agents: python evaluate.py checkpoint=runs/CartPole-v1/<run> (--help for more)."""

from agent.common.interrupt import quit_at_once

if __name__ == "__main__":
    quit_at_once()  # first: the imports take a second

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.command import errors as cli
from agent.command.imports import import_asked
from agent.common.errors import UserError
from agent.common.files import atomic_write_text
from agent.common.seeding import environment_seeds
from agent.config.parsing import leaf_names, parse
from agent.config.run import EvaluateConfig
from agent.records.console import shown
from agent.records.plots import plot_evaluation
from agent.records.saved_agent import FILE_NAME, find_agent, newest_run
from agent.running.evaluation import evaluate
from agent.running.filming import record, watch
from agent.running.player import Player, load_player
from agent.running.resources import prepare_cpu, resolve_device
from envs.video import write_video

#: What `cli` needs to put errors into words.
WORDS = (HydraException, OmegaConfBaseException), [*leaf_names(EvaluateConfig), "imports"]
COLUMNS = ("return_mean", "return_std", "return_median", "return_min", "return_max", "return_iqm")


@hydra.main(version_base="1.3", config_path="conf/evaluate", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates every agent asked for, and compares them where there are several."""
    with cli.sentences(*WORDS):
        run(cfg)


def run(cfg: DictConfig) -> None:
    """Composes the config, plays every agent and shows the results."""
    asked: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    import_asked(asked)
    paths = asked["checkpoint"]
    asked["checkpoint"] = [] if paths is None else [paths] if isinstance(paths, str) else paths
    config = parse(EvaluateConfig, asked)
    prepare_cpu(1)
    files = [find_agent(Path(path), config.which) for path in config.checkpoint or [newest(config)]]
    players = [load_player(file, resolve_device(config.device)) for file in files]
    for player in players:  # before hundreds of episodes are played
        check(player, config)
    results: list[dict[str, Any]] = []
    try:
        for player in players:
            results.append(evaluate_agent(player, config))
            write(player.path, results[-1])
    finally:  # what was played is told, even where the rest cannot be played or nothing be written
        if results:
            show(results)
    for file in files:
        print(f"wrote {beside(file)}.json and {beside(file)}.png")
    if len(results) > 1:
        plot_evaluation(results, files[0].parent / "comparison.png")
        print(f"compared in {files[0].parent / 'comparison.png'}")
    if config.video:
        for player in players:
            film(player, config)


def newest(config: EvaluateConfig) -> str:
    """The newest run under runs/, said aloud."""
    found = newest_run(Path("runs"), config.which)
    if found is None:
        raise UserError("there is no run under runs/: train one with python train.py, or name one with checkpoint=")
    print(f"checkpoint=… was not given: evaluating the newest run, {found}")
    return str(found)


def check(player: Player, config: EvaluateConfig) -> None:
    """Refuses what an agent or its task cannot do."""
    if config.noise and not player.noise.size:
        raise UserError(f"{player.path} has no noisy layers: leave noise=true out")
    for option, asked, mode in (
        ("video=true", config.video, "rgb_array"),
        ("render=human", config.render == "human", "human"),
    ):
        if asked and mode not in player.task.render_modes:
            raise UserError(f"{player.task.id} cannot be shown: leave {option} out")


def evaluate_agent(player: Player, config: EvaluateConfig) -> dict[str, Any]:
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


def label(file: Path) -> str:
    """An agent's name in the table: its folder's, or the file's own where it is not called agent.safetensors."""
    return str(file.parent) if file.name == FILE_NAME else str(file).removesuffix(".safetensors")


def beside(file: Path) -> Path:
    """Where an agent's results go, without the suffix; a file with a name of its own has results of its own."""
    return file.with_name("evaluation" if file.name == FILE_NAME else f"{Path(label(file)).name}_evaluation")


def write(file: Path, result: dict[str, Any]) -> None:
    """Writes the results as JSON and as a picture beside the agent's file."""
    atomic_write_text(Path(f"{beside(file)}.json"), json.dumps(result, indent=1))
    plot_evaluation([result], Path(f"{beside(file)}.png"))


def film(player: Player, config: EvaluateConfig) -> None:
    """Writes a video of the first episode beside the agent."""
    seeds = environment_seeds(config.seed, "test", 1)
    frames, outcome = record(player.task, player.network, seeds, player.noise if config.noise else None)
    path = write_video(frames, beside(player.path), player.task.fps)
    cut = f": the first {len(frames)} frames" if len(frames) <= outcome.lengths[0] else ""
    print(f"wrote {path}{cut}")


def show(results: Sequence[dict[str, Any]]) -> None:
    """Prints the table, and scores beside it where the papers have them."""
    print(table(results))
    for result in results:
        if "human_normalised" in result:
            print(f"human-normalised score of {result['label']}: {100 * result['human_normalised']:.1f} %")


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line per agent, aligned."""
    header = [
        "agent",
        "env",
        "step",
        "episodes",
        "mean",
        "std",
        "median",
        "min",
        "max",
        "IQM",
        "95 % interval",
        "length",
    ]
    lines = [header]
    for result in results:
        low, high = result["return_ci95"]
        numbers = [shown(result[name]) for name in COLUMNS]
        lines.append(
            [
                *(str(result[name]) for name in ("label", "env", "global_step", "episodes")),
                *numbers,
                f"{shown(low)} … {shown(high)}",
                f"{result['length_mean']:.1f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    cli.run(main, *WORDS)
