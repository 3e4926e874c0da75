"""Arrays that are flattened to vectors where their author may have meant something else."""

from collections.abc import Iterator
from math import prod

from gymnasium import spaces

from agent.common.errors import UserError
from envs.channels import PICTURE_SIDE, SMALLEST_SIDE
from envs.leaves import leaves_of
from envs.observations import WIDEST_RANGE, Observer, has_bounds
from envs.observed_parts import PartsObserver
from envs.parts import named_parts


def check_shapes(observe: Observer) -> None:
    """Refuses arrays of four sides and more: nobody can tell which are frames, channels, depth, height and width.

    Raises:
        UserError: says what makes a vector or an image of them.
    """
    for name, box in flattened(observe):
        if len(box.shape) > 3:
            part, option = (f" in {name!r}", f",part:{name}") if name else ("", "")
            raise UserError(
                f"{observe.env_id} observes arrays of {len(box.shape)} sides{part}, {box.shape}, which no network here "
                f"takes: env.wrappers=[{{ReshapeObservation:{{shape:[{prod(box.shape)}]{option}}}}}] makes vectors of "
                "them, and a shape of three sides images"
            )


def note_on_shapes(observe: Observer) -> str | None:
    """A note on arrays that are vectors only because their Box has no bounds."""
    for name, box in flattened(observe):
        smallest = SMALLEST_SIDE if len(box.shape) == 3 else PICTURE_SIDE
        large = len(box.shape) in (2, 3) and sorted(box.shape)[-2] >= smallest
        if large and not has_bounds(box):
            part = f"{name!r} of observations" if name else "observations"
            return (
                f"{part} of shape {box.shape} are vectors of {prod(box.shape):,} numbers, since the range of their Box "
                f"is 0, or {WIDEST_RANGE:,.0f} or more; with other bounds they are images"
            )
    return None


def flattened(observe: Observer) -> Iterator[tuple[str, spaces.Box]]:
    """The Boxes that become vectors; with the name of the part of a Dict or a Tuple that each belongs to, or ''."""
    observe = observe.unmasked
    names = [name for name, part in named_parts(observe.space).items() for _ in leaves_of(part)]
    observers = observe.observers if isinstance(observe, PartsObserver) else (observe,)
    for one in observers:
        leaves = list(leaves_of(one.space))
        numbers = observe.leaves[observers.index(one)] if isinstance(observe, PartsObserver) else range(len(leaves))
        for number, leaf in zip(numbers, leaves, strict=True):
            if isinstance(leaf, spaces.Box) and not one.spec.is_image:
                yield names[number] if names else "", leaf
