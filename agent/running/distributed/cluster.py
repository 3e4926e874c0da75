"""Ray, started here for one run and stopped at its end, or the cluster that this machine belongs to."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.common.errors import UserError, words_of
from agent.running.distributed import keeper

#: Ray's own store has this least size.
LEAST_STORE = 80 * 2**20
#: What Ray does by itself and a run does not need: reports of usage, metrics, workers in advance.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
}
#: Has Ray listen on the loopback interface alone. On Linux it would else take the machine's own address, whatever it
#: is told, and listen on all interfaces. Ray means it for machines without clusters, and reads it when it is imported.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: The option that asks for Ray, by the one that names its address.
ASKED = {"collect.address": "collect=ray", "hydra.launcher.address": "hydra/launcher=ray"}
#: Seconds that the keeper may take to clear up.
PATIENCE = 12.0


def import_ray(alone: bool = False, option: str = "collect=ray") -> Any:
    """The package ray.

    Args:
        alone: it is to be started in this machine, reachable from nowhere else.
        option: that needs it.

    Raises:
        UserError: where it is not installed, naming the extra.
    """
    os.environ.update(QUIET | (LOOPBACK if alone else {}))  # Ray reads most of them while it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError(f"{option} needs the extra cluster: pip install -e '.[cluster]'") from error
    return ray


class Cluster:
    """A connection to Ray.

    Args:
        address: of the cluster; None starts Ray in this machine, reachable from this machine alone.
        cpus: that Ray started here may give away.
        store: bytes of its object store.
        gpus: that it may give away; None: all of this machine.
        option: that names the address.

    Raises:
        UserError: where Ray does not start, or there is no such cluster.
    """

    def __init__(
        self, address: str | None, cpus: int, store: int, gpus: int | None = 0, option: str = "collect.address"
    ) -> None:
        self.ray, self._borrowed = import_ray(address is None, ASKED[option]), False
        self._keeper: subprocess.Popen[bytes] | None = None
        if self.ray.is_initialized():  # by the program that calls us, which will shut it down
            self._borrowed = True
            return
        try:
            if address is None:
                self._start(cpus, gpus, max(store, LEAST_STORE))
            else:
                with _signals_kept():
                    self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            self.close()
            where = "here" if address is None else f"at {option}={address}"
            raise UserError(f"Ray did not start {where}: {words_of(error)}") from error

    def _start(self, cpus: int, gpus: int | None, store: int) -> None:
        # Sockets lie in the folder, and the path of one has 107 bytes at most.
        folder = tempfile.mkdtemp(prefix="noisy-dqn-", dir="/tmp" if Path("/tmp").is_dir() else None)
        mark = uuid.uuid4().hex
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", keeper.__file__, mark, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        named = {keeper.MARK: mark, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with _signals_kept(), _environment(named):
            self.ray.init(
                num_cpus=cpus,
                num_gpus=gpus,
                object_store_memory=store,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )

    def largest(self, kind: str) -> float:
        """How much of a kind of resource, such as CPU, the machine has that has most of it."""
        return max((node["Resources"].get(kind, 0.0) for node in self.ray.nodes() if node["Alive"]), default=0.0)

    def close(self) -> None:
        """Disconnects; what was started here is stopped, and nothing of it is left."""
        if self._borrowed:
            return
        with suppress(Exception):
            self.ray.shutdown()
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._keeper.wait(PATIENCE)
            self._keeper = None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps the handlers of signals, in whose place Ray sets one of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that begin in it, and theirs: the mark, and where modules are found here."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
