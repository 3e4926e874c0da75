"""Locks between processes: a lock ends with the processes that hold it, even if they are killed."""

import sys

if sys.platform != "win32":
    import fcntl


def flock(descriptor: int, wait: bool) -> bool:
    """Locks an open file or folder against other processes.

    Windows and some network folders have no such locks: there every process gets the lock.

    Args:
        descriptor: of the file or folder; the lock ends once all copies of it are closed.
        wait: wait while another process holds the lock.

    Returns:
        Whether this process has the lock; False if another process holds it.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a network folder without support for locks
    return True
