"""Stacks of frames, each stored once: samples are the observations of the environment, and those of a plain replay."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.common.observation import ObservationSpec
from agent.records.checkpoint import load_checkpoint, save_checkpoint
from agent.replay.memory import required_bytes
from agent.replay.ring import Replay


class Shown:
    """Environments that observe stacks of random frames: each step pushes a new frame."""

    def __init__(self, num_envs: int, stack: int, channels: int, seed: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.num_envs, self.stack, self.channels = num_envs, stack, channels
        self.stacks: list[list[np.ndarray]] = [[] for _ in range(num_envs)]

    def frame(self, e: int) -> np.ndarray:
        return self.rng.integers(256, size=(self.channels, 2, 3), dtype=np.uint8)

    def reset(self, e: int) -> None:
        self.stacks[e] = [self.frame(e)] * self.stack

    def step(self, e: int) -> None:
        self.stacks[e] = [*self.stacks[e][1:], self.frame(e)]

    def show(self) -> np.ndarray:
        return np.stack([np.concatenate(frames) for frames in self.stacks])


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 11), (3, 20), (2, 200)])
@pytest.mark.parametrize(("stack", "channels"), [(4, 1), (2, 3), (3, 1)])
def test_what_is_sampled_is_what_was_shown(
    stack: int, channels: int, num_envs: int, capacity: int, n_step: int, device: torch.device
) -> None:
    """There are random endings, lost lives and cuts, over many turns of the ring."""
    shape = (stack * channels, 2, 3)
    spec = ObservationSpec(shape, "uint8", 255.0, stack)
    world = Shown(num_envs, stack, channels, seed=capacity + stack)
    rng = np.random.Generator(np.random.PCG64(7))
    replays = [
        Replay(capacity, num_envs, s, n_step=n_step, gamma=0.5, device=device)
        for s in (spec, ObservationSpec(shape, "uint8", 255.0))
    ]
    for e in range(num_envs):
        world.reset(e)
    for replay in replays:
        replay.begin(world.show())
    resetting = np.zeros(num_envs, dtype=bool)
    for t in range(6 * capacity // num_envs):
        terminated, truncated, died = ((rng.random(num_envs) < 0.15) & ~resetting for _ in range(3))
        for e in range(num_envs):
            (world.reset if resetting[e] else world.step)(e)
        action, reward = rng.integers(5, size=num_envs), rng.integers(-4, 5, size=num_envs)
        for replay in replays:
            replay.add(action, reward, terminated, truncated, world.show(), died)
        resetting = terminated | truncated
        if rng.random() < 0.05:
            copies = rng.random(num_envs) < 0.7
            for replay in replays:
                replay.cut(copies)
            resetting = resetting | copies
        if t % 7 == 0 or t > 5 * capacity // num_envs:
            batches = [replay.gather(starts(replay)) for replay in replays]
            for one, two in zip(*batches, strict=True):
                np.testing.assert_array_equal(torch.as_tensor(one).cpu(), torch.as_tensor(two).cpu())
            assert batches[0].observation.shape[1:] == shape


def starts(replay: Replay) -> torch.Tensor:
    return replay.starts[(replay.first + replay.place.put(np.arange(len(replay)))) % len(replay.starts)]


def test_a_frame_is_stored_once() -> None:
    spec = ObservationSpec((4, 84, 84), "uint8", 255.0, 4)
    replay = Replay(1000, 2, spec)
    held = sum(x.nbytes for x in replay.state().values() if isinstance(x, np.ndarray) and len(x) > replay.rows)
    held += replay._starts_of_row.nbytes
    assert required_bytes(1000, 2, spec) == held
    assert (
        required_bytes(1_000_000, 8, spec) < 7.1e9 < required_bytes(1_000_000, 8, ObservationSpec((4, 84, 84), "uint8"))
    )


def test_stacks_survive_a_checkpoint(tmp_path: Path) -> None:
    spec, world, no = ObservationSpec((3, 2, 3), "uint8", 255.0, 3), Shown(2, 3, 1, seed=0), np.zeros(2, dtype=bool)
    one, two = Replay(12, 2, spec), Replay(12, 2, spec)
    for e in range(2):
        world.reset(e)
    one.begin(world.show())
    for t in range(40):
        if t == 20:
            path = save_checkpoint(tmp_path, 1, {"replay": one.state()}, keep=1)
            two.load_state(load_checkpoint(path)[1]["replay"])
        for e in range(2):
            world.step(e)
        for replay in (one, two)[: 1 + (t >= 20)]:
            replay.add(np.zeros(2), np.zeros(2), no, no, world.show())
    for left, right in zip(one.gather(starts(one)), two.gather(starts(two)), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_lost_life_ends_the_return_and_not_the_game() -> None:
    """A life is lost at the second of three steps: each step is a start, and no return goes beyond the life."""
    replay, no, lost = Replay(10, 1, 1, n_step=3, gamma=0.5), np.zeros(1, dtype=bool), np.ones(1, dtype=bool)
    replay.begin(np.zeros((1, 1), dtype=np.float32))
    for t, life_lost in enumerate((no, lost, no), 1):
        observation = np.full((1, 1), t, dtype=np.float32)
        replay.add(np.zeros(1), np.full(1, float(t)), no, no, observation, life_lost)
    batch = replay.gather(starts(replay))
    assert batch.reward.tolist() == [1 + 0.5 * 2, 2, 3]
    assert batch.discount.tolist() == [0, 0, 0.5]
    assert batch.observation.flatten().tolist() == [0, 1, 2]
