"""TensorBoard: the metrics and videos of a run as event files in its folder, in addition to metrics.jsonl and W&B.

Only this module imports tensorboard, and it uses only the record format: TensorBoard's own writer buffers events for
minutes, so a kill would lose them, and its thread fails with a traceback when the disk is full.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from agent.common.errors import UserError, one_line
from agent.common.files import make_folder
from agent.records.console import Console
from agent.records.dashboard import Sink, command
from agent.records.metrics import read_rows
from agent.records.names import METRICS
from envs.video import as_gif

FOLDER = "tensorboard"
VIDEO = "eval/video"


def check_installed() -> None:
    """Raises a UserError that names the extra if the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard=true needs the extra tensorboard: pip install -e '.[tensorboard]'")


def has_event_files(run_dir: Path) -> bool:
    """Whether a run already has event files."""
    return any((run_dir / FOLDER).glob("events.*"))


class EventFiles(Sink):
    """TensorBoard's event files: one for a run, and one more for each time that it is resumed.

    Scalars have the names and values of metrics.jsonl, against its `global_step`; a video is an animated image. An
    error is reported once and never stops training.

    Args:
        run_dir: the run's folder; the files are in its subfolder `tensorboard`.
        console: the console that errors are printed on.
        since: the first step that a resumed run writes again; None for a new run. Readers drop this step and all later
            ones of earlier files, and the new file repeats their values from metrics.jsonl and their videos.

    Raises:
        UserError: the package is missing.
    """

    def __init__(self, run_dir: Path, console: Console, since: int | None = None) -> None:
        check_installed()
        super().__init__(dashboard=command("--logdir", run_dir, "tensorboard", "tensorboard.main"))
        self._console, self._failed = console, False
        self._file: BinaryIO | None = None
        self._try(lambda: self._open(run_dir, since))
        if self._file is None:
            self.dashboard = "TensorBoard has no files"

    def _open(self, run_dir: Path, since: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder = run_dir / FOLDER
        make_folder(folder)
        # Readers sort files by name. TensorBoard would put the machine's name there; ours omits it for privacy.
        path = folder / f"events.out.tfevents.{time.time_ns() // 1000:016d}.{os.getpid()}"
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if since is not None:
            self._write(step=since, session_log=SessionLog(status=SessionLog.START))
            self._write_again(run_dir, since)

    def _write_again(self, run_dir: Path, since: int) -> None:
        """Writes everything again that the run has logged since a step, including its videos."""
        last_step = -1
        for step, row in read_rows(run_dir / METRICS):
            last_step = max(last_step, step)
            if step >= since:
                self._write_scalars(step, {name: value for name, value in row.items() if name != "global_step"})
        for path in sorted((run_dir / "videos").glob("step_*")):
            number = path.stem.removeprefix("step_")
            if number.isdecimal() and since <= int(number) <= last_step:
                self.video(int(number), path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics at an environment step, without those that are not finite."""
        self._try(lambda: self._write_scalars(step, metrics))

    def video(self, step: int, path: Path) -> None:
        """Writes a video at an environment step as a GIF, the only format that TensorBoard shows."""
        self._try(lambda: self._write_gif(step, *as_gif(path)))

    def finish(self, exit_code: int) -> None:
        """Closes the file."""
        if self._file is not None:
            self._try(self._file.close)

    def _write_scalars(self, step: int, metrics: Mapping[str, object]) -> None:
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        self._write(step=step, summary=self._summary(value=values))

    def _write_gif(self, step: int, data: bytes, height: int, width: int) -> None:
        image = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=VIDEO, image=image)]))

    def _write(self, **fields: object) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()  # to the system: a kill loses nothing

    def _try(self, action: Callable[[], object]) -> None:
        """Runs an action that may fail, as on a full disk; after the first failure nothing more is written."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            self._console.line(f"TensorBoard's files failed ({one_line(error)}); training and metrics.jsonl go on.")
