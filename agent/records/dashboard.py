"""Weights & Biases: what a run shows there. Only here is wandb imported."""

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

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, Any]
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


class Sink:
    """Keeps nothing (W&B is disabled) but the run's id, for a later resume with W&B."""

    def __init__(self, run_id: str | None, dashboard: str = "W&B is disabled.") -> None:
        self.run_id = run_id
        self.dashboard = dashboard

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Charts metrics at an environment step."""

    def video(self, step: int, path: Path) -> None:
        """Shows a video at an environment step."""

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, Any]) -> None:
        """Keeps an agent's file as a version of an artifact."""

    def finish(self, exit_code: int) -> None:
        """Closes the run."""


class WandbSink(Sink):
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
        """Charts metrics at an environment step."""
        self._try(lambda: self._run.log({"global_step": step, **metrics}))

    def video(self, step: int, path: Path) -> None:
        """Shows a video at an environment step."""
        self._try(lambda: self._run.log({"global_step": step, "eval/video": self._wandb.Video(str(path))}))

    def save_agent(self, path: Path, aliases: Sequence[str], metadata: Mapping[str, Any]) -> None:
        """Keeps an agent's file as a version of an artifact."""
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
        """Closes the run."""
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


def start(run_dir: Path, config: Config, settings: WandbConfig, console: Console, run_id: str | None) -> Sink:
    """The W&B run that the mode asks for; in mode auto whatever works, without ever asking a question."""
    auto = settings.mode == "auto"
    if settings.mode == "disabled" or (auto and os.environ.get("WANDB_MODE") == "disabled"):
        return Sink(run_id)
    # Without this W&B sends its own errors and timings home, even from offline runs, and logs more slowly.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    asked = {**vars(settings), "name": settings.name or run_dir.name, "config": dict(config), "id": run_id}
    for mode in _modes(wandb, settings.mode):
        try:
            run = _init(wandb, run_dir, {**asked, "mode": mode})
            return WandbSink(wandb, run, run_dir / "wandb", console)
        except Exception as error:
            if not auto:
                raise UserError(f"wandb.mode={mode}: {_reason(error)}; or use wandb.mode=auto.") from error
            console.line(f"W&B cannot be used {mode} ({_reason(error)}).")
    return Sink(run_id)


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
