"""A small program that outlives the trainer and cleans up after Ray; `cluster.Cluster` starts it.

It waits until its standard input ends: the trainer has closed it, or has died. Then it ends all processes that carry
the mark of this run in their environment, and removes Ray's folder.
"""

import shutil
import sys
import time

import psutil

#: The environment variable that holds the mark.
MARK = "NOISY_DQN_RAY"
#: Seconds that processes have to end by themselves.
GRACE = 0.5


def marked(mark: str) -> list[psutil.Process]:
    """The processes that carry a mark, except this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or belongs to another user
            continue
    return found


def clear(mark: str, folder: str) -> None:
    """Ends the processes with a mark and removes the folder, until both are gone."""
    time.sleep(GRACE)
    for _ in range(20):
        processes = marked(mark)
        for process in processes:
            try:
                process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(folder, ignore_errors=True)
        if not processes:
            return
        psutil.wait_procs(processes, 0.5)


if __name__ == "__main__":
    sys.stdin.read()
    clear(*sys.argv[1:3])
