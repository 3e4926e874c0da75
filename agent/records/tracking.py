"""All reports of a run in one place: metrics.jsonl, console, Weights & Biases, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.records.console import Console
from agent.records.dashboard import Sink
from agent.records.metrics import JsonlSink
from agent.records.names import METRICS
from agent.records.wandb_run import start

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, object]
CONSOLE_NAMES = {  # on the console
    **{"train/episode_return": "episode_return", "eval/return_mean": "eval_return"},
    **{f"collect/{name}": name for name in ("learner_wait", "actor_wait", "staleness")},
}


class Tracker:
    """Passes everything that a run logs to metrics.jsonl, the console, W&B and further sinks, once `open` is called.

    Args:
        run_dir: the run's folder; metrics.jsonl in it is appended to, and W&B writes to its subfolder `wandb`.
        config: the whole resolved config.
        settings: the config node `wandb`.
        console: the console, which shows logged returns and errors of W&B.
        run_id: the W&B id of a resumed run; None for a new run.
        extra_sinks: makes each further sink, such as TensorBoard's.

    Attributes:
        run_id: the W&B id to store in checkpoints; None if the run never had one.
        console: the console.
        dashboard: how to watch the run on W&B: its address, or the commands to watch and upload it.
        dashboards: how to watch the run in each further sink.
    """

    dashboard: str | None = None
    dashboards: tuple[str | None, ...] = ()

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        settings: WandbConfig,
        console: Console,
        run_id: str | None = None,
        extra_sinks: Sequence[Callable[[], Sink]] = (),
    ) -> None:
        self.console, self.run_id = console, run_id
        self._run_dir, self._config, self._settings, self._extra_sinks = run_dir, config, settings, extra_sinks
        self._file: JsonlSink | None = None
        self._sinks: tuple[Sink, ...] = ()

    def open(self) -> None:
        """Opens all sinks. Until then nothing is written, so that a run that cannot be resumed stays as it is.

        Raises:
            UserError: metrics.jsonl cannot be written, or W&B fails although wandb.mode is online or offline.
        """
        self._file = JsonlSink(self._run_dir / METRICS)
        wandb = start(self._run_dir, self._config, self._settings, self.console, self.run_id)
        self._sinks = (wandb,)  # to be finished if another fails
        extra = [make() for make in self._extra_sinks]
        self._sinks = (wandb, *extra)
        self.run_id, self.dashboard = wandb.run_id, wandb.dashboard
        self.dashboards = tuple(sink.dashboard for sink in extra)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics at an environment step, the x axis of every chart; it takes about 0.1 ms with W&B."""
        assert self._file is not None
        self._file.log(step, metrics)
        for sink in self._sinks:
            sink.log(step, metrics)
        console_values = {CONSOLE_NAMES[name]: value for name, value in metrics.items() if name in CONSOLE_NAMES}
        if console_values:
            self.console.update(step, **console_values)

    def video(self, step: int, path: Path) -> None:
        """Logs a video file (mp4 or gif) at an environment step."""
        for sink in self._sinks:
            sink.video(step, path)

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, object]) -> None:
        """Logs a saved agent's file as a version of the artifact agent-<run_id>."""
        for sink in self._sinks:
            sink.save_agent(path, aliases, metadata)

    def finish(self, exit_code: int = 0) -> None:
        """Closes all open sinks; further calls have no effect."""
        if self._file is not None:
            self._file.close()
        sinks, self._sinks = self._sinks, ()
        for sink in sinks:
            sink.finish(exit_code)
