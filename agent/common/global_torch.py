"""torch's global random generator, from which an encoder or a head of the user's own may draw, as dropout does.

This project never draws from it. To make a run repeatable, the run seeds it before the network is built, and its
checkpoints hold its state. Code that plays an agent beside the run restores it afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from agent.common.seeding import seed_sequence


def global_generator(device: torch.device) -> torch.Generator:
    """The global generator of a device: that of CUDA or of the CPU."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()  # type: ignore[no-untyped-call]  # it makes the generators
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


def _generators(device: torch.device) -> list[torch.Generator]:
    """The generators of the CPU and of the device, each once."""
    others = [global_generator(device)] if device.type == "cuda" else []
    return [torch.default_generator, *others]


def seed_global_torch(seed: int, device: torch.device) -> None:
    """Seeds the generators of the CPU, on which the network is built, and of the device, on which it learns."""
    number = int(seed_sequence(seed, "global").generate_state(1, np.uint64)[0])
    for generator in _generators(device):
        generator.manual_seed(number)


@contextmanager
def global_torch_restored(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restores these generators after a block, which begins with generators seeded by `seed`, if that is given."""
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    if seed is not None:
        seed_global_torch(seed, device)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
