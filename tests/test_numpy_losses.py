"""The losses by NumPy: against torch, by hand, and at the edges. test_numpy_network.py checks gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.compute.numpy.losses import project
from agent.networks.heads import categorical


@pytest.mark.parametrize("count", [2, 3, 51])
def test_masses_move_as_by_torch(count: int) -> None:
    """Masses move to places inside, outside and exactly on the atoms, and their total stays 1."""
    random = np.random.default_rng(0)
    atoms = torch.linspace(-3.0, 5.0, count)
    for _ in range(50):
        masses = random.dirichlet(np.full(count, 0.3), size=7).astype(np.float32)
        places = random.uniform(-5.0, 7.0, (7, count)).astype(np.float32)
        places[:2] = random.choice(atoms.numpy(), (2, count))
        places[2], places[3] = -3.0, 5.0
        wanted = categorical.project(torch.from_numpy(masses), torch.from_numpy(places), atoms).numpy()
        moved = project(masses, places, atoms.numpy())
        np.testing.assert_allclose(moved, wanted, atol=2e-6)
        np.testing.assert_allclose(moved.sum(axis=1), 1.0, atol=1e-5)
        assert moved.dtype == np.float32


def test_what_is_no_number_stays_in_its_row() -> None:
    """The check of the loss finds a reward that is NaN, and the projection must not fail before it."""
    masses, places = np.full((3, 4), 0.25, np.float32), np.tile(np.arange(4, dtype=np.float32), (3, 1))
    wanted = project(masses, places, places[0])
    places[1] = np.nan, np.inf, -np.inf, 1.0
    moved = project(masses, places, places[0])
    assert np.isnan(moved[1]).any()
    np.testing.assert_array_equal(moved[::2], wanted[::2])


def test_a_mass_between_two_atoms_is_shared() -> None:
    """With atoms 0, 1, 2, the mass 0.8 at 1.25 becomes 0.6 at 1 and 0.2 at 2, and 0.2 beyond atom 2 moves to it."""
    masses, places = np.array([[0.8, 0.2, 0.0]], np.float32), np.array([[1.25, 9.0, 0.5]], np.float32)
    moved = project(masses, places, np.array([0.0, 1.0, 2.0], np.float32))
    np.testing.assert_allclose(moved, [[0.0, 0.6, 0.4]], atol=1e-6)
