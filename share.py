"""Shares a saved agent: python share.py checkpoint=runs/CartPole-v1/<run> to=onnx (--help for more)."""

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

from pathlib import Path

import hydra
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.composing import sharing_request, to_options
from agent.command.program import SHARE
from agent.common.errors import UserError
from agent.config.share import ShareConfig
from agent.records.newest import newest_run
from agent.records.run_folder import RUNS
from agent.records.saved_agent import FILE_NAME, find_agent
from agent.running.export.folder import folder_for, write_folder
from agent.running.player import load_player
from agent.running.resources import prepare_cpu


@hydra.main(version_base="1.3", config_path="conf/share", config_name="share")
def main(cfg: DictConfig) -> None:
    """Shares the agent that is asked for."""
    with errors.sentences(SHARE):
        run(sharing_request(to_options(cfg)))


def run(config: ShareConfig) -> None:
    """Writes the files and says where they are."""
    prepare_cpu(1)
    file = find_agent(Path(config.checkpoint or newest(config)), config.which)
    folder = folder_for(file) if config.out is None else Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: name a folder, which the agent is written to")
    for path in write_folder(load_player(file), folder.absolute(), config.noise):
        print(f"wrote {folder / path.name}")


def newest(config: ShareConfig) -> str:
    """The newest run under runs/, said aloud."""
    found = newest_run(RUNS, lambda run: (run / config.which / FILE_NAME).is_file())
    if found is None:
        raise UserError("there is no run under runs/: train one with python train.py, or name one with checkpoint=")
    print(f"checkpoint=… was not given: sharing the newest run, {found}")
    return str(found)


if __name__ == "__main__":
    program.run(main, SHARE)
