"""Progress of several jobs at once for people: one bar, or lines in a log file."""

import sys
import time
from typing import TextIO

from agent.common.streams import tolerant
from agent.records.console import LINE_SECONDS, REDRAW_SECONDS, Bar, format_duration


class JobsConsole:
    """Shows how many jobs have ended, their steps, steps/s and the time left, below the lines that they print.

    Args:
        jobs: their number; None where nobody knows it yet.
        enabled: False shows no progress; `line` still prints.
        stream: where to print; standard error by default. On a terminal a bar, otherwise a line every 10 s.
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
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def update(self, ended: int, running: int, step: int, progress: float) -> None:
        """Tell how far all are.

        Args:
            ended: number of jobs that have ended, well or not.
            running: number of those that run.
            step: environment steps of all together.
            progress: sum over the jobs of the part of its steps that each has done.
        """
        now = time.monotonic()
        self._progress = progress / self._jobs if self._jobs else 0.0
        self._status = self._format_status(ended, running, step, now - self._began)
        if now >= self._next_drawing:
            self._next_drawing = now + self._period
            self._show()

    def close(self) -> None:
        """Draw the last state and leave the bar where it is."""
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
