"""The parts that all runners share: arguments, environments, counting, the clock and the line of JSON that each prints.

    python benchmarks/peers/run_<library>.py --workload a --variant noisy --threads 1 --steps 20000

Imports, construction, the random steps before learning and `--warmup` more steps come before the clock. With `--serve`
a runner stays, and measures as many steps as each line of its standard input says, so that libraries that wait side by
side can be measured in turns.
"""

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from workloads import LIBRARIES, VARIANTS, WORKLOADS, Workload  # noqa: E402

PACKAGES = ("torch", "gymnasium", "numpy")


class Runner(Protocol):
    """An agent that learns while it plays. Its constructor plays the random steps before learning."""

    def advance(self, steps: int) -> None:
        """Plays at least `steps` environment steps, in whole cycles, with the updates that belong to them."""

    def updates(self) -> int:
        """Gradient steps until now, as the optimiser has counted them."""


def optimiser_steps(optimiser: Any) -> int:
    """The number of steps in the state of one of torch's optimisers."""
    return max((int(state["step"]) for state in optimiser.state.values()), default=0)


class Channels(gym.ObservationWrapper):
    """Turns MinAtar's truth values [height, width, channels] into bytes, channels first, for the peers' networks."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        height, width, channels = env.observation_space.shape
        self.observation_space = gym.spaces.Box(0, 1, (channels, height, width), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(observation.transpose(2, 0, 1)).view(np.uint8)


def make_env(workload: Workload) -> gym.Env[Any, Any]:
    """One environment for a peer, without Gymnasium's checks of each step. The frames of Atari are the same as ours."""
    from envs.single import make_single

    env = make_single(workload.env_id, dict(workload.kwargs))
    return Channels(env) if workload.trunk == "minatar" else env


def count_steps(workload: Workload) -> Callable[[], int]:
    """Counts the transitions of all environments from now on, below their wrappers. Resets do not count."""
    made = 0

    def count(owner: Any) -> None:
        step = owner.step

        def counted(self: Any, *arguments: Any) -> Any:
            nonlocal made
            made += 1
            return step(self, *arguments)

        owner.step = counted

    if workload.trunk == "nature":
        from envs.atari import Atari

        count(Atari)
    elif workload.trunk == "minatar":
        import minatar.gym

        count(minatar.gym.BaseEnv)
    else:
        from gymnasium.envs.classic_control import cartpole

        count(cartpole.CartPoleEnv)
        vector_step = cartpole.CartPoleVectorEnv.step

        def counted(self: Any, actions: Any) -> Any:
            nonlocal made
            made += self.num_envs - int(np.count_nonzero(self.prev_done))  # those only reset
            return vector_step(self, actions)

        cartpole.CartPoleVectorEnv.step = counted
    return lambda: made


def measure(runner: Runner, workload: Workload, steps: int, counted: Callable[[], int]) -> dict[str, Any]:
    """Times at least `steps` steps.

    Raises:
        SystemExit: where the library has not made the updates that were asked for.
    """
    played, learned = counted(), runner.updates()
    began, computed = time.perf_counter(), time.process_time()
    runner.advance(steps)
    seconds, computed = time.perf_counter() - began, time.process_time() - computed
    played, learned = counted() - played, runner.updates() - learned
    slack = workload.cycle[0] * workload.num_envs  # a block may begin or end inside a cycle
    if abs(learned * workload.every - played) > slack or played < steps - slack:
        raise SystemExit(f"asked for {steps} steps, an update every {workload.every}: got {played} and {learned}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "steps": played,
        "updates": learned,
        "seconds": seconds,
        "cpu_seconds": computed,  # time of all threads; it is steadier than the clock on a machine that others use
        "steps_per_second": played / seconds,
        "peak_mib": peak,
    }


def run(library: str, package: str, build: Callable[[Workload, str], Runner]) -> None:
    """The program of a runner: `build` makes the agent of a workload and a variant."""
    parser = argparse.ArgumentParser(description=f"One measurement of {LIBRARIES[library][0]}, as a line of JSON.")
    parser.add_argument("--workload", choices=WORKLOADS, default="a")
    parser.add_argument("--variant", choices=VARIANTS, default="plain")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of NumPy's matrix products")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps to time")
    parser.add_argument("--warmup", type=int, default=1_000, help="learning steps before them, which are not timed")
    parser.add_argument("--serve", action="store_true", help="measure as many steps as each line of the input says")
    arguments = parser.parse_args()
    if arguments.variant not in LIBRARIES[library][1]:
        raise SystemExit(f"{LIBRARIES[library][0]} has no {arguments.variant} agent")
    workload = WORKLOADS[arguments.workload]
    use_threads(arguments.threads)
    counted = count_steps(workload)
    runner = build(workload, arguments.variant)
    runner.advance(arguments.warmup)
    about = {
        "library": library,
        "workload": arguments.workload,
        "variant": arguments.variant,
        "threads": arguments.threads,
        "versions": {name: version(name) for name in dict.fromkeys((package, *PACKAGES))},
    }
    for line in sys.stdin if arguments.serve else [str(arguments.steps)]:
        print(json.dumps(about | measure(runner, workload, int(line), counted)), flush=True)


def version(name: str) -> str:
    """The installed version; "not installed" for this project if it runs from its folder alone."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def use_threads(count: int) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")
