"""Losses in NumPy on a CPU, and their derivatives with respect to the streams' outputs. Tests compare with autograd.

`goal` takes the outputs of the target network's streams at s', and `loss` those of the online network at s: [B, A] or
[B, A, K].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from agent.config.algorithm import AgentConfig
from agent.networks.heads.base import AnyHead
from agent.networks.heads.categorical import CategoricalHead
from agent.networks.heads.expected import ExpectedHead
from agent.replay.batch import Batch

Array = np.ndarray
#: batch, outputs at s', the action [B] that is selected there → the goal of the predictions, [B] or [B, K]
Goal = Callable[[Batch[np.ndarray], Array, Array], Array]
#: outputs at s, actions [B], goal, weight [B] or None → loss, gradient for the outputs, priorities [B] or None
Loss = Callable[[Array, Array, Array, Array | None], tuple[Any, Array, Array | None]]


class ByHand(NamedTuple):
    """Goal and loss for a config and a head."""

    goal: Goal
    loss: Loss


TINY = np.float32(np.finfo(np.float32).tiny)


def expected(config: AgentConfig, head: ExpectedHead) -> ByHand:
    """Huber's or the squared loss of one number per action, as td_loss in agent/networks/heads/expected.py."""
    bound, squared, limits = head.threshold, head.loss_name == "squared", config.target_range
    starts = np.arange(config.batch_size) * head.shape[0]

    def rows_of(values: Array) -> Array:
        """Where each row of values [B, A] begins."""
        return starts[: len(values)] if len(values) <= len(starts) else np.arange(0, values.size, values.shape[1])

    def goal(batch: Batch[np.ndarray], next_outputs: Array, next_action: Array) -> Array:
        result: Any = next_outputs.take(rows_of(next_outputs) + next_action)
        result *= batch.discount
        result += batch.reward
        if limits is not None:
            result = result.clip(*limits)
        return result  # type: ignore[no-any-return]

    def loss(outputs: Array, action: Array, goal: Array, weight: Array | None) -> tuple[Any, Array, Array | None]:
        chosen = rows_of(outputs) + action
        error = outputs.take(chosen)
        error -= goal
        slope = error if squared else np.maximum(np.minimum(error, bound), -bound)
        weighted = slope if weight is None else slope * weight
        mean = np.dot(weighted, error - 0.5 * slope) / len(chosen)  # Huber: of error e, clipped to [e], [e]·(e − ½[e])
        gradient = np.zeros(outputs.shape, np.float32)  # half the time of zeros_like
        gradient.reshape(-1)[chosen] = weighted / np.float32(len(chosen))
        return mean, gradient, None if weight is None else np.abs(error)

    return ByHand(goal, loss)


def categorical(config: AgentConfig, head: CategoricalHead) -> ByHand:
    """KL(goal ‖ prediction) of masses on atoms: see agent/networks/heads/categorical.py."""
    atoms, limits = head.atoms.numpy(), config.target_range

    def goal(batch: Batch[np.ndarray], next_outputs: Array, next_action: Array) -> Array:
        masses = np.exp(_log_softmax(next_outputs[np.arange(len(next_outputs)), next_action]))
        positions = np.multiply.outer(batch.discount, atoms)
        positions += batch.reward[:, None]
        return project(masses, positions if limits is None else positions.clip(*limits), atoms)

    def loss(outputs: Array, action: Array, goal: Array, weight: Array | None) -> tuple[Any, Array, Array | None]:
        rows = np.arange(len(outputs))
        log_masses = _log_softmax(outputs[rows, action])
        # The divergence, with 0·ln 0 = 0; its derivative with respect to the logits is softmax·Σ goal − goal.
        losses = np.einsum("bk,bk->b", goal, np.log(np.maximum(goal, TINY)) - log_masses)
        slope = np.exp(log_masses)
        slope *= goal.sum(axis=1, keepdims=True)
        slope -= goal
        weighted = losses if weight is None else losses * weight
        slope *= (np.float32(1.0) if weight is None else weight[:, None]) / np.float32(len(rows))
        gradient = np.zeros_like(outputs)
        gradient[rows, action] = slope
        return weighted.mean(), gradient, None if weight is None else losses

    return ByHand(goal, loss)


#: The heads whose loss and derivative are in this file.
LOSSES: dict[type[AnyHead], Callable[[AgentConfig, Any], ByHand]] = {
    ExpectedHead: expected,
    CategoricalHead: categorical,
}


def project(masses: Array, positions: Array, atoms: Array) -> Array:
    """Moves masses [B, K] at positions [B, K] to evenly spaced atoms [K]: each to its two neighbours.

    It goes through B·K masses. `project` in agent/networks/heads/categorical.py goes through B·K·K pairs, since an
    accelerator would add the masses that move to one atom in any order, which changes the rounding.
    """
    last = len(atoms) - 1
    place = (positions - atoms[0]) * np.float32(last / (atoms[-1] - atoms[0]))
    np.clip(place, 0.0, last, out=place)
    # The upper neighbour of the last atom would be outside; fmin turns NaN into a valid place.
    low = np.fmin(place, np.float32(last - 1)).astype(np.int64)
    above = (place - low) * masses
    low += np.arange(0, low.size, last + 1)[:, None]
    index = low.reshape(-1)
    moved = np.bincount(index, (masses - above).reshape(-1), minlength=low.size)
    moved[1:] += np.bincount(index, above.reshape(-1), minlength=low.size)[:-1]
    return moved.astype(np.float32).reshape(low.shape)


def _log_softmax(logits: Array) -> Array:
    """ln softmax of logits [B, K], over K."""
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
