"""Everything a run reports, in one place: metrics.jsonl, console, Weights & Biases, TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.records.console import Console
from agent.records.dashboard import Sink
from agent.records.metrics import JsonlSink
from agent.records.wandb_run import start

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, object]
CONSOLE_NAMES = {  # on the console
    **{"train/episode_return": "episode_return", "eval/return_mean": "eval_return"},
    **{f"collect/{name}": name for name in ("learner_wait", "actor_wait", "staleness")},
}


class Tracker:
    """What a run logs goes through here.

    Args:
        run_dir: the run's folder; metrics.jsonl is appended to, W&B writes to its subfolder `wandb`.
        config: the whole resolved config.
        settings: the config node `wandb`.
        console: shows the returns that are logged, and what goes wrong with W&B.
        run_id: W&B id of the run that is resumed; None for a new run.
        extra_sinks: what else gets all that is logged.

    Attributes:
        run_id: W&B id to store in checkpoints; None if there never was one.
        console: where it prints.
        dashboard: how to watch the run: its address, or the commands to watch and upload it.
        dashboards: the same of what else gets all that is logged.

    Raises:
        UserError: metrics.jsonl cannot be written, or wandb.mode is online or offline and W&B cannot do it.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        settings: WandbConfig,
        console: Console,
        run_id: str | None = None,
        extra_sinks: Sequence[Sink] = (),
    ) -> None:
        self._file = JsonlSink(run_dir / "metrics.jsonl")
        self._sink = start(run_dir, config, settings, console, run_id)
        self._sinks = (self._sink, *extra_sinks)
        self.console = console
        self._finished = False
        self.run_id = self._sink.run_id
        self.dashboard = self._sink.dashboard
        self.dashboards = tuple(sink.dashboard for sink in extra_sinks)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at an environment step, the axis of every chart; about 0.1 ms with W&B."""
        self._file.log(step, metrics)
        for sink in self._sinks:
            sink.log(step, metrics)
        console_values = {CONSOLE_NAMES[name]: value for name, value in metrics.items() if name in CONSOLE_NAMES}
        if console_values:
            self.console.update(step, **console_values)

    def video(self, step: int, path: Path) -> None:
        """Show a video file (mp4 or gif) at an environment step."""
        for sink in self._sinks:
            sink.video(step, path)

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, object]) -> None:
        """Log a saved agent's file as a version of the artifact agent-<run_id>."""
        for sink in self._sinks:
            sink.save_agent(path, aliases, metadata)

    def finish(self, exit_code: int = 0) -> None:
        """Close everything; calling it again does nothing."""
        if not self._finished:
            self._finished = True
            self._file.close()
            for sink in self._sinks:
                sink.finish(exit_code)
