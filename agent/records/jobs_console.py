"""The progress of several jobs on the console: one bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

from agent.common.streams import tolerant
from agent.records.console import LINE_SECONDS, REDRAW_SECONDS, Bar, format_duration


class JobsConsole:
    """Shows how many jobs have ended, their steps, steps/s and the time left, below the jobs' output.

    Args:
        jobs: the number of jobs; None if it is not yet known.
        enabled: False shows no progress; `line` still prints.
        stream: the stream to print to; standard error by default. A terminal shows a bar; any other stream gets a
            line every 10 s.
    """

    def __init__(self, jobs: int | None, enabled: bool, stream: TextIO | None = None) -> None:
        self._jobs, self._enabled = jobs, enabled
        self._stream = tolerant(sys.stderr if stream is None else stream)
        self._began = time.monotonic()
        bar = enabled and self._stream.isatty()
        layout = "{percentage:3.0f}%|{bar}| {desc}" if jobs else "{desc}"
        self._bar = Bar(total=1.0, file=self._stream, dynamic_ncols=True, bar_format=layout) if bar else None
        self._period = REDRAW_SECONDS if bar else LINE_SECONDS
        self._next_drawing = self._began + self._period if enabled else float("inf")
        self._status = self._shown = ""
        self._progress = 0.0

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def update(self, ended: int, running: int, step: int, progress: float) -> None:
        """Updates the progress of all jobs.

        Args:
            ended: the number of jobs that have ended, successfully or not.
            running: the number of jobs that run.
            step: environment steps of all jobs together.
            progress: the sum over the jobs of the fraction of its steps that each has done.
        """
        now = time.monotonic()
        self._progress = progress / self._jobs if self._jobs else 0.0
        self._status = self._format_status(ended, running, step, now - self._began)
        if now >= self._next_drawing:
            self._next_drawing = now + self._period
            self._show()

    def close(self) -> None:
        """Draws the last state and closes the bar."""
        if self._enabled and self._status and self._shown != self._status:
            self._show()
        if self._bar is not None:
            self._bar.close()

    def _format_status(self, ended: int, running: int, step: int, seconds: float) -> str:
        total = f"/{self._jobs}" if self._jobs else ""
        parts = [f"{ended}{total} jobs ended", f"{running} running", f"{step:,} steps"]
        if step and seconds > 0.0:
            parts.append(f"{step / seconds:,.0f} steps/s")
        if 0.0 < self._progress < 1.0 and running:
            parts.append(f"{format_duration(seconds * (1.0 - self._progress) / self._progress)} left")
        return " · ".join(parts)

    def _show(self) -> None:
        self._shown = self._status
        if self._bar is not None:
            self._bar.n = min(self._progress, 1.0)
            self._bar.set_description_str(self._status)
        else:
            percent = f"{100 * min(self._progress, 1.0):3.0f}% " if self._jobs else ""
            print(f"{percent}{self._status}", file=self._stream, flush=True)
