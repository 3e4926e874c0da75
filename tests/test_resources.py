"""The process is set up as it says. What it says of devices and memory is tested where runs are refused: test_cli."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from agent.running.resources import prepare_cpu, threads_for_numpy

#: Page faults of a round of large arrays, after two others, in a process that was set up or was not.
FAULTS = """
import resource, sys
import numpy as np
from agent.running.resources import prepare_cpu
if sys.argv[1] == "prepared":
    prepare_cpu(1)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(3 * 2**18, np.float32) for _ in range(16)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_tiny_numbers_are_taken_for_zero() -> None:
    """What Adam's averages of a gradient that stays 0 fade to costs no more than 0 does."""
    prepare_cpu(1)
    fading = np.full(4, 2e-38, np.float32)
    assert not (fading * np.float32(0.1)).any()
    assert not (torch.from_numpy(fading) * 0.1).any()
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_freed_memory_is_kept_for_the_next_arrays() -> None:
    """Sixteen arrays of 3 MiB have 12 288 pages; without the setting they are fetched anew in every round."""
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how],
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for how in ("prepared", "as it is")
    }
    if faults["as it is"] < 5_000:
        pytest.skip(f"this C library keeps them by itself: {faults}")
    assert faults["prepared"] < 500


def test_only_one_of_torch_and_numpy_has_several_threads() -> None:
    """The threads of both wait in loops, on the cores that the other's need."""

    def numpys() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    try:
        prepare_cpu(2)
        assert (torch.get_num_threads(), numpys()) == (2, {1})
        threads_for_numpy(2)
        assert (torch.get_num_threads(), numpys()) == (1, {2})
    finally:
        prepare_cpu(1)
    assert (torch.get_num_threads(), numpys()) == (1, {1})
