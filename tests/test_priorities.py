"""Prioritised replay against a twin that keeps a plain dict of priorities, and its draws against their frequencies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_replay import World, all_starts, rows_of

from agent.config.parts import PriorityConfig
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.replay.memory import required_bytes
from agent.replay.prioritised import LEAST, PrioritisedReplay, prioritised_bytes
from agent.replay.ring import Replay
from agent.replay.sum_tree import FAN, DeviceSumTree

ALPHA = 0.6


class PrioritisedWorld(World):
    """A World whose replay has priorities, and a dict as their twin: p^α by the observation of the start."""

    def __init__(self, *sizes: Any, exponent: float = ALPHA, **options: Any) -> None:
        self.exponent, self.largest = exponent, 1.0
        self.priorities: dict[tuple[float, ...], float] = {}
        super().__init__(*sizes, **options)

    def make(self) -> PrioritisedReplay:
        options: Any = {"n_step": self.n_step, "gamma": 0.5, "device": self.device, "tensors": self.tensors}
        return PrioritisedReplay(self.size, self.num_envs, 2, exponent=self.exponent, **options)

    @property
    def memory(self) -> PrioritisedReplay:
        assert isinstance(self.replay, PrioritisedReplay)
        return self.replay

    def keys(self) -> list[tuple[float, ...]]:
        """The observation of every row, whether it is a start or not."""
        return [tuple(row) for row in self.replay._frames.observations.tolist()]

    def learn(self, size: int) -> None:
        """Draws a batch and gives it new priorities."""
        sampled = self.memory.sample_to_learn(size, 0.5, torch.Generator(self.device).manual_seed(self.serial))
        given = self.rng.exponential(3.0, size=size)
        self.memory.update_priorities(sampled.rows, torch.from_numpy(given).to(self.device))
        raised: dict[tuple[float, ...], float] = {}
        for row, priority in zip(rows_of(sampled.batch), given.tolist(), strict=True):
            raised[row[0]] = max(raised.get(row[0], 0.0), (priority + LEAST) ** self.exponent)
        self.priorities |= raised
        self.largest = max(self.largest, *raised.values())

    def check_priorities(self) -> None:
        starts = [tuple(row) for row in self.replay._frames.observations[all_starts(self.replay)].tolist()]
        for start in starts:
            self.priorities.setdefault(start, self.largest)  # new starts get the largest priority so far
        leaves = self.memory._tree.leaves.tolist()
        seen = {key: leaf for key, leaf in zip(self.keys(), leaves, strict=True) if leaf > 0}
        assert seen == pytest.approx({start: self.priorities[start] for start in starts}, rel=1e-12)
        assert sum(leaf > 0 for leaf in leaves) == len(starts)
        assert float(self.memory._tree.total()) == pytest.approx(sum(leaves), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("tensors", [False, True], ids=["by NumPy", "by torch"])
def test_random_operations_agree_with_the_twin(device: torch.device, tensors: bool) -> None:
    """There are adds, endings, cuts, wraps, saves, loads, batches and new priorities; after each, all are compared."""
    pick = np.random.Generator(np.random.PCG64(2))
    for case in range(40):
        num_envs = 1 + case % 5
        world = PrioritisedWorld(int(pick.integers(1, 40)), num_envs, int(pick.integers(1, 7)), case, device, tensors)
        ending = pick.choice([0.02, 0.1, 0.4])
        for _ in range(80):
            operation = pick.random()
            if operation < 0.05:
                world.cut(pick.random(num_envs) < 0.7)
            elif operation < 0.08:
                world.save_and_load()
            elif operation < 0.4 and len(world.replay):
                world.learn(int(pick.integers(1, 9)))
            else:
                terminated, truncated = pick.random((2, num_envs)) < ending
                world.step(terminated, truncated)
            world.check_priorities()
        world.check()


def filled(device: torch.device | str = "cpu", exponent: float = ALPHA) -> PrioritisedWorld:
    """A full ring that has wrapped, with endings and a cut in it, and with different priorities."""
    world = PrioritisedWorld(36, 3, 3, exponent=exponent, device=device)
    for t in range(40):
        world.step(terminated=(t + np.arange(3)) % 5 == 4, truncated=(t + np.arange(3)) % 7 == 6)
        world.check_priorities()
        world.learn(4)
        if t == 36:
            world.cut()
        world.check_priorities()
    return world


def frequencies(world: PrioritisedWorld, draws: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """How often each row was drawn, and its p^α, for the rows that can be drawn."""
    rows = world.memory.sample_to_learn(draws, 0.4, torch.Generator(world.device).manual_seed(0)).rows
    leaves = torch.as_tensor(world.memory._tree.leaves).cpu().numpy()
    counts = np.bincount(torch.as_tensor(rows).cpu().numpy(), minlength=len(leaves))
    assert not counts[leaves == 0].any()  # such are the newest row, reset rows and overwritten rows
    return counts[leaves > 0], leaves[leaves > 0]


def test_draws_are_in_proportion_to_priorities(device: torch.device) -> None:
    """χ² within 4 standard deviations of its mean (one false alarm in 10⁴ seeds; the seed is fixed)."""
    counts, leaves = frequencies(filled(device))
    expected, freedom = counts.sum() * leaves / leaves.sum(), len(leaves) - 1
    assert leaves.max() > 5 * leaves.min()
    assert abs((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)) < 4


def test_an_exponent_of_0_draws_uniformly() -> None:
    counts, leaves = frequencies(filled(exponent=0.0))
    assert set(leaves.tolist()) == {1.0}
    expected, freedom = counts.sum() / len(leaves), len(leaves) - 1
    assert abs((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)) < 4


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_are_the_papers(beta: float, device: torch.device) -> None:
    """w = (1/(N·P))^β, divided by the largest of the batch (§3.4, algorithm 1)."""
    world = filled(device)
    sampled = world.memory.sample_to_learn(50, beta, torch.Generator(device).manual_seed(3))
    leaves = torch.as_tensor(world.memory._tree.leaves).cpu().numpy()
    probability = leaves[torch.as_tensor(sampled.rows).cpu().numpy()] / leaves.sum()
    weights = (1.0 / (len(world.replay) * probability)) ** beta
    found = torch.as_tensor(sampled.weight)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.cpu().numpy(), weights / weights.max(), rtol=1e-5)
    assert float(found.max()) == 1.0


def test_weights_at_beta_1_undo_the_priorities() -> None:
    """The weighted mean of anything over draws by priority is its mean over all starts."""
    world = filled()
    sampled = world.memory.sample_to_learn(400_000, 1.0, torch.Generator().manual_seed(0))
    weight, reward = sampled.weight.astype(np.float64), sampled.batch.reward.astype(np.float64)
    everything = world.replay.gather(all_starts(world.replay)).reward.astype(np.float64)
    assert float((weight * reward).sum() / weight.sum()) == pytest.approx(float(everything.mean()), abs=0.05)
    assert abs(float(reward.mean() - everything.mean())) > 0.1  # the priorities do change the plain mean


def test_what_is_drawn_are_true_transitions(device: torch.device) -> None:
    world = filled(device)
    sampled = world.memory.sample_to_learn(5_000, 0.4, torch.Generator(device).manual_seed(0))
    assert set(rows_of(sampled.batch)) == set(world.twin.transitions())
    assert all(isinstance(x, np.ndarray if device.type == "cpu" else torch.Tensor) for x in sampled[1:])


def test_hand_computed_priorities() -> None:
    """With α = ½ errors 4 and 9 become 2 and 3; the next start gets 3; of two errors for one row the larger counts."""
    world = PrioritisedWorld(10, 1, 1, exponent=0.5)
    for _ in range(3):
        world.step()
    leaves = world.memory._tree.leaves
    assert leaves[:4].tolist() == [1.0, 1.0, 1.0, 0.0]
    world.memory.update_priorities(np.array([0, 1, 1]), np.array([4.0, 9.0, 0.25]))
    world.step()
    np.testing.assert_allclose(leaves[:5], [2.0, 3.0, 1.0, 3.0, 0.0], rtol=1e-6)
    world.memory.update_priorities(np.array([1]), np.array([0.0]))
    world.step()
    np.testing.assert_allclose(leaves[:6], [2.0, LEAST**0.5, 1.0, 3.0, 3.0, 0.0], rtol=1e-6)  # 3 is still the largest


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_what_is_not_a_priority_spoils_nothing(bad: float, device: torch.device) -> None:
    world = filled(device)
    largest = float(world.memory._largest[0])
    index = all_starts(world.replay)[:1]
    world.memory.update_priorities(index, torch.tensor([bad], device=device))
    leaf = float(world.memory._tree.leaves[index][0])
    assert leaf == pytest.approx(LEAST**ALPHA if bad < 0 else largest)
    assert float(world.memory._largest[0]) == largest
    weight = world.memory.sample_to_learn(100, 0.4, torch.Generator(device).manual_seed(0)).weight
    assert torch.isfinite(torch.as_tensor(weight)).all()


def test_each_sample_sees_the_priorities_of_the_one_before() -> None:
    world = PrioritisedWorld(20, 1, 1, exponent=1.0)
    for _ in range(20):
        world.step()
    seen: list[set[float]] = []
    for batch, _, rows in world.memory.samples(3, 400, 0.4, torch.Generator().manual_seed(0)):
        assert len(batch.action) == 400
        seen.append(set(batch.observation[:, 1].tolist()))
        world.memory.update_priorities(rows, 1e9 * (batch.observation[:, 1] == min(seen[0])))  # one row alone
    assert len(seen[0]) == 20
    assert seen[1] == seen[2] == {min(seen[0])}


def test_sampling_is_a_function_of_the_generator(device: torch.device) -> None:
    world = filled(device)
    first, second, other = (
        rows_of(world.memory.sample_to_learn(64, 0.4, torch.Generator(device).manual_seed(seed)).batch)
        for seed in (5, 5, 6)
    )
    assert first == second != other


def test_an_empty_replay_refuses_to_sample() -> None:
    with pytest.raises(ValueError, match="no transition"):
        PrioritisedWorld(10, 1, 1).memory.sample_to_learn(4, 0.4)


def test_a_device_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree for a device, here on the CPU, never turns a tensor into a number."""
    tree = DeviceSumTree(5000, torch.device("cpu"))

    def refuse(*_: Any) -> Any:
        raise AssertionError("a wait for the device")

    for name in ("item", "__float__", "__int__", "__bool__", "__index__", "tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    tree.fill(100, torch.full((50,), 2.0, dtype=torch.float64))
    found = tree.find(torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    tree.put(found, torch.full((64,), 3.0, dtype=torch.float64))


# ---- saving, sizes


def test_state_survives_a_checkpoint_file(tmp_path: Path) -> None:
    world = filled()
    save_checkpoint(tmp_path, 1, {"replay": world.replay.state()}, keep=1)
    path = latest_checkpoint(tmp_path)
    assert path is not None
    loaded = world.make()
    loaded.load_state(load_checkpoint(path)[1]["replay"])
    for one, other in zip(loaded._tree._levels, world.memory._tree._levels, strict=True):
        assert np.array_equal(one, other)  # bit for bit, every sum of it
    assert loaded._largest == world.memory._largest
    world.replay = loaded
    for _ in range(30):
        world.learn(5)
        world.step(terminated=world.serial % 4 == 0)
        world.check_priorities()


def test_a_replay_without_priorities_is_refused() -> None:
    with pytest.raises(ValueError, match="without priorities"):
        filled().make().load_state(Replay(36, 3, 2).state())


@pytest.mark.parametrize(
    ("capacity", "num_envs", "inputs"), [(1000, 1, 4), (1 << 12, 1, 4), (777, 5, 1), (500, 3, 128)]
)
def test_required_bytes_are_the_bytes_held(capacity: int, num_envs: int, inputs: int) -> None:
    replay = PrioritisedReplay(capacity, num_envs, inputs, exponent=0.5)
    added = prioritised_bytes(capacity, num_envs, inputs) - required_bytes(capacity, num_envs, inputs)
    on_a_device = DeviceSumTree(replay.rows * num_envs, torch.device("cpu"))
    assert added == sum(level.nbytes for level in on_a_device._levels)
    assert added >= sum(level.nbytes for level in replay._tree._levels) >= added * 14 / 15 - 8 * 3 * FAN


def test_beta_rises_to_1_and_stays_there() -> None:
    config = PriorityConfig(beta=0.4, beta_steps=100)
    assert [config.beta_at(step) for step in (0, 50, 100, 101, 10**9)] == pytest.approx([0.4, 0.7, 1.0, 1.0, 1.0])
