"""The resources of the machine: devices and memory, checked before anything is allocated."""

import ctypes
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from threadpoolctl import threadpool_limits

from agent.common.errors import UserError

#: Constants of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Open files of a program with W&B and plots, and of each process of environments; the counts were 18 and 3.
FILES, FILES_OF_A_PROCESS = 32, 3


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` is CUDA if available, otherwise the CPU.

    Raises:
        UserError: this machine does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UserError(f"device is {name!r}: it must be one of auto, cpu, cuda, mps (or cuda:1, …)")
    kind, _, index = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not there: this machine has no Apple GPU; use device=cpu or device=auto")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu or device=auto"
        )
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams, graphs and pinned memory belong to the current device
    return device


@contextmanager
def cpu_restored() -> Iterator[None]:
    """Undoes `prepare_cpu` and `threads_for_numpy` after the block: threads, and the rounding of small numbers to 0."""
    threads, flushing = (
        torch.get_num_threads(),
        bool(torch.tensor(1e-40, dtype=torch.float32, device="cpu") * 1.0 == 0.0),
    )
    try:
        with threadpool_limits():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)


def prepare_cpu(count: int) -> None:
    """Sets up this process for speed on a CPU. Only the rounding of results may change.

    Torch uses `count` threads and NumPy one; see `threads_for_numpy`. This thread rounds numbers below 1e-38 to 0: if a
    gradient stays 0, as behind an inactive ReLU, Adam's averages shrink to such numbers, with which a processor takes
    several times as long. Freed memory is kept for later use.
    """
    torch.set_num_threads(count)
    threadpool_limits(1, user_api="blas")
    torch.set_flush_denormal(True)
    _keep_freed_memory()


def cores() -> int:
    """The cores that this process may use, of which a batch system or `taskset` may leave only some."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def threads_for_numpy(count: int) -> None:
    """Gives `count` threads to NumPy's matrix products and one to torch, for a network that NumPy computes.

    Only one of the two may have several threads, since waiting threads occupy the cores that the other needs: with two
    threads each, an update took ten times as long.
    """
    torch.set_num_threads(1)
    threadpool_limits(count, user_api="blas")


def _keep_freed_memory() -> None:
    """Makes glibc keep freed blocks of up to 32 MiB, and half a GiB in all, for reuse.

    Otherwise it returns a large layer's gradient to the system at every update, and fetches it again page by page.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that it accepts
    mallopt(M_TRIM_THRESHOLD, 512 * 2**20)


def available_bytes(device: torch.device) -> int:
    """Free memory of a device, in bytes; for the CPU and Apple's GPU, that of the machine or of its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    return max(0, int(min([free, *(bytes_left_in_group(group) for group in _control_groups())])))


def _control_groups() -> list[Path]:
    """The folders of this process's control groups (version 2), which containers and batch systems limit."""
    try:
        path = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:  # not Linux
        return []
    group = Path("/sys/fs/cgroup") / path
    return [group, *group.parents]


def bytes_left_in_group(group: Path) -> float:
    """Bytes that a control group leaves, including its file cache; infinity if it sets no limit."""
    try:
        limit, used = (float((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or the limit is "max"
        return float("inf")
    return limit - used + float(statistics.get("inactive_file", 0))


def check_replay_memory(needed: int, device: torch.device, remedies: Callable[[int], str]) -> None:
    """Refuses a replay that does not fit.

    Args:
        needed: the bytes that it needs.
        device: its device.
        remedies: maps the free bytes to the options that make it smaller, or to "".

    Raises:
        UserError: it does not fit; the message names the memory and the options to change.
    """
    free = available_bytes(device)
    if needed > free:  # an earlier run of this process may wait for the garbage collector
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        free = available_bytes(device)
    if needed > free:
        options = remedies(free)
        move = "" if device.type == "cpu" else ", or keep it in the machine's memory with agent.replay_device=cpu"
        raise UserError(
            f"the replay needs {_gigabytes(needed)} on {device} and {_gigabytes(free)} are free: "
            f"{f'use {options}' if options else 'lower agent.replay_size'}{move}"
        )


def check_open_files(processes: int) -> None:
    """Refuses a run that needs more open files than this process may have; raises its limit if that is allowed.

    Args:
        processes: the number of processes of environments.

    Raises:
        UserError: the limit is too low; the message says how to raise it.
    """
    if sys.platform == "win32":
        return
    import resource

    needed = FILES + FILES_OF_A_PROCESS * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or max(soft, hard) >= needed:
        if resource.RLIM_INFINITY != soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return
    fewer = ", or env.vectorization=sync, which needs fewer" if processes else ""
    advice = f"allow them with ulimit -n {needed}{fewer}"
    raise UserError(f"this process may have {hard} files open at a time, and needs {needed}: {advice}")


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB ({count} bytes)"
