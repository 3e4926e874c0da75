"""The agents that a command line of evaluate.py names, played one after the other."""

from typing import Any

from agent.command.tables import show_evaluations
from agent.common.errors import UserError
from agent.config.run import EvaluateConfig
from agent.records.evaluations import cut_episodes, results_path
from agent.running.player import Player
from agent.running.results import evaluate_player, write_result


def evaluate_all(players: list[Player], config: EvaluateConfig) -> tuple[list[dict[str, Any]], list[UserError]]:
    """Plays every agent, and prints the results of those that were played, even where a later one fails.

    Returns:
        The results of each agent, and the errors of those that could not be written.
    """
    results: list[dict[str, Any]] = []
    failures: list[UserError] = []
    lines: list[str] = []
    try:
        for player in players:
            results.append(evaluate_player(player, config))
            try:
                is_drawn = write_result(player, results[-1])
            except UserError as error:
                advice = f"to keep the results, evaluate a copy of {player.path.name} in a folder of your own"
                failures.append(UserError(f"{error}; {advice}", error.detail))
                continue
            path = results_path(player.path)
            lines.append(f"wrote {path}.json{f' and {path}.png' if is_drawn else ''}")
            if cut := cut_episodes(results[-1]["lengths"]):
                print(cut)
    finally:
        if results:
            show_evaluations(results)
            print("".join(f"{line}\n" for line in lines), end="")
    return results, failures
