"""The jobs of a sweep as Ray tasks, on this machine or on a cluster: hydra/launcher=ray."""

import os
import sys
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
from agent.records.board import Board
from agent.running.distributed.cluster import LEAST_STORE, Cluster
from agent.running.distributed.crew import first_sentence

#: Seconds between two looks at whether the sweep is to stop.
LOOK = 0.2
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
    """Runs jobs, as many at a time as there are CPUs for; one whose machine or process is gone is begun again.

    Args:
        options: of the launcher.
        context: Hydra's.
        config: of the sweep.
        function: that Hydra calls for each job.
        overrides: of each job.
        first: the number of the first job.

    Returns:
        What the jobs return, in their order.
    """
    with errors.sentences(TRAIN):
        check(options)
        board = board_of(config.hydra)
        configs = [job_config(context, config, words, first + i) for i, words in enumerate(overrides)]
        cpus, gpus = os.cpu_count() or 1, None if options.num_gpus else 0
        cluster = Cluster(options.address, cpus, LEAST_STORE, gpus, f"{NAME}.address")
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
        UserError: naming the option.
    """
    if not options.num_cpus > 0.0:
        raise UserError(f"{NAME}.num_cpus={options.num_cpus:g} must be above 0")
    if not options.num_gpus >= 0.0:
        raise UserError(f"{NAME}.num_gpus={options.num_gpus:g} must be at least 0")
    if options.retries < 0:
        raise UserError(f"{NAME}.retries={options.retries} must be at least 0")


def check_room(options: Options, cluster: Cluster) -> None:
    """Refuses jobs for which this machine is too small; a cluster may grow.

    Raises:
        UserError: naming the option.
    """
    for name, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        wanted, most = getattr(options, name), cluster.largest(kind)
        if wanted <= most:
            continue
        if options.address is None:
            raise UserError(f"{NAME}.{name}={wanted:g} is more than this machine has: {most:g}")
        print(f"no machine of the cluster has {NAME}.{name}={wanted:g}: the jobs wait for one", file=sys.stderr)


def job_config(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """The config of a job, with the name of its folder, in which the time is that of its first start."""
    setup_globals()
    before = HydraConfig.instance().cfg
    made = context.config_loader.load_sweep_config(config, list(overrides))
    with read_write(made), read_write(made.hydra.sweep), open_dict(made):
        made.hydra.job.id, made.hydra.job.num = f"{made.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(made)  # conf/train.yaml refers to it
        made.hydra.sweep.subdir = OmegaConf.select(made, "hydra.sweep.subdir")
    HydraConfig.instance().cfg = before
    return made


def run(shared: tuple[HydraContext, TaskFunction, Any], config: DictConfig) -> JobReturn:
    """Runs one job in a process of Ray's.

    Raises:
        UserError: where the folder in which the sweep was started is not on this machine.
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
    """Waits until all jobs have ended, or those that run where the sweep is to stop."""
    while references:
        _, references = ray.wait(references, num_returns=len(references), timeout=LOOK)
        if board.is_stopping() and not any(note.state == "running" for note in board.notes().values()):
            return


def result(ray: Any, reference: Any, number: int, board: Board) -> JobReturn:
    """What a job returns: nothing where it has not begun before the sweep was stopped, or was lost."""
    nothing = JobReturn(status=JobStatus.COMPLETED)
    if board.is_stopping():
        return nothing
    try:
        found: JobReturn = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except ray.exceptions.RayError as error:
        lose(number, board, first_sentence(error))
        return nothing


def lose(number: int, board: Board, reason: str) -> None:
    """Notes that a job was begun again as often as it may be, in vain."""
    note = board.read(number)
    go_on = "" if note is None else f"; go on with: python train.py resume={os.path.relpath(note.folder)}"
    with board.log(number).open("a") as log:
        print(f"error: its process ended each time ({reason}){go_on}", file=log)
    if note is not None:
        board.write(number, replace(note, state="failed"))
