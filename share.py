"""Shares a saved agent: python share.py checkpoint=runs/CartPole-v1/<run> to=onnx (--help for more)."""

import _signal as signal  # type: ignore[import-not-found]  # built in: nothing is sooner

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C has no traceback in the milliseconds until `begin`

from agent.common.beginning import begin

if __name__ == "__main__":
    begin()  # first: the imports take a second

from collections.abc import Iterable
from pathlib import Path

import hydra
from omegaconf import DictConfig

from agent.command import errors, program
from agent.command.composing import sharing_request, to_options
from agent.command.program import SHARE
from agent.common.errors import UserError
from agent.config.share import ShareConfig
from agent.records.evaluations import beside
from agent.records.newest import newest_agent
from agent.running.export.folder import write_folder
from agent.running.export.hub import push, push_command, write_hub_folder
from agent.running.fetching import checked_repo, own_file
from agent.running.player import load_player
from agent.running.resources import prepare_cpu


@hydra.main(version_base="1.3", config_path="conf/share", config_name="share")
def main(cfg: DictConfig) -> None:
    """Shares the requested agent."""
    with errors.sentences(SHARE):
        run(sharing_request(to_options(cfg)))


def run(config: ShareConfig) -> None:
    """Writes the files, prints their paths, and pushes them if requested."""
    prepare_cpu(1)
    if config.repo is not None:
        checked_repo(config.repo, f"repo={config.repo}")
    file = own_file(config.checkpoint or newest_agent(config.which, "sharing"), config.which)
    folder = Path(config.out or beside(file, "onnx" if config.repo is None else "hub"))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: name a folder, which the agent is written to")
    player, absolute = load_player(file), folder.absolute()
    if config.repo is None:
        written: Iterable[Path] = write_folder(player, absolute, config.noise)
    else:
        written = write_hub_folder(player, absolute, config.repo)
    for path in written:
        print(f"wrote {folder / path.name}")
    if config.repo is not None:
        send(absolute, folder, config.repo, config)


def send(absolute: Path, folder: Path, repo: str, config: ShareConfig) -> None:
    """Pushes the folder, or prints the command that pushes it."""
    address = push(absolute, repo, config.private) if config.push else None
    if address is not None:
        print(f"pushed to {address}")
        return
    login = "hf auth login && " if config.push else ""
    print(f"not pushed{', nobody is logged in' if config.push else ''}; push it with: {login}", end="")
    print(push_command(folder, repo, config.private))


if __name__ == "__main__":
    program.run(main, SHARE)
