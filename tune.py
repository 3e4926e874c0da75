"""Searches for good settings of training: python tune.py env=LunarLander-v3 trials=40 (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

import shlex
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.composing import to_options
from agent.command.program import TUNE
from agent.command.tuned import finish
from agent.command.tuning import TRAIN_PROGRAM, Request, train_options_to_override, tuning_request
from agent.common.quoting import quote_override
from agent.running.tuning.pool import work
from agent.running.tuning.study import Study, check_optuna


@hydra.main(version_base="1.3", config_path="conf/tune", config_name="tune")
def main(cfg: DictConfig) -> None:
    """Begins a new study, or continues one."""
    with errors.sentences(TUNE):
        check_optuna()
        run(tuning_request(to_options(cfg), HydraConfig.get().overrides.task))


def run(request: Request) -> None:
    """Trains the trials and prints their results. Where a signal stopped it, ends the process with its exit code."""
    study = Study(request.folder, request.config)
    if not request.show:
        print(f"{request.config.env} · {len(study.domains)} options · {request.folder}", flush=True)
        code = work(study, request.jobs, TRAIN_PROGRAM, request.imports, lambda line: print(line, flush=True))
        if code:
            command = shlex.join(["python", "tune.py", quote_override("resume", request.folder), *request.imports])
            ended = sum(result.state != "running" for result in study.results())
            print(f"stopped after {ended} of {request.config.trials} trials; go on with: {command}", file=sys.stderr)
            sys.exit(code)
    finish(study, request.imports)


def start() -> None:
    """Gathers the options of train.py into one override for Hydra, and runs the program."""
    with errors.sentences(TUNE):
        sys.argv[1:] = train_options_to_override(sys.argv[1:])
    program.run(main, TUNE)


if __name__ == "__main__":
    start()
