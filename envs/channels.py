"""Which of the three sides of an image are its channels: the first, or the last."""

from collections.abc import Sequence
from typing import Literal

from agent.common.errors import UserError

Channels = Literal["first", "last"]

#: The smallest height and width of an image: below, there is nothing to convolve.
SMALLEST_SIDE = 3
#: Channels of grey, of colours, and of colours with transparency or of four grey frames.
USUAL = (1, 3, 4)
#: A picture's height and width are at least the one and its channels at most the other, whatever its sides.
PICTURE_SIDE, PICTURE_CHANNELS = 32, 16
#: How many times as long as the other a board's longer side is where nothing but its form tells its channels.
LONGEST_SQUARE = 1.5


def channels_of(env_id: str, shape: Sequence[int], asked: str = "auto") -> Channels | None:
    """Where an image [a, b, c] has its channels; None where it is a vector, as its height or width would be too small.

    Of three sides, two equal neighbours are height and width. Otherwise the side that is 1, 3 or 4 holds the channels,
    or the one of at most 16 beside two of 32 and more, or the one that leaves a height and width of nearly the same
    size where the other would leave no image.

    Args:
        env_id: for the error.
        shape: the three sides.
        asked: first | last: it is said by a person; older: the shorter of the outer two, as the first version had it;
            flat: it is a vector.

    Raises:
        UserError: where it cannot be told.
    """
    possible: list[Channels] = [where for where in _both() if min(sides(shape, where)) >= SMALLEST_SIDE]
    if asked == "older":
        asked = "first" if shape[0] < shape[2] else "last"
    if asked != "auto" or not possible:
        return next((where for where in possible if where == asked), None)
    for likely in (_equal, _usual, _small):
        found: list[Channels] = [where for where in _both() if likely(shape, where)]
        if len(found) == 1:
            return found[0] if found[0] in possible else None
        if found:
            break
    else:
        if len(possible) == 1 and _square(shape, possible[0]):
            return possible[0]
    raise UserError(
        f"{env_id} observes images of {tuple(shape)}, and nothing says which side are the channels: "
        "write env.channels=first or env.channels=last"
    )


def sides(shape: Sequence[int], channels: Channels) -> Sequence[int]:
    """Height and width."""
    return shape[1:] if channels == "first" else shape[:2]


def _both() -> tuple[Channels, Channels]:
    return "first", "last"


def _depth(shape: Sequence[int], channels: Channels) -> int:
    return shape[0] if channels == "first" else shape[2]


def _equal(shape: Sequence[int], channels: Channels) -> bool:
    height, width = sides(shape, channels)
    return height == width


def _usual(shape: Sequence[int], channels: Channels) -> bool:
    return _depth(shape, channels) in USUAL


def _small(shape: Sequence[int], channels: Channels) -> bool:
    return _depth(shape, channels) <= PICTURE_CHANNELS and min(sides(shape, channels)) >= PICTURE_SIDE


def _square(shape: Sequence[int], channels: Channels) -> bool:
    height, width = sides(shape, channels)
    return max(height, width) <= LONGEST_SQUARE * min(height, width)
