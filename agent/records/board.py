"""What the jobs of a sweep on many cores or machines tell the process that started them: files in the sweep's folder.

Each job has a note, which is replaced as it goes on, and a log of the lines that it prints. Files work wherever the
folders of the runs do.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.common.files import atomic_write_text

STOP, OWNER = "stop", "owner"


@dataclass(frozen=True)
class Note:
    """How far a job is.

    Attributes:
        words: the options of its command line.
        folder: of its run.
        step: environment steps that it has done.
        steps: that it was asked for; 0 before it has begun.
        state: running, done, failed, stopped (a signal ended it), or queued (again, after its queue has stopped it).
        score: that it returned.
    """

    words: str
    folder: str
    step: int = 0
    steps: int = 0
    state: str = "running"
    score: float | None = None


class Board:
    """The notes and logs of a sweep's jobs.

    Args:
        sweep: the folder of the sweep.
    """

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep.absolute() / "jobs"

    def clear(self, owned: bool = True) -> None:
        """Makes the folder, without what an earlier sweep has left there; this process is the sweep's own.

        Args:
            owned: the jobs' processes are children of this one.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if owned:
            (self.folder / OWNER).write_text(str(os.getpid()))

    def is_orphaned(self) -> bool:
        """Whether the sweep's own process, which has started this one, has gone."""
        try:
            return int((self.folder / OWNER).read_text()) not in (os.getpid(), os.getppid())
        except FileNotFoundError:  # on another machine it could not be seen: what started the job ends it
            return not self.folder.is_dir()
        except (OSError, ValueError):
            return True  # the folder of the sweep has gone, too

    def log(self, job: int) -> Path:
        """The file of a job's lines."""
        return self.folder / f"{job}.log"

    def logs(self) -> Iterator[tuple[int, Path]]:
        """The numbers of the jobs that have begun, in order, and their files."""
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.log") if path.stem.isdecimal())
        yield from ((number, self.log(number)) for number in numbers)

    def write(self, job: int, note: Note) -> None:
        """Replaces a job's note."""
        atomic_write_text(self.folder / f"{job}.json", json.dumps(asdict(note)))

    def read(self, job: int) -> Note | None:
        """A job's note; None where it has none."""
        try:
            return Note(**json.loads((self.folder / f"{job}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def notes(self) -> dict[int, Note]:
        """All notes, by the numbers of their jobs."""
        notes = {job: self.read(job) for job, _ in self.logs()}
        return {job: note for job, note in notes.items() if note is not None}

    def advance(self, job: int, step: int, steps: int) -> None:
        """Notes a job's steps; a disk that refuses does not end a run for it."""
        note = self.read(job)
        if note is not None:
            with suppress(Exception):
                self.write(job, replace(note, step=step, steps=steps))

    def stop(self) -> None:
        """Asks all jobs to save and stop."""
        (self.folder / STOP).touch()

    def is_stopping(self) -> bool:
        """Whether the jobs were asked to stop."""
        return (self.folder / STOP).exists()
