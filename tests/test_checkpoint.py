"""A checkpoint comes back exactly, and no kill, crash, full disk or damage loses the last whole one."""

import errno
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes, atomic_write_text, could_not_write
from agent.common.state import Checkpoint
from agent.records.checkpoint import has_checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.metrics import JsonlSink, read_new_rows, read_rows, truncate_jsonl


@pytest.fixture(autouse=True)
def quick_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces fsync, since there are thousands of saves. The tests check the calls of fsync, and not its effect."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def state_of(step: int, attempt: int = 0, rows: int = 500) -> dict[str, Any]:
    """Every part depends on step and attempt, so that a mixture of two saves differs from both."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([step, attempt])))
    big = torch.from_numpy(rng.standard_normal((rows, 3)))
    return {
        "replay": {
            "f64": big,
            "transposed": big.T,
            "row": big[1],
            "flags": big > 0,
            "step": torch.tensor(step),
        },
        "optimiser": {"state": {0: {"exp_avg": big.float()}, 1: {}}, "groups": [{"betas": (0.9, 0.999)}]},
        "arrays": {"u8": (rng.integers(0, 255, (4, 5)).astype(np.uint8))[:, ::2], "zero": np.array(attempt)},
        "empty": [torch.zeros(0, 4), np.zeros((0,), np.float32), {}, [], None],
        "rng": rng.bit_generator.state,
        "numbers": [float("inf"), float("-inf"), -0.0, 1e-320, 0.1, 2**200, True, attempt, "Σ̄\n"],
        "odd names": {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}, "$tensor": "text", "": np.arange(2)},
        "__metadata__": torch.ones(2, dtype=torch.bool),
    }


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) and str(a) == str(b)  # -0.0 is not 0.0


def loaded(run: Path) -> Checkpoint:
    path = latest_checkpoint(run)
    assert path is not None
    return load_checkpoint(path)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_round_trip_is_exact(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    path = save_checkpoint(tmp_path, 7, state_of(7), keep=1)
    assert has_checkpoint(tmp_path)
    assert path == latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_000000000007"
    step, state = load_checkpoint(path)
    assert step == 7
    assert same(state, state_of(7))
    assert not same(state, state_of(7, attempt=1))
    state["replay"]["f64"].add_(1)  # usable as live training state, without touching the file
    assert same(load_checkpoint(path)[1], state_of(7))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_dtypes_are_read_alike_by_safetensors(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 4, 100]]).astype(dtype)
    state = {
        "a": {"tensor": torch.from_numpy(values), "array": values},
        "pad": torch.ones(3, dtype=torch.bool),
    }
    path = save_checkpoint(tmp_path, 0, state, keep=1)
    assert same(load_checkpoint(path)[1], state)
    by_library = load_file(path / "tensors.safetensors")
    assert all(torch.equal(by_library[f"a/{name}"], torch.from_numpy(values)) for name in ("tensor", "array"))


@pytest.mark.parametrize(
    "leaf",
    [
        *(np.float64(1), np.int64(1), {1, 2}, b"x", object(), torch.nn.Linear(1, 1), {None: 1}, {(1,): 1}),
        *(torch.ones(1, dtype=torch.complex64), np.array(["x"]), np.array([object()]), np.ones(2, ">f4")),
    ],
)
def test_what_cannot_come_back_exactly_is_not_saved(tmp_path: Path, leaf: Any) -> None:
    with pytest.raises(TypeError, match="here"):
        save_checkpoint(tmp_path, 1, {"deep": [{"here": leaf}]}, keep=1)
    assert not (tmp_path / "checkpoints").exists()


def test_large_tensors_are_not_copied(tmp_path: Path) -> None:
    run = f"""
import resource, torch; from pathlib import Path; from agent.records.checkpoint import save_checkpoint
state = {{"replay": torch.zeros(100 << 20, dtype=torch.uint8)}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_checkpoint(Path({str(tmp_path)!r}), 1, state, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    assert int(python("-c", run)) < 30 << 10  # KiB


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, state_of(step), keep=2)
    (tmp_path / "checkpoints" / ".tmp-123").mkdir()
    save_checkpoint(tmp_path, 11, state_of(11), keep=2)
    assert names(tmp_path) == ["latest", "step_000000000010", "step_000000000011"]
    save_checkpoint(tmp_path, 5, state_of(5), keep=2)  # after a resume from an earlier step: 10 or 11 goes, and not 5
    assert loaded(tmp_path)[0] == 5
    assert len(names(tmp_path)) == 3
    save_checkpoint(tmp_path, 6, state_of(6), keep=2)
    assert names(tmp_path) == ["latest", "step_000000000005", "step_000000000006"]
    save_checkpoint(tmp_path, 7, state_of(7), keep=0)
    assert names(tmp_path) == ["latest", "step_000000000007"]


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff", b"step_9", b"step_000000000099", b"../../elsewhere", b"step_000000000002\n"],
)
def test_a_damaged_latest_falls_back_to_the_newest(tmp_path: Path, content: bytes | None) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(save_checkpoint(run, 1, state_of(1), keep=5), tmp_path / "elsewhere")
    save_checkpoint(run, 2, state_of(2), keep=5)
    latest = run / "checkpoints" / "latest"
    latest.unlink() if content is None else latest.write_bytes(content)
    assert loaded(run)[0] == 2


def test_a_damaged_checkpoint_falls_back_to_an_earlier_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, step, state_of(step), keep=5)
    os.truncate(path / "tensors.safetensors", 100)
    assert loaded(tmp_path)[0] == 2
    (tmp_path / "checkpoints" / "step_000000000002" / "state.json").unlink()
    assert loaded(tmp_path)[0] == 1
    shutil.rmtree(tmp_path / "checkpoints" / "step_000000000001")
    assert latest_checkpoint(tmp_path) is None


def refused(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def respelt(data: bytes, whole: bytes) -> bool:
    """Whether other bytes have the same content, like \\u03A3 and \\u03a3: nothing is damaged then."""
    try:
        return bool(json.loads(data) == json.loads(whole))
    except ValueError:
        return False


def test_damage_anywhere_is_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, state_of(1, rows=5), keep=1)
    pick = random.Random(0)
    for file in (path / "state.json", path / "tensors.safetensors"):
        whole = file.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
            file.write_bytes(data)
            if not respelt(data, whole):
                with pytest.raises(UserError):
                    load_checkpoint(path)
            file.write_bytes(whole[: pick.randrange(len(whole))])
            with pytest.raises(UserError, match="not a whole checkpoint"):
                load_checkpoint(path)
        file.unlink()
        refused(path, "No such file")
        file.write_bytes(whole)
    assert same(load_checkpoint(path)[1], state_of(1, rows=5))
    refused(tmp_path / "absent", "No such file")


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    whole = json.loads((path / "state.json").read_text())
    for change, match in [
        ({"format": "other"}, "another program"),
        ({"version": 1}, "version 1, this program reads versions 2 to 4"),
        ({"step": 2}, "has changed"),
        ({"bytes": 5}, "instead of 5"),
    ]:
        (path / "state.json").write_text(json.dumps(whole | change))
        refused(path, match)
        assert latest_checkpoint(tmp_path) is None
    for text, match in [("[]", "another"), ("{}", "another"), ("5", "another"), ("[" * 10**5, "whole")]:
        (path / "state.json").write_text(text)
        refused(path, match)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [({"v": torch.ones(2)}, "lacks 'w'"), ({"w": torch.ones(2), "x": torch.ones(1)}, "has 'x'")],
)
def test_missing_and_extra_tensors_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], match: str) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    (tmp_path / "other").mkdir()
    other = save_checkpoint(tmp_path / "other", 1, tensors, keep=1)
    shutil.copy(other / "tensors.safetensors", path)
    manifest = json.loads((path / "state.json").read_text())
    manifest |= {key: json.loads((other / "state.json").read_text())[key] for key in ("bytes", "crc32")}
    (path / "state.json").write_text(json.dumps(manifest))
    refused(path, match)


class Crash(BaseException):
    """Stands for the death of the process. It is no Exception, since a killed process cleans nothing up."""


class Disk:
    """Counts the file operations of a save, and fails before the k-th or in the middle of it.

    After a crash, and after the loss of write permission, all further operations fail as well.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int, error: BaseException) -> None:
        self.calls: list[str] = []
        self.fail_at, self.error, self.armed = fail_at, error, True
        for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))
        opened = pathlib.Path.open

        def open_counted(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            file = opened(path, mode, *rest, **more)
            return Written(file, self) if "x" in mode else file

        patch.setattr(pathlib.Path, "open", open_counted)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            descriptor = Path(f"/proc/self/fd/{args[0]}")
            self.count(f"{name} {descriptor.readlink() if descriptor.is_symlink() else args[0]}")
            return function(*args, **more)

        return call

    def count(self, call: str) -> None:
        if self.armed:
            self.calls.append(call)
            if 0 < self.fail_at <= len(self.calls):
                self.armed = not isinstance(self.error, OSError) or self.error.errno == errno.EROFS
                raise self.error


class Written:
    """A file to which a failing write writes only half of its data."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> None:
        try:
            self.disk.count(f"write {self.file.name}")
        except BaseException:
            self.file.write(bytes(data)[: len(data) // 2])
            raise
        self.file.write(data)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextmanager
def disk(fail_at: int, error: BaseException) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        yield Disk(patch, fail_at, error)


CASES = [  # steps saved before, the step saved when it fails, keep
    pytest.param([], 10, 1, id="first"),
    pytest.param([10], 20, 1, id="next"),
    pytest.param([10, 20, 30], 40, 2, id="prune"),
    pytest.param([10], 10, 1, id="same step"),
    pytest.param([10, 20], 20, 2, id="same step of two"),
    pytest.param([30, 10], 20, 1, id="abandoned future"),
    pytest.param([30, 10], 10, 1, id="same step, abandoned future"),
]


@pytest.mark.parametrize(("before", "step", "keep"), CASES)
def test_a_crash_between_any_two_operations_loses_nothing(
    tmp_path: Path, before: list[int], step: int, keep: int
) -> None:
    for fail_at in range(1, 200):
        run = tmp_path / str(fail_at)
        run.mkdir()
        for earlier in before:
            save_checkpoint(run, earlier, state_of(earlier), keep=5)
        with disk(fail_at, Crash()) as operations:
            try:
                save_checkpoint(run, step, state_of(step, attempt=1), keep)
            except Crash:
                pass
            else:
                break
        found = latest_checkpoint(run)
        assert found is not None or not before
        named = operations.calls[:-1]  # a checkpoint is valid from its renaming on, whatever `latest` names
        if any(call.startswith("rename ") and ".tmp-" in call for call in named):
            assert same(loaded(run), Checkpoint(step, state_of(step, attempt=1))), operations.calls
        elif found is not None:
            assert same(loaded(run)[1], state_of(before[-1])), operations.calls
        save_checkpoint(run, step, state_of(step, attempt=2), keep)  # the next save succeeds, and removes the leftovers
        assert same(loaded(run), Checkpoint(step, state_of(step, attempt=2)))
        assert len(names(run)) <= keep + 1
        assert not [name for name in names(run) if ".tmp" in name or ".old" in name]
    assert fail_at > 15
    assert same(loaded(run), Checkpoint(step, state_of(step, attempt=1)))


@pytest.mark.parametrize(("before", "step", "keep"), CASES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["once", "from then on"])
def test_a_disk_that_refuses_is_reported_and_loses_nothing(
    tmp_path: Path, before: list[int], step: int, keep: int, code: int
) -> None:
    for fail_at in range(1, 200):
        run = tmp_path / str(fail_at)
        run.mkdir()
        for earlier in before:
            save_checkpoint(run, earlier, state_of(earlier), keep=5)
        with disk(fail_at, OSError(code, os.strerror(code))) as operations:
            try:
                save_checkpoint(run, step, state_of(step, attempt=1), keep)
            except UserError as error:
                message = str(error)
            else:
                if len(operations.calls) < fail_at:
                    break
                continue  # this failure did no harm
        assert os.strerror(code) in message
        assert str(run / "checkpoints") in message
        found = latest_checkpoint(run)
        assert (f"{found.name} is intact" if found else "no earlier checkpoint") in message
        assert found is not None or not before
        if found is not None:
            whole = [state_of(step, attempt=1)] + [state_of(earlier) for earlier in before[-1:]]
            assert any(same(load_checkpoint(found)[1], state) for state in whole), operations.calls
        if code == errno.ENOSPC and (run / "checkpoints").exists():
            assert not [name for name in names(run) if ".tmp" in name]
    assert fail_at > 15


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names descriptors through /proc")
def test_an_old_checkpoint_that_cannot_be_removed_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system that keeps a file which is still open; the next save removes it."""
    refuses = True

    def remove(folder: Path, *rest: Any, **more: Any) -> None:
        if refuses and not (rest or more):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        removing(folder, *rest, **more)

    removing = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove)
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, state_of(step), 1)
        assert same(loaded(tmp_path), Checkpoint(step, state_of(step)))
    refuses = False
    save_checkpoint(tmp_path, 40, state_of(40), 1)
    assert names(tmp_path) == ["latest", "step_000000000040"]


def test_a_disk_that_takes_a_part_of_a_line_is_an_error(tmp_path: Path) -> None:
    """A limit on the size of a file stands for a disk that is nearly full."""
    path, soft, hard = tmp_path / "metrics.jsonl", *resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sink = JsonlSink(path)
    sink.log(1, {"x": 1.0})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 13, hard))
        with pytest.raises(UserError, match=r"metrics\.jsonl"):
            sink.log(2, {"x": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    sink.close()
    resumed = JsonlSink(path)
    resumed.log(3, {"x": 3.0})
    resumed.close()
    assert [step for step, _ in read_rows(path)] == [1, 3]


def test_a_name_is_given_only_to_what_is_on_disk(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1), keep=1)
    with disk(0, Crash()) as operations:
        save_checkpoint(tmp_path, 2, state_of(2), keep=1)
    folder = tmp_path / "checkpoints"
    temporary = folder / f".tmp-{os.getpid()}"
    calls = [call for call in operations.calls if not call.startswith("write")]
    assert calls.pop(0) == f"mkdir {folder}"
    latest = calls[7].removeprefix("fsync ")
    assert latest.startswith(f"{folder}/.tmp-")
    assert calls[:10] == [
        f"mkdir {temporary}",
        f"fsync {temporary}/tensors.safetensors",
        f"fsync {temporary}/state.json",
        f"fsync {temporary}",
        f"rename {temporary}",
        f"fsync {folder}",
        f"fsync {tmp_path}",
        f"fsync {latest}",
        f"replace {latest}",
        f"fsync {folder}",
    ]
    assert calls[10].startswith("unlink")  # the checkpoint before it is deleted only now


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(UserError, match=r"File too large.*step_000000000001 is intact"):
            save_checkpoint(tmp_path, 2, state_of(2), keep=1)
        with pytest.raises(UserError, match="File too large"):
            atomic_write_bytes(tmp_path / "checkpoints" / "latest", b"x" * 6000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["latest", "step_000000000001"]
    assert same(loaded(tmp_path), Checkpoint(1, state_of(1)))


def test_a_process_with_too_many_files_is_not_a_full_disk() -> None:
    errors = (OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EMFILE))
    full, many = (str(could_not_write(Path("x"), error)) for error in errors)
    assert "free some space" in full
    assert "ulimit -n" in many
    assert "free some space" not in many


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"run/checkpoints \(Not a directory\).*no earlier checkpoint"):
        save_checkpoint(tmp_path / "run", 1, {}, keep=1)
    with pytest.raises(UserError, match=r"could not write .*run/x"):
        atomic_write_text(tmp_path / "run" / "x", "")


def python(*arguments: str) -> str:
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sigkill_at_random_instants_loses_nothing(tmp_path: Path) -> None:
    lines = python(__file__, str(tmp_path)).split("\n")[:-1]
    results = [json.loads(line) for line in lines]
    assert len(results) == 30
    assert sum(result["interrupted"] for result in results) >= 10  # most kills fell inside a save
    assert results[-1]["completed"] > 10


def save_forever(run: Path, first: int, report: int) -> None:
    for save in range(first, 10**9):
        step, attempt = save // 2, save % 2  # every step twice: new folders and replaced ones
        save_checkpoint(run, step, state_of(step, attempt), keep=1 + step % 2)
        os.write(report, save.to_bytes(8, "little"))


def kill_savers(run: Path, kills: int) -> None:
    """Prints a line per kill. The test runs it in a process of its own, since it forks."""
    pick, completed = random.Random(time.time_ns()), 0
    save_checkpoint(run, 0, state_of(0), keep=1)
    for kill in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            save_forever(run, completed + 1, writer)
        os.close(writer)
        first = os.read(reader, 8) if kill % 2 else b""  # every other process completes a save, also on a slow disk
        time.sleep(pick.uniform(0.005, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            reports = first + pipe.read()
        completed = int.from_bytes(reports[-8:], "little") if reports else completed
        interrupted = any(".tmp" in name or ".old" in name for name in names(run))
        step, state = loaded(run)
        save = 2 * step + int(state["arrays"]["zero"])
        assert save >= completed, f"{save} is older than {completed}"
        assert same(state, state_of(step, save % 2)), f"a mixture at {save}"
        completed = save
        print(json.dumps({"interrupted": interrupted, "completed": completed}))


def test_atomic_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    atomic_write_text(path, "Σ̄")
    atomic_write_text(path, "second")
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]
    for fail_at in range(1, 10):
        with disk(fail_at, Crash()):
            try:
                atomic_write_text(path, "third")
            except Crash:
                assert path.read_text() in ("second", "third")
            else:
                break
    assert fail_at == 6  # mkdir, write, fsync, replace, fsync


def test_truncate_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_jsonl(path, 5)
    assert not path.exists()
    kept = [{"global_step": 1, "loss": 0.5}, {"global_step": 5, "text": "\u2028 \x85"}, {"global_step": 3}]
    gone = [{"global_step": 6}, {"loss": 1}, [1], "global_step", {"global_step": "1"}, {"global_step": None}]
    lines = [json.dumps(entry, ensure_ascii=False) for pair in zip(kept, gone, strict=False) for entry in pair]
    lines += [json.dumps(entry) for entry in gone]
    for torn in ('{"global_step": 2, "lo', '{"global_step": 1', ""):
        path.write_text("\n".join([*lines, torn]))
        truncate_jsonl(path, 5)
        assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == kept
    truncate_jsonl(path, 0)
    assert path.read_bytes() == b""


def test_new_rows_are_those_of_the_file_each_once(tmp_path: Path) -> None:
    """A run may write its lines in parts of any size. A file that was cut is read again from its start."""
    path, random = tmp_path / "metrics.jsonl", np.random.default_rng(1)
    assert read_new_rows(path, 0) == ([], 0)
    text = "".join(json.dumps({"global_step": step, "x": "y" * int(step % 7)}) + "\n[1]\n" for step in range(200))
    rows, position, begin = [], 0, 0
    while begin < len(text):
        end = begin + int(random.integers(1, 60))
        with path.open("a") as file:
            file.write(text[begin:end])
        begin = end
        new, position = read_new_rows(path, position)
        rows += new
    assert rows == list(read_rows(path))
    assert len(rows) == 200
    assert read_new_rows(path, position) == ([], len(text))
    truncate_jsonl(path, 3)
    new, position = read_new_rows(path, position)
    assert [step for step, _ in new] == [0, 1, 2, 3]
    assert position == path.stat().st_size


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    torch.save({"w": torch.ones(2)}, path / "tensors.safetensors")
    refused(path, "not a whole checkpoint")
    save_file({"w": torch.ones(3)}, path / "tensors.safetensors")
    refused(path, "not a whole checkpoint")


if __name__ == "__main__":
    kill_savers(Path(sys.argv[1]), kills=30)
