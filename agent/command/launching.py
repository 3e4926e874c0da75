"""Runs the jobs of a sweep as Ray tasks, on this machine or on a cluster: hydra/launcher=ray."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from agent.command import errors
from agent.command.jobs import board_of
from agent.command.program import TRAIN
from agent.common.errors import UserError
from agent.common.files import open_log
from agent.records.board import Board
from agent.running.distributed.actor_pool import first_sentence
from agent.running.distributed.cluster import MIN_STORE_BYTES, Cluster

#: Seconds between two checks whether the sweep is to stop.
POLL = 0.2
#: Seconds after which a job that was asked to stop is not waited for: its machine may have left.
STOP_SECONDS = 30.0
NAME = "hydra.launcher"


class Options(Protocol):
    """The options of the launcher, which hydra_plugins/noisy_dqn_ray.py describes."""

    address: str | None
    num_cpus: float
    num_gpus: float
    retries: int


def launch(
    options: Options,
    context: HydraContext,
    config: DictConfig,
    function: TaskFunction,
    overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Runs as many jobs at a time as there are CPUs, and restarts a job whose machine or process has ended.

    Args:
        options: the options of the launcher.
        context: Hydra's context.
        config: the config of the sweep.
        function: the function that Hydra calls for each job.
        overrides: the overrides of each job.
        first: the number of the first job.

    Returns:
        The results of the jobs, in order.
    """
    with errors.sentences(TRAIN):
        check(options)
        board = board_of(config.hydra)
        configs = [job_config(context, config, one_job, first + i) for i, one_job in enumerate(overrides)]
        cpus, gpus = os.cpu_count() or 1, None if options.num_gpus else 0
        cluster = Cluster(options.address, cpus, MIN_STORE_BYTES, gpus, f"{NAME}.address")
        try:
            check_room(options, cluster)
            remote = cluster.ray.remote(
                num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_calls=1, max_retries=options.retries
            )(run)
            shared = cluster.ray.put((context, function, Singleton.get_state()))
            references = [remote.remote(shared, each) for each in configs]
            wait(cluster.ray, references, board)
            return [result(cluster.ray, reference, first + i, board) for i, reference in enumerate(references)]
        finally:
            cluster.close()


def check(options: Options) -> None:
    """Refuses numbers out of range.

    Raises:
        UserError: a number is out of range; the message names the option.
    """
    if not options.num_cpus > 0.0:
        raise UserError(f"{NAME}.num_cpus={options.num_cpus:g} must be above 0")
    if not options.num_gpus >= 0.0:
        raise UserError(f"{NAME}.num_gpus={options.num_gpus:g} must be at least 0")
    if options.retries < 0:
        raise UserError(f"{NAME}.retries={options.retries} must be at least 0")


def check_room(options: Options, cluster: Cluster) -> None:
    """Refuses jobs that need more than this machine has; on a cluster, which may grow, they wait.

    Raises:
        UserError: this machine is too small; the message names the option.
    """
    for name, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        requested, available = getattr(options, name), cluster.largest(kind)
        if requested <= available:
            continue
        if options.address is None:
            raise UserError(f"{NAME}.{name}={requested:g} is more than this machine has: {available:g}")
        print(f"no machine of the cluster has {NAME}.{name}={requested:g}: the jobs wait for one", file=sys.stderr)


def job_config(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """Composes the config of a job and names its folder, so that a restart does not change the time in that name."""
    setup_globals()
    previous = HydraConfig.instance().cfg
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with read_write(composed), read_write(composed.hydra.sweep), open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = f"{composed.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(composed)  # conf/train.yaml refers to it
        composed.hydra.sweep.subdir = OmegaConf.select(composed, "hydra.sweep.subdir")
    HydraConfig.instance().cfg = previous
    return composed


def run(shared: tuple[HydraContext, TaskFunction, dict[type, Singleton]], config: DictConfig) -> JobReturn:
    """Runs one job in a process of Ray.

    Raises:
        UserError: the folder in which the sweep was started is not on this machine.
    """
    context, function, state = shared
    Singleton.set_state(state)
    try:
        os.chdir(config.hydra.runtime.cwd)
    except OSError as error:
        raise UserError(f"{config.hydra.runtime.cwd} must be a folder that all machines share") from error
    return run_job(
        function, config, job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir", hydra_context=context
    )


def wait(ray: Any, references: list[Any], board: Board) -> None:
    """Waits until all jobs have ended; if the sweep is to stop, only until no job runs, or `STOP_SECONDS`."""
    stopped_at = None
    while references:
        _, references = ray.wait(references, num_returns=len(references), timeout=POLL)
        if board.is_stopping():
            stopped_at = stopped_at or time.monotonic()
            running = any(note.state == "running" for note in board.notes().values())
            if not running or time.monotonic() - stopped_at > STOP_SECONDS:
                return


def result(ray: Any, reference: Any, number: int, board: Board) -> JobReturn:
    """Returns a job's result, or an empty one if the sweep was stopped or the job was lost."""
    nothing = JobReturn(status=JobStatus.COMPLETED)
    if board.is_stopping():
        return nothing
    try:
        returned: JobReturn = ray.get(reference)
        return returned
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except ray.exceptions.RayError as error:
        lose(number, board, first_sentence(error))
        return nothing


def lose(number: int, board: Board, reason: str) -> None:
    """Records that a job has failed after the last of its allowed restarts."""
    note = board.read(number)
    go_on = "" if note is None else f"; go on with: python train.py resume={os.path.relpath(note.folder)}"
    with open_log(board.log(number)) as log:
        log.write(f"error: its process ended each time ({reason}){go_on}\n".encode())
    if note is not None:
        board.write(number, replace(note, state="failed"))
