"""One seed, split once into independent streams: no two parts of a run share one, and none uses a global generator."""

import numpy as np
import torch

from agent.common.seeds import STREAMS as STREAMS
from agent.common.seeds import environment_seeds as environment_seeds
from agent.common.seeds import seed_sequence as seed_sequence

Generator = torch.Generator | np.random.Generator


def torch_generator(seed: int, stream: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one stream, on a device."""
    state = seed_sequence(seed, stream, *key).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state))


def state_of(generator: Generator) -> object:
    """The state of a generator, for a checkpoint."""
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def restore(generator: Generator, state: object) -> None:
    """Restores a generator. The state of another kind of generator is ignored: the stream then starts anew."""
    if isinstance(generator, np.random.Generator):
        if isinstance(state, dict):
            generator.bit_generator.state = state
    elif isinstance(state, torch.Tensor) and len(state) == len(generator.get_state()):
        generator.set_state(state)


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """A NumPy generator for one stream."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, stream)))
