"""The start of a Weights & Biases run. Only here is wandb imported.

What the command line does not say, W&B's own variables of the environment (WANDB_PROJECT and all others) and its
settings files say, as everywhere else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.common.errors import UserError
from agent.records.console import Console
from agent.records.dashboard import Sink, WandbSink, reason, silent_logging

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, object]
PROJECT = "noisy-dqn"  # of a person who names none, in no way that W&B knows
#: Settings of a run; a variable of the environment that names one of them comes first.
RUN_SETTINGS = {
    "console": "off",  # the terminal is ours: not captured, not uploaded
    "init_timeout": 15.0,  # seconds a run waits for the server before it goes on offline
    "finish_timeout": 18.0,  # seconds the end of a run waits for the last upload; `END_SECONDS` holds it all
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


def start(run_dir: Path, config: Config, settings: WandbConfig, console: Console, run_id: str | None) -> Sink:
    """The W&B run that the mode asks for; in mode auto whatever works, without ever asking a question.

    Raises:
        UserError: in mode online or offline, where W&B cannot do it.
    """
    if settings.mode == "disabled" or (settings.mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
        return Sink(run_id)
    with silent_logging():
        try:
            wandb, modes = _set_up(settings.mode)
        except Exception as error:  # as for variables of the environment that it does not understand
            _refuse(settings.mode, error, console)
            return Sink(run_id)
        for mode in modes:
            try:
                run = _init(wandb, run_dir, {**_options(wandb, run_dir, config, settings, run_id), "mode": mode})
                return WandbSink(wandb, run, _folder(run_dir, Path(run.dir)), console)
            except Exception as error:
                _refuse(settings.mode, error, console, f" {mode}")
    return Sink(run_id)


def _refuse(mode: str, error: Exception, console: Console, tried_mode: str = "") -> None:
    """Says that W&B cannot be used; only where a person asked for it is that an error."""
    if mode != "auto":
        raise UserError(f"wandb.mode={mode}: {reason(error)}; or use wandb.mode=auto.") from error
    console.line(f"W&B cannot be used{tried_mode} ({reason(error)}).")


def _set_up(mode: str) -> tuple[Any, tuple[str, ...]]:
    """The module, set up for this process, and the modes to try, in order.

    Mode auto is for whoever is logged in, unless WANDB_MODE or `wandb offline` forbids to be online.
    """
    # Without this W&B sends its own errors and timings home, even from offline runs, and logs more slowly.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if (key := os.environ.get("WANDB_API_KEY")) is not None:
        os.environ["WANDB_API_KEY"] = key.strip()  # of a file the last line end often comes with it
    import wandb

    requested: dict[str, Any] = {} if mode == "auto" else {"mode": mode}
    wandb.setup(settings=wandb.Settings(**_unless_set({"silent": True}), **requested))
    if mode != "auto":
        return wandb, (mode,)
    return wandb, ("online", "offline") if _has_key(wandb) else ("offline",)


def _unless_set(settings: Mapping[str, object]) -> dict[str, Any]:
    """Those of the settings for which the environment has no variable."""
    variables = {name: {f"WANDB_{name.upper()}", f"WANDB_{name.removeprefix('x').upper()}"} for name in settings}
    variables |= {"disable_code": {"WANDB_DISABLE_CODE", "WANDB_SAVE_CODE"}}
    return {name: value for name, value in settings.items() if not variables[name] & os.environ.keys()}


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))  # False where W&B is set to be offline, too
    except Exception:
        return True  # not a valid one: W&B says why when the run starts


def _options(wandb: Any, run_dir: Path, config: Config, settings: WandbConfig, run_id: str | None) -> dict[str, object]:
    """The arguments of wandb.init: no more than was asked for, so that W&B's own variables hold for the rest."""
    wandb_settings = wandb.setup().settings
    names = ("project", "entity", "group", "job_type", "name", "tags")
    options = {name: value for name in names if (value := getattr(settings, name)) not in (None, ())}
    options |= {} if wandb_settings.project else {"project": options.get("project", PROJECT)}
    options |= {} if wandb_settings.run_name else {"name": options.get("name", run_dir.name)}
    options |= {} if "WANDB_DIR" in os.environ else {"dir": str(run_dir)}
    options |= {} if wandb_settings.resume and run_id is None else {"resume": "allow"}
    return {**options, "config": dict(config), **({} if run_id is None else {"id": run_id})}


def _init(wandb: Any, run_dir: Path, options: Mapping[str, object]) -> Any:
    if options["mode"] == "online" and not _has_key(wandb):  # W&B would ask for it on a terminal
        raise UserError("there is no API key; run `wandb login` once or set WANDB_API_KEY")
    # W&B may drop one of these (x_ means internal): then the run goes without it.
    supported = {
        name: value for name, value in _unless_set(RUN_SETTINGS).items() if name in wandb.Settings.model_fields
    }
    earlier = set(run_dir.glob("wandb/run-*"))
    try:
        return wandb.init(settings=wandb.Settings(**supported), **options)
    except Exception:
        for folder in set(run_dir.glob("wandb/run-*")) - earlier:
            shutil.rmtree(folder, ignore_errors=True)  # it is empty, and in the way of the offline run
        raise


def _folder(run_dir: Path, files: Path) -> Path:
    """The folder in which the commands find all of a run; a resumed one has several folders in its own.

    Args:
        run_dir: of the run.
        files: where W&B puts files of the run: <folder of W&B>/<folder of the run>/files.
    """
    is_inside = files.resolve().is_relative_to(run_dir.resolve())
    return run_dir / "wandb" if is_inside else files.parent
