"""A small process that outlives the trainer and clears away what Ray leaves: run as a program, by `cluster.Here`.

It waits until its standard input ends, which happens when the trainer closes it or dies in whatever way. Then it ends
all processes that carry the mark of this run in their environment, and removes Ray's folder.
"""

import shutil
import sys
import time

import psutil

#: The environment variable that holds the mark.
MARK = "NOISY_DQN_RAY"
#: Seconds in which processes may end by themselves.
GRACE = 0.5


def marked(mark: str) -> list[psutil.Process]:
    """The processes that carry a mark, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # it ended meanwhile, or is somebody else's
            continue
    return found


def clear(mark: str, folder: str) -> None:
    """Ends the processes with a mark, and removes the folder, until neither is there."""
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
