"""Only the process that trains in the folder of a run locks it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Programs

from agent.common.errors import UserError
from agent.common.locks import flock
from agent.records.locking import occupied

ROOT = Path(__file__).resolve().parent.parent

#: A program that locks the folder `run`, starts a process that prints its id, in one of two ways, and waits for a kill.
OUTLIVED = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from agent.records.locking import occupied

def wait():
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    time.sleep(60)

with occupied(Path("run")):
    if sys.argv[1] == "os.fork":
        pid = os.fork()
        if pid == 0:
            wait()
    else:
        multiprocessing.get_context(sys.argv[1]).Process(target=wait, daemon=True).start()
    time.sleep(60)
"""


def test_an_empty_folder_of_the_users_stays(programs: Programs, tmp_path: Path) -> None:
    """A folder that the program has made is deleted if nothing was trained in it."""
    (tmp_path / "mine").mkdir()
    for option in ("resume=mine", "hydra.run.dir=mine", "resume=new", "hydra.run.dir=new"):
        result = programs.run("train", option, "env=Nowhere-v1", cwd=tmp_path, real=True)
        assert result.code == 2, result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("way", ["os.fork", "fork"])
def test_a_process_that_outlives_the_trainer_does_not_keep_its_run_locked(tmp_path: Path, way: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    arguments = [sys.executable, "-c", OUTLIVED, way]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline())
        trainer.kill()
        trainer.wait(30)
    try:
        os.kill(pid, 0)  # the process still runs
        with occupied(run):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_that_unwinds_closes_no_file_of_its_own(tmp_path: Path) -> None:
    """Another file may then have the number of the lock's descriptor."""
    (tmp_path / "config.yaml").write_text("text")
    pid, other = -1, -1
    try:
        with occupied(tmp_path):
            pid = os.fork()
            if pid == 0:
                other = os.open(tmp_path / "config.yaml", os.O_RDONLY)
                raise InterruptedError
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            with pytest.raises(UserError, match="another process trains in"), occupied(tmp_path):
                pass
    except InterruptedError:
        os._exit(0 if os.read(other, 4) == b"text" else 1)
    with occupied(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_one_open_file_at_a_time_has_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    one, other = (os.open(file, os.O_RDWR) for _ in range(2))
    assert flock(one, wait=False)
    assert not flock(other, wait=False)
    os.close(one)
    assert flock(other, wait=True)
    os.close(other)
