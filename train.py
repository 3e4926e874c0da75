"""Trains a DQN that explores by learned noise: python train.py env=CartPole-v1 (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from agent.command import errors, jobs, program
from agent.command.composing import checked_folder, register_resolvers, to_options, training_request
from agent.command.presets import register_presets
from agent.command.program import TRAIN
from agent.command.sweeping import in_sweep_of_wandb, with_labels
from agent.command.watching import watched
from agent.common.quoting import split_override
from agent.config.checks import advice
from agent.records.locking import note_missing, occupied
from agent.running.run import train

register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Trains one run: a new one, or the rest of a stopped one. Returns its score, which Hydra passes to a sweeper."""
    composed = HydraConfig.get()
    with jobs.launched_job(composed) as launched:
        with errors.sentences(TRAIN):
            folder = checked_folder(composed, cfg.resume)
        swept = composed.mode is RunMode.MULTIRUN
        job = " ".join(composed.overrides.task) if swept and launched is None else None
        if job is not None:
            print(f"job {composed.job.num}: {job}", file=sys.stderr)
        with errors.job(job), errors.sentences(TRAIN), occupied(folder):
            options, overrides = to_options(cfg), list(composed.overrides.task)
            if swept or in_sweep_of_wandb():
                options = with_labels(options, overrides, composed.runtime.choices)
            if launched is None:
                return run(options, overrides, folder)
            return launched.execute(lambda resume: run(options | resume, overrides, folder))


def run(options: dict[str, object], overrides: list[str], folder: Path) -> float | None:
    """Trains the run. Where a signal stopped it, ends the process with that signal's exit code.

    Returns:
        The mean return of the last evaluation; None where there was none.
    """
    request = training_request(options, overrides, folder)
    for sentence in advice(request.config, request.overrides):
        print(sentence, file=sys.stderr)
    outcome = train(request.config, folder, request.checkpoint, request.imports, overrides)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)
    return None if outcome.evaluation is None else float(outcome.evaluation.statistics()["return_mean"])


if __name__ == "__main__":
    register_presets(sys.argv[1:])
    for name, value in map(split_override, sys.argv[1:]):
        if name in ("hydra.run.dir", "resume"):
            note_missing(Path(value.strip("'\"")))
    program.run(watched(main), TRAIN)
