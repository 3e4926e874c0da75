"""A saved agent comes back as it was, and nothing hostile, damaged or foreign is accepted or executed."""

import io
import json
import os
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from agent.common.errors import UserError
from agent.common.tensor_file import MAX_TENSORS
from agent.records.evaluations import archived_results_path, results_path
from agent.records.names import AGENT
from agent.records.saved_agent import (
    check_shapes,
    find_agent,
    read_agent,
    read_header,
    save_agent,
)
from agent.records.saved_env import check_env

DESCRIPTION = {
    "env": {"id": "ALE/Pong-v5", "kwargs": {"frameskip": 4, "obs_type": "rgb", "full": False, "p": 0.25}},
    "network": {"hidden": [120, 84], "dueling": True},
    "global_step": 50_000,
    "evaluation": {"return_mean": 500.0, "best": None, "Σ̄": "µ\n"},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "w": base,
        "transposed": base.T,
        "row": base[1],
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }


def wrapped(agent: object = DESCRIPTION, form: object = "noisy-dqn-agent", version: object = 1) -> dict[str, str]:
    return {"noisy-dqn": json.dumps({"format": form, "version": version, "agent": agent})}


def with_env(**env: object) -> dict[str, object]:
    return {**DESCRIPTION, "env": {"id": "CartPole-v1", "kwargs": {}, **env}}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def refused(path: Path, data: bytes, match: str) -> None:
    path.write_bytes(data)
    with pytest.raises(UserError, match=match) as caught:
        read_agent(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 250 + len(str(path))
    assert str(caught.value).isprintable()  # the file may contain terminal sequences


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "best" / AGENT
    save_agent(path, tensors(), DESCRIPTION)
    saved = read_agent(path)
    assert saved.description == DESCRIPTION
    assert saved.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert saved.tensors[name].dtype == torch.float32
        assert torch.equal(saved.tensors[name], tensor)
    assert [entry.name for entry in path.parent.iterdir()] == [AGENT]


def test_loaded_tensors_outlive_and_never_alter_the_file(tmp_path: Path) -> None:
    path = tmp_path / AGENT
    save_agent(path, {"w": torch.ones(1000)}, DESCRIPTION)
    before, loaded = path.read_bytes(), read_agent(path).tensors["w"]
    loaded.add_(1)
    assert path.read_bytes() == before
    path.write_bytes(b"")
    assert torch.equal(loaded, torch.full((1000,), 2.0))


def test_a_failed_save_keeps_the_agent_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / AGENT
    save_agent(path, {"w": torch.zeros(2)}, DESCRIPTION)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_agent(path, {"w": torch.ones(2)}, DESCRIPTION)
    assert torch.equal(read_agent(path).tensors["w"], torch.zeros(2))
    assert [entry.name for entry in tmp_path.iterdir()] == [AGENT]


@pytest.mark.parametrize(
    ("bad", "description", "match"),
    [
        ({"w": torch.tensor([1.0, float("nan")])}, DESCRIPTION, "not finite"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, DESCRIPTION, "not float32"),
        ({"w": torch.zeros(2)}, with_env(id="module:Id"), "environment id"),
        ({"w": torch.zeros(2)}, {**DESCRIPTION, "note": "x" * (1 << 20)}, "longer than"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path: Path, bad, description, match: str) -> None:
    with pytest.raises(UserError, match=match):
        save_agent(tmp_path / AGENT, bad, description)
    assert not list(tmp_path.iterdir())


class Payload:
    """The object of a hostile pickle: unpickling creates the folder `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(canary)))
    files = [pickle.dumps(Payload(canary), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for index, data in enumerate([*files, zipped.getvalue()]):
        refused(tmp_path / AGENT, data, "it is a pickle" if index >= 2 else "not a safetensors file")
        assert not canary.exists()
    pickle.loads(files[2])  # an unpickled payload works
    assert canary.exists()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / AGENT
    save_agent(path, tensors(), DESCRIPTION)
    data = path.read_bytes()
    for end in [*range(0, len(data) - 1, 7), len(data) - 1]:
        refused(path, data[:end], "damaged or cut short")
    refused(path, data + b"\0", "damaged")


def entry(shape: object, offsets: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def lying(entries: dict[str, object], data: bytes = b"") -> bytes:
    """A file with a valid description, so that only its wrong entries can be refused."""
    return raw({"__metadata__": wrapped(), **entries}, data)


@pytest.mark.parametrize(
    "data",
    [
        lying({"w": entry([4], [0, 16])}, b"\0" * 8),  # more than the file holds
        lying({"w": entry([1 << 40], [0, 1 << 42])}, b"\0" * 8),  # 4 TB
        lying({"w": entry([4], [0, 8])}, b"\0" * 8),  # shape and offsets disagree
        lying({"w": entry([1 << 62, 8], [0, 8])}, b"\0" * 8),  # product overflows
        lying({"w": entry([2], [0, 8]), "v": entry([2], [0, 8])}, b"\0" * 8),  # overlap
        lying({"w": entry([2], [8, 16])}, b"\0" * 16),  # a hole
        lying({"w": entry([-2], [0, 8])}, b"\0" * 8),
        lying({"w": entry([1] * 100, [0, 4])}, b"\0" * 4),  # more dimensions than an array may have
        lying({"w": entry([1 << 62, 0], [0, 0])}),
        lying({"w": entry([2], [0, 8], "F33")}, b"\0" * 8),
        lying({"w": 5}),
        lying({"w": entry([2], [0, 8], "\x1b[2J" * 100)}, b"\0" * 8),
        raw(b"{" + b"[" * 5000),
        raw(b'{"w":' * 5000),
        raw(b"{\xff}"),
        raw({}, length=1 << 62),
        raw(json.dumps({"__metadata__": wrapped()}).encode() + b" " * (9 << 20)),  # valid, but absurd
        raw([]),
        b"",
        b"{",
        os.urandom(999),
    ],
)
def test_lying_headers_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / AGENT, data, "damaged|not a safetensors file")


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        (None, "another program"),
        ({"format": "pt"}, "another program"),
        ({"noisy-dqn": "{"}, "not JSON"),
        ({"noisy-dqn": "[" * 100_000}, "not JSON"),
        ({"noisy-dqn": "9" * 100_000}, "not JSON"),
        ({"noisy-dqn": "[]"}, "another program"),
        ({"noisy-dqn": '{"x": 1}'}, "another program"),
        (wrapped(form="other"), "another program"),
        (wrapped(version=2), "version 2"),
        (wrapped(version="x" * 10_000), "version 'x"),
        (wrapped(agent=[]), "not a dict"),
        (wrapped(agent={**DESCRIPTION, "note": "x" * (1 << 20)}), "longer than"),
        (wrapped(agent={**DESCRIPTION, "deep": json.loads("[" * 20 + "]" * 20)}), "20 levels"),
        (wrapped(agent={"network": {}}), "id and kwargs"),
    ],
)
def test_foreign_descriptions_are_refused(tmp_path: Path, metadata, match: str) -> None:
    refused(tmp_path / AGENT, safetensors.torch.save({"w": torch.zeros(2)}, metadata), match)


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (torch.tensor([0.0, float("nan")]), "not finite"),
        (torch.tensor([float("-inf")]), "not finite"),
        *[(torch.zeros(2, dtype=d), "not float32") for d in (torch.float64, torch.bfloat16, torch.int64, torch.bool)],
    ],
)
def test_foreign_tensors_are_refused(tmp_path: Path, tensor: torch.Tensor, match: str) -> None:
    refused(tmp_path / AGENT, safetensors.torch.save({"w": tensor}, wrapped()), match)


@pytest.mark.parametrize(
    "env",
    [
        *[
            {"id": env_id, "kwargs": {}}
            for env_id in (
                *(
                    "os:CartPole-v1",
                    "a/os:B-v1",
                    ":B-v1",
                    "",
                    "a/b/C-v1",
                    "../C-v1",
                    "/C-v1",
                    "C-v1/",
                    "a/",
                    "C-v1\n",
                ),
                *(
                    "C v1",
                    "C-v1\0",
                    "Ç-v1",
                    "C;v1",
                    "x" * 300,
                    "C\\v1",
                    "..",
                    "~/C-v1",
                    None,
                    5,
                    ["CartPole-v1"],
                ),
                *("GymV21Environment-v0", "GymV26Environment-v0", "ns/GymV21Environment-v0"),
            )
        ],
        *[
            {"id": "C-v1", "kwargs": {key: 1}}
            for key in (
                *(
                    "id",
                    "render_mode",
                    "max_episode_steps",
                    "disable_env_checker",
                    "vectorization_mode",
                    "wrappers",
                ),
                *(
                    "vector_kwargs",
                    "autoreset",
                    "apply_api_compatibility",
                    "env_id",
                    "a b",
                    "_x",
                    "",
                    "__class__",
                    "a.b",
                ),
            )
        ],
        *[
            {"id": "C-v1", "kwargs": {"key": value}}
            for value in (
                *("a:b", "a/b", "a\\b", "../x", "~x", ".x", "x" * 101, "x\n", "\x1b[2J", None, [1], {"a": 1}),
                *(float("nan"), float("inf")),
            )
        ],
        *({"id": "C-v1"}, {"id": "C-v1", "kwargs": []}, {"id": "C-v1", "kwargs": None}, None, "C-v1"),
        {"id": "C-v1", "kwargs": {}, "entry_point": "os:system"},
    ],
)
def test_environments_that_could_do_more_are_refused(tmp_path: Path, env: object) -> None:
    data = safetensors.torch.save({"w": torch.zeros(2)}, wrapped({**DESCRIPTION, "env": env}))
    refused(tmp_path / AGENT, data, "environment")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 10_000),
        ("frameskip", 10**9),
        ("frame_skip", 1_001),
        ("gravity", 1e300),
        ("x", -(10**400)),
        ("seed", 2**64),
    ],
)
def test_numbers_that_would_make_an_endless_environment_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=r"is the most"):
        check_env({"id": "C-v1", "kwargs": {key: value}}, Path("x"))
    check_env(
        {"id": "C-v1", "kwargs": {"size": 1_000, "frameskip": 4, "gravity": -9.8, "mapping_seed": 2**62}}, Path("x")
    )


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ALE/Pong-v5", "MinAtar/Breakout-v1", "my_env/Grid.World-v0", "X"])
def test_plain_environments_pass(env_id: str) -> None:
    kwargs = {"map_name": "4x4", "is_slippery": True, "gravity": -9.8, "size": 10, "text": ""}
    check_env({"id": env_id, "kwargs": kwargs}, Path("x"))


def test_check_shapes_names_the_first_difference() -> None:
    have: dict[str, tuple[int, ...]] = {"a": (2, 3), "b": ()}
    path = Path("x")
    check_shapes(have, {"a": (2, 3), "b": ()}, path)
    for expected, match in [
        ({"a": (2, 3), "b": (), "c": (1,)}, "'c', which is missing"),
        ({"a": (3, 2), "b": ()}, r"'a' has shape \(2, 3\), its network needs \(3, 2\)"),
        ({"a": (2, 3), "b": (1,)}, r"'b' has shape \(\)"),
        ({"b": ()}, "'a' is not part"),
    ]:
        with pytest.raises(UserError, match=match):
            check_shapes(have, expected, path)


def test_find_agent(tmp_path: Path) -> None:
    run = tmp_path / "ALE" / "Pong-v5" / "run"
    run.mkdir(parents=True)
    file = run / "best" / AGENT
    save_agent(file, tensors(), DESCRIPTION)
    assert find_agent(run, "best") == find_agent(run / "best", "last") == find_agent(file, "last") == file
    for path, which, match in [
        (run, "last", "no last agent yet, but a best one: use which=best"),
        (run.parent, "best", "neither"),
        (run / "absent", "best", "does not exist"),
    ]:
        with pytest.raises(UserError, match=match):
            find_agent(path, which)
    with pytest.raises(UserError, match="it is a folder"):
        read_agent(run)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """The tensors and the description have a digest, and all other bytes must be exactly as they were written."""
    path, pick = tmp_path / AGENT, random.Random(0)
    save_agent(path, tensors(), DESCRIPTION)
    whole = path.read_bytes()
    tensors_begin = len(whole) - sum(tensor.nbytes for tensor in tensors().values())
    places = [*range(tensors_begin, len(whole)), *pick.sample(range(tensors_begin), 300)]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << pick.randrange(8)
        path.write_bytes(data)
        try:
            saved = read_agent(path)
        except UserError:
            continue
        assert place < tensors_begin, f"byte {place} of the tensors"
        assert saved.description == DESCRIPTION, f"byte {place}"
        assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in tensors().items())


def test_a_file_from_before_there_was_a_digest_is_read(tmp_path: Path) -> None:
    path = tmp_path / AGENT
    path.write_bytes(safetensors.torch.save({"w": torch.ones(2)}, wrapped()))
    assert read_agent(path).description == DESCRIPTION
    assert read_header(path).digest is None


@pytest.mark.parametrize("digest", [5, True, [], {}, "", "0" * 64])
def test_a_digest_of_another_form_or_file_is_refused(tmp_path: Path, digest: object) -> None:
    content = json.dumps(json.loads(wrapped()["noisy-dqn"]) | {"sha256": digest})
    data = safetensors.torch.save({"w": torch.ones(2)}, {"noisy-dqn": content})
    refused(tmp_path / AGENT, data, "digest|damaged")


def test_a_description_is_digested_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / AGENT
    save_agent(path, tensors(), DESCRIPTION | {"numbers": {10: (1, 2), 9: -0.0, "b": float("nan")}, "ü": "\ud800"})
    assert read_agent(path).description["numbers"]["10"] == [1, 2]


def test_a_file_with_too_many_tensors_is_refused_at_once(tmp_path: Path) -> None:
    many = {f"layer{i}.weight": torch.zeros(1, 1) for i in range(MAX_TENSORS + 1)}
    began = time.monotonic()
    refused(tmp_path / AGENT, safetensors.torch.save(many, wrapped()), "4,097 tensors")
    assert time.monotonic() - began < 2


def test_a_file_of_absurd_size_is_refused_without_being_read(tmp_path: Path) -> None:
    header = {"__metadata__": wrapped(), "w": entry([1 << 40], [0, 1 << 42])}
    path = tmp_path / AGENT
    path.write_bytes(raw(header))
    os.truncate(path, path.stat().st_size + (1 << 42))  # a sparse file, which takes no space
    with pytest.raises(UserError, match=r"bytes, more than the 4,294,967,296"):
        read_agent(path)


def test_an_evaluation_of_another_kind_has_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / AGENT
    names = [
        archived_results_path(file, *kind).name
        for kind in ((100, 0, False), (20, 0, False), (100, 1, False), (100, 0, True))
    ]
    assert names == [
        *("evaluation_100_episodes_seed0", "evaluation_20_episodes_seed0"),
        *("evaluation_100_episodes_seed1", "evaluation_100_episodes_seed0_noise"),
    ]
    assert results_path(file).name == "evaluation"
    assert (
        archived_results_path(tmp_path / "mine.v1.safetensors", 5, 3, False).name
        == "mine.v1_evaluation_5_episodes_seed3"
    )
