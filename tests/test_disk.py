"""Errors of files and disks: each has the advice that helps against it, wherever it arises."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.command.errors import sentence_of
from agent.command.program import TRAIN
from agent.common.disk import advice
from agent.common.errors import UserError
from agent.common.files import atomic_write_text, make_folder, open_log
from agent.records import checkpoint, metrics
from agent.running.tuning import locks

READ_ONLY = r"\(Read-only file system\): it lies on a disk that can only be read; use a folder on another disk"


def refuses(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "runs")


def test_only_a_full_disk_needs_space() -> None:
    numbers = {number for number in errno.errorcode if "free some space" in advice(OSError(number, ""))}
    assert numbers == {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def test_a_file_that_cannot_be_written_has_the_advice_of_its_error(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file").touch()
    (tmp_path / "a link").symlink_to(tmp_path / "a file")
    for name, expected in {
        "a folder": r"\(Is a directory\): a folder is in the place of the file; move it away$",
        "a file/x": r"\(File exists\): a file is in the place of a folder; move it away$",
        "x" * 300: r"\(File name too long\): choose a shorter name$",
        "no/run/best/x": r"\(No such file or directory\): a folder that it lies in is missing; make that folder",
    }.items():
        with pytest.raises(UserError, match=expected):
            atomic_write_text(tmp_path / name, "")
    for name, expected in {
        "a link": r"a link \(it is a link\): a link is in its place; move the link away$",
        "a folder": r"\(Is a directory\): a folder is in the place of the file; move it away$",
    }.items():
        with pytest.raises(UserError, match=expected):
            open_log(tmp_path / name)


@pytest.mark.parametrize("write", ["file", "metrics", "checkpoint"])
def test_a_read_only_disk_needs_another_one(write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.jsonl"
    file.touch()
    writes: dict[str, Callable[[], object]] = {
        "file": lambda: atomic_write_text(file, ""),
        "metrics": lambda: metrics.truncate_jsonl(file, 3),
        "checkpoint": lambda: checkpoint.save_checkpoint(tmp_path, 1, {}, keep=1),
    }
    for module in (checkpoint, metrics):
        monkeypatch.setattr(module, "new_file" if module is metrics else "write_tensors", refuses)
    monkeypatch.setattr("agent.common.files.new_file", refuses)
    with pytest.raises(UserError, match=READ_ONLY):
        writes[write]()


def test_an_error_that_reaches_a_program_has_its_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, make in (("os.open", locks.lock), ("pathlib.Path.mkdir", make_folder)):
        with monkeypatch.context() as patch:
            patch.setattr(module, refuses)
            with pytest.raises(OSError, match="Read-only") as caught:
                make(tmp_path / "trial")
        sentence = sentence_of(caught.value, TRAIN)
        assert sentence == f"cannot use runs {READ_ONLY}".replace("\\", "")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", None)
        patch.setattr("tempfile._candidate_tempdir_list", lambda: ["/dev/null"])
        with pytest.raises(FileNotFoundError) as missing:
            tempfile.mkdtemp()
    assert "name a folder with TMPDIR=<folder>" in str(sentence_of(missing.value, TRAIN))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as a write raises it
    assert sentence_of(full, TRAIN) == "a file cannot be written (No space left on device): free some space"
