"""hydra/launcher=ray, where Hydra looks for launchers; agent/command/launching.py does the work.

Hydra imports this file whenever a program starts; therefore it imports only modules that Hydra has imported already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class RayLauncherConfig:
    """The options of hydra/launcher=ray.

    Attributes:
        address: auto: the Ray cluster of this machine; host:port; None: Ray is started here, and stopped.
        num_cpus: CPUs that Ray reserves for each job.
        num_gpus: GPUs that Ray reserves for each job; a fraction shares one GPU.
        retries: how many times Ray restarts a job after its process or machine is lost.
    """

    _target_: str = "hydra_plugins.noisy_dqn_ray.RayLauncher"
    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    retries: int = 3


class RayLauncher(Launcher):
    """Runs the jobs of a sweep as Ray tasks."""

    def __init__(self, address: str | None, num_cpus: float, num_gpus: float, retries: int) -> None:
        self._options = RayLauncherConfig(address=address, num_cpus=num_cpus, num_gpus=num_gpus, retries=retries)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Stores Hydra's context and config and the function that a job calls."""
        self._parts = hydra_context, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; returns their results in order."""
        from agent.command.launching import launch

        return launch(self._options, *self._parts, job_overrides, initial_job_idx)


ConfigStore.instance().store("ray", RayLauncherConfig, "hydra/launcher", provider="noisy_dqn_ray")
