"""Plays saved agents: python evaluate.py checkpoint=runs/CartPole-v1/<run> (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

from typing import Any

import hydra
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.composing import evaluation_request, to_options
from agent.command.program import EVALUATE
from agent.command.tables import show_evaluations
from agent.config.run import EvaluateConfig
from agent.records.evaluations import cut_episodes, results_path
from agent.records.newest import newest_agent
from agent.running.player import Player, load_player
from agent.running.resources import check_open_files, prepare_cpu, resolve_device
from agent.running.results import check_player, draw, evaluate_player, film, find_agents, write_result


@hydra.main(version_base="1.3", config_path="conf/evaluate", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates every requested agent, and compares them where there are several."""
    with errors.sentences(EVALUATE):
        run(evaluation_request(to_options(cfg)))


def run(config: EvaluateConfig) -> None:
    """Plays every agent, writes the results and prints their paths."""
    check_open_files(0)
    prepare_cpu(1)
    files = find_agents(config.checkpoint or [newest_agent(config.which, "evaluating")], config.which)
    players = [load_player(file, resolve_device(config.device)) for file in files]
    for player in players:
        check_player(player, config)
    results, are_drawn = evaluate_all(players, config)
    for file, is_drawn in zip(files, are_drawn, strict=True):
        print(f"wrote {results_path(file)}.json{f' and {results_path(file)}.png' if is_drawn else ''}")
    picture = files[0].parent / "comparison.png"
    if len(results) > 1 and draw(results, players[0].home.parent / picture.name, picture):
        print(f"compared in {picture}")
    if config.video:
        for player in players:
            film(player, config)


def evaluate_all(players: list[Player], config: EvaluateConfig) -> tuple[list[dict[str, Any]], list[bool]]:
    """Plays every agent, and prints the results of those that were played, even where a later one fails.

    Returns:
        The results of each agent, and whether each could be drawn.
    """
    results: list[dict[str, Any]] = []
    are_drawn: list[bool] = []
    try:
        for player in players:
            results.append(evaluate_player(player, config))
            are_drawn.append(write_result(player, results[-1]))
            if cut := cut_episodes(results[-1]["lengths"]):
                print(cut)
    finally:
        if results:
            show_evaluations(results)
    return results, are_drawn


if __name__ == "__main__":
    program.run(main, EVALUATE)
