"""Plays saved agents: python evaluate.py checkpoint=runs/CartPole-v1/<run> (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

import hydra
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.composing import evaluation_request, to_options
from agent.command.evaluating import evaluate_all
from agent.command.program import EVALUATE
from agent.config.run import EvaluateConfig
from agent.records.newest import newest_agent
from agent.running.player import load_player
from agent.running.resources import check_open_files, prepare_cpu, resolve_device
from agent.running.results import check_places, check_player, draw, film, find_agents, picture


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
    for file in files:
        check_places(file)
    players = [load_player(file, resolve_device(config.device)) for file in files]
    for player in players:
        check_player(player, config)
    results, failures = evaluate_all(players, config)
    if failures:  # the table has the numbers
        raise failures[0]
    if len(results) > 1 and draw(results, picture(players[0].home), picture(files[0])):
        print(f"compared in {picture(files[0])}")
    if config.video:
        for player in players:
            film(player, config)


if __name__ == "__main__":
    program.run(main, EVALUATE)
