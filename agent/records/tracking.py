"""Everything a run reports, in one place: metrics.jsonl, console, Weights & Biases. Only here is wandb imported."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.common.errors import UserError
from agent.records.console import Console
from agent.records.metrics import JsonlSink

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, Any]
SHOWN = {"train/episode_return": "episode_return", "eval/return_mean": "eval_return"}  # on the console
RUN_SETTINGS = {
    "console": "off",  # the terminal is ours: not captured, not uploaded
    "init_timeout": 15.0,  # seconds a run waits for the server before it goes on offline
    "finish_timeout": 60.0,  # seconds the end of a run waits for the last upload
    "finish_timeout_raises": True,
    "reinit": "finish_previous",
    # Of its machine a run tells how busy it is (which costs 0.2 % of a core), not whose it is or what is on it.
    "host": "",
    "program": "train.py",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 2.0,  # seconds by which `wandb leet` lags behind the run
}


class Tracker:
    """What a run logs goes through here.

    Args:
        run_dir: the run's folder; metrics.jsonl is appended to, W&B writes to its subfolder `wandb`.
        config: the whole resolved config.
        settings: the config node `wandb`.
        console: shows the returns that are logged, and what goes wrong with W&B.
        run_id: W&B id of the run that is resumed; None for a new run.

    Attributes:
        run_id: W&B id to store in checkpoints; None if there never was one.
        console: where it prints.
        dashboard: how to watch the run: its address, or the commands to watch and upload it.

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
    ) -> None:
        self._file = JsonlSink(run_dir / "metrics.jsonl")
        self._sink = _start(run_dir, config, settings, console, run_id)
        self.console = console
        self._finished = False
        self.run_id = self._sink.run_id
        self.dashboard = self._sink.dashboard

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at an environment step, the axis of every chart; about 0.1 ms with W&B."""
        self._file.log(step, metrics)
        self._sink.log(step, metrics)
        shown = {SHOWN[name]: value for name, value in metrics.items() if name in SHOWN}
        if shown:
            self.console.update(step, **shown)

    def video(self, step: int, path: Path) -> None:
        """Show a video file (mp4 or gif) at an environment step."""
        self._sink.video(step, path)

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, Any]) -> None:
        """Log a saved agent's file as a version of the artifact agent-<run_id>."""
        self._sink.save_agent(path, aliases, metadata)

    def finish(self, exit_code: int = 0) -> None:
        """Close everything; calling it again does nothing."""
        if not self._finished:
            self._finished = True
            self._file.close()
            self._sink.finish(exit_code)


class _Sink:
    """Keeps nothing (W&B is disabled) but the run's id, for a later resume with W&B."""

    def __init__(self, run_id: str | None, dashboard: str = "W&B is disabled.") -> None:
        self.run_id = run_id
        self.dashboard = dashboard

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def video(self, step: int, path: Path) -> None: ...
    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, Any]) -> None: ...
    def finish(self, exit_code: int) -> None: ...


class _WandbSink(_Sink):
    """A W&B run. What W&B does wrong once the run has started is reported once and never stops training."""

    def __init__(self, wandb: Any, run: Any, folder: Path, console: Console) -> None:
        # A resumed offline run has two folders in `folder`; both commands take all that are there.
        commands = f"watch: {_command('leet', folder)}   upload: {_command('sync', folder)}"
        super().__init__(run.id, f"W&B is offline, {commands}" if run.offline else f"W&B: {run.url}")
        self._wandb, self._run, self._folder, self._console = wandb, run, folder, console
        self._failed = False
        # W&B's own step counts calls and starts again at 0 in a resumed offline run: never chart against it.
        self._try(lambda: run.define_metric("global_step"))
        self._try(lambda: run.define_metric("*", step_metric="global_step"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._try(lambda: self._run.log({"global_step": step, **metrics}))

    def video(self, step: int, path: Path) -> None:
        self._try(lambda: self._run.log({"global_step": step, "eval/video": self._wandb.Video(str(path))}))

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, Any]) -> None:
        self._try(lambda: self._log_artifact(path, list(aliases), dict(metadata)))

    def _log_artifact(self, path: Path, aliases: list[str], metadata: dict[str, Any]) -> None:
        # W&B reads the files later (offline: at `wandb sync`), when training may have replaced them. It gets
        # a copy, in the run's folder and not in the home folder, where W&B would put its own.
        (self._folder / "agents").mkdir(exist_ok=True)
        copy = Path(tempfile.mkdtemp(prefix="", dir=self._folder / "agents"))
        artifact = self._wandb.Artifact(f"agent-{self.run_id}", type="model", metadata=metadata)
        shutil.copyfile(path, copy / path.name)
        artifact.add_file(str(copy / path.name), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact, aliases=aliases)

    def finish(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:
            upload = _command("sync --include-online", Path(self._run.dir).parent)
            self._console.line(f"W&B did not finish ({_reason(error)}); to upload: {upload}")

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            if not self._failed:
                self._console.line(f"W&B failed ({_reason(error)}); training and metrics.jsonl go on.")
            self._failed = True


def _start(run_dir: Path, config: Config, settings: WandbConfig, console: Console, run_id: str | None) -> _Sink:
    """The W&B run that the mode asks for; in mode auto whatever works, without ever asking a question."""
    auto = settings.mode == "auto"
    if settings.mode == "disabled" or (auto and os.environ.get("WANDB_MODE") == "disabled"):
        return _Sink(run_id)
    # Without this W&B sends its own errors and timings home, even from offline runs, and logs more slowly.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    asked = {**vars(settings), "name": settings.name or run_dir.name, "config": dict(config), "id": run_id}
    for mode in _modes(wandb, settings.mode):
        try:
            run = _init(wandb, run_dir, {**asked, "mode": mode})
            return _WandbSink(wandb, run, run_dir / "wandb", console)
        except Exception as error:
            if not auto:
                raise UserError(f"wandb.mode={mode}: {_reason(error)}; or use wandb.mode=auto.") from error
            console.line(f"W&B cannot be used {mode} ({_reason(error)}).")
    return _Sink(run_id)


def _modes(wandb: Any, asked: str) -> tuple[str, ...]:
    """The modes to try, in order; auto is for whoever is logged in, unless WANDB_MODE or `wandb offline` forbids."""
    overrides = {} if asked == "auto" else {"mode": asked}
    wandb.setup(settings=wandb.Settings(silent=True, **overrides))
    if asked != "auto":
        return (asked,)
    return ("online", "offline") if _has_key(wandb) else ("offline",)


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))  # False where W&B is set to be offline, too
    except wandb.errors.AuthenticationError:
        return True  # not a valid one: W&B says why when the run starts


def _init(wandb: Any, run_dir: Path, options: Mapping[str, Any]) -> Any:
    if options["mode"] == "online" and not _has_key(wandb):  # W&B would ask for it on a terminal
        raise UserError("there is no API key; run `wandb login` once or set WANDB_API_KEY")
    # W&B may drop one of these (x_ means internal): then the run goes without it.
    known = {name: value for name, value in RUN_SETTINGS.items() if name in wandb.Settings.model_fields}
    earlier = set(run_dir.glob("wandb/run-*"))
    try:
        return wandb.init(dir=str(run_dir), resume="allow", settings=wandb.Settings(**known), **options)
    except Exception:
        for folder in set(run_dir.glob("wandb/run-*")) - earlier:
            shutil.rmtree(folder, ignore_errors=True)  # it is empty, and in the way of the offline run
        raise


def _command(verb: str, path: Path) -> str:
    """A wandb command line to copy, with the path as one types it from here."""
    program = "wandb" if shutil.which("wandb") else f"{shlex.quote(sys.executable)} -m wandb"
    inside = path.resolve().is_relative_to(Path.cwd())
    return f"{program} {verb} {shlex.quote(str(path.resolve().relative_to(Path.cwd()) if inside else path))}"


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
