"""train.py and evaluate.py as functions, for notebooks and scripts."""

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agent.command.composing import Request, compose_training, training_request
from agent.command.errors import as_user_errors
from agent.command.program import TRAIN
from agent.common.errors import UserError
from agent.common.global_torch import global_torch_restored
from agent.common.quoting import from_python
from agent.config.checks import advice
from agent.config.parsing import parse
from agent.config.run import EvaluateConfig
from agent.config.which import Which
from agent.records.locking import note_missing, occupied
from agent.running import run as running
from agent.running.acting import LoadedAgent, load_agent
from agent.running.evaluation import Evaluation
from agent.running.fetching import agent_file
from agent.running.player import load_player
from agent.running.resources import cpu_restored, prepare_cpu, resolve_device
from agent.running.results import check_player, evaluate_player
from envs.global_random import globals_restored


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        folder: the absolute path of the run's folder.
        step: the number of environment steps.
        evaluation: returns and lengths of the episodes of its last evaluation; None without any.
    """

    folder: Path
    step: int
    evaluation: Evaluation | None

    def agent(self, which: Which = "best") -> LoadedAgent:
        """Loads the run's best or last agent, ready to act."""
        return load_agent(self.folder, which)


def train(*overrides: str, **options: object) -> Run:
    """Trains as train.py does, with the same options: train(env="CartPole-v1", agent={"lr": 1e-3}, steps=20_000).

    It works in any thread and in any folder, more than once in a process. Ctrl-C saves the run, as at the command
    line, and raises KeyboardInterrupt; `train(resume=<folder>)` resumes it.

    Args:
        overrides: options as the command line writes them: "agent.lr=1e-3", "noise=paper".
        options: options as Python values; a mapping sets several options of one node.

    Raises:
        UserError: an error that the user can correct: in the options, the folder, the environment or the disk.
    """
    if wrong := [override for override in overrides if not isinstance(override, str)]:
        raise UserError(f"train takes texts such as 'agent.lr=1e-3', and options by name, not {wrong[0]!r:.80}")
    arguments = [*overrides, *(argument for name, value in options.items() for argument in from_python(name, value))]
    with as_user_errors(replace(TRAIN, several="call train once for each")):
        composed, folder = compose_training(arguments)
        note_missing(folder)
        own = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with occupied(folder, own), cpu_restored(), globals_restored(), global_torch_restored(torch.device("cpu")):
            request = training_request(composed, arguments, folder)
            return _train(request, folder, arguments)


def _train(request: Request, folder: Path, overrides: list[str]) -> Run:
    for sentence in advice(request.config, request.overrides):
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
    """Plays a saved agent as evaluate.py does. Returns the content of evaluation.json, and writes no file.

    Args:
        checkpoint: a run folder, an agent folder, an agent.safetensors, or hub:user/name.
        which: the agent of a run folder: its best or its last.
        episodes: the number of episodes: exactly one for each of the first seeds.
        seed: each episode derives its own seed from this one.
        noise: True plays the noisy network with a new draw at every step.
        num_envs: the number of episodes that are played together; it does not change the result.
        device: the network's device.

    Returns:
        The settings; `return_mean`, `return_std`, `return_iqm`, `return_ci95` (a 95 % interval of the mean) and other
        statistics; `returns` and `lengths` of the episodes.

    Raises:
        UserError: the agent is missing, damaged or of another program, or does not support an option.
    """
    if not isinstance(checkpoint, str | os.PathLike):
        raise UserError(f"evaluate takes a folder, a file or hub:user/name as a text or a Path, not {checkpoint!r:.80}")
    given = {"which": which, "episodes": episodes, "seed": seed, "noise": noise, "num_envs": num_envs}
    options = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    config = parse(EvaluateConfig, {"checkpoint": [os.fspath(checkpoint)], **options, "device": device})
    with cpu_restored():
        prepare_cpu(1)
        player = load_player(agent_file(os.fspath(checkpoint), config.which), resolve_device(config.device))
        check_player(player, config)
        return evaluate_player(player, config)
