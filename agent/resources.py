"""What the machine has: devices and memory, checked before anything is allocated."""

import psutil
import torch

from agent.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda`, `cuda:1`, `mps`: auto is CUDA where there is one, else the CPU.

    Raises:
        UserError: for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise UserError(f"device is {name!r}: it must be one of auto, cpu, cuda, mps (or cuda:1, …)")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not there: this machine has no Apple GPU; use device=cpu or device=auto")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu or device=auto"
        )
    return torch.device(name)


def available_bytes(device: torch.device) -> int:
    """Free memory of a device; of the machine for the CPU and for Apple's shared memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_replay_memory(needed: int, device: torch.device) -> None:
    """Refuses a replay that does not fit.

    Raises:
        UserError: naming what is needed, what there is, and the options to turn.
    """
    free = available_bytes(device)
    if needed > free:
        raise UserError(
            f"the replay needs {_gigabytes(needed)} on {device} and {_gigabytes(free)} are free: "
            "lower agent.replay_size, or move it with agent.replay_device=cpu"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB ({count} bytes)"
