"""How a run is computed: compiled or not, in CUDA graphs or not, learning while the environments step or after it.

None of it belongs to the algorithm: a saved agent knows nothing of it, and a run may be resumed with other ones. What
is chosen depends on the config and the machine alone, never on how long something took: the same run is the same again.
(What compiled kernels on CUDA round is not: their compiler times several of a kind and keeps the fastest.)
"""

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from agent.common.errors import UserError
from agent.config.run import TrainConfig

#: From how many updates on a run wins back what compiling takes, where it has been measured. With nothing cached it
#: takes 10 to 60 s on a CPU, and saves 0.8 of 3.9 ms of an update by MinAtar's convolution; 20 to 90 s on CUDA, and
#: saves 0.2 to 0.5 ms of one by Atari's three convolutions.
COMPILE_FROM = {"cpu": 100_000, "cuda": 100_000}
#: Of larger networks large products are most of a CPU's work, and compiled ones are slower: Rainbow on Atari's frames,
#: 6.9 million parameters, 74 ms against 55.
COMPILE_UP_TO = 1_000_000


#: The least compute capability of a GPU for which torch.compile makes kernels.
TRITON = (7, 0)


@dataclass(frozen=True)
class Speed:
    """What was chosen, and a line that says so."""

    compiled: bool = False
    graphs: bool = False
    overlap: bool = False
    tf32: bool = False
    autocast: bool = False
    strict: bool = False  # whether to end where something cannot be compiled
    line: str = ""


#: Nothing of all that.
EAGER = Speed()


def choose_speed(config: TrainConfig, on_numpy: bool, device: torch.device, parameters: int = 0) -> Speed:
    """What a run will use.

    Args:
        config: of the run.
        on_numpy: whether the network is one that NumPy computes faster than any compiled one.
        device: where the agent is.
        parameters: how many the network has.

    Raises:
        UserError: for what this machine does not have, or what does not go together.
    """
    graphs, graphs_line = _graphs(config, device)
    compiled, compile_line = _compiled(config, on_numpy, device, parameters)
    if config.autocast != "none" and device.type != "cuda":
        raise UserError(
            f"autocast={config.autocast} does not go with device={device}, where it gains nothing: leave it out"
        )
    overlap = config.overlap == "on" or (config.overlap == "auto" and device.type == "cuda")
    parts = ["NumPy" if on_numpy and not compiled else compile_line, graphs_line]
    parts += ["while the environments step"] if overlap else []
    tf32, bf16 = config.autocast != "none", config.autocast == "bf16"
    parts += ["TF32"] if tf32 else []
    parts += ["bfloat16 in the encoder"] if bf16 else []
    line = "updates: " + ", ".join(filter(None, parts))
    return Speed(compiled, graphs, overlap, tf32, bf16, config.compile == "on", line)


def updates_of(config: TrainConfig) -> int:
    """How many updates the whole run has, whatever of it has been done."""
    steps, ratio = config.steps - config.agent.learning_starts, config.agent.replay_ratio
    return max(0, steps * ratio.numerator // ratio.denominator)


def _compiled(config: TrainConfig, on_numpy: bool, device: torch.device, parameters: int) -> tuple[bool, str]:
    """Whether to compile, and in words."""
    compiled = "compiled at the first one, which takes a minute or so"
    if config.compile == "on":
        if missing := _missing_compiler(device):
            raise UserError(f"compile=on needs {missing}, and there is none: install it, or use compile=off")
        return True, compiled
    if config.compile == "off" or on_numpy:
        return False, "autograd"
    enough, count = COMPILE_FROM.get(device.type), updates_of(config)
    if enough is None:
        return False, f"autograd (compile=auto does not compile on {device.type}; compile=on does)"
    if parameters > COMPILE_UP_TO and device.type == "cpu":
        return False, f"autograd (networks of more than {COMPILE_UP_TO:,} parameters are slower compiled)"
    if count < enough:
        return False, f"autograd (to compile pays from {enough:,} updates on, and this run has {count:,})"
    if missing := _missing_compiler(device):
        return False, f"autograd (to compile would pay, and needs {missing})"
    return True, compiled


def _missing_compiler(device: torch.device) -> str:
    """What torch.compile needs for a device and this machine lacks, or nothing."""
    apple = sys.platform == "darwin"
    kind, variable, default = "C++", "CXX", "clang++" if apple else "g++"
    if device.type == "cuda":
        kind, variable, default = "C", "CC", "gcc"
        if find_spec("triton") is None:
            return "the package triton"
        if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < TRITON:
            return "a GPU of compute capability 7.0 or more"
    if shutil.which(os.environ.get(variable, default)) is None:
        return f"a {kind} compiler ({default}, or another one named by {variable})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's header files (often the package python3-dev)"
    return ""


def _graphs(config: TrainConfig, device: torch.device) -> tuple[bool, str]:
    """Whether to use CUDA graphs, and in words."""
    on_device = device.type == "cuda" and config.agent.replay_device == "auto"
    if config.cuda_graphs == "on" and device.type != "cuda":
        raise UserError(f"cuda_graphs=on needs a CUDA device, and the device is {device}: leave it out")
    if config.cuda_graphs == "on" and not on_device:
        raise UserError(
            "cuda_graphs=on needs the replay on the device, and agent.replay_device is cpu: leave one of them out"
        )
    if config.cuda_graphs == "off" or device.type != "cuda":
        return False, ""
    return on_device, "each one CUDA graph" if on_device else "no CUDA graphs, since agent.replay_device is cpu"
