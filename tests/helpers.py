"""Runs train.py and evaluate.py as a person does: in a new interpreter, or in a quick copy of one that waits.

Half of the time of a short run is the import of torch. `Programs` therefore keeps one process that has imported
everything and forks it: the copy runs the program's file as `__main__`, with its own arguments, folder, environment,
process group and standard streams. The actions of W&B and of exit handlers are seen in a new interpreter only.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 90.0  # after which a program hangs


class Result(NamedTuple):
    """How a process ended; the code is minus the signal's number where one killed it."""

    code: int
    out: str
    err: str


class Process:
    """A program that runs; its output goes to files that can be read meanwhile."""

    def __init__(self, pid: int, cwd: Path, log: Path, wait: Callable[[], int]) -> None:
        self.pid, self.cwd, self._log, self._wait = pid, cwd, log, wait

    def stream(self, name: str) -> str:
        """The output of the program so far; `name` is "out" or "err"."""
        return self._log.with_suffix(f".{name}").read_bytes().decode()

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds. It looks every 2 ms, so that the caller can act at once."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it hangs: {self.stream('err')}"
            time.sleep(0.002)

    def kill(self, number: signal.Signals, group: bool = False) -> None:
        """Sends a signal to the program, or to its whole process group as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> Result:
        """Waits until the program ends."""
        return Result(self._wait(), self.stream("out"), self.stream("err"))


class Programs:
    """Starts programs; their output goes to files in `logs`, and `environment` is that of the copies."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs, self._number = logs, count()
        command = [sys.executable, __file__]
        self._copies = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)

    def start(
        self, program: str, *options: str, cwd: Path, real: bool = False, file_limit: int | None = None, **env: str
    ) -> Process:
        """Starts `python <program>.py <options>` in the folder `cwd`.

        Args:
            program: train or evaluate.
            options: the command line.
            cwd: the folder to start in.
            real: True for a new interpreter.
            file_limit: the size of the largest file it may write: a disk that is full for large ones only.
            env: environment variables.
        """
        log = self._logs / str(next(self._number))
        argv = [str(ROOT / f"{program}.py"), *options]
        if real:
            return self._interpreter(argv, cwd, log, env)
        for name in ("out", "err"):
            log.with_suffix(f".{name}").touch()
        pid = self._ask(argv=argv, cwd=str(cwd), log=str(log), file_limit=file_limit, env=env)
        return Process(pid, cwd, log, lambda: self._ask(wait=pid))

    def run(self, program: str, *options: str, cwd: Path, **settings: Any) -> Result:
        """`start`, and waits until it ends."""
        return self.start(program, *options, cwd=cwd, **settings).wait()

    def close(self) -> None:
        """Ends the process that is copied."""
        self._copies.communicate("")

    def _interpreter(self, argv: list[str], cwd: Path, log: Path, env: Mapping[str, str]) -> Process:
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=cwd,
                env=plain_environment() | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Process(process.pid, cwd, log, lambda: process.wait(SECONDS))

    def _ask(self, **job: Any) -> int:
        assert self._copies.stdin is not None
        assert self._copies.stdout is not None
        self._copies.stdin.write(json.dumps(job) + "\n")
        self._copies.stdin.flush()
        return int(self._copies.stdout.readline())


def plain_environment() -> dict[str, str]:
    """The environment without variables that change the programs, and without a GPU: only runs on a CPU are equal."""
    unwanted = ("WANDB_", "HYDRA_", "NETRC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "CUDA_VISIBLE_DEVICES": ""}


def serve() -> None:
    """The process that is copied: each line from the standard input is a program to start or one to wait for."""
    sys.path.insert(0, str(ROOT))
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 (imported for the copies)
    import torch._dynamo  # noqa: F401 (the first optimiser imports it)

    import evaluate  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        sys.argv = [str(ROOT / "train.py"), "--help"]  # Hydra loads many modules on first use
        runpy.run_path(sys.argv[0], run_name="__main__")
    gc.freeze()  # the collector would write to all pages, which the system then copies
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(wait(job["wait"]), flush=True)
        elif (pid := os.fork()) == 0:
            become(job)
        else:
            print(pid, flush=True)


def wait(pid: int) -> int:
    """Waits until a copy ends; kills it when it hangs."""
    deadline = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def become(job: Mapping[str, Any]) -> NoReturn:
    """Turns this copy into the program of the job, and ends with it."""
    os.setsid()
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    files = (os.devnull, os.O_RDONLY), *((f"{job['log']}.{name}", os.O_WRONLY) for name in ("out", "err"))
    for number, (path, mode) in enumerate(files):
        os.dup2(os.open(path, mode), number)
    if job["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], job["file_limit"]))
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:  # inherited from nohup, or from a shell's background job
            signal.signal(number, handler)
    sys.argv = job["argv"]
    code: object = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)  # without the cleaning up of torch, which would take half a second


if __name__ == "__main__":
    serve()
