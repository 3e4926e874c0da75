"""The start of a Weights & Biases run. Only this module imports wandb.

Settings that the command line does not give come from W&B's environment variables (WANDB_PROJECT and others) and
settings files, as in any other program.
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
from agent.records.wandb_variables import correct_variables, use_cache

if TYPE_CHECKING:
    from agent.config.run import WandbConfig

Config = Mapping[str, object]
PROJECT = "noisy-dqn"  # unless the user names one in any way that W&B supports
#: Settings of a run; an environment variable for one of them takes precedence.
RUN_SETTINGS = {
    "console": "off",  # W&B neither captures nor uploads the terminal's output
    "init_timeout": 15.0,  # seconds that a run waits for the server before it continues offline
    "finish_timeout": 18.0,  # seconds that the end of a run waits for the last upload, within `END_SECONDS`
    "finish_timeout_raises": True,
    "reinit": "finish_previous",
    # A run uploads how busy its machine is (which costs 0.2 % of a core), but not its owner or its software.
    "host": "",
    "program": "train.py",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 2.0,  # seconds that `wandb leet` lags behind the run
}


def start(run_dir: Path, config: Config, settings: WandbConfig, console: Console, run_id: str | None) -> Sink:
    """Starts a W&B run in the requested mode; mode auto uses what works, and never prompts.

    Raises:
        UserError: the mode is online or offline, and W&B fails.
    """
    if settings.mode == "disabled":
        return Sink(run_id)
    for name in correct_variables():
        console.line(f"W&B goes on without {name}, which is not text.")
    if settings.mode == "auto" and os.environ.get("WANDB_MODE") == "disabled":
        return Sink(run_id)
    with silent_logging():
        try:
            wandb, modes = _set_up(settings.mode)
        except Exception as error:  # such as for an environment variable with an invalid value
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
    """Reports that W&B cannot be used; this is an error only if the user requested W&B."""
    if mode != "auto":
        raise UserError(f"wandb.mode={mode}: {reason(error)}; or use wandb.mode=auto.") from error
    console.line(f"W&B cannot be used{tried_mode} ({reason(error)}).")


def _set_up(mode: str) -> tuple[Any, tuple[str, ...]]:
    """Sets W&B up for this process; returns the module and the modes to try, in order.

    Mode auto tries online first if the user is logged in, unless WANDB_MODE or `wandb offline` forbids it.
    """
    # By default W&B sends its own errors and timings to its maker, even from offline runs, and logs more slowly.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    use_cache(wandb.env.get_cache_dir())
    requested: dict[str, Any] = {} if mode == "auto" else {"mode": mode}
    wandb.setup(settings=wandb.Settings(**_unless_set({"silent": True}), **requested))
    if mode != "auto":
        return wandb, (mode,)
    return wandb, ("online", "offline") if _has_key(wandb) else ("offline",)


def _unless_set(settings: Mapping[str, object]) -> dict[str, Any]:
    """Returns the settings without those that an environment variable sets."""
    variables = {name: {f"WANDB_{name.upper()}", f"WANDB_{name.removeprefix('x').upper()}"} for name in settings}
    variables |= {"disable_code": {"WANDB_DISABLE_CODE", "WANDB_SAVE_CODE"}}
    unset = {name: value for name, value in settings.items() if not variables[name] & os.environ.keys()}
    if "console" in settings and os.environ.get("WANDB_CONSOLE") == "redirect":
        unset["console"] = "wrap"  # W&B ends a redirection in the main thread only, and a run is closed in another one
    return unset


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))  # also False if W&B is set to offline
    except Exception:
        return True  # an invalid key: W&B reports it when the run starts


def _options(wandb: Any, run_dir: Path, config: Config, settings: WandbConfig, run_id: str | None) -> dict[str, object]:
    """Returns the arguments of wandb.init: only the given ones, so that W&B's environment variables set the others."""
    wandb_settings = wandb.setup().settings
    names = ("project", "entity", "group", "job_type", "name", "tags")
    options = {name: value for name in names if (value := getattr(settings, name)) not in (None, ())}
    options |= {} if wandb_settings.project else {"project": options.get("project", PROJECT)}
    options |= {} if wandb_settings.run_name else {"name": options.get("name", run_dir.name)}
    options |= {} if "WANDB_DIR" in os.environ else {"dir": str(run_dir)}
    continues = wandb_settings.resume or wandb_settings.fork_from or wandb_settings.resume_from
    options |= {} if continues and run_id is None else {"resume": "allow"}
    return {**options, "config": dict(config), **({} if run_id is None else {"id": run_id})}


def _init(wandb: Any, run_dir: Path, options: Mapping[str, object]) -> Any:
    if options["mode"] == "online" and not _has_key(wandb):  # W&B would prompt for it on a terminal
        raise UserError("there is no API key; run `wandb login` once or set WANDB_API_KEY")
    # A later W&B may not have some of these (x_ means internal); the run then does without them.
    supported = {
        name: value for name, value in _unless_set(RUN_SETTINGS).items() if name in wandb.Settings.model_fields
    }
    earlier = set(run_dir.glob("wandb/run-*"))
    try:
        return wandb.init(settings=wandb.Settings(**supported), **options)
    except Exception:
        for folder in set(run_dir.glob("wandb/run-*")) - earlier:
            shutil.rmtree(folder, ignore_errors=True)  # it is empty, and would hinder the offline run
        raise


def _folder(run_dir: Path, files: Path) -> Path:
    """Returns the folder in which W&B's commands find the whole run, since a resumed run has several W&B folders.

    Args:
        run_dir: the run's folder.
        files: W&B's folder for the run's files: <W&B's folder>/<the run's folder>/files.
    """
    is_inside = files.resolve().is_relative_to(run_dir.resolve())
    return run_dir / "wandb" if is_inside else files.parent
