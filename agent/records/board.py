"""Reports of a sweep's jobs to the process that started them, as files in the sweep's folder.

Each job has a note, which it replaces as it progresses, and a log of its output. Files work across cores and machines,
wherever the folders of the runs are shared.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.common.files import atomic_write_text, without_link

STOP, OWNER = "stop", "owner"


@dataclass(frozen=True)
class Note:
    """The state and progress of a job.

    Attributes:
        overrides: those of its command line.
        folder: the folder of its run.
        step: environment steps so far.
        steps: environment steps of the whole run; 0 before it has begun.
        state: running, done, failed, stopped (by a signal), or queued (again, after its queue has stopped it).
        score: the score that it returned.
    """

    overrides: str
    folder: str
    step: int = 0
    steps: int = 0
    state: str = "running"
    score: float | None = None


class Board:
    """The notes and logs of a sweep's jobs.

    Args:
        sweep: the sweep's folder, which several sweeps may share if a user named it.
        started: when the sweep began; it names the part of the folder that belongs to this sweep alone.
    """

    def __init__(self, sweep: Path, started: str) -> None:
        self.folder = sweep.absolute() / "jobs" / started

    def open(self, owned: bool = True) -> None:
        """Makes the folder, and registers this process as the one that runs the sweep.

        Args:
            owned: whether the jobs' processes are children of this one; False registers no process.
        """
        for folder in (self.folder.parent, self.folder):
            without_link(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if owned:
            atomic_write_text(self.folder / OWNER, str(os.getpid()))

    def is_orphaned(self) -> bool:
        """Whether the process that runs the sweep, and has started this one, has ended."""
        try:
            return int((self.folder / OWNER).read_text()) not in (os.getpid(), os.getppid())
        except FileNotFoundError:  # on another machine, where its launcher ends the job
            return not self.folder.is_dir()
        except (OSError, ValueError):
            return True  # the sweep's folder has been deleted

    def log(self, job: int) -> Path:
        """Returns the file of a job's output."""
        return self.folder / f"{job}.log"

    def logs(self) -> Iterator[tuple[int, Path]]:
        """Yields the numbers of the jobs that have begun, in order, and their log files."""
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.log") if path.stem.isdecimal())
        yield from ((number, self.log(number)) for number in numbers)

    def write(self, job: int, note: Note) -> None:
        """Replaces a job's note."""
        atomic_write_text(self.folder / f"{job}.json", json.dumps(asdict(note)))

    def read(self, job: int) -> Note | None:
        """Reads a job's note; None if it has none."""
        try:
            return Note(**json.loads((self.folder / f"{job}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def notes(self) -> dict[int, Note]:
        """Reads all notes; returns them by job number."""
        notes = {job: self.read(job) for job, _ in self.logs()}
        return {job: note for job, note in notes.items() if note is not None}

    def advance(self, job: int, step: int, steps: int) -> None:
        """Writes a job's progress to its note; an error of the disk does not end the run."""
        note = self.read(job)
        if note is not None:
            with suppress(Exception):
                self.write(job, replace(note, step=step, steps=steps))

    def stop(self) -> None:
        """Asks all jobs to save and stop."""
        atomic_write_text(self.folder / STOP, "")

    def is_stopping(self) -> bool:
        """Whether the jobs were asked to stop."""
        return (self.folder / STOP).exists()
