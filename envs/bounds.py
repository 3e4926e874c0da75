"""Bounds on the numeric arguments of an environment that a saved file names: the file may come from a stranger."""

from collections.abc import Mapping

from agent.common.errors import UserError
from envs.failure import described

#: A larger number could make an environment endless, or fill the memory.
MAX_NUMBER, MAX_SEED = 1_000_000, 2**63
#: Arguments with their own bounds.
MAX_ARGUMENTS = {"size": 1_000, "frameskip": 100, "frame_skip": 1_000, "max_num_frames_per_episode": 10**9}


def max_magnitude(name: str) -> int:
    """The largest absolute value that an argument may have."""
    return MAX_SEED if "seed" in name else MAX_ARGUMENTS.get(name, MAX_NUMBER)


def check_bounds(env_id: str, kwargs: Mapping[str, object]) -> None:
    """Refuses numbers that could make an environment from a file use up the machine's time or memory.

    Raises:
        UserError: an argument is too large.
    """
    for name, value in kwargs.items():
        if isinstance(value, int | float) and not abs(value) <= (limit := max_magnitude(name)):
            subject = f"env.kwargs.{name} of {env_id} is {described(value)}"
            raise UserError(f"{subject}: in a saved file it may be {limit:,} at most")
