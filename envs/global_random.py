"""The random generators that belong to nobody, `np.random` and `random`, from which some environments draw.

This project never draws from them. So that a run repeats, each process in which environments play seeds both, and
whatever else plays an environment leaves them as they were. This is the only file that may touch them.
"""
# ruff: noqa: NPY002 (it is these generators that environments draw from)

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from envs.kinds import Info, Observation, Wrapper


def seed_global_generators(seed: int, copy: int = 0) -> None:
    """Seeds both from (seed, number of the copy that plays in this process)."""
    state = np.random.SeedSequence(seed, spawn_key=(copy,)).generate_state(8, np.uint32)
    np.random.seed(state[:4])
    random.seed(state[4:].tobytes())


def state_of_global_generators() -> tuple[object, ...]:
    """Where both stand; equal as long as nobody draws."""
    name, keys, *rest = np.random.get_state()
    return name, keys.tobytes(), *rest, random.getstate()  # type: ignore[attr-defined]


@contextmanager
def temporary_global_seed(seed: int) -> Iterator[None]:
    """Seeds both for what is done inside, and lets them stand afterwards where they stood."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    seed_global_generators(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Plays an environment apart from whatever else this process does: with generators of its own, as above.

    An environment that changes the current folder changes it for itself alone.
    """
    try:
        folder = Path.cwd()
    except OSError:  # it was deleted
        folder = None
    try:
        with temporary_global_seed(seed):
            yield
    finally:
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)


class SeedsGlobalGenerators(Wrapper):
    """An environment that has a process to itself: a reset with a seed seeds the global generators as well."""

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Resets with a seed of everything that can be drawn from."""
        if seed is not None:
            seed_global_generators(seed)
        return self.env.reset(seed=seed, options=options)
