"""Starts Ray for one run and stops it at its end, or connects to an existing cluster."""

import logging
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from agent.common.errors import UserError, words_of
from agent.running.distributed import reaper

#: The smallest object store that Ray accepts.
MIN_STORE_BYTES = 80 * 2**20
#: Switches off features of Ray that a run does not need: reports of usage, metrics, workers in advance.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
}
#: Makes Ray listen on the loopback interface alone. Otherwise, on Linux, it takes the machine's address and listens on
#: all interfaces, whatever address is given. The variable is for systems without clusters; Ray reads it on import.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: Seconds that the reaper may take to clean up.
CLEANUP_SECONDS = 12.0


def import_ray(local: bool = False) -> ModuleType:
    """The package ray.

    Args:
        local: whether Ray is to be started on this machine, reachable from nowhere else.

    Raises:
        UserError: if it is not installed; the message names the extra.
    """
    os.environ.update(QUIET | (LOOPBACK if local else {}))  # Ray reads most of them while it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError("collect=ray needs the extra cluster: pip install -e '.[cluster]'") from error
    return ray


class Cluster:
    """A connection to Ray.

    Args:
        address: the address of the cluster; None starts Ray on this machine, reachable from this machine alone.
        cpus: the number of CPUs that a local Ray may use.
        store: bytes of a local Ray's object store.

    Raises:
        UserError: if Ray does not start, or there is no such cluster.
    """

    def __init__(self, address: str | None, cpus: int, store: int) -> None:
        self.ray, self._external = import_ray(local=address is None), False
        self._reaper: subprocess.Popen[bytes] | None = None
        if self.ray.is_initialized():  # the calling program connected, and will shut it down
            self._external = True
            return
        try:
            if address is None:
                self._start(cpus, max(store, MIN_STORE_BYTES))
            else:
                self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            self.close()
            where = "here" if address is None else f"at collect.address={address}"
            raise UserError(f"Ray did not start {where}: {words_of(error)}") from error

    def _start(self, cpus: int, store: int) -> None:
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
        with _environment({reaper.MARK: mark, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}):
            self.ray.init(
                num_cpus=cpus,
                num_gpus=0,
                object_store_memory=store,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )

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
