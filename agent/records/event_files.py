"""TensorBoard: what a run logs as event files in its folder, beside metrics.jsonl and W&B.

Only here is tensorboard imported, and of it no more than its records and their checksums: its own writer holds events
back for minutes, which a kill would lose, and ends in a traceback of its thread where the disk is full.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from agent.common.errors import UserError, words_of
from agent.common.files import make_folder
from agent.records.console import Console
from agent.records.dashboard import Sink, command
from agent.records.metrics import read_rows
from envs.video import as_gif

FOLDER = "tensorboard"
VIDEO = "eval/video"


def check_installed() -> None:
    """Raises a UserError where the package is missing, naming the extra."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard=true needs the extra tensorboard: pip install -e '.[tensorboard]'")


def has_event_files(run_dir: Path) -> bool:
    """Whether a run has some already."""
    return any((run_dir / FOLDER).glob("events.*"))


class EventFiles(Sink):
    """Event files of TensorBoard, one for each part of a run that is resumed.

    Scalars have the names and values of metrics.jsonl, against its `global_step`; a video is an image that moves. What
    goes wrong with them is reported once and never stops training.

    Args:
        run_dir: of the run; they lie in its folder `tensorboard`.
        console: says what goes wrong.
        since: the first step that a resumed run writes anew: readers drop what earlier files say of it and of later
            ones, and what metrics.jsonl and `videos` have of them is written again. None for a new run.

    Raises:
        UserError: the package is missing.
    """

    def __init__(self, run_dir: Path, console: Console, since: int | None = None) -> None:
        check_installed()
        super().__init__(dashboard=command("--logdir", run_dir, "tensorboard", "tensorboard.main"))
        self._console, self._failed = console, False
        self._file: BinaryIO | None = None
        self._try(lambda: self._open(run_dir, since))

    def _open(self, run_dir: Path, since: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder = run_dir / FOLDER
        make_folder(folder)
        # Readers take files in the order of their names. Others put the machine's name there, which is nobody's affair.
        path = folder / f"events.out.tfevents.{time.time_ns() // 1000:016d}.{os.getpid()}"
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if since is not None:
            self._write(step=since, session_log=SessionLog(status=SessionLog.START))
            self._write_again(run_dir, since)

    def _write_again(self, run_dir: Path, since: int) -> None:
        """What the run has logged from a step on, its videos included."""
        last_step = -1
        for step, row in read_rows(run_dir / "metrics.jsonl"):
            last_step = max(last_step, step)
            if step >= since:
                self._write_scalars(step, {name: value for name, value in row.items() if name != "global_step"})
        for path in sorted((run_dir / "videos").glob("step_*")):
            number = path.stem.removeprefix("step_")
            if number.isdecimal() and since <= int(number) <= last_step:
                self.video(int(number), path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes metrics at an environment step; those that are no finite number are left out."""
        self._try(lambda: self._write_scalars(step, metrics))

    def video(self, step: int, path: Path) -> None:
        """Writes a video at an environment step, as a GIF: TensorBoard shows no other."""
        self._try(lambda: self._write_gif(step, *as_gif(path)))

    def finish(self, exit_code: int) -> None:
        """Closes the file."""
        if self._file is not None:
            self._try(self._file.close)

    def _write_scalars(self, step: int, metrics: Mapping[str, Any]) -> None:
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        self._write(step=step, summary=self._summary(value=values))

    def _write_gif(self, step: int, data: bytes, height: int, width: int) -> None:
        image = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=VIDEO, image=image)]))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()  # to the system: a kill loses nothing

    def _try(self, action: Callable[[], object]) -> None:
        """Does what may fail, as on a full disk; after the first time nothing more is written."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            self._console.line(f"TensorBoard's files failed ({words_of(error)}); training and metrics.jsonl go on.")
