"""A run's progress on the console: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from agent.common.streams import tolerant

REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0
REPORT_SECONDS = 1.0
RETURNS_SHOWN = 20  # the printed return is the mean over this many last episodes
RATE_WINDOW = 50  # redraws over which steps/s is measured: 5 s of a bar


_report: Callable[[int, int], None] | None = None


def report_through(report: Callable[[int, int], None] | None) -> None:
    """Makes all consoles of this process pass their progress to `report` instead of printing it.

    Args:
        report: called with the step and the total number of steps; None: consoles print their progress again.
    """
    global _report
    _report = report


class Bar(tqdm):  # type: ignore[misc, unused-ignore]
    """A tqdm bar without tqdm's monitor thread, which forked environments would inherit."""

    monitor_interval = 0


class Console:
    """Shows step, episode return, evaluation return, steps/s and the time left.

    Args:
        total_steps: environment steps of the whole run.
        initial_step: the step a resumed run starts from.
        enabled: False shows no progress; `line` still prints.
        stream: the stream to print to; standard error by default. A terminal shows a bar; any other stream gets a
            plain line every 10 s and at each evaluation.
    """

    def __init__(
        self, total_steps: int, initial_step: int = 0, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self._total = total_steps
        self._stream = tolerant(sys.stderr if stream is None else stream)
        self._enabled = enabled
        self._step = initial_step
        self._returns: deque[float] = deque(maxlen=RETURNS_SHOWN)
        self._eval_return: float | None = None
        self._collection: dict[str, float] = {}  # the newest metrics of actors and learner
        self._rate_samples = deque([(time.monotonic(), initial_step)], maxlen=RATE_WINDOW)
        self._bar: Bar | None = self._open_bar() if enabled and not _report and self._stream.isatty() else None
        self._period = _period(self._bar is not None)
        self._next_drawing = time.monotonic() + self._period if enabled else float("inf")
        self._last_shown: tuple[int, float | None] | None = None

    def _open_bar(self) -> Bar:
        return Bar(
            total=self._total,
            initial=self._step,
            file=self._stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",
        )

    def update(self, step: int, **values: float) -> None:
        """Updates the progress; cheap enough for every iteration.

        Args:
            step: environment steps so far.
            **values: `episode_return` of an episode that ended, `eval_return` of an evaluation; where actors collect,
                also `learner_wait`, `actor_wait` and `staleness`.
        """
        self._step = max(step, self._step)  # an evaluation may arrive after its step
        if values:
            self._record(**values)
        if time.monotonic() >= self._next_drawing:
            self._show()

    def _record(
        self, episode_return: float | None = None, eval_return: float | None = None, **collecting: float
    ) -> None:
        self._collection.update(collecting)
        if episode_return is not None:
            self._returns.append(episode_return)
        if eval_return is not None:
            self._eval_return = eval_return
            self._next_drawing = min(self._next_drawing, 0.0) if self._enabled else self._next_drawing

    def line(self, text: str) -> None:
        """Prints one or several lines above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Draws the last state and closes the bar; later lines are still printed."""
        if self._enabled and self._last_shown != (self._step, self._eval_return):
            self._show()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._next_drawing = float("inf")

    def _show(self) -> None:
        now = time.monotonic()
        self._rate_samples.append((now, self._step))
        self._next_drawing = now + self._period
        self._last_shown = (self._step, self._eval_return)
        if _report is not None:
            _report(min(self._step, self._total), self._total)
            return
        if self._bar is None:
            print(
                f"{100 * min(self._step / max(1, self._total), 1.0):3.0f}% {self._status()}",
                file=self._stream,
                flush=True,
            )
            return
        self._bar.n = min(self._step, self._total)
        self._bar.set_description_str(self._status())

    def _status(self) -> str:
        step = min(self._step, self._total)  # the last vector step may go beyond the end
        parts = [f"{step:,}/{self._total:,} steps"]
        if self._returns:
            parts.append(f"return {format_return(sum(self._returns) / len(self._returns))}")
        if self._eval_return is not None:
            parts.append(f"eval {format_return(self._eval_return)}")
        for name, label in (("learner_wait", "learner waits"), ("actor_wait", "actors wait")):
            if name in self._collection:
                parts.append(f"{label} {self._collection[name]:.0%}")
        if "staleness" in self._collection:
            parts.append(f"staleness {self._collection['staleness']:.0f}")
        rate = self._rate()
        if rate > 0.0:
            parts += [f"{rate:,.0f} steps/s", f"{format_duration((self._total - step) / rate)} left"]
        return " · ".join(parts)

    def _rate(self) -> float:
        """Returns the environment steps per second over the last redraws."""
        (start, first), (end, last) = self._rate_samples[0], self._rate_samples[-1]
        return (last - first) / (end - start) if end > start else 0.0


def _period(bar: bool) -> float:
    """Returns the seconds between two redraws."""
    return REDRAW_SECONDS if bar else LINE_SECONDS if _report is None else REPORT_SECONDS


def format_return(value: float) -> str:
    """Formats a return with one decimal, or with three significant digits if it is small: -20.8, 0.993, -0.006."""
    return f"{value:.1f}" if abs(value) >= 1.0 or value == 0.0 else f"{value:.3g}"


def format_duration(seconds: float) -> str:
    """Formats a duration as minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
