"""Files from strangers: special, too large, of wrong types, or altered. Each raises one sentence within seconds."""

from __future__ import annotations

import copy
import json
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from agent.common.errors import UserError
from agent.common.files import read_plain
from agent.config.parsing import to_plain
from agent.config.run import TrainConfig
from agent.records.checkpoint import damaged_checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.comparison.configs import read_config
from agent.records.comparison.finding import find_runs
from agent.records.config_file import MAX_CONFIG
from agent.records.metrics import MAX_LINE, JsonlSink, read_series, truncate_jsonl
from agent.records.newest import is_run_of, newest_agent
from agent.records.plots import plot_evaluation, plot_learning_curve
from agent.records.run_folder import note_on_edits, open_run
from agent.records.saved_agent import read_agent, read_header
from agent.records.schema import check_parts

SECONDS = 5.0


@contextmanager
def soon() -> Iterator[None]:
    """Checks that the block ends within SECONDS. A block that waits for a pipe ends as well, by the pipe's timer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS


def sentence(action: Callable[[], object]) -> str:
    """The sentence of the error that an action raises."""
    with soon(), pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert text.isprintable()
    return text


# ---- files that are not plain


def pipe(path: Path) -> None:
    os.mkfifo(path)
    threading.Timer(2 * SECONDS, release, [path]).start()


def release(path: Path) -> None:
    """Opens the pipe, so that a process that still waits for it goes on and a failing test ends."""
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


ODD: dict[str, Callable[[Path], None]] = {
    "a pipe": pipe,
    "a folder": lambda path: path.mkdir(),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "itself": lambda path: path.symlink_to(path),
    "nothing": lambda path: path.symlink_to(path.parent / "none"),
    "a hole of a terabyte": lambda path: (path.touch(), os.truncate(path, 1 << 40))[0],
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
}


@pytest.fixture(params=ODD)
def make_odd(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Makes something that is no plain file at the path of a file."""
    return ODD[request.param]


def test_an_odd_agent_is_refused(tmp_path: Path, make_odd: Callable[[Path], None]) -> None:
    make_odd(tmp_path / "agent.safetensors")
    assert "agent.safetensors" in sentence(lambda: read_agent(tmp_path / "agent.safetensors"))


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_an_odd_checkpoint_is_not_whole(tmp_path: Path, name: str, make_odd: Callable[[Path], None]) -> None:
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step, {"w": torch.ones(2)}, keep=2)
    (path / name).unlink()
    make_odd(path / name)
    with soon():
        assert latest_checkpoint(tmp_path) == path.with_name("step_000000000001")
        assert damaged_checkpoints(tmp_path) == [path]
    assert "not a whole checkpoint" in sentence(lambda: load_checkpoint(path))


def test_an_odd_latest_is_passed_over(tmp_path: Path, make_odd: Callable[[Path], None]) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=2)
    (tmp_path / "checkpoints" / "latest").unlink()
    make_odd(tmp_path / "checkpoints" / "latest")
    with soon():
        assert latest_checkpoint(tmp_path) == path


def test_odd_metrics_give_a_curve_without_returns(tmp_path: Path, make_odd: Callable[[Path], None]) -> None:
    make_odd(tmp_path / "metrics.jsonl")
    with soon():
        plot_learning_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png", "x", None)
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_odd_metrics_are_neither_cut_nor_written_to(tmp_path: Path, make_odd: Callable[[Path], None]) -> None:
    path = tmp_path / "metrics.jsonl"
    make_odd(path)
    with soon(), suppress(UserError):  # an empty file, also one with a hole of a terabyte, may be cut to no lines
        truncate_jsonl(path, 5)
    if path.is_symlink() or not path.is_file():
        assert "metrics.jsonl" in sentence(lambda: JsonlSink(path))


def test_an_odd_config_is_of_no_run(tmp_path: Path, make_odd: Callable[[Path], None]) -> None:
    make_odd(tmp_path / "config.yaml")
    with soon():
        assert not is_run_of(tmp_path, "CartPole-v1", 0)


def test_a_config_that_is_nested_too_deep_is_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\nenv: " + "{a: " * 3_000 + "}" * 3_000)
    assert not is_run_of(tmp_path, "CartPole-v1", 0)


@pytest.mark.parametrize("item", ["1:1", "[1],", "1,"])
def test_a_config_is_read_soon_whatever_it_holds(tmp_path: Path, item: str) -> None:
    """Reading a number in base 60 takes quadratic time, and reading 1 MiB of any YAML takes ten seconds."""
    for size in (MAX_CONFIG - 100, 1 << 20):
        text = item * (size // len(item))
        (tmp_path / "config.yaml").write_text(f"seed: 0\nx: {text if item == '1:1' else f'[{text}]'}\n")
        began = time.process_time()
        assert not is_run_of(tmp_path, "CartPole-v1", 0)
        with suppress(UserError):
            read_config(tmp_path / "config.yaml")
        assert time.process_time() - began < SECONDS


#: Aliases that stand for a billion values, as the value of X.
BOMB = "l0: &l0 [a,a]\n" + "".join(f"l{i}: &l{i} [*l{i - 1},*l{i - 1}]\n" for i in range(1, 31))


@pytest.mark.parametrize(
    "value",
    [
        *("*l30", "{b: *l30}", "!!pairs [a: *l30]", "!!omap [a: *l30]", "[!!pairs [a: *l30]]", "!!set {a, b}"),
        *("!!pairs [a: 1]", f"0x{'f' * 20_000}", "9" * 5_000, "2026-01-02", '"\\e[2J"', "{1: 2}", '{"\\e[2J": 1}'),
    ],
)
@pytest.mark.parametrize("name", ["env", "env:\n  id", "seed", "x", '"\\e[2J"'])
def test_any_value_of_a_config_is_read_soon_and_shown_on_one_plain_line(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "config.yaml").write_text(f"seed: 0\n{BOMB if '*' in value else ''}{name}: {value}\n")
    with soon():
        is_run_of(tmp_path, "CartPole-v1", 0)
        note = note_on_edits(tmp_path, to_plain(TrainConfig()))
        assert note is None or (note.isprintable() and len(note) < len(str(tmp_path)) + 500)
        with suppress(UserError):
            options, _ = read_config(tmp_path / "config.yaml")
            assert all(text.isprintable() for pair in options.items() for text in pair)


def test_metrics_that_are_too_large_to_be_cut_are_to_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.records.metrics.MAX_BYTES", 10)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"global_step": 5, "x": 1.0}))
    told = sentence(lambda: truncate_jsonl(tmp_path / "metrics.jsonl", 2))
    assert told.endswith("it is larger than 10 bytes): move it to another place, and the resumed run begins a new one")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_files_are_read_up_to_their_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_plain(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_plain(tmp_path / "x", 4)


# ---- manifests


def resealed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest of a checkpoint and its checksum, as a stranger would."""
    manifest = json.loads((path / "state.json").read_text())
    change(manifest)
    content = [manifest.get("step"), manifest.get("state"), manifest.get("number")]
    manifest["state_crc32"] = zlib.crc32(json.dumps(content).encode())
    (path / "state.json").write_text(json.dumps(manifest))


VALUES: list[Any] = [None, True, -1, 0.5, 10**400, "text", [], {}, [1], {"a": 1}, float("nan"), "\x1b[2J"]


@pytest.mark.parametrize("name", ["format", "version", "step", "number", "state", "bytes", "crc32"])
@pytest.mark.parametrize("value", [*VALUES, "missing"], ids=lambda value: repr(value)[:20])
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)

    def change(manifest: dict[str, Any]) -> None:
        manifest.pop(name)
        if value != "missing":
            manifest[name] = value

    resealed(path, change)
    if name == "state" and isinstance(value, dict) and value:
        return  # a state without tensors is valid, though the file has one
    sentence(lambda: load_checkpoint(path))
    with soon():
        if latest_checkpoint(tmp_path) is not None:  # wrong tensors are found when they are read
            assert name in ("crc32", "state", "step", "number")


@pytest.mark.parametrize(
    "node",
    [
        {"$tensor": 5}, {"$tensor": "none"}, {"$array": ["w"]}, {"$tuple": 5}, {"$items": 5}, {"$items": [5]},
        {"$items": [[1]]}, {"$items": [[[], 1]]}, {"$items": [[{}, 1]]}, {"$items": ["abc"]}, {"$items": [[1, 2, 3]]},
        [{"$tensor": "w"}, {"$tensor": "w"}], json.loads("[" * 900 + "]" * 900),
    ],
    ids=lambda node: repr(node)[:30],
)  # fmt: skip
def test_references_of_another_form_are_refused(tmp_path: Path, node: Any) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    resealed(path, lambda manifest: manifest["state"].update(odd=node))
    with suppress(UserError), soon():
        _, state = load_checkpoint(path)
        assert "odd" in state  # plain data, which a later check examines


@pytest.mark.parametrize("state", [{"$tuple": []}, {"$tuple": [1]}, {"$tensor": "w"}, {"$array": "w"}], ids=repr)
def test_a_state_that_is_no_mapping_is_refused(tmp_path: Path, state: Any) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    resealed(path, lambda manifest: manifest.update(state=state))
    with suppress(UserError):
        assert isinstance(load_checkpoint(path).state, dict)


@pytest.mark.parametrize("lengths", [[10**400], [-1], [2**60], [True], [1.0], []], ids=lambda value: repr(value)[:10])
@pytest.mark.parametrize("returns", [[1.0], [float("inf")], [float("nan")]], ids=repr)
def test_an_evaluation_that_no_run_has_made_is_refused(returns: list[float], lengths: list[Any]) -> None:
    with pytest.raises(ValueError, match="its last evaluation is"):
        check_parts(a_state() | {"evaluation": [5, returns, lengths]})


def test_a_nest_too_deep_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    for depth in (1_000, 5_000, 100_000):
        (path / "state.json").write_text(
            '{"format": "noisy-dqn-checkpoint", "state": ' + "[" * depth + "]" * depth + "}"
        )
        sentence(lambda: load_checkpoint(path))


def test_tensors_of_kinds_that_numpy_has_not_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    (path / "tensors.safetensors").write_bytes(safetensors.torch.save({"w": torch.ones(2, dtype=torch.bfloat16)}))
    data = (path / "tensors.safetensors").read_bytes()
    resealed(path, lambda manifest: manifest.update(bytes=len(data), crc32=zlib.crc32(data)))
    with suppress(UserError):
        load_checkpoint(path)


# ---- states


def a_state() -> dict[str, Any]:
    config = to_plain(TrainConfig())
    return {
        "config": config, "agent": {}, "replay": {}, "collector": {}, "monitor": {}, "sampling_generator": {},
        "best_return": -float("inf"), "evaluations": 1, "evaluation": (5, (1.0, 2.0), (3, 4)), "seconds": 1.0,
        "evaluation_due": False, "failures": 0, "reached": 0, "wandb_run_id": "abc",
    }  # fmt: skip


def test_a_state_of_ours_has_the_right_parts() -> None:
    assert check_parts(a_state())["config"] == a_state()["config"]
    before_2026 = {name: value for name, value in a_state().items() if name not in ("collector", "evaluation_due")}
    assert check_parts(before_2026 | {"evaluation": (0,), "wandb_run_id": None})


OPEN = {"sampling_generator"}  # this part is compared with that of the new run


@pytest.mark.parametrize("name", sorted(a_state().keys() - OPEN))
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_part_of_another_form_is_refused(name: str, value: Any) -> None:
    state = a_state() | {name: value}
    allowed = {"wandb_run_id": [None, "text"], "best_return": [0.5], "seconds": [0.5], "evaluations": [-1]}
    allowed |= {name: [{}, {"a": 1}] for name in ("agent", "replay", "collector", "monitor")} | {"config": [{}]}
    allowed |= {"failures": [-1], "reached": [-1], "evaluation_due": [True], "evaluation": [[1]]}
    if any(type(value) is type(other) and value == other for other in allowed.get(name, [])):
        check_parts(state)
    else:
        with pytest.raises(ValueError, match=r"is|cannot"):
            check_parts(state)


@pytest.mark.parametrize("run_id", ["../../x", "a/b", "", "a" * 129, "a\nb", "a.b"])
def test_a_run_id_that_leads_elsewhere_is_refused(run_id: str) -> None:
    with pytest.raises(ValueError, match="its W&B run is"):
        check_parts(a_state() | {"wandb_run_id": run_id})


def test_a_state_without_its_parts_ends_in_a_sentence(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, keep=1)
    assert "cannot be resumed" in sentence(lambda: open_run(tmp_path, "auto"))


# ---- metrics


@pytest.mark.parametrize(
    "line",
    [
        '{"global_step": 5, "train/episode_return": 1e999}',
        '{"global_step": 5, "train/episode_return": 1' + "0" * 400 + "}",
        '{"global_step": 5, "train/episode_return": 1' + "0" * 5000 + "}",
        '{"global_step": 1e999, "train/episode_return": 1}',
        '{"global_step": 1' + "0" * 400 + ', "train/episode_return": 1}',
        '{"global_step": -5, "train/episode_return": 1}',
        '{"global_step": true, "train/episode_return": 1}',
        '{"global_step": 5, "train/episode_return": true}',
        '{"global_step": 5, "train/episode_return": [1]}',
        '{"global_step": 5, "train/episode_return": "1"}',
        '{"global_step": 5, "train/episode_return": 1e300}',
        '{"global_step": 5, "train/episode_return": NaN}',
        '{"global_step": 5, "x": "' + "x" * 3 * MAX_LINE + '", "train/episode_return": 1}',
        "[" * 100_000,
        "\0" * 1000,
        "\xff\xfe",
    ],
    ids=lambda line: line[:50],
)
def test_a_curve_is_drawn_whatever_the_lines_are(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"global_step": 7, "train/episode_return": 2.0, "eval/return_mean": 1}'
    path.write_bytes(f"{line}\n{good}\n{line}".encode("latin-1"))
    with soon():
        plot_learning_curve(path, tmp_path / "curve.png", "x", None)
    steps, values = read_series(path, ["train/episode_return"])["train/episode_return"]
    assert (steps.tolist(), values.tolist()) == ([7.0], [2.0])
    truncate_jsonl(path, 10)
    assert good in path.read_text()
    assert (tmp_path / "curve.png").exists()


def test_returns_as_large_as_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"global_step": i, "eval/return_mean": 1e30 * (-1) ** i, "eval/return_std": 1e30} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plot_learning_curve(path, tmp_path / "curve.png", "x", 1e30)


@pytest.mark.parametrize(
    "name", ["a$\\frac{$b", "$", "$$", "a\nb", "\x1b[2J", "\udcff", "𝔸∆漢", "x" * 5_000, "{}", "%s", "_hidden", "\0"]
)
def test_a_name_of_any_kind_is_drawn_as_it_is(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = {"label": name, "returns": [1.0], "return_mean": 1.0, "return_iqm": 1.0, "return_ci95": (1.0, 1.0)}
    plot_evaluation([result, result], tmp_path / "evaluation.png")
    plot_learning_curve(tmp_path / "none", tmp_path / "curve.png", name, None)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert capfd.readouterr().err == ""


def test_a_picture_that_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    odd: Any = "a threshold"
    assert "could not be drawn" in sentence(lambda: plot_learning_curve(tmp_path, tmp_path / "x.png", "x", odd))
    assert not (tmp_path / "x.png").exists()


# ---- many random changes


PIECES = (b"null", b"1e999", b"-1", b"[]", b'"', b"{", b"\xff", b"9" * 30)


def mutated(data: bytes, pick: random.Random) -> bytes:
    """The bytes of a file with random changes: flipped bits, pieces deleted, doubled or replaced, or a cut."""
    changed = bytearray(data)
    for _ in range(pick.choice([1, 1, 3, 20])):
        place, length = pick.randrange(len(changed) or 1), pick.choice([1, 1, 4, 64])
        kind = pick.randrange(5)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << pick.randrange(8)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length]
        elif kind == 3:
            changed[place : place + length] = pick.choice(
                [b"null", b"1e999", b"-1", b"[]", b'"', b"{", b"\xff", b"9" * 30]
            )
        else:
            del changed[max(place, 1) :]
    return bytes(changed)


def test_mutated_agents_and_checkpoints_end_in_sentences(tmp_path: Path) -> None:
    from agent.records.saved_agent import save_agent

    pick, agent = random.Random(0), tmp_path / "agent.safetensors"
    save_agent(agent, {"w": torch.ones(3)}, {"env": {"id": "CartPole-v1", "kwargs": {}}, "numbers": [1, 2.5, None]})
    checkpoint = save_checkpoint(tmp_path, 1, {"w": torch.ones(2), "list": [1, 2, (3,)], "rng": {"a": 2**100}}, keep=1)
    state, tensors = checkpoint / "state.json", checkpoint / "tensors.safetensors"
    whole = {path: path.read_bytes() for path in (agent, state, tensors)}
    for _ in range(400):
        path = pick.choice(list(whole))
        path.write_bytes(mutated(whole[path], pick))
        with suppress(UserError), soon():
            read_header(agent)
            read_agent(agent)
        with suppress(UserError), soon():
            latest_checkpoint(tmp_path)
            load_checkpoint(checkpoint)
        path.write_bytes(whole[path])


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in nested data."""
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from nodes(value, (*path, key))


def test_manifests_with_any_value_replaced_end_in_sentences(tmp_path: Path) -> None:
    pick = random.Random(1)
    state = a_state() | {"replay": {"starts": np.arange(3)}, "agent": {"parameters": torch.ones(2)}}
    path = save_checkpoint(tmp_path, 5, state, keep=1)
    whole = json.loads((path / "state.json").read_text())
    places = [place for place in nodes(whole["state"]) if place]
    for _ in range(300):
        place, changed = pick.choice(places), copy.deepcopy(whole)
        node = changed["state"]
        for key in place[:-1]:
            node = node[key]
        if pick.randrange(4):
            node[place[-1]] = pick.choice(VALUES)
        else:
            del node[place[-1]]
        (path / "state.json").write_text(json.dumps(changed))
        resealed(path, lambda manifest: None)
        with suppress(UserError), soon():
            open_run(tmp_path, "auto")


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("runs", lambda: newest_agent("best", "evaluating")),
        ("runs/a/checkpoints", lambda: open_run(Path("runs/a"), "runs/a")),
        ("runs/a", lambda: find_runs(["runs/a"])),
        ("runs/a/config.yaml", lambda: find_runs(["runs"])),
        ("runs/a/metrics.jsonl", lambda: find_runs(["runs/*"])),
    ],
)
def test_what_cannot_be_read_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, ask: Callable[[], object]
) -> None:
    """Root may read everything, so that the test replaces the answer of the system."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "runs" / "a" / name).touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda asked, mode: Path(asked) != Path(path) and access(asked, mode))
    with pytest.raises(UserError, match=f"^{path} cannot be read: check its permissions$"):
        ask()
