"""The settings of the process. The sentences about devices and memory are tested in test_cli."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from agent.common.errors import UserError
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.console import Console
from agent.running.resources import (
    FILES,
    FILES_OF_A_PROCESS,
    check_open_files,
    check_replay_memory,
    cores,
    prepare_cpu,
    threads_for_numpy,
)
from agent.running.run import warn

#: Prints the page faults of the third round of large arrays, in a process with or without our settings.
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


@pytest.mark.parametrize(
    ("processes", "allowed", "enough"), [(0, 30, False), (0, 32, True), (8, 50, False), (8, 56, True)]
)
def test_too_few_open_files_are_told_before_anything_fails(
    processes: int, allowed: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10, allowed]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: now.__setitem__(0, limits[0]))
    if enough:
        check_open_files(processes)
        assert now == [FILES + FILES_OF_A_PROCESS * processes, allowed]
    else:
        with pytest.raises(UserError, match=rf"may have {allowed} files open at a time, and needs .*ulimit -n"):
            check_open_files(processes)


def test_no_limit_of_open_files_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, hard in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (1024, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda _which, limits=(soft, hard): limits)
        check_open_files(1000) if soft == resource.RLIM_INFINITY else check_open_files(0)


def test_tiny_numbers_are_taken_for_zero() -> None:
    """Adam's averages fade to such numbers if a gradient stays 0, and these then cost no more than 0."""
    prepare_cpu(1)
    fading = np.full(4, 2e-38, np.float32)
    assert not (fading * np.float32(0.1)).any()
    assert not (torch.from_numpy(fading) * 0.1).any()
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_freed_memory_is_kept_for_the_next_arrays() -> None:
    """Sixteen arrays of 3 MiB have 12 288 pages. Without the setting every round fetches them again."""
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
    """Threads of both libraries wait in loops, on cores that the other library needs."""

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


def test_an_earlier_run_of_the_process_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay of an earlier run may be in a cycle of references, which only the garbage collector frees."""
    free = [10, 1000]
    monkeypatch.setattr("agent.running.resources.available_bytes", lambda device: free.pop(0))
    check_replay_memory(500, torch.device("cpu"), lambda left: "")
    free = [10, 20]
    with pytest.raises(UserError, match=r"lower agent\.replay_size"):
        check_replay_memory(500, torch.device("cpu"), lambda left: "")


def test_more_threads_than_cores_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(100, enabled=False)
    warn(parse(TrainConfig, {"env": {"id": "CartPole-v1"}, "threads": cores()}), console)
    assert "threads" not in capsys.readouterr().err
    warn(parse(TrainConfig, {"env": {"id": "CartPole-v1"}, "threads": cores() + 1}), console)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"threads={cores() + 1} is more than the {cores()} cores that this process may use")
