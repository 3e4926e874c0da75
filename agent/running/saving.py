"""Writes a run's agents, checkpoints and notes on evaluations to its folder."""

from collections.abc import Mapping

import torch

from agent.records.checkpoint import save_checkpoint
from agent.records.names import AGENT
from agent.records.saved_agent import save_agent
from agent.running.failures import Folder
from agent.running.progress import checkpoint_folder, note_evaluation


class Saver:
    """Writes to a run's folder, as long as it is not moved or replaced.

    Args:
        folder: the folder of the run.
        keep: the number of checkpoints to keep.

    Attributes:
        step: the step of the newest checkpoint; −1 if there is none.

    Raises:
        UserError: from every method, if the folder is gone or cannot be written.
    """

    def __init__(self, folder: Folder, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self.step = -1

    def agent(self, which: str, tensors: Mapping[str, torch.Tensor], description: Mapping[str, object]) -> None:
        """Writes the best agent, or the last."""
        self._folder.check()
        save_agent(self._folder.path / which / AGENT, tensors, description)

    def checkpoint(
        self,
        step: int,
        state: Mapping[str, object],
        tensors: Mapping[str, torch.Tensor],
        description: Mapping[str, object],
    ) -> None:
        """Writes everything that a resumed run needs, and the last agent."""
        self._folder.check()
        (self._folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)  # before `last`, see open_run
        self.agent("last", tensors, description)
        save_checkpoint(self._folder.path, step, state, self._keep)
        self.step = step

    def evaluation(self, step: int, state: Mapping[str, object]) -> None:
        """Writes the state after an evaluation beside the checkpoint of its step, which was saved before it."""
        self._folder.check()
        note_evaluation(checkpoint_folder(self._folder.path, step), state)
