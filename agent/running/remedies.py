"""Options that make a replay fit: a smaller one, smaller or grey images, fewer parts; each with its size."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.common.observation import ObservationSpec, packed
from envs.make import Task
from envs.observed_parts import image_parts, without_part

#: Height and width of images that are resized, as of Atari's.
SIDE = 84

#: Bytes of a replay of a capacity for observations of a form.
Bytes = Callable[[int, ObservationSpec], int]


def remedies(task: Task, capacity: int, bytes_of: Bytes, free: int) -> str:
    """The options that make a replay smaller, with the bytes that it needs then, and whether it fits.

    Args:
        task: what is stored.
        capacity: transitions, too many of them.
        bytes_of: what a replay needs.
        free: what there is.
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
    """The most transitions of two significant digits that fit; 0 where not even ten do."""
    estimate = int(capacity * free / bytes_of(capacity))
    digits = 10 ** max(len(str(estimate)) - 2, 0)
    rounded = estimate // digits * digits
    while rounded >= 10 and bytes_of(rounded) > free:
        rounded -= digits
    return rounded if rounded >= 10 else 0


def _smaller(task: Task) -> Iterator[tuple[str, ObservationSpec]]:
    """Options that make observations smaller, with the form that these have then."""
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
    """The option that puts a wrapper on the images."""
    parts = [f"part:{part}" for part in image_parts(task.observe.unmasked)] or [""]
    entries = [",".join(filter(None, (argument, part))) for part in parts]
    return f"env.wrappers=[{','.join(f'{{{name}:{{{arguments}}}}}' if arguments else name for arguments in entries)}]"


def _with_images(spec: ObservationSpec, change: Callable[[ObservationSpec], ObservationSpec]) -> ObservationSpec:
    """The form with its images of bytes changed."""
    if spec.parts:
        return packed([_with_images(part, change) for part in spec.parts], spec.stack, spec.mask)
    return change(spec) if spec.is_image and spec.dtype == "uint8" else spec


def _resized(image: ObservationSpec) -> ObservationSpec:
    smaller = min(image.shape[1:]) > SIDE
    return replace(image, shape=(image.shape[0], SIDE, SIDE)) if smaller else image


def _grey(image: ObservationSpec) -> ObservationSpec:
    return replace(image, shape=(1, *image.shape[1:])) if image.stack == 1 and image.shape[0] in (3, 4) else image
