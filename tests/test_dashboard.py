"""Runs at W&B: with a server that answers, hangs or fails, and with the environment variables of W&B."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.records.dashboard import END_SECONDS, SLOW_SECONDS, UPLOAD_SECONDS, Sink, WandbSink, charts_of, reason

ROOT = Path(__file__).resolve().parent.parent

#: The code of a run. Its arguments are the options of the config node wandb as JSON, and an address to call meanwhile.
RUN = """
import json, sys, time, urllib.request
from pathlib import Path
from types import SimpleNamespace
from agent.records.console import Console
from agent.records.tracking import Tracker
given = json.loads(sys.argv[1])
options = dict(mode="auto", project=None, entity=None, group=None, job_type=None, name=None, tags=()) | given
Path("run").mkdir(exist_ok=True)
tracker = Tracker(Path("run"), {"seed": 0}, SimpleNamespace(**options), Console(1000, enabled=False))
tracker.open()
for step in range(50):
    tracker.log(step, {"train/loss": 1.0})
if len(sys.argv) > 2:
    time.sleep(1)
    urllib.request.urlopen(sys.argv[2])
began = time.monotonic()
for step in range(50, 1000):
    tracker.log(step, {"train/loss": 1.0})
print("log", time.monotonic() - began)
Path("agent.safetensors").write_bytes(b"123")
began = time.monotonic()
for which in ("best", "last"):
    tracker.save_agent(Path("agent.safetensors"), [which], {})
tracker.finish(0)
print("end", time.monotonic() - began)
print(tracker.dashboard, flush=True)
"""


class Handler(BaseHTTPRequestHandler):
    """The part of W&B's server that a run needs at its begin; after a request of /hang or /fail it hangs or fails."""

    protocol_version = "HTTP/1.1"
    mode = "answer"

    def log_message(self, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        if self.path in ("/hang", "/fail"):
            type(self).mode = self.path[1:]
            self.reply(200, {})
        else:
            self.act({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.act(json.loads(body) if self.path == "/graphql" else {})

    do_PUT = do_POST

    def act(self, request: dict[str, Any]) -> None:
        if self.mode == "hang":
            time.sleep(300)
        if self.mode == "fail":
            self.reply(500, {"error": "out of order"})
        else:
            self.reply(200, {"data": self.data(request)} if request else {"exitcode": None, "limits": {}})

    def data(self, request: dict[str, Any]) -> dict[str, Any]:
        query, names = request["query"], request.get("variables", {})
        user = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        if "upsertBucket" in query:
            project = {"id": "p", "name": names.get("project"), "entity": {"id": "e", "name": "me"}}
            run = {"id": "r", "name": names.get("name"), "displayName": names.get("displayName"), "project": project}
            return {"upsertBucket": {"bucket": run | {"config": "{}", "historyLineCount": 0}, "inserted": True}}
        if "serverInfo" in query:
            return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "features": []}, "viewer": user}
        return {"viewer": user} if "viewer" in query else {}

    def reply(self, code: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        with suppress(OSError):  # a client that has gone must not put an error into the output of another test
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[str]:
    """The address of a W&B server."""
    handler = type("OwnHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.fixture
def server() -> Iterator[str]:
    with serving() as address:
        yield address


def run(folder: Path, *arguments: str, **variables: str) -> tuple[str, str]:
    """Output and errors of a run in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    environment = {**kept, "HOME": str(folder), "NETRC": str(folder / "none"), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", RUN, *(arguments or ("{}",))]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def summary(folder: Path) -> dict[str, Any]:
    """The summary of the only offline run in a folder, read by W&B's own reader."""
    (found,) = folder.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(found), "--summary"]
    read: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return read


def record(folder: Path) -> dict[str, Any]:
    """The record of the run, with all its settings."""
    (found,) = folder.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(found)]
    lines = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.splitlines()
    (run,) = [row["run"] for row in map(json.loads, lines) if row["type"] == "run"]
    return dict(run)


# ---- a server that is ill


def test_a_server_that_fails_on_the_way_stops_nothing_and_costs_half_a_minute_at_most(tmp_path: Path) -> None:
    """Two servers, one of which hangs and one of which fails; their runs wait at the same time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_with_an_ill_server, (tmp_path / "hang", tmp_path / "fail")))


def run_with_an_ill_server(folder: Path) -> None:
    folder.mkdir()
    with serving() as address:
        began = time.monotonic()
        out, err = run(folder, "{}", f"{address}/{folder.name}", WANDB_BASE_URL=address, WANDB_API_KEY="x" * 40)
    assert time.monotonic() - began < 60  # including the start of Python and W&B
    seconds = {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if line[:3] in ("log", "end")}
    assert seconds["log"] < SLOW_SECONDS
    assert 10 < seconds["end"] < 30  # it has waited, but not for ever
    assert err.splitlines()[-1].startswith("W&B did not finish (")
    assert re.search(r"to upload: \S.* sync --include-online run/wandb/run-", err)
    assert len(err.splitlines()) <= 2, err
    assert (folder / "run" / "metrics.jsonl").read_text().count("\n") == 1000


def test_a_server_that_answers_gets_the_run(server: str, tmp_path: Path) -> None:
    out, _ = run(tmp_path, '{"project": "mine"}', WANDB_BASE_URL=server, WANDB_API_KEY="x" * 40)
    assert f"W&B: {server}/me/mine/runs/" in out


class StuckRun:
    """A run of W&B's whose calls never return."""

    id, offline, url, dir = "abc", False, "http://x", "run/wandb/r/files"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def define_metric(self, *arguments: object, **options: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **options: object) -> None:
            self.calls.append(name)
            time.sleep(60)

        return call


class Lines:
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_calls_that_never_come_back_are_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agent.records.dashboard

    for name, seconds in (("UPLOAD_SECONDS", 0.3), ("END_SECONDS", 1.0), ("LAST_SECONDS", 0.2)):
        monkeypatch.setattr(agent.records.dashboard, name, seconds)
    stuck, lines = StuckRun(), Lines()

    class Wandb:
        """W&B's module, in which making an artifact never returns."""

        @staticmethod
        def Artifact(*arguments: object, **options: object) -> None:
            time.sleep(60)

        @staticmethod
        def teardown(code: int) -> None:
            time.sleep(60)

    sink: Sink = WandbSink(Wandb, stuck, tmp_path, lines)  # type: ignore[arg-type]
    began = time.monotonic()
    sink.save_agent(tmp_path / "x", ["best"], {})
    sink.save_agent(tmp_path / "x", ["last"], {})  # after the first failure it does not try again
    sink.log(1, {"train/loss": 1.0})
    sink.finish(0)
    assert time.monotonic() - began < 2.0
    assert stuck.calls == ["finish"]
    assert [line.partition(" (")[0] for line in lines.lines] == ["W&B failed", "W&B did not finish"]


def test_the_seconds_at_the_end_are_half_a_minute() -> None:
    from agent.records.dashboard import LAST_SECONDS

    assert END_SECONDS + LAST_SECONDS <= 30.0
    assert UPLOAD_SECONDS < END_SECONDS


def test_a_slow_call_is_the_last_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agent.records.dashboard

    monkeypatch.setattr(agent.records.dashboard, "SLOW_SECONDS", 0.05)

    class Slow(StuckRun):
        def log(self, metrics: object) -> None:
            self.calls.append("log")
            time.sleep(0.1)

    run, lines = Slow(), Lines()
    sink = WandbSink(None, run, tmp_path, lines)  # type: ignore[arg-type]
    for step in range(5):
        sink.log(step, {})
    assert run.calls == ["log"]
    assert len(lines.lines) == 1


# ---- a key, a variable, a disk


def test_a_key_with_a_line_end_is_as_good(server: str, tmp_path: Path) -> None:
    out, err = run(tmp_path, WANDB_BASE_URL=server, WANDB_API_KEY="x" * 40 + "\n")
    assert f"W&B: {server}/me/noisy-dqn/runs/" in out
    assert "cannot be used" not in err


@pytest.mark.parametrize("room", [0, 500, 2_000, 10_000])
def test_a_full_disk_prints_no_tracebacks_of_wandb(tmp_path: Path, room: int) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
from pathlib import Path
from types import SimpleNamespace
from agent.records.console import Console
from agent.records.wandb_run import start
options = SimpleNamespace(mode="auto", project=None, entity=None, group=None, job_type=None, name=None, tags=())
sink = start(Path("run"), {{}}, options, Console(1000, enabled=False), None)
for step in range(300):
    sink.log(step, {{"train/loss": 1.0}})
sink.finish(1)
"""
    (tmp_path / "run").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"WANDB_MODE": "bogus"},
        {"WANDB_API_KEY": "x y\nz"},
        {"WANDB_API_KEY": "\n"},
        {"WANDB_INIT_TIMEOUT": "soon"},
        {"WANDB_BASE_URL": "no address"},
        {"WANDB_TAGS": ","},
        {"WANDB_RESUME": "perhaps"},
        {"WANDB_PROJECT": "a/b:c"},
        {"WANDB_RUN_ID": "a/b"},
        {"WANDB_DIR": "/proc/none"},
    ],
    ids=str,
)
def test_auto_never_fails_a_run(tmp_path: Path, variables: dict[str, str]) -> None:
    _, err = run(tmp_path, **variables)
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line]) <= 2
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1000


@pytest.mark.parametrize(
    "variables",
    [{"HOME": "/proc/none"}, {"WANDB_CACHE_DIR": "a file/below"}, {"HOME": "/proc/none", "XDG_CACHE_HOME": "a file"}],
    ids=lambda variables: "+".join(variables),
)
def test_a_home_that_cannot_be_written_shows_no_log_of_wandb(tmp_path: Path, variables: dict[str, str]) -> None:
    """A container with another user has such a home. W&B's process would print its log there."""
    (tmp_path / "a file").touch()
    (tmp_path / "temporary").mkdir()
    _, err = run(tmp_path, TMPDIR=str(tmp_path / "temporary"), **variables)
    assert err == ""
    assert summary(tmp_path / "run")["state"] == "finished"
    assert not list((tmp_path / "temporary").glob("wandb-cache-*"))


def test_empty_variables_are_not_set_and_a_mode_may_be_in_upper_case(tmp_path: Path) -> None:
    not_text = os.fsdecode(b"\xff" * 40)
    empty = dict.fromkeys(("WANDB_TAGS", "WANDB_PROJECT", "WANDB_CACHE_DIR", "WANDB_RUN_ID", "WANDB_BASE_URL"), "")
    out, err = run(tmp_path, WANDB_MODE="OFFLINE", WANDB_RESUME="Allow", WANDB_API_KEY=not_text, **empty)
    assert err.splitlines() == ["W&B goes on without WANDB_API_KEY, which is not text."]
    assert "W&B is offline" in out
    assert record(tmp_path / "run")["project"] == "noisy-dqn"
    assert not (tmp_path / "logs").exists()  # an empty name would mean the current folder


OWN = {
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_NAME": "one",
    "WANDB_RUN_GROUP": "many",
    "WANDB_TAGS": "a,b",
    "WANDB_NOTES": "why",
    "WANDB_JOB_TYPE": "train",
    "WANDB_RUN_ID": "id123",
    "WANDB_HOST": "here",
}


def test_the_variables_of_wandb_hold_where_the_command_line_says_nothing(tmp_path: Path) -> None:
    out, err = run(tmp_path, WANDB_DIR=str(tmp_path / "place"), **({} if (tmp_path / "place").mkdir() else OWN))
    assert err == ""
    assert not (tmp_path / "run" / "wandb").exists()
    found = record(tmp_path / "place")
    names = {"project": "theirs", "entity": "team", "display_name": "one", "run_group": "many", "notes": "why"}
    names |= {"job_type": "train", "run_id": "id123", "host": "here"}
    assert {name: found.get(name) for name in names} == names
    assert found["tags"] == ["a", "b"]
    assert f"wandb leet {next((tmp_path / 'place' / 'wandb').glob('offline-run-*')).relative_to(tmp_path)}" in out


@pytest.mark.parametrize("console", ["redirect", "wrap", "wrap_raw", "wrap_emu", "auto"])
def test_a_run_whose_terminal_is_captured_is_closed(tmp_path: Path, console: str) -> None:
    """W&B ends a redirection in the main thread only, but the run is closed in another thread."""
    _, err = run(tmp_path, WANDB_CONSOLE=console)
    assert "did not finish" not in err
    assert summary(tmp_path / "run")["state"] == "finished"


@pytest.mark.parametrize("variable", ["WANDB_FORK_FROM", "WANDB_RESUME_FROM"])
def test_a_run_may_go_on_from_another_one_of_wandb(tmp_path: Path, variable: str) -> None:
    """W&B refuses these variables together with its own `resume`."""
    _, err = run(tmp_path, **{variable: "other?_step=3"})
    assert "mutually exclusive" not in err


def test_the_command_line_comes_before_the_variables(tmp_path: Path) -> None:
    options = {
        "project": "p",
        "entity": "e",
        "group": "g",
        "name": "n",
        "tags": ["t"],
        "mode": "offline",
        "job_type": "j",
    }
    run(tmp_path, json.dumps(options), **OWN, WANDB_MODE="online")
    found = record(tmp_path / "run")
    names = {"project": "p", "entity": "e", "display_name": "n", "run_group": "g", "notes": "why"}
    names |= {"job_type": "j"}
    assert {name: found.get(name) for name in names} == names
    assert found["tags"] == ["t"]


def test_without_both_the_project_and_the_name_are_ours(tmp_path: Path) -> None:
    run(tmp_path)
    found = record(tmp_path / "run")
    assert (found["project"], found["display_name"]) == ("noisy-dqn", "run")
    assert not found.get("tags")


def test_the_settings_file_of_wandb_holds_as_well(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings").write_text("[default]\nproject = filed\n")
    run(tmp_path, WANDB_CONFIG_DIR=str(tmp_path / "config"))
    assert record(tmp_path / "run")["project"] == "filed"


def test_a_refusal_of_several_settings_is_one_sentence() -> None:
    """For a rule about several settings W&B names no setting."""
    rule = "  Value error, `a` and `b` are mutually exclusive. [type=value_error, input_value=Settings(a='x')]"
    text = f"1 validation error for Settings\n{rule}\n    For further information visit https://x"
    assert reason(ValueError(text)) == "`a` and `b` are mutually exclusive"


# ---- the charts


def test_the_charts_open_on_returns_loss_and_sigma() -> None:
    """W&B sorts charts by name and shows the first nine on the first page."""
    evaluation = [f"eval/{name}" for name in ("length_mean", "return_ci95_low", "return_mean", "return_std")]
    others = ["noise/acting_scale", "noise/action_change", "noise/q_std"]
    others += ["q/max", "replay/size", "speed/env_steps_per_second", "time/train_seconds"]
    training = [f"train/{name}" for name in ("episode_return", "episode_length", "loss", "grad_norm", "updates")]
    sigma = ["sigma/encoder.layers.0", "sigma/head.advantage.output"]
    names = [*evaluation, "eval_noisy/return_mean", "eval_noisy/return_std", *others, *training, *sigma]
    charts = charts_of(dict.fromkeys(names, 1.0))
    first = sorted(charts)[:9]
    assert {"episode/return", "eval/return_mean", "eval_noisy/return_mean", "loss"} <= set(first)
    assert "noise/sigma/encoder.layers.0" in first
    assert [name for name in charts if name.startswith("eval")] == ["eval/return_mean", "eval_noisy/return_mean"]
    assert len(charts) == len(names) - 4


def test_each_chart_has_its_value() -> None:
    assert charts_of({"train/loss": 1.0, "sigma/a": 2.0, "eval/human_normalised": 3.0, "q/max": 4.0}) == {
        "loss": 1.0, "noise/sigma/a": 2.0, "eval/human_normalised": 3.0, "q/max": 4.0,
    }  # fmt: skip
