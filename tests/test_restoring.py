"""The whole state of a checkpoint is compared with the run that takes it over."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.command.functions import train
from agent.common.arrays import Place
from agent.common.errors import UserError
from agent.noise.streams import DeviceNoise
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.records.schema import check_like
from agent.replay.prioritised import PrioritisedReplay
from agent.running.restoring import check_replay


def replay_state() -> dict[str, Any]:
    replay = PrioritisedReplay(20, 2, 3, n_step=2, exponent=0.5)
    replay.begin(np.zeros((2, 3), np.float32))
    for i in range(25):
        ended = np.array([i % 5 == 4, i % 7 == 6])
        replay.add(np.array([i % 2, 1]), np.ones(2), ended, ended & False, np.ones((2, 3), np.float32))
    return copy.deepcopy(replay.state())


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: value})


def at(name: str, place: Any, value: float) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[name][place] = value

    return change


def test_a_replay_of_ours_is_taken() -> None:
    check_replay(replay_state(), 2)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("head", -1), "counters"),
        (put("head", 10**6), "counters"),
        (put("first", 10**6), "counters"),
        (put("count", 10**6), "counters"),
        (put("count", 3), "counters"),
        (at("starts_of_row", 0, -1), "counters"),
        (at("starts", 0, 10**12), "counters"),
        (at("starts", 0, -1), "counters"),
        (at("scalars", (3, 0), 2.0), "actions"),
        (at("scalars", (3, 0), float("nan")), "actions"),
        (at("scalars", (3, 2), 0.5), "endings"),
        (at("scalars", (3, 3), -65.0), "endings"),
        (at("previous_stop", 0, float("nan")), "endings"),
        (at("priorities", 0, -1.0), "priorities"),
        (at("priorities", 0, float("inf")), "priorities"),
        (at("largest_priority", 0, float("nan")), "priorities"),
    ],
)
def test_a_replay_that_would_be_read_outside_is_refused(change: Callable[[dict[str, Any]], None], match: str) -> None:
    state = replay_state()
    change(state)
    with pytest.raises(ValueError, match=match):
        check_replay(state, 2)


LIKE: dict[str, Any] = {
    "tensor": torch.zeros(2, 3),
    "array": np.zeros(4, np.int64),
    "count": 3,
    "share": 0.5,
    "flag": True,
    "word": "table",
    "parts": [{"a": np.zeros(1)}],
    "generator": torch.zeros(16, dtype=torch.uint8),
    "later": None,
}


def test_a_state_like_ours_is_taken_from_any_device() -> None:
    numpy = np.random.Generator(np.random.PCG64(0)).bit_generator.state
    check_like(LIKE | {"tensor": np.ones((2, 3), np.float32), "generator": numpy, "later": "x", "more": 1}, LIKE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor", torch.zeros(3, 2)), ("tensor", torch.zeros(2, 3, dtype=torch.float64)), ("tensor", None),
        ("tensor", [[0.0] * 3] * 2), ("array", np.zeros(4, np.int32)), ("array", 5), ("count", 3.0), ("count", True),
        ("count", 10**20), ("share", "0.5"), ("share", float("nan")), ("flag", 1), ("word", None), ("parts", []),
        ("parts", [5]), ("parts", [{}]), ("parts", {"a": 1}), ("generator", None), ("generator", 5),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^state\.{name}"):
        check_like(LIKE | {name: value}, LIKE)
    with pytest.raises(ValueError, match=f"^state lacks {name}$"):
        check_like({key: value for key, value in LIKE.items() if key != name}, LIKE)


SMALL = (
    *("env=CartPole-v1", "num_envs=2", "agent.learning_starts=32", "agent.batch_size=32", "agent.replay_size=200"),
    *("agent.network.hidden=[8]", "eval.episodes=1", "eval.video=false", "wandb.mode=disabled", "log.progress=false"),
)


def test_a_resumed_run_refuses_a_state_that_no_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(*SMALL, "steps=100", "hydra.run.dir=run")
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    step, state = load_checkpoint(found)
    acting = state["agent"]["acting"]
    changes: list[tuple[dict[str, Any], str, Any]] = [
        (state["agent"], "updates", "many"),
        (state["agent"], "parameters", torch.zeros(3)),
        (state["agent"], "adam", {}),
        (acting, "since", None),
        (acting, "held", np.zeros((5, 5), np.float32)),
        (acting["stream"], "block", 10**12),
        (acting["stream"], "bits", {"bit_generator": "SFC64", "state": 5}),
        (state["replay"], "count", 10**6),
        (state["collector"], "begins", 5),
        (state["monitor"], "noise", 5),
        (state, "monitor", {}),
    ]
    for node, name, value in changes:
        before = node[name]
        node[name] = value
        save_checkpoint(tmp_path / "run", step, state, 1)
        node[name] = before
        with pytest.raises(UserError, match=r"cannot be resumed: what it saved does not fit CartPole-v1") as caught:
            train("resume=run", "steps=200")
        assert str(caught.value).isprintable()
    save_checkpoint(tmp_path / "run", step, state, 1)
    assert train("resume=run", "steps=200").step >= 200


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Makes runs keep tensors and draw their noise from torch's generator, as on an accelerator."""

    @contextmanager
    def applied() -> Iterator[None]:
        def as_tensors(self: Place, device: torch.device | str, tensors: bool | None = None) -> None:
            self.device, self._numpy = torch.device(device), False

        with monkeypatch.context() as patched:
            patched.setattr(Place, "__init__", as_tensors)
            for module in ("agent.learning.dqn", "agent.noise.acting_noise"):
                patched.setattr(f"{module}.noise_stream", DeviceNoise)
            yield

    return applied


@pytest.mark.parametrize("options", [(), ("agent.priority.enabled=true", "noise=per_episode"), ("agent=dqn",)])
@pytest.mark.parametrize("from_device", [True, False])
def test_a_run_goes_on_on_another_device(
    from_device: bool,
    options: tuple[str, ...],
    on_a_device: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The noise starts anew there, from the seed of the run, and everything else goes on."""
    monkeypatch.chdir(tmp_path)
    with on_a_device() if from_device else nullcontext():
        train(*SMALL, *options, "steps=100", "hydra.run.dir=run", "backend=torch")
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    before = load_checkpoint(found)[1]["agent"]
    assert before["update"]["kind"] == before["acting"]["stream"]["kind"] == ("cpu" if from_device else "table")
    with nullcontext() if from_device else on_a_device():
        run = train("resume=run", "steps=140", "wandb.mode=disabled", "device=cpu")
    assert run.step >= 140
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    assert load_checkpoint(found)[1]["agent"]["updates"] > before["updates"] > 0
