"""The network that acts: the online network, or a copy whose weights are held for some steps."""

import copy

import torch

from agent.common.state import State
from agent.networks.q_network import QNetwork, flatten_parameters, persistent_buffers


class HeldNetwork:
    """The network that acts, with the weights of the online network from at most `every` vector steps ago.

    A network that learns at each step changes its mind at each step. A policy that is held explores more
    consistently, as the actors of Ape-X do, which fetch new weights every 400 frames (Horgan et al. 2018).

    Args:
        online: the network that learns; its parameters are flat.
        parameters: its parameters, [P].
        every: the number of vector steps between two copies of the weights; 1: the online network itself acts.

    Attributes:
        network: the network that acts.
    """

    def __init__(self, online: QNetwork, parameters: torch.Tensor, every: int) -> None:
        self._every, self._steps = every, 0
        self.network, self._copies = online, []
        if every > 1:
            self.network = copy.deepcopy(online).requires_grad_(False)
            buffers = zip(*(persistent_buffers(one).values() for one in (self.network, online)), strict=True)
            self._copies = [(flatten_parameters(self.network), parameters), *buffers]

    def step(self) -> None:
        """Counts a vector step, and copies the weights if that is due before it."""
        if self._copies and self._steps % self._every == 0:
            with torch.no_grad():
                for ours, theirs in self._copies:
                    ours.copy_(theirs)
        self._steps += 1

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds."""
        return {"steps": self._steps, "copies": [ours for ours, _ in self._copies]} if self._copies else {}

    def load_state(self, state: State) -> None:
        """Restores `state`, which may come from another device."""
        if not self._copies:
            return
        self._steps = state["steps"]
        with torch.no_grad():
            for (ours, _), given in zip(self._copies, state["copies"], strict=True):
                ours.copy_(given)
