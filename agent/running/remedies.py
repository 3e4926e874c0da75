"""Options that make a replay fit into memory: fewer transitions, smaller or grey images, fewer parts."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.common.observation import ObservationSpec, packed
from envs.make import Task
from envs.observed_parts import image_parts, without_part

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
    """Options that make observations smaller, each with the resulting form."""
    spec = task.observation
    images = [part for part in spec.parts or (spec,) if part.is_image and part.dtype == "uint8"]
    if any(min(image.shape[1:]) > SIDE for image in images):
        yield _wrappers(task, "ResizeObservation", f"shape:[{SIDE},{SIDE}]"), _with_images(spec, _resized)
    if any(image.shape[0] // image.stack in (3, 4) and image.stack == 1 for image in images):
        yield _wrappers(task, "GrayscaleObservation", ""), _with_images(spec, _grey)
    if (fewer := without_part(task.observe.unmasked)) is not None:
        names, smaller = fewer
        yield f"env.observation=[{','.join(names)}]", smaller


def _wrappers(task: Task, name: str, argument: str) -> str:
    """The option that applies a wrapper to the images."""
    parts = [f"part:{part}" for part in image_parts(task.observe.unmasked)] or [""]
    entries = [",".join(filter(None, (argument, part))) for part in parts]
    return f"env.wrappers=[{','.join(f'{{{name}:{{{arguments}}}}}' if arguments else name for arguments in entries)}]"


def _with_images(spec: ObservationSpec, change: Callable[[ObservationSpec], ObservationSpec]) -> ObservationSpec:
    """The form with a change of its images of bytes."""
    if spec.parts:
        return packed([_with_images(part, change) for part in spec.parts], spec.stack, spec.mask)
    return change(spec) if spec.is_image and spec.dtype == "uint8" else spec


def _resized(image: ObservationSpec) -> ObservationSpec:
    smaller = min(image.shape[1:]) > SIDE
    return replace(image, shape=(image.shape[0], SIDE, SIDE)) if smaller else image


def _grey(image: ObservationSpec) -> ObservationSpec:
    return replace(image, shape=(1, *image.shape[1:])) if image.stack == 1 and image.shape[0] in (3, 4) else image
