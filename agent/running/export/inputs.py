"""The inputs of an exported agent: the parts of its observations, and modules that prepare them for its network.

`envs.observations` prepares observations in NumPy; tests compare the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from agent.common.errors import UserError
from agent.networks.masking import Masked
from envs.kinds import Space
from envs.leaves import leaves_of
from envs.make import Task
from envs.masks import MaskedObserver, source_of
from envs.observations import Observer
from envs.observed_parts import PartsObserver


@dataclass(frozen=True)
class Input:
    """One input of the file.

    Attributes:
        name: the input's name in the file.
        source: the Python expression that finds its values in `observation` and `info`.
        space: the space of one value; the input has a batch dimension before it.
    """

    name: str
    source: str
    space: Space

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the input: the dtype of the space."""
        dtype: np.dtype = np.dtype(self.space.dtype)
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value."""
        return tuple(self.space.shape or ())


def inputs_of(task: Task) -> list[Input]:
    """The inputs for the observations of a task, in the order of its leaves; a mask of actions comes last.

    Raises:
        UserError: if a part is a text, which the ONNX file cannot take.
    """
    space, source = task.observe.space, source_of(task.action_mask)
    pairs = source is not None and source[0] == "observation"  # the environment's observations, without the mask
    inputs = list(
        _inputs_below(task.observe.unmasked.space, "observation", "observation[0]" if pairs else "observation")
    )
    if source is not None:
        assert isinstance(space, spaces.Tuple)
        inputs.append(Input("action_mask", "observation[1]" if pairs else f"info[{source[1]!r}]", space.spaces[1]))
    if text_names := [item.name for item in inputs if isinstance(item.space, spaces.Text)]:
        raise UserError(
            f"{task.id} observes a text ({text_names[0]}), which to=onnx cannot take: leave it out in training"
        )
    return inputs


def _inputs_below(space: Space, name: str, source: str) -> Iterator[Input]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _inputs_below(part, f"{name}.{key}", f"{source}[{key!r}]")
    else:
        yield Input(name, source, space)


class Observe(nn.Module):
    """An Observer for tensors: leaves of observations [B, *shape] → vectors [B, n] or images [B, *shape]."""

    shift: Tensor
    scale: Tensor

    def __init__(self, observe: Observer) -> None:
        super().__init__()
        self.leaves, self.spec, self.axes = list(leaves_of(observe.space)), observe.spec, observe.axes
        self.moved = observe.shift is not None
        for name, value in (("shift", observe.shift), ("scale", observe.scale)):
            self.register_buffer(name, torch.from_numpy(np.asarray(0.0 if value is None else value)), persistent=False)

    def forward(self, leaves: Sequence[Tensor]) -> Tensor:
        """Maps leaves to floats; images that are stored as bytes or booleans stay so."""
        x = self._image(leaves[0]) if self.spec.is_image else self._vector(leaves)
        if self.moved:
            return ((x.double() - self.shift) * self.scale).float()
        return x if self.spec.is_image and self.spec.dtype != "float32" else x.float()

    def _image(self, x: Tensor) -> Tensor:
        x = x.permute(self.axes) if self.axes else x
        return x.reshape(-1, *self.spec.shape)

    def _vector(self, leaves: Sequence[Tensor]) -> Tensor:
        parts = [_flat(space, x) for space, x in zip(self.leaves, leaves, strict=True)]
        exact = torch.float64 if self.moved or len({part.dtype for part in parts}) > 1 else parts[0].dtype
        return parts[0] if len(parts) == 1 else torch.cat([part.to(exact) for part in parts], dim=1)


def _flat(space: object, x: Tensor) -> Tensor:
    """A leaf [B, *shape] as [B, n], flattened as Gymnasium does it: integers in a finite set become one-hot."""
    if isinstance(space, spaces.Discrete):
        return _one_hot(x, int(space.n), int(space.start))
    x = x.flatten(1)
    if not isinstance(space, spaces.MultiDiscrete):
        return x
    pairs = zip(space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist(), strict=True)
    return torch.cat([_one_hot(x[:, i], n, start) for i, (n, start) in enumerate(pairs)], dim=1)


def _one_hot(x: Tensor, n: int, start: int) -> Tensor:
    return (x.long().unsqueeze(1) == torch.arange(start, start + n)).float()


class ObserveParts(nn.Module):
    """A PartsObserver for tensors, without rows of bytes: leaves → the parts that a PartsEncoder takes."""

    def __init__(self, observe: PartsObserver) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Observe(part) for part in observe.observers)
        self.leaves, self.frames = observe.leaves, observe.frames
        self.shapes = [observe.spec.stacked(part).shape for part in observe.spec.parts]

    def forward(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The parts [B, *shape], with the frames of a stack as channels."""
        if self.frames > 1:
            leaves = [x.flatten(0, 1) for x in leaves]
        rows = zip(self.parts, self.leaves, self.shapes, strict=True)
        return [part([leaves[i] for i in indices]).reshape(-1, *shape) for part, indices, shape in rows]


class ObserveMasked(nn.Module):
    """A MaskedObserver for tensors, without rows of bytes: leaves, of which the last is a mask → Masked."""

    def __init__(self, observe: MaskedObserver) -> None:
        super().__init__()
        self.observation, self.is_single = observation_module(observe.unmasked), len(observe.spec.parts) == 1

    def forward(self, leaves: Sequence[Tensor]) -> Masked:
        """Observations and masks, as a QNetwork takes them."""
        inputs = self.observation(leaves[:-1])
        return Masked(inputs[0] if self.is_single and isinstance(inputs, list) else inputs, leaves[-1] != 0)


def observation_module(observe: Observer) -> nn.Module:
    """The module for an observer."""
    if isinstance(observe, MaskedObserver):
        return ObserveMasked(observe)
    return ObserveParts(observe) if isinstance(observe, PartsObserver) else Observe(observe)
