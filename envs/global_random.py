"""The global random generators, `np.random` and `random`, from which some environments draw.

This project never draws from them. To make a run repeatable, each process that plays environments seeds both, and any
other code that plays an environment restores them afterwards. This is the only file that may use them.
"""
# ruff: noqa: NPY002 (environments draw from these generators)

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from envs.kinds import Info, Observation, Wrapper


def seed_global_generators(seed: int, copy: int = 0) -> None:
    """Seeds both from `seed` and the number of the copy that this process plays."""
    state = np.random.SeedSequence(seed, spawn_key=(copy,)).generate_state(8, np.uint32)
    np.random.seed(state[:4])
    random.seed(state[4:].tobytes())


def state_of_global_generators() -> tuple[object, ...]:
    """The state of both, which changes with every draw."""
    name, keys, *rest = np.random.get_state()
    return name, keys.tobytes(), *rest, random.getstate()  # type: ignore[attr-defined]


@contextmanager
def globals_restored() -> Iterator[None]:
    """Restores both generators and the current folder after a block that plays environments."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        folder = Path.cwd()
    except OSError:  # it was deleted
        folder = None
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Isolates the environment played in the block from the rest of the process: its draws, and its current folder."""
    with globals_restored():
        seed_global_generators(seed)
        yield


class SeedsGlobalGenerators(Wrapper):
    """An environment in its own process: a reset with a seed seeds the global generators as well."""

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Resets the environment; a seed seeds the global generators first."""
        if seed is not None:
            seed_global_generators(seed)
        return self.env.reset(seed=seed, options=options)
