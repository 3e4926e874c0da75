"""Episodes beside training: evaluations and films draw from the global generators, and training draws as before."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.common.global_torch import global_torch_restored
from agent.networks.q_network import QNetwork
from envs.global_random import isolated


@contextmanager
def apart(network: QNetwork, seed: int) -> Iterator[None]:
    """Seeds the global generators of NumPy, Python and torch for a block, and restores them and the current folder."""
    with isolated(seed), global_torch_restored(next(network.parameters()).device, seed):
        yield
