"""The inputs of an exported agent: the parts of its observations, and modules that prepare them for its network.

`envs.observations` prepares observations in NumPy; tests compare the two.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from agent.common.errors import UserError
from agent.networks.masking import Masked
from envs.kinds import Space
from envs.leaves import leaves_of
from envs.make import Task
from envs.masks import OFF, MaskedObserver, mask_part, source_of
from envs.observations import Observer
from envs.observed_parts import PartsObserver
from envs.parts import named_parts
from envs.wrapping import BARE


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

    Where a task has wrappers, the sources are of the wrapped environment, and `masks["now"]` is a mask that was a part
    of the observation; otherwise they are of the environment of its id.

    Raises:
        UserError: if a part is a text, which the ONNX file cannot take.
    """
    space, source = task.observe.space, source_of(task.action_mask)
    kept = None if task.wrapping.wraps else kept_parts(task)
    inputs = _told_apart(list(_observed(task.observe.unmasked.space, kept)))
    if source is not None:
        assert isinstance(space, spaces.Tuple)
        place, key = source
        place = 'masks["now"]' if place == "observation" and task.wrapping.wraps else f"{place}[{literal(key)}]"
        inputs.append(Input("action_mask", place, space.spaces[1]))
    if text_names := [item.name for item in inputs if isinstance(item.space, spaces.Text)]:
        raise UserError(
            f"{task.id} observes a text ({text_names[0]}), which to=onnx cannot take: leave it out in training"
        )
    return inputs


def kept_parts(task: Task) -> list[str | int] | None:
    """The keys of the kept parts of the environment's observations; None if the observations are used as a whole."""
    mask = mask_part(task.action_mask)
    if not task.wrapping.parts and mask is None:
        return None
    env = replace(task, wrapping=BARE, action_mask=OFF).make()
    space = env.observation_space
    env.close()
    keys: Iterable[str | int]
    keys = space.spaces if isinstance(space, spaces.Dict) else range(len(named_parts(space)))
    return [key for key in keys if str(key) != mask and str(key) in (task.wrapping.parts or named_parts(space))]


def _observed(space: Space, kept: Sequence[str | int] | None) -> Iterator[Input]:
    """The inputs of an observation without its mask; `kept` are the keys of its parts in the environment's own."""
    if kept is not None and len(kept) == 1:
        yield from _named(space, "observation", f"observation[{literal(kept[0])}]")
    elif kept is not None and isinstance(space, spaces.Tuple):
        for number, (key, part) in enumerate(zip(kept, space.spaces, strict=True)):
            yield from _named(part, f"observation.{number}", f"observation[{key}]")
    else:
        yield from _named(space, "observation", "observation")


def _named(space: Space, name: str, source: str) -> Iterator[Input]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _named(part, f"{name}.{key}", f"{source}[{literal(key)}]")
    else:
        yield Input(name, source, space)


def _told_apart(inputs: Sequence[Input]) -> list[Input]:
    """The inputs, of which each later one with the name of another gets a number: a key may hold the dot of a path."""
    taken, seen = {item.name for item in inputs}, set[str]()
    told_apart = []
    for item in inputs:
        name = item.name
        if name in seen:
            name = next(free for number in count(2) if (free := f"{item.name}_{number}") not in taken)
        taken.add(name)
        seen.add(name)
        told_apart.append(replace(item, name=name))
    return told_apart


def literal(value: object) -> str:
    """A value in Python, with double quotes where it holds none."""
    text = repr(value)
    return text if '"' in text else text.replace("'", '"')


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
        """Maps leaves to floats; images that are stored as bytes stay so."""
        x = self._image(leaves[0]) if self.spec.is_image else self._vector(leaves)
        if self.moved:
            return ((x.double() - self.shift) * self.scale).float()
        return x if self.spec.is_image and self.spec.dtype == "uint8" else x.float()

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
    x = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)  # [B] is of a space of shape ()
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
