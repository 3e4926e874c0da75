"""Weights & Biases: a run's charts, videos and agents. The module wandb is an argument here, and not imported."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.common.patience import TooLongError, call_within
from agent.common.texts import printable
from agent.records.console import Console

#: Limits in seconds at the end of a run: for all calls of W&B together, for the start of an agent's upload, and for the
#: end of W&B's own process.
END_SECONDS, UPLOAD_SECONDS, LAST_SECONDS = 28.0, 4.0, 2.0
#: A call that takes more seconds than this waits for an unresponsive server: W&B is not called again before the end.
SLOW_SECONDS = 5.0
#: Charts are sorted by name, and `wandb leet` opens on the first nine: returns, the loss and σ.
CHARTS = {"train/episode_return": "episode/return", "train/episode_length": "episode/length", "train/loss": "loss"}
SIGMA, NOISE = "sigma/", "noise/sigma/"
#: The statistics of an evaluation that have a chart; metrics.jsonl has all of them.
EVALUATION = ("eval/return_mean", "eval/human_normalised", "eval_noisy/return_mean")


def charts_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Selects the metrics that have a chart, and returns them by the names of the charts."""
    return {
        CHARTS.get(name, name.replace(SIGMA, NOISE, 1) if name.startswith(SIGMA) else name): value
        for name, value in metrics.items()
        if not name.startswith(("eval/", "eval_noisy/")) or name in EVALUATION
    }


class Sink:
    """A sink that drops everything (W&B is disabled); it keeps the run's id for a later resume with W&B."""

    def __init__(self, run_id: str | None = None, dashboard: str = "W&B is disabled") -> None:
        self.run_id = run_id
        self.dashboard = dashboard

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Charts metrics at an environment step."""

    def video(self, step: int, path: Path) -> None:
        """Shows a video at an environment step."""

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, object]) -> None:
        """Keeps an agent's file as a version of an artifact; at the end of a run."""

    def finish(self, exit_code: int) -> None:
        """Closes the run."""


class WandbSink(Sink):
    """A W&B run. Once it has started, an error of W&B is reported once and never stops training.

    Args:
        wandb: the module wandb.
        run: the run that `wandb.init` returned.
        folder: the folder of the run's W&B files, for the commands that watch and upload them.
        console: the console that errors are printed on.
    """

    def __init__(self, wandb: Any, run: Any, folder: Path, console: Console) -> None:
        commands = f"watch: {command('leet', folder)}   upload: {command('sync', folder)}"
        super().__init__(run.id, f"W&B is offline, {commands}" if run.offline else f"W&B: {run.url}")
        self._wandb, self._run, self._folder, self._console = wandb, run, folder, console
        self._failed = self._is_unresponsive = False
        self._seconds_left = END_SECONDS
        # W&B's own step counts calls and starts again at 0 in a resumed offline run: never chart against it.
        self._try(lambda: run.define_metric("global_step"))
        self._try(lambda: run.define_metric("*", step_metric="global_step"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Charts metrics at an environment step."""
        self._try(lambda: self._run.log({"global_step": step, **charts_of(metrics)}))

    def video(self, step: int, path: Path) -> None:
        """Shows a video at an environment step."""
        self._try(lambda: self._run.log({"global_step": step, "eval/video": self._wandb.Video(str(path))}))

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, object]) -> None:
        """Keeps an agent's file as a version of an artifact; at the end of a run."""
        action = self._run, path, list(aliases), dict(metadata)
        self._try(lambda: self._with_timeout(UPLOAD_SECONDS, lambda: self._log_artifact(*action)))

    def _log_artifact(self, run: Any, path: Path, aliases: list[str], metadata: dict[str, object]) -> None:
        # W&B reads the file later (offline: at `wandb sync`), when training may have replaced it. So it gets a copy.
        # The copy is in the run's folder; W&B would put its own copy into the home folder.
        (self._folder / "agents").mkdir(exist_ok=True)
        copy = Path(tempfile.mkdtemp(prefix="", dir=self._folder / "agents"))
        artifact = self._wandb.Artifact(f"agent-{self.run_id}", type="model", metadata=metadata)
        shutil.copyfile(path, copy / path.name)
        artifact.add_file(str(copy / path.name), policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=aliases)

    def finish(self, exit_code: int) -> None:
        """Closes the run; if the upload takes longer than `END_SECONDS`, prints the command that uploads the rest."""
        try:
            with silent_logging():
                self._with_timeout(END_SECONDS, lambda: self._run.finish(exit_code=exit_code))
        except Exception as error:
            upload = command("sync --include-online", Path(self._run.dir).parent)
            self._console.line(f"W&B did not finish ({reason(error)}); to upload: {upload}")
            self._seconds_left = LAST_SECONDS
            with suppress(Exception), silent_logging():  # otherwise Python would wait for W&B's process at exit
                self._with_timeout(LAST_SECONDS, lambda: self._wandb.teardown(exit_code))

    def _with_timeout(self, seconds: float, action: Callable[[], object]) -> None:
        """Runs an action that may wait for the server, in a thread that is abandoned if it takes too long."""
        seconds, start = min(seconds, self._seconds_left), time.monotonic()
        try:
            call_within(seconds, action)
        except TooLongError:
            raise TimeoutError(f"its server has not answered for {seconds:.0f} s") from None
        finally:
            self._seconds_left -= time.monotonic() - start

    def _try(self, action: Callable[[], object]) -> None:
        if self._is_unresponsive:
            return
        start = time.monotonic()
        try:
            action()
        except Exception as error:
            self._report(reason(error))
            self._is_unresponsive = isinstance(error, TimeoutError)
        if time.monotonic() - start > SLOW_SECONDS:
            self._report(f"a call took more than {SLOW_SECONDS:.0f} s")
            self._is_unresponsive = True

    def _report(self, message: str) -> None:
        if not self._failed:
            self._console.line(f"W&B failed ({message}); training and metrics.jsonl go on.")
        self._failed = True


@contextmanager
def silent_logging() -> Iterator[None]:
    """Suppresses the traceback that Python prints for each line that W&B cannot write to its log, as on a full disk."""
    previous, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = previous
        for handler in logging.getLogger("wandb").handlers:
            handler.handleError = lambda record: None  # type: ignore[method-assign]


def command(verb: str, path: Path, program: str = "wandb", module: str = "wandb") -> str:
    """Builds a command line that the user can copy, with the path relative to the current folder if it is inside it."""
    executable = program if shutil.which(program) else f"{shlex.quote(sys.executable)} -m {module}"
    is_inside = path.resolve().is_relative_to(Path.cwd())
    return f"{executable} {verb} {shlex.quote(str(path.resolve().relative_to(Path.cwd()) if is_inside else path))}"


def reason(error: BaseException) -> str:
    """Returns the first line of an error of W&B; for a refused setting, its name and the rule from the next lines."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and re.match(r"\d+ validation errors? for ", lines[0]):  # as pydantic writes them
        name, rule = ("", lines[1]) if lines[1].startswith(" ") else (f"{lines[1]}: ", lines[2])
        rule = re.sub(r"^\s*(Value error, )?|\s*\[type=.*", "", rule)
        return printable(f"{name}{rule}".rstrip("."))
    return printable(lines[0].rstrip(".")) if lines else type(error).__name__
