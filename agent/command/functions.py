"""train.py and evaluate.py as functions, for notebooks and scripts."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.command.composing import Request, compose_training, training_request
from agent.command.errors import as_user_errors
from agent.command.program import TRAIN
from agent.common.quoting import from_python
from agent.config.checks import without_effect
from agent.config.parsing import parse
from agent.config.run import EvaluateConfig
from agent.records.locking import occupied
from agent.records.saved_agent import Which
from agent.running import run as running
from agent.running.acting import LoadedAgent, load_agent
from agent.running.evaluation import Evaluation
from agent.running.fetching import agent_file
from agent.running.player import load_player
from agent.running.resources import cpu_restored, prepare_cpu, resolve_device
from agent.running.results import check_player, evaluate_player


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        folder: of all that it wrote, an absolute path.
        step: environment steps.
        evaluation: returns and lengths of its last evaluation.
    """

    folder: Path
    step: int
    evaluation: Evaluation | None

    def agent(self, which: Which = "best") -> LoadedAgent:
        """Its best agent, or its last, ready to act."""
        return load_agent(self.folder / which)


def train(*overrides: str, **options: object) -> Run:
    """Trains as train.py does, with the same options: train(env="CartPole-v1", agent={"lr": 1e-3}, steps=20_000).

    It works in any thread and in any folder, more than once in a process. Ctrl-C saves the run, as at the command
    line, and raises KeyboardInterrupt; `train(resume=<folder>)` goes on.

    Args:
        overrides: options as they are written at the command line: "agent.lr=1e-3", "noise=paper".
        options: the same as values of Python's; a mapping gives values to the options below one.

    Raises:
        UserError: for whatever a person can mend: options, the folder, the environment, the disk.
    """
    arguments = [*overrides, *(argument for name, value in options.items() for argument in from_python(name, value))]
    with as_user_errors(TRAIN):
        composed, folder = compose_training(arguments)
        with occupied(folder), cpu_restored():
            request = training_request(composed, arguments, folder)
            return _train(request, folder, arguments)


def _train(request: Request, folder: Path, overrides: list[str]) -> Run:
    for sentence in without_effect(request.config, request.overrides):
        print(sentence, file=sys.stderr)
    outcome = running.train(request.config, folder, request.checkpoint, request.imports, overrides)
    if outcome.exit_code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if outcome.exit_code:
        sys.exit(outcome.exit_code)
    return Run(folder.absolute(), outcome.step, outcome.evaluation)


def evaluate(
    checkpoint: str | os.PathLike[str],
    *,
    which: Which = "best",
    episodes: int = 100,
    seed: int = 0,
    noise: bool = False,
    num_envs: int = 20,
    device: str = "cpu",
) -> dict[str, object]:
    """Plays a saved agent as evaluate.py does, and gives what that writes to evaluation.json; nothing is written.

    Args:
        checkpoint: a run folder, an agent folder, an agent.safetensors, or hub:user/name.
        which: of a run folder, the best agent or the last.
        episodes: exactly the first `episodes` seeds are played.
        seed: every episode has its own seed from this one.
        noise: True plays with a fresh draw at every step.
        num_envs: episodes side by side; it does not change the result.
        device: where the network computes.

    Returns:
        The settings, `return_mean`, `return_std`, `return_iqm`, `return_ci95` (a 95 % interval of the mean) and
        others, `returns` and `lengths` of the episodes.

    Raises:
        UserError: for an agent that is missing, damaged or foreign, and for options that it cannot do.
    """
    options = {"which": which, "episodes": episodes, "seed": seed, "noise": noise, "num_envs": num_envs}
    config = parse(EvaluateConfig, {"checkpoint": [os.fspath(checkpoint)], **options, "device": device})
    with cpu_restored():
        prepare_cpu(1)
        player = load_player(agent_file(os.fspath(checkpoint), config.which), resolve_device(config.device))
        check_player(player, config)
        return evaluate_player(player, config)
