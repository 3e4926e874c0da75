"""Metrics of an agent on a batch: its action values, and the effect of its noise on them."""

import torch
from torch import Tensor

from agent.common.global_torch import global_torch_restored
from agent.learning import targets
from agent.networks.q_network import FORBIDDEN, QNetwork, persistent_buffers
from agent.noise.distributions import NoiseModel

#: The most numbers of noise to draw at once: one row of independent noise has a number for each weight.
MOST_NOISE = 2**24


def diagnostics(
    network: QNetwork, model: NoiseModel, observation: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Scalars by the names of their metrics. They change neither the network nor the random streams of the agent.

    Args:
        network: the online network.
        model: how its noise is drawn.
        observation: [B, *shape], on the device of the network.
        generator: draws the noise.
    """
    buffers = persistent_buffers(network)
    # The encoder of a user may change its buffers in a forward pass; they are restored at the end.
    before = {name: value.clone() for name, value in buffers.items()}
    with torch.inference_mode(), global_torch_restored(observation.device):
        q_values = network(observation, None).q_values
        allowed = q_values > FORBIDDEN if network.masking is not None else None
        result = {"q/mean": _select(q_values, allowed).mean(), "q/max": q_values.max()}
        rows = min(len(observation), max(MOST_NOISE // max(model.size, 1), 1))
        noise = model.draw(rows, generator=generator, device=observation.device)
        if noise is not None:
            noisy, mean = network(observation[:rows], noise).q_values, q_values[:rows]
            changed = targets.greedy(noisy) != targets.greedy(mean)
            result["noise/action_change"] = changed.float().mean()
            result["noise/q_std"] = _select(noisy - mean, None if allowed is None else allowed[:rows]).std()
        for name, layer in network.noisy_layers().items():
            result[f"sigma/{name}"] = layer.mean_sigma()
        for name, value in before.items():
            buffers[name].copy_(value)
    return result


def _select(values: Tensor, allowed: Tensor | None) -> Tensor:
    """The values [k] of the actions that the masks allow; without masks all values."""
    return values if allowed is None else values[allowed]
