"""How a run is computed: the backend, CUDA graphs, and whether learning overlaps with the environments.

None of this belongs to the algorithm: a saved agent does not record it, and a run may be resumed with another plan. The
choice depends only on the config and the machine, never on measured times, so that the same run gives the same result.
(Compiled CUDA kernels are an exception: their compiler times several variants and keeps the fastest.)
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agent.common.errors import UserError
from agent.compute.compiled import Compiled, P, R
from agent.compute.compiled_gradient import CompiledGradient
from agent.compute.cuda_graphs import GraphedLearner, GraphedPolicy
from agent.compute.numpy.gradient import NumpyGradient
from agent.compute.numpy.network import NumpyPolicy
from agent.config.algorithm import AgentConfig
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.learning.gradient import AutogradGradient, Gradient
from agent.learning.learner import Learner
from agent.learning.policy import Policy, TorchPolicy
from agent.networks.q_network import QNetwork
from agent.replay.options import Compile, uncompiled
from agent.replay.ring import Replay
from agent.replay.rings import AnyReplay

Backend = Literal["torch", "numpy", "compiled"]

#: The smallest number of updates for which compiling pays, as measured. Without a cache, compiling takes 10 to 60 s on
#: a CPU and saves 0.8 of the 3.9 ms of an update with MinAtar's convolution; on CUDA it takes 20 to 90 s
#: and saves 0.2 to 0.5 ms of an update with Atari's three convolutions.
COMPILE_FROM = {"cpu": 100_000, "cuda": 100_000}
#: On a CPU, compiled updates of networks with more parameters are slower: most of their time goes into large matrix
#: products. An update of Rainbow on Atari's frames, 6.9 million parameters, takes 74 ms compiled and 55 ms with
#: autograd.
COMPILE_UP_TO = 1_000_000
#: On a CPU, autograd looks up observations of more truth values faster than a compiled function multiplies them: an
#: update of index_dqn on DeepSea takes 1.65, 0.98, 0.67 and 0.44 of the time for 400, 1,600, 3,600 and 10,000 of them
#: (`python benchmarks/looking_up.py`).
COMPILE_UP_TO_TRUTH_VALUES = 2_000
#: The lowest compute capability of the GPUs that torch.compile supports.
TRITON = (7, 0)


@dataclass(frozen=True)
class Plan:
    """How a run is computed, as one value. It makes the policy, the gradient and the learner, and compiles functions.

    The defaults are plain PyTorch.

    Attributes:
        backend: how the gradient is computed: autograd, NumPy, or one compiled function.
        numpy_policy: whether NumPy computes the policy.
        graphs: whether acting and updates are CUDA graphs.
        overlap: whether the agent learns while the environments step.
        tf32: whether linear layers use TF32 on CUDA.
        autocast: whether encoders compute in bfloat16.
        strict: whether a function that cannot be compiled ends the run.
        line: a description of the plan, for the console.
    """

    backend: Backend = "torch"
    numpy_policy: bool = False
    graphs: bool = False
    overlap: bool = False
    tf32: bool = False
    autocast: bool = False
    strict: bool = False
    line: str = ""

    def policy(self, network: QNetwork) -> Policy:
        """Makes the greedy policy of a network."""
        if self.numpy_policy:
            return NumpyPolicy(network)
        return GraphedPolicy(network) if self.graphs else TorchPolicy(network)

    def gradient(self, network: QNetwork, target: QNetwork, parameters: Tensor, config: AgentConfig) -> Gradient:
        """Makes the Gradient of an agent; see AutogradGradient."""
        arguments = network, target, parameters, config
        match self.backend:
            case "numpy":
                return NumpyGradient(*arguments)
            case "compiled":
                return CompiledGradient(*arguments, autocast=self.autocast, tf32=self.tf32, strict=self.strict)
            case "torch":
                return AutogradGradient(*arguments, autocast=self.autocast, tf32=self.tf32)

    def learner(self, agent: DQN, replay: AnyReplay, seed: int) -> Learner:
        """Makes the learner, which draws batches and updates the agent."""
        if self.graphs and isinstance(replay, Replay):
            return GraphedLearner(agent, replay, seed)
        return Learner(agent, replay, seed)

    def compile(self, batch_size: int, device: torch.device) -> Compile:
        """Returns the compiler of a replay's functions, for batches of `batch_size` rows; it does nothing on a CPU."""
        if self.backend != "compiled" or device.type == "cpu":
            return uncompiled

        def compiled(function: Callable[P, R]) -> Callable[P, R]:
            return Compiled(function, self.strict, batch_size)

        return compiled


#: Plain PyTorch: agent/learning is then the code that runs.
TORCH = Plan()


def choose_plan(
    config: TrainConfig, fits_numpy: bool, device: torch.device, parameters: int = 0, truth_values: int = 0
) -> Plan:
    """Chooses the plan of a run.

    Args:
        config: the options of the run.
        fits_numpy: whether NumPy can compute the network; NumPy is then faster than a compiled function.
        device: the device of the agent.
        parameters: the number of parameters of the network.
        truth_values: the number of truth values in an observation, if the network looks them up.

    Raises:
        UserError: if this machine lacks something that an option needs, or if options contradict each other.
    """
    graphs, graphs_line = _graphs(config, device)
    backend, backend_line = _backend(config, fits_numpy, device, parameters, truth_values)
    if config.autocast != "none" and device.type != "cuda":
        raise UserError(
            f"autocast={config.autocast} does not go with device={device}, where it gains nothing: leave it out"
        )
    overlap = config.overlap == "on" or (config.overlap == "auto" and device.type == "cuda")
    overlap = overlap and config.collect.engine == "local"  # with actors, learning overlaps in any case
    tf32, bf16 = config.autocast != "none", config.autocast == "bf16"
    parts = [backend_line, graphs_line, "while the environments step" if overlap else ""]
    parts += ["TF32" if tf32 else "", "bfloat16 in the encoder" if bf16 else ""]
    numpy_policy = fits_numpy and config.backend != "torch"
    line = "updates: " + ", ".join(filter(None, parts))
    return Plan(backend, numpy_policy, graphs, overlap, tf32, bf16, config.backend == "compiled", line)


def _backend(
    config: TrainConfig, fits_numpy: bool, device: torch.device, parameters: int, truth_values: int
) -> tuple[Backend, str]:
    """The backend of the gradient, and its description."""
    compiled = "compiled at the first one, which takes a minute or so"
    if config.backend == "numpy" and not fits_numpy:
        raise UserError(
            "backend=numpy computes linear layers, behind one small convolution at most, on a CPU; this network or "
            "device does not fit: use backend=auto"
        )
    if config.backend == "compiled":
        if missing := _missing_compiler(device):
            raise UserError(f"backend=compiled needs {missing}, which this machine does not have: use backend=auto")
        return "compiled", compiled
    if config.backend == "torch":
        return "torch", "autograd"
    if fits_numpy:
        return "numpy", "NumPy"
    obstacle = _why_not_compiled(config, device, parameters, truth_values)
    return ("torch", f"autograd ({obstacle})") if obstacle else ("compiled", compiled)


def _why_not_compiled(config: TrainConfig, device: torch.device, parameters: int, truth_values: int) -> str:
    """The reason why backend=auto does not compile; empty if it does."""
    enough, count = COMPILE_FROM.get(device.type), config.updates
    if enough is None:
        return f"backend=auto does not compile on {device.type}; backend=compiled does"
    if parameters > COMPILE_UP_TO and device.type == "cpu":
        return f"networks of more than {COMPILE_UP_TO:,} parameters are slower compiled"
    if truth_values > COMPILE_UP_TO_TRUTH_VALUES and device.type == "cpu":
        return f"which looks up {truth_values:,} truth values faster than a compiled function multiplies them"
    if count < enough:
        return f"compiling pays from {enough:,} updates on; this run makes {count:,}"
    missing = _missing_compiler(device)
    return f"compiling would pay, but needs {missing}" if missing else ""


def _missing_compiler(device: torch.device) -> str:
    """The tool that torch.compile needs for a device and this machine lacks; empty if nothing is missing."""
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
    """Whether to use CUDA graphs, and a description of the choice."""
    in_memory = config.agent.replay_device == "cpu" or config.collect.engine == "ray"
    on_device = device.type == "cuda" and not in_memory
    why = "collect is ray" if config.collect.engine == "ray" else "agent.replay_device is cpu"
    if config.cuda_graphs == "on" and device.type != "cuda":
        raise UserError(f"cuda_graphs=on needs a CUDA device, and the device is {device}: leave it out")
    if config.cuda_graphs == "on" and not on_device:
        raise UserError(f"cuda_graphs=on needs the replay on the device, and {why}: leave one of them out")
    if config.cuda_graphs == "off" or device.type != "cuda":
        return False, ""
    return on_device, "each one CUDA graph" if on_device else f"no CUDA graphs, since {why}"
