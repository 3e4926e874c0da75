"""The networks of the workloads in plain torch, for the libraries whose users bring their own."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from workloads import Workload

ATOMS = 51
Linear = Callable[[int, int], nn.Module]


def trunk(workload: Workload, shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """The convolutions of a workload for observations of a shape, and how many features come out of them."""
    layers: list[nn.Module] = []
    if workload.trunk == "nature":
        layers = [nn.Conv2d(shape[0], 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten(-3)]
    elif workload.trunk == "minatar":
        layers = [nn.Conv2d(shape[0], 16, 3), nn.ReLU(), nn.Flatten(-3)]
    with torch.no_grad():
        features = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    return layers, features


def linear_layers(widths: list[int], linear: Linear) -> list[nn.Module]:
    """Linear layers with a ReLU between two of them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


class QNetwork(nn.Module):
    """Observations [B, *shape], as an environment gives them, to action values [B, actions]."""

    def __init__(self, workload: Workload, shape: tuple[int, ...], actions: int, linear: Linear) -> None:
        super().__init__()
        self.scale = 255.0 if workload.trunk == "nature" else 1.0
        convolutions, features = trunk(workload, shape)
        self.layers = nn.Sequential(*convolutions, *linear_layers([features, *workload.hidden, actions], linear))

    def forward(self, observation: Tensor) -> Tensor:
        return self.layers(as_input(observation, self.scale))


class RainbowNetwork(nn.Module):
    """Dueling streams over 51 atoms: logits [B, actions, atoms], or atoms first as TorchRL wants them."""

    def __init__(
        self, workload: Workload, shape: tuple[int, ...], actions: int, linear: Linear, atoms_first: bool = False
    ) -> None:
        super().__init__()
        self.scale = 255.0 if workload.trunk == "nature" else 1.0
        self.actions, self.atoms_first = actions, atoms_first
        convolutions, features = trunk(workload, shape)
        *shared, last = workload.hidden
        widths = [features, *shared]
        body = linear_layers(widths, linear)
        self.body = nn.Sequential(*convolutions, *body, *([nn.ReLU()] if body else []))
        self.value = nn.Sequential(*linear_layers([widths[-1], last, ATOMS], linear))
        self.advantage = nn.Sequential(*linear_layers([widths[-1], last, actions * ATOMS], linear))

    def forward(self, observation: Tensor) -> Tensor:
        features = self.body(as_input(observation, self.scale))
        advantage = self.advantage(features).unflatten(-1, (self.actions, ATOMS))
        logits = self.value(features).unsqueeze(-2) + advantage - advantage.mean(dim=-2, keepdim=True)
        return logits.transpose(-1, -2) if self.atoms_first else logits


def as_input(observation: Tensor, scale: float) -> Tensor:
    return observation.float() if scale == 1.0 else observation.float() / scale
