"""Starts Ray for one run and stops it at its end, or connects to an existing cluster."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from agent.common.errors import UserError, one_line
from agent.running.distributed import reaper

#: The smallest object store that Ray accepts.
MIN_STORE_BYTES = 80 * 2**20
#: Switches off features of Ray that a run does not need: reports of usage, metrics, records of tasks, workers in
#: advance.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_DEDUP_LOGS": "0",
}
#: Arguments and results of up to this many bytes bypass the store of a Ray that is started here.
INLINE_BYTES = 2**20
#: For a Ray that is started here; Ray reads them on import. The first makes it listen on the loopback interface alone:
#: otherwise, on Linux, it takes the machine's address and listens on all interfaces, whatever address is given. (The
#: variable is for systems without clusters.) The last gives actors the same priority as the learner: with 15, Ray's
#: default, they hardly run while a learner or anything else is busy, and the learner waits for them afterwards.
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_max_direct_call_object_size": str(INLINE_BYTES),
    "RAY_worker_niceness": "0",
}
#: The option that requests Ray, for each option that names its address.
REQUESTED_BY = {"collect.address": "collect=ray", "hydra.launcher.address": "hydra/launcher=ray"}
#: Seconds in which a cluster must answer.
CONNECTION_SECONDS = 10.0
#: Seconds that the reaper may take to clean up.
CLEANUP_SECONDS = 12.0


def import_ray(local: bool = False, option: str = "collect=ray") -> ModuleType:
    """The package ray.

    Args:
        local: whether Ray is to be started on this machine, reachable from nowhere else.
        option: the option that needs it.

    Raises:
        UserError: if it is not installed; the message names the extra.
    """
    os.environ.update(QUIET | (LOCAL if local else {}))  # Ray reads most of them while it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError(f"{option} needs the extra cluster: pip install -e '.[cluster]'") from error
    return ray


class Cluster:
    """A connection to Ray.

    Args:
        address: the address of the cluster; None, or Ray's name `local`, starts Ray on this machine, reachable from
            this machine alone.
        cpus: the number of CPUs that a local Ray may use.
        store: bytes of a local Ray's object store.
        gpus: the number of GPUs that a local Ray may use; None: all of this machine.
        option: the option that names the address.

    Raises:
        UserError: if Ray does not start, or there is no such cluster.
    """

    def __init__(
        self, address: str | None, cpus: int, store: int, gpus: int | None = 0, option: str = "collect.address"
    ) -> None:
        address = None if address == "local" else address
        self.ray, self._external = import_ray(address is None, REQUESTED_BY[option]), False
        self._reaper: subprocess.Popen[bytes] | None = None
        if self.ray.is_initialized():  # the calling program connected, and will shut it down
            self._external = True
            return
        try:
            if address is None:
                self._start(cpus, gpus, max(store, MIN_STORE_BYTES))
            else:
                check_reachable(address)
                with _signals_kept():
                    self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            self.close()
            where = "here" if address is None else f"at {option}={address}"
            raise UserError(f"Ray did not start {where}: {one_line(error)}") from error

    def _start(self, cpus: int, gpus: int | None, store: int) -> None:
        # The folder holds sockets, whose paths may have 107 bytes at most.
        folder = tempfile.mkdtemp(prefix="noisy-dqn-", dir="/tmp" if Path("/tmp").is_dir() else None)
        mark = uuid.uuid4().hex
        self._reaper = subprocess.Popen(
            [sys.executable, "-P", reaper.__file__, mark, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C does not reach it
        )
        variables = {reaper.MARK: mark, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with _signals_kept(), _environment(variables):
            self.ray.init(
                address="local",  # also where RAY_ADDRESS names a cluster
                num_cpus=cpus,
                num_gpus=gpus,
                object_store_memory=store,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )

    @property
    def local(self) -> bool:
        """Whether this project started Ray on this machine: for this run, or for the sweep of which it is a job."""
        return self._reaper is not None or self._is_job

    @property
    def actor_cpus(self) -> int:
        """The CPUs that an actor requests. The jobs of a sweep on this machine may hold all of them."""
        return 0 if self._is_job else 1

    @property
    def _is_job(self) -> bool:
        """Whether this process was started by a Ray that this project started on this machine."""
        return self._external and reaper.MARK in os.environ

    def total(self, kind: str) -> float:
        """The amount of a resource, such as CPU, on all machines together."""
        return sum((node["Resources"].get(kind, 0.0) for node in self.ray.nodes() if node["Alive"]), 0.0)

    def largest(self, kind: str) -> float:
        """The largest amount of a resource, such as CPU, on any one machine."""
        return max((node["Resources"].get(kind, 0.0) for node in self.ray.nodes() if node["Alive"]), default=0.0)

    def close(self) -> None:
        """Disconnects; a Ray that was started here is stopped, and its files are removed."""
        if self._external:
            return
        with suppress(Exception):
            self.ray.shutdown()
        if self._reaper is not None:
            assert self._reaper.stdin is not None
            self._reaper.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._reaper.wait(CLEANUP_SECONDS)
            self._reaper = None


def check_reachable(address: str) -> None:
    """Tries to connect to an address <host>:<port>. Ray itself would try for a quarter of an hour.

    Raises:
        OSError: nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECTION_SECONDS).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restores the signal handlers, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code: object = None
    try:
        yield
    except SystemExit as error:
        code = error.code
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if code == signal.SIGTERM:  # from Ray's handler: the signal ends this program as it does without Ray
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started in the block, and for their own processes."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
