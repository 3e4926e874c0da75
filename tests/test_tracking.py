"""The reports of a run: the metrics file, the data of Weights & Biases, read by its own reader, and the console."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.common.errors import UserError
from agent.config.run import WandbConfig
from agent.records.console import Console, format_return
from agent.records.metrics import JsonlSink
from agent.records.tracking import Tracker
from agent.records.wandb_run import RUN_SETTINGS

ROOT = Path(__file__).resolve().parent.parent
NO_ACCOUNT = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_DIR")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder without an account."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run_script(home: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Runs code in a new process, since W&B keeps state per process, with a process group of its own and no stdin."""

    def start(code: str, **environment: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if name not in NO_ACCOUNT}
        env |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "NETRC": str(home / "none"), **environment}
        return subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            cwd=tmp_path,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    return start


PREAMBLE = """
import sys, time, json
from pathlib import Path
from agent.records.console import Console
from types import SimpleNamespace
from agent.records.tracking import Tracker
import agent.records.wandb_run
console = Console(100000)
def tracker(mode="auto", run_id=None, **options):
    config = {"env": "CartPole-v1", "agent": {"lr": 0.001, "net": [256, 256]}}
    # Stands in for agent.config.run.WandbConfig, which would take the time to import torch in each of these processes.
    node = dict(mode=mode, project="p", entity=None, group=None, job_type=None, name=None, tags=()) | options
    tracker = Tracker(Path("run"), config, SimpleNamespace(**node), console, run_id)
    tracker.open()
    return tracker
Path("run").mkdir(exist_ok=True)
"""


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out, err


def read_back(folder: Path, summary: bool = True) -> str:
    program = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    command = [*program, "--summary"] if summary else program
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def offline_runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_metrics_file_is_valid_json_whatever_the_numbers(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "m.jsonl")
    sink.log(3, {"a": 1.5, "b": float("nan"), "c": float("inf"), "d": 2})
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "m.jsonl").open()]
    assert rows == [{"global_step": 3, "a": 1.5, "b": None, "c": None, "d": 2}]  # the line is written before close


def test_a_half_line_of_a_killed_run_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"global_step": 1, "a": 1.0}\n{"global_step": 2, "a')
    JsonlSink(path).log(2, {"a": 2.0})
    JsonlSink(path).log(3, {"a": 3.0})
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert [json.loads(line)["global_step"] for line in (lines[0], *lines[2:])] == [1, 2, 3]


def test_an_unwritable_metrics_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not write"):
        JsonlSink(tmp_path / "missing" / "m.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = JsonlSink(tmp_path / "m.jsonl")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match="File too large"):
            sink.log(1, {"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if Path("/dev/full").exists():
        with pytest.raises(UserError, match="not a plain file"):
            JsonlSink(Path("/dev/full")).log(1, {"a": 1.0})


def test_disabled_imports_no_wandb_and_keeps_the_run_id(
    run_script: Callable[..., subprocess.Popen[str]],
) -> None:
    code = """
for mode, environment in (("disabled", ""), ("auto", "disabled")):
    import os; os.environ["WANDB_MODE"] = environment
    t = tracker(mode, run_id="abc")
    t.log(1, {"a": 1.0}); t.video(1, Path("x.mp4")); t.save_agent(Path("x"), ["best"], {})
    t.finish(); t.finish()
    assert t.run_id == "abc" and "disabled" in t.dashboard
assert not {"wandb", "matplotlib"} & set(sys.modules)
"""
    finish(run_script(code))


def test_an_offline_run_reads_back_whole(run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    code = """
import shutil
from PIL import Image
Image.new("RGB", (8, 8)).save("v.gif")
Path("best").mkdir(); Path("best/agent.safetensors").write_bytes(b"123")
t = tracker(group="g", tags=("x", "y"))
for i in range(400):
    t.log(10 * i, {"train/episode_return": float(i), "loss": 1 / (i + 1)})
t.log(4000, {"eval/return_mean": 500.0, "bad": float("nan")})
t.video(4000, Path("v.gif"))
t.save_agent(Path("best/agent.safetensors"), ["best", "last"], {"global_step": 4000})
t.save_agent(Path("v.gif"), ["x"], {})
shutil.rmtree("best")
t.finish(); t.finish()
print(t.run_id, t.dashboard)
"""
    out, err = finish(run_script(code))
    assert len([line for line in err.splitlines() if line]) == 1, err  # the line of the evaluation
    (folder,) = offline_runs(tmp_path)
    found = json.loads(read_back(folder))
    assert found["run_id"] == out.split()[0]
    assert found["config"]["agent"] == {"lr": 0.001, "net": [256, 256]}
    assert found["name"] == "run"
    assert found["tags"] == ["x", "y"]
    assert found["state"] == "finished"
    last = {name: found["summary"][name] for name in ("global_step", "loss", "eval/return_mean")}
    assert last == {"global_step": 4000, "loss": 1 / 400, "eval/return_mean": 500.0}
    assert found["summary"]["eval/video"]["path"].endswith(".gif")
    records = [json.loads(line) for line in read_back(folder, summary=False).splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["global_step"] for row in rows] == [*range(0, 4000, 10), 4000, 4000]
    axes = [record["metric"] for record in records if record["type"] == "metric"]
    assert any(axis.get("glob_name") == "*" and axis["step_metric"] == "global_step" for axis in axes)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 401
    text = json.dumps(records)
    for private in (socket.gethostname(), str(tmp_path.parent), str(ROOT)):
        assert f'"{private}' not in text
    assert "environment" not in {record["type"] for record in records}  # machine, user and command line
    assert {path.name for path in (folder / "files").iterdir()} == {"media"}  # there is no list of packages
    # The copy for a later upload exists, though training replaced its own file, and the home folder is unchanged.
    assert [p.read_bytes() for p in (tmp_path / "run" / "wandb" / "agents").rglob("*.safetensors")] == [b"123"]


def test_nothing_but_caches_is_left_in_the_home_folder(home: Path) -> None:
    assert {path.name for path in home.iterdir()} <= {".cache"}


def test_a_resumed_offline_run_has_the_same_id_and_one_command_for_both_folders(
    run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = """
t = tracker("offline"); t.log(10, {"a": 1.0}); t.finish()
time.sleep(1.1)  # folders carry the second of their start
u = tracker("offline", run_id=t.run_id); u.log(20, {"a": 2.0}); u.finish(1)
assert u.run_id == t.run_id
print(u.dashboard)
"""
    out, _ = finish(run_script(code))
    first, second = (json.loads(read_back(folder)) for folder in offline_runs(tmp_path))
    assert first["run_id"] == second["run_id"]
    assert (first["summary"]["global_step"], second["summary"]["global_step"]) == (10, 20)
    assert (first["state"], second["state"]) == ("finished", "failed")
    assert "leet run/wandb" in out
    assert "sync run/wandb" in out
    program = [sys.executable, "-m", "wandb", "sync", "--dry-run", "run/wandb"]
    plan = subprocess.run(program, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    assert "Would sync 2 run(s)" in plan


@pytest.mark.parametrize("key", ["x" * 40, "malformed"])
def test_auto_falls_back_to_offline_when_the_network_is_away(
    key: str, run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = """
agent.records.wandb_run.RUN_SETTINGS["init_timeout"] = 2.0
start = time.monotonic()
t = tracker()
assert time.monotonic() - start < 10
t.log(1, {"a": 1.0}); t.finish()
print(t.dashboard)
"""
    with socket.socket() as hole:  # a server that accepts and never answers
        hole.bind(("127.0.0.1", 0))
        hole.listen(100)
        address = f"http://127.0.0.1:{hole.getsockname()[1]}"
        out, err = finish(run_script(code, WANDB_API_KEY=key, WANDB_BASE_URL=address))
    assert "W&B is offline" in out
    assert err.count("\n") == 1, err
    assert "W&B cannot be used online" in err
    folders = [path.name for path in (tmp_path / "run" / "wandb").iterdir() if path.is_dir()]
    assert all(name.startswith(("offline-run-", "latest-run")) for name in folders), folders


def test_auto_respects_wandb_mode_and_does_not_go_online(
    run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = "t = tracker(); t.log(1, {'a': 1.0}); t.finish()"
    _, err = finish(run_script(code, WANDB_API_KEY="x" * 40, WANDB_MODE="offline", WANDB_BASE_URL="http://127.0.0.1:9"))
    assert err == ""
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("project='t5/large'", "Invalid project name 't5/large': cannot contain characters"),
        ("tags=('t' * 65,)", "run_tags: Tag 'tttttttttttttttttttt...tttttttttttttttttttt' is 65 characters"),
        ("tags=('',)", "run_tags: Tag at index 0 is empty"),
    ],
)
@pytest.mark.parametrize("mode", ["offline", "auto"])
def test_a_name_that_wandb_refuses_is_told_before_training(
    options: str, said: str, mode: str, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    """An offline run with such a name would fail only at its upload. In mode auto the run goes on without W&B."""
    code = f"""
from agent.common.errors import UserError
try:
    tracker("{mode}", **dict({options})).finish()
except UserError as error:
    print(error)
"""
    out, err = finish(run_script(code))
    assert said in out + err
    assert "Traceback" not in out + err
    assert out.count("wandb.mode=offline") == (mode == "offline")


@pytest.mark.parametrize(("key", "said"), [("", "no API key"), ("malformed", "API key must have")])
def test_online_without_an_account_is_a_clear_error(
    key: str, said: str, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    code = """
from agent.common.errors import UserError
try:
    tracker("online")
except UserError as error:
    print(error)
"""
    out, err = finish(run_script(code, WANDB_MODE="offline", **({"WANDB_API_KEY": key} if key else {})))
    assert said in out
    assert out.count("\n") == 1
    assert err == ""


def test_ctrl_c_reaches_the_run_and_not_wandb(run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    # A shell starts background jobs with SIGINT ignored, which processes of the tests would inherit.
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
t = tracker("offline")
t.log(1, {"a": 1.0})
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    t.log(2, {"a": 2.0})
    t.finish(130)
"""
    process = run_script(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = finish(process)
    assert err == ""
    (folder,) = offline_runs(tmp_path)
    found = json.loads(read_back(folder))
    assert (found["summary"]["a"], found["exit_code"]) == (2.0, 130)


def test_a_failing_wandb_is_reported_once_and_stops_nothing(
    run_script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = """
t = tracker("offline")
def broken(*args, **kwargs): raise ConnectionResetError("gone")
(wandb,) = t._sinks
wandb._run = type("Run", (), {"log": broken, "log_artifact": broken, "finish": broken, "dir": "run/wandb/r/files"})()
for i in range(5):
    t.log(i, {"a": 1.0})
t.video(1, Path("missing.gif")); t.save_agent(Path("missing"), [], {})
t.finish()
"""
    _, err = finish(run_script(code))
    assert err.splitlines() == [
        "W&B failed (gone); training and metrics.jsonl go on.",
        "W&B did not finish (gone); to upload: " + err.partition("to upload: ")[2].strip(),
    ]
    assert "sync --include-online run/wandb/r" in err
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 5


def test_every_setting_is_an_option_of_wandb() -> None:
    import wandb

    assert set(vars(WandbConfig())) <= set(inspect.signature(wandb.init).parameters)
    assert set(RUN_SETTINGS) <= set(wandb.Settings.model_fields)  # other versions of W&B may lack some


def test_tracker_shows_returns_on_the_console(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(1000, stream=stream)
    tracker = Tracker(tmp_path, {}, WandbConfig(mode="disabled"), console)
    tracker.open()
    for value in (0.0, *[10.0] * 20):  # the console shows the mean of the last 20
        tracker.log(100, {"train/episode_return": value, "other": 1.0})
    tracker.log(500, {"eval/return_mean": 33.0})
    tracker.finish()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith(" 50% 500/1,000 steps · return 10.0 · eval 33.0 · ")
    assert line.endswith(" left")


def test_plain_lines_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(40_000, initial_step=1000, stream=stream)
    for step in range(1000, 31_000, 10):
        now[0] += 0.01
        console.update(step)
    lines = stream.getvalue().splitlines()
    assert len(lines) in (2, 3)  # 30 s
    assert "1,000 steps/s" in lines[-1]
    assert f"{round((40_000 - int(lines[-1].split()[1].split('/')[0].replace(',', ''))) / 1000)} left" in lines[-1]


def test_a_terminal_gets_a_bar_that_lines_do_not_break() -> None:
    stream = Terminal()
    console = Console(1000, stream=stream)
    began = time.monotonic()
    for step in range(0, 1000, 5):
        console.update(step, episode_return=7.0)
        time.sleep(0.002)
    seconds = time.monotonic() - began  # 0.4 seconds, or more on a busy machine
    console.line("hello")
    console.close()
    console.line("after")
    drawn = stream.getvalue()
    assert 2 < drawn.count("steps") < 12 + 20 * seconds  # 10 per second and some of tqdm's own, of 200
    assert "return 7.0" in drawn
    assert "\rhello\n" in drawn  # the bar was cleared before the line
    assert drawn.endswith("after\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_last_line_never_exceeds_the_total(terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    console = Console(300, stream=stream)
    console.update(296)
    console.update(305, eval_return=1.0)  # eight copies step together
    console.close()
    shown_steps = re.findall(r"(\d+)/300 steps", stream.getvalue())
    assert shown_steps[-1] == "300"
    assert all(int(step) <= 300 for step in shown_steps)
    assert "100%" in stream.getvalue()


def test_the_console_shows_who_waits_for_whom_and_how_old_the_weights_are(tmp_path: Path) -> None:
    """The console shows the last logged values, and nothing about them without actors."""
    stream = io.StringIO()
    console = Console(1000, stream=stream)
    tracker = Tracker(tmp_path, {}, WandbConfig(mode="disabled"), console)
    tracker.open()
    tracker.log(100, {"eval/return_mean": 1.0})
    tracker.log(200, {"collect/learner_wait": 0.5, "collect/actor_wait": 0.25, "collect/staleness": 24.0})
    tracker.log(300, {"collect/learner_wait": 0.125, "collect/steps_per_second": 5.0})
    tracker.log(250, {"eval/return_mean": 2.0})  # an evaluation that arrives late
    first, last = (line for line in stream.getvalue().splitlines() if "steps" in line)
    assert "wait" not in first
    assert "300/1,000 steps" in last
    assert "eval 2.0 · learner waits 12% · actors wait 25% · staleness 24" in last


def test_a_console_without_progress_prints_lines_only() -> None:
    stream = Terminal()
    console = Console(10, enabled=False, stream=stream)
    console.update(5, episode_return=1.0, eval_return=2.0)
    console.line("x")
    console.close()
    assert stream.getvalue() == "x\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(-20.81, "-20.8"), (500.0, "500.0"), (1.0, "1.0"), (0.0, "0.0"), (-0.006, "-0.006"), (0.99312, "0.993")],
)
def test_small_returns_are_not_rounded_away(value: float, text: str) -> None:
    assert format_return(value) == text


class Gone(Terminal):
    """A terminal whose reader leaves after three writes, as `tee` does at Ctrl-C."""

    left = 3

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_has_to_listen(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gone, "isatty", lambda self: terminal)
    console = Console(1000, stream=Gone())
    for step in range(0, 1000, 100):
        console.update(step, eval_return=float(step))
        console.line("a line")
    console.close()
    console.line("after")


def test_update_is_cheap() -> None:
    console = Console(10**9, stream=Terminal())
    start = time.perf_counter()
    for step in range(50_000):
        console.update(step)
    assert (time.perf_counter() - start) / 50_000 < 5e-6  # 0.15 µs on a quiet machine
    console.close()


def test_wandb_is_named_by_one_file_of_the_agent() -> None:
    naming = [path.name for path in (ROOT / "agent").rglob("*.py") if "import wandb" in path.read_text()]
    assert naming == ["wandb_run.py"]
