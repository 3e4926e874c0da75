"""Options that make a replay fit into memory: fewer transitions, smaller or grey images, fewer parts."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec
from agent.common.quoting import from_python
from envs.make import Task, load_task
from envs.observed_parts import images_of_bytes, without_part
from envs.wrapping import Wrap, Wrapping

#: Height and width of resized images, as in Atari.
SIDE = 84

#: Maps the capacity of a replay and the form of its observations to bytes.
Bytes = Callable[[int, ObservationSpec], int]


def remedies(task: Task, capacity: int, bytes_of: Bytes, free: int) -> str:
    """The options that make a replay smaller, each with the memory that it then needs, and whether it fits.

    Args:
        task: the task of the replay.
        capacity: the number of transitions that does not fit.
        bytes_of: the bytes that a replay needs.
        free: the bytes that are free.
    """
    spec = task.observation
    fits = fitting(capacity, lambda transitions: bytes_of(transitions, spec), free)
    options = [(f"agent.replay_size={fits}", bytes_of(fits, spec))] if fits else []
    options += [(option, bytes_of(capacity, smaller)) for option, smaller in _smaller(task)]
    shown = (
        f"{option} ({size / 2**30:.2f} GiB{'' if size <= free else ', not enough alone'})" for option, size in options
    )
    return " or ".join(shown)


def fitting(capacity: int, bytes_of: Callable[[int], int], free: int) -> int:
    """The largest number of transitions with two significant digits that fits; 0 if not even ten fit."""
    estimate = int(capacity * free / bytes_of(capacity))
    digits = 10 ** max(len(str(estimate)) - 2, 0)
    rounded = estimate // digits * digits
    while rounded >= 10 and bytes_of(rounded) > free:
        rounded -= digits
    return rounded if rounded >= 10 else 0


def _smaller(task: Task) -> Iterator[tuple[str, ObservationSpec]]:
    """Options that make observations smaller, each with the form that they have with it: each is tried."""
    arguments = task.id, task.kwargs, task.time_limit, task.observe.channels or "auto"
    for option, wrapping in _wrappings(task):
        try:
            smaller = load_task(*arguments, wrapping, task.action_mask).observation
        except UserError:  # such as for three channels that are no colours
            continue
        if smaller.stored_bytes < task.observation.stored_bytes:
            yield option, smaller


def _wrappings(task: Task) -> Iterator[tuple[str, Wrapping]]:
    """Options that may make observations smaller, each with the wrappers that it stands for."""
    wrapping, images = task.wrapping, images_of_bytes(task.observe.unmasked)
    large = [name for name, image in images.items() if min(image.shape[1:]) > SIDE]
    coloured = [name for name, image in images.items() if image.shape[0] == 3 * image.stack]
    resizing: tuple[tuple[str, object], ...] = (("shape", (SIDE, SIDE)),)
    for wrapper, names in ((Wrap("ResizeObservation", resizing), large), (Wrap("GrayscaleObservation"), coloured)):
        if names:
            added = [replace(wrapper, part=name) for name in names]
            changed = replace(wrapping, wraps=(*added, *wrapping.wraps))
            yield _option("env.wrappers", [wrap.plain() for wrap in changed.wraps]), changed
    if fewer := without_part(task.observe.unmasked):
        yield _option("env.observation", list(fewer)), replace(wrapping, parts=fewer)


def _option(name: str, value: object) -> str:
    (option,) = from_python(name, value)
    return option
