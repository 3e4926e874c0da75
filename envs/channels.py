"""Finds the channels of an image: they are its first dimension or its last."""

from collections.abc import Sequence
from typing import Literal

from agent.common.errors import UserError

Channels = Literal["first", "last"]
#: `auto` finds the channels; `older` has the rule of the first version; `flat` makes vectors of images.
BoxChannels = Channels | Literal["auto", "older", "flat"]

#: The smallest height and width of an image that a convolution can use.
SMALLEST_SIDE = 3
#: Channels of grey images, of colours, and of colours with transparency or four grey frames.
USUAL_CHANNELS = (1, 3, 4)
#: An image with at least this height and width, and at most this many channels, is taken for a picture.
PICTURE_SIDE, PICTURE_CHANNELS = 32, 16
#: The greatest ratio of a board's sides, if only its shape tells its channels.
LONGEST_SQUARE = 1.5


def channels_of(env_id: str, shape: Sequence[int], requested: BoxChannels = "auto") -> Channels | None:
    """The dimension of an image [a, b, c] that holds the channels; None if height or width would be too small.

    Two equal neighbours are height and width. Otherwise the channels are the dimension of size 1, 3 or 4, or the one
    of at most 16 beside two of 32 and more, or the one that leaves a height and width of nearly the same size where
    the other would leave no image.

    Args:
        env_id: the environment's id, for error messages.
        shape: the three dimensions.
        requested: first | last: the user's choice; older: the shorter of the outer two, as in the first version;
            flat: the observation is a vector; auto.

    Raises:
        UserError: if the dimension cannot be found.
    """
    possible: list[Channels] = [side for side in _candidates() if min(sides(shape, side)) >= SMALLEST_SIDE]
    if requested == "older":
        requested = "first" if shape[0] < shape[2] else "last"
    if requested != "auto" or not possible:
        return next((side for side in possible if side == requested), None)
    for is_likely in (_equal, _usual, _small):
        found: list[Channels] = [side for side in _candidates() if is_likely(shape, side)]
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


def _candidates() -> tuple[Channels, Channels]:
    return "first", "last"


def _depth(shape: Sequence[int], channels: Channels) -> int:
    return shape[0] if channels == "first" else shape[2]


def _equal(shape: Sequence[int], channels: Channels) -> bool:
    height, width = sides(shape, channels)
    return height == width


def _usual(shape: Sequence[int], channels: Channels) -> bool:
    return _depth(shape, channels) in USUAL_CHANNELS


def _small(shape: Sequence[int], channels: Channels) -> bool:
    return _depth(shape, channels) <= PICTURE_CHANNELS and min(sides(shape, channels)) >= PICTURE_SIDE


def _square(shape: Sequence[int], channels: Channels) -> bool:
    height, width = sides(shape, channels)
    return max(height, width) <= LONGEST_SQUARE * min(height, width)
