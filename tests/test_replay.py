"""The replay against a twin that keeps plain lists of episodes and reads n-step transitions off their definition.

Observations are (environment, serial number): each occurs once, so any mix-up of rows shows. γ is ½ and rewards are
small whole numbers, so that every return is exact in single precision and all comparisons are equalities.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.learning.loss import Levels, match_noise
from agent.records.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from agent.replay.memory import required_bytes
from agent.replay.ring import Batch, Replay

GAMMA = 0.5
Row = tuple[tuple[float, ...], int, float, float, tuple[float, ...]]  # s, a, R, discount, s'


@dataclass
class Step:
    tick: int
    observation: tuple[float, ...]
    action: int
    reward: float
    terminated: bool


@dataclass
class Episode:
    last: tuple[float, ...]  # the observation after the newest step
    steps: list[Step] = field(default_factory=list)
    ended: bool = False


class Twin:
    """The definition of a replay: the steps of the last `kept` ticks of every environment, in lists of episodes."""

    def __init__(self, capacity: int, num_envs: int, n_step: int) -> None:
        self.kept, self.n_step, self.tick = -(-capacity // num_envs), n_step, 0
        self.episodes: list[list[Episode]] = [[] for _ in range(num_envs)]

    def begin(self, observation: np.ndarray) -> None:
        for episodes, first in zip(self.episodes, observation.tolist(), strict=True):
            episodes.append(Episode(tuple(first)))

    def cut(self, copies: np.ndarray) -> None:
        for e in copies.nonzero()[0]:
            self.episodes[e][-1].ended = True

    def add(self, action: Any, reward: Any, terminated: Any, truncated: Any, following: np.ndarray) -> None:
        for e, episodes in enumerate(self.episodes):
            episode, observation = episodes[-1], tuple(following[e].tolist())
            if episode.ended:
                episodes.append(Episode(observation))
                continue
            step = Step(self.tick, episode.last, int(action[e]), float(reward[e]), bool(terminated[e]))
            episode.steps.append(step)
            episode.last, episode.ended = observation, bool(terminated[e] or truncated[e])
        self.tick += 1

    def transitions(self) -> list[Row]:
        rows = []
        for episodes in self.episodes:
            for episode in episodes:
                episode.steps = [step for step in episode.steps if step.tick >= self.tick - self.kept]
                rows += [self._transition(episode, i) for i in range(len(episode.steps))]
            del episodes[:-50]  # these are older than all capacities of the tests
        return sorted(rows)

    def _transition(self, episode: Episode, i: int) -> Row:
        window = episode.steps[i : i + self.n_step]
        k = len(window)
        value = sum(GAMMA**j * step.reward for j, step in enumerate(window))
        discount = 0.0 if any(step.terminated for step in window) else GAMMA**k
        following = episode.steps[i + k].observation if i + k < len(episode.steps) else episode.last
        return window[0].observation, window[0].action, value, discount, following


class World:
    """Drives a replay and its twin with the same environments, whose autoreset is NEXT_STEP."""

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        n_step: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        tensors: bool = False,
    ) -> None:
        self.device, self.tensors = torch.device(device), tensors
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.num_envs, self.serial = num_envs, 0
        self.size, self.n_step = capacity, n_step
        self.replay, self.twin = self.make(), Twin(capacity, num_envs, n_step)
        self.resetting = np.zeros(num_envs, dtype=bool)
        first = self.observe()
        self.replay.begin(first)
        self.twin.begin(first)

    def make(self) -> Replay:
        options: Any = {"n_step": self.n_step, "gamma": GAMMA, "device": self.device, "tensors": self.tensors}
        return Replay(self.size, self.num_envs, 2, **options)

    def observe(self) -> np.ndarray:
        self.serial += 1
        return np.array([[e, self.serial] for e in range(self.num_envs)], dtype=np.float32)

    def step(self, terminated: Any = False, truncated: Any = False) -> None:
        """One vector step. An environment that resets ends no episode, and its action and reward have no meaning."""
        alive = ~self.resetting
        terminated, truncated = (np.broadcast_to(x, self.num_envs) & alive for x in (terminated, truncated))
        action = np.where(alive, self.rng.integers(7, size=self.num_envs), 99)
        reward = np.where(alive, self.rng.integers(-8, 9, size=self.num_envs), 1e6)
        following = self.observe()
        for memory in (self.replay, self.twin):
            memory.add(action, reward, terminated, truncated, following)
        self.resetting = terminated | truncated

    def cut(self, copies: Any = True) -> None:
        """Ends the episodes of some environments [E], or of all, from outside. Their next step only resets."""
        copies = np.broadcast_to(copies, self.num_envs)
        for memory in (self.replay, self.twin):
            memory.cut(copies)
        self.resetting = self.resetting | copies

    def save_and_load(self) -> None:
        saved = copy.deepcopy(self.replay.state())
        self.replay = self.make()
        self.replay.load_state(saved)

    def check(self) -> None:
        """Checks that the starts and their transitions are those of the twin."""
        expected = self.twin.transitions()
        assert len(self.replay) == len(expected)
        assert sorted(rows_of(self.replay.gather(all_starts(self.replay)))) == expected


def all_starts(replay: Replay) -> torch.Tensor:
    """The queue of starts, oldest first."""
    return replay.starts[(replay.first + replay.place.put(np.arange(len(replay)))) % len(replay.starts)]


def rows_of(batch: Batch) -> list[Row]:
    columns = [field.tolist() for field in batch]
    return [(tuple(s), a, r, d, tuple(t)) for s, a, r, d, t in zip(*columns, strict=True)]


# ---- the grid of endings


def test_hand_computed_transitions() -> None:
    """An episode of four steps with rewards 1, 2, 3, 4 terminates, and the next has two; n = 3 and γ = 0.9."""
    replay = Replay(20, 1, 1, n_step=3, gamma=0.9)
    replay.begin(np.array([[0.0]]))
    no, yes = np.array([False]), np.array([True])
    for t, (reward, ended) in enumerate([(1, no), (2, no), (3, no), (4, yes), (0, no), (5, no), (6, no)]):
        replay.add(np.array([t]), np.array([reward]), ended, no, np.array([[t + 1.0]]))
    batch = replay.gather(all_starts(replay))
    assert batch.observation.flatten().tolist() == [0, 1, 2, 3, 5, 6]
    assert batch.action.tolist() == [0, 1, 2, 3, 5, 6]
    assert batch.reward.tolist() == pytest.approx([1 + 1.8 + 2.43, 2 + 2.7 + 3.24, 3 + 3.6, 4, 5 + 5.4, 6])
    assert batch.discount.tolist() == pytest.approx([0.729, 0, 0, 0, 0.81, 0.9])
    assert batch.next_observation.flatten().tolist() == [3, 4, 4, 4, 7, 7]
    assert (batch.observation.dtype, batch.action.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("num_envs", [1, 2, 3])
@pytest.mark.parametrize("n_step", [1, 2, 3, 5])
@pytest.mark.parametrize("terminated_at", [None, 0, 1, 3, 4])
@pytest.mark.parametrize("truncated_at", [None, 0, 1, 3, 4])
def test_grid_of_endings(num_envs: int, n_step: int, terminated_at: int | None, truncated_at: int | None) -> None:
    """Episodes of up to 5 steps begin at every position of the ring, staggered over the environments."""
    rows = 8
    for wrap in range(rows + 1):
        world = World(rows * num_envs, num_envs, n_step, seed=wrap)
        for t in range(wrap):
            world.step(truncated=t == wrap - 1)  # the episode begins after a reset row
        for t in range(9):
            age = np.arange(t, t - num_envs, -1) - bool(wrap)  # age of the episode of each environment
            world.step(terminated=age == terminated_at, truncated=age == truncated_at)
            if t in (4, 6, 8):
                world.check()


@pytest.mark.parametrize("kind", ["terminated", "truncated", "both"])
def test_single_step_episodes(kind: str) -> None:
    """Every second row is a reset row; half of the ring can be sampled, and no window is longer than one step."""
    world = World(capacity=10, num_envs=2, n_step=3)
    for _ in range(30):
        world.step(terminated=kind != "truncated", truncated=kind != "terminated")
        world.check()
        batch = world.replay.gather(all_starts(world.replay))
        assert set(batch.discount.tolist()) == {GAMMA if kind == "truncated" else 0.0}


def test_newest_row_bootstraps_early_and_grows_with_the_next_steps() -> None:
    world = World(capacity=10, num_envs=1, n_step=3)
    for k, discount in ((1, GAMMA), (2, GAMMA**2), (3, GAMMA**3), (4, GAMMA**3)):
        world.step()
        first = world.replay.gather(all_starts(world.replay)[:1])
        assert first.discount.item() == discount
        assert first.next_observation[0, 1] == 1 + min(k, 3)


# ---- cuts


def test_cut_is_a_truncation_after_the_newest_step_of_that_environment_alone() -> None:
    world = World(capacity=16, num_envs=2, n_step=3)
    for _ in range(3):
        world.step()
    world.cut([False, True])
    for _ in range(4):  # the first step only resets environment 1
        world.step()
    world.check()
    batch = world.replay.gather(all_starts(world.replay))
    one = batch.observation[:, 0] == 1
    assert batch.observation[one, 1].tolist() == [1, 2, 3, 5, 6, 7]
    assert batch.next_observation[one, 1].tolist() == [4, 4, 4, 8, 8, 8]
    assert batch.discount[one].tolist() == [GAMMA**3, GAMMA**2, GAMMA] * 2
    assert batch.observation[~one, 1].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert batch.next_observation[~one, 1].tolist() == [4, 5, 6, 7, 8, 8, 8]


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("cuts", [1, 2, 3])
@pytest.mark.parametrize("ending", ["none", "terminated", "truncated", "reset row"])
def test_cuts_at_every_position_of_the_ring(num_envs: int, cuts: int, ending: str) -> None:
    """Cuts come in mid-episode, after an ending (before its reset row), after a reset row, and several in a row."""
    rows = 6
    for position in range(2 * rows):
        world = World(rows * num_envs, num_envs, n_step=3, seed=position)
        for _ in range(position):
            world.step()
        ends = np.arange(num_envs) % 2 == 0
        world.step(terminated=ends & (ending == "terminated"), truncated=ends & (ending in ("truncated", "reset row")))
        if ending == "reset row":
            world.step()
        for i in range(cuts):
            world.cut(np.arange(num_envs) >= i)
            world.check()
        for _ in range(rows):
            world.step()
            world.check()


def test_cut_before_the_first_step() -> None:
    world = World(capacity=4, num_envs=2, n_step=2)
    world.cut()
    world.step()
    assert len(world.replay) == 0
    world.step()
    world.check()


# ---- sizes


@pytest.mark.parametrize(("capacity", "num_envs"), [(1, 1), (1, 3), (3, 3), (7, 3), (8, 3), (10, 4), (2, 5)])
def test_capacity_is_rounded_up_to_whole_vector_steps(capacity: int, num_envs: int) -> None:
    """The ring holds exactly the newest ⌈capacity / E⌉ vector steps of an episode that is longer than the ring."""
    world = World(capacity, num_envs, n_step=2)
    held = -(-capacity // num_envs)
    for t in range(1, 4 * held):
        world.step()
        world.check()
        assert len(world.replay) == num_envs * min(t, held)
        newest = world.replay.gather(all_starts(world.replay)[-num_envs:])
        assert newest.next_observation[:, 1].tolist() == [world.serial] * num_envs


@pytest.mark.parametrize("n_step", [4, 7, 30])
def test_n_beyond_capacity_and_episodes_gives_the_windows_that_there_are(n_step: int) -> None:
    """A window that would wrap around the whole ring ends at the newest row."""
    world = World(capacity=6, num_envs=2, n_step=n_step)
    for t in range(60):
        world.step(terminated=t % 11 == 4, truncated=t % 13 == 6)
        world.check()


@pytest.mark.parametrize("tensors", [False, True], ids=["by NumPy", "by torch"])
def test_random_operations_agree_with_the_twin(device: torch.device, tensors: bool) -> None:
    """There are thousands of adds, endings, cuts, saves and loads, and after each the whole replay is compared."""
    pick = np.random.Generator(np.random.PCG64(2))
    for case in range(60):
        num_envs = 1 + case % 5
        sizes = int(pick.integers(1, 25)), num_envs, int(pick.integers(1, 7))
        world = World(*sizes, seed=case, device=device, tensors=tensors)
        ending = pick.choice([0.02, 0.1, 0.4])
        for _ in range(100):
            operation = pick.random()
            if operation < 0.05:
                world.cut(pick.random(num_envs) < 0.7)
            elif operation < 0.08:
                world.save_and_load()
            else:
                terminated, truncated = pick.random((2, num_envs)) < ending
                world.step(terminated, truncated)
            world.check()


# ---- sampling


def filled(num_envs: int = 3, steps: int = 40, n_step: int = 3, **options: Any) -> World:
    """A full ring that has wrapped, with endings, reset rows and a cut in it."""
    world = World(12 * num_envs, num_envs, n_step, **options)
    for t in range(steps):
        world.step(terminated=(t + np.arange(num_envs)) % 5 == 4, truncated=(t + np.arange(num_envs)) % 7 == 6)
        if t == steps - 4:
            world.cut()
    return world


def chi_square(counts: np.ndarray) -> float:
    """(Σ (o − e)² / e − df) / √(2 df): about standard normal for uniform counts with many degrees of freedom."""
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    return float((((counts - expected) ** 2).sum() / expected - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("tensors", [False, True], ids=["by NumPy", "by torch"])
def test_sampling_is_uniform_over_all_starts(device: torch.device, tensors: bool) -> None:
    """χ² is within 4 standard deviations (one false alarm in 10⁴ seeds; the seed is fixed); all starts are drawn."""
    world = filled(device=device, tensors=tensors)
    draws = rows_of(world.replay.sample(200_000, torch.Generator(device).manual_seed(0)))
    expected = world.twin.transitions()
    index = {row: i for i, row in enumerate(expected)}
    counts = np.bincount([index[row] for row in draws], minlength=len(expected))  # a KeyError means a wrong transition
    assert counts.min() > 0
    assert abs(chi_square(counts)) < 4


def test_batches_of_sample_many_are_independent() -> None:
    """The pairs (row i of one batch, row i of the next) are uniform over all pairs of starts."""
    world = World(capacity=8, num_envs=1, n_step=2)
    for _ in range(20):
        world.step()
    index = {row: i for i, row in enumerate(world.twin.transitions())}
    first, second = world.replay.sample_many(2, 50_000, torch.Generator().manual_seed(1))
    pairs = [len(index) * index[a] + index[b] for a, b in zip(rows_of(first), rows_of(second), strict=True)]
    assert abs(chi_square(np.bincount(pairs, minlength=len(index) ** 2))) < 4


def test_sample_many_gives_whole_batches_of_true_transitions() -> None:
    world = filled()
    batches = world.replay.sample_many(7, 32, torch.Generator().manual_seed(0))
    assert len(batches) == 7
    expected = set(world.twin.transitions())
    for batch in batches:
        assert [tuple(field.shape) for field in batch] == [(32, 2), (32,), (32,), (32,), (32, 2)]
        assert set(rows_of(batch)) <= expected


def test_sampling_is_a_function_of_the_generator(device: torch.device) -> None:
    world = filled(device=device)
    one, two, other = (rows_of(world.replay.sample(64, torch.Generator(device).manual_seed(s))) for s in (3, 3, 4))
    assert one == two != other
    world.save_and_load()
    assert rows_of(world.replay.sample(64, torch.Generator(device).manual_seed(3))) == one


@pytest.mark.parametrize("count", [1, 3])
def test_batches_are_arrays_on_a_cpu_and_become_tensors_without_a_copy(count: int) -> None:
    for batch in filled().replay.sample_many(count, 8, np.random.Generator(np.random.PCG64(2))):
        tensors = batch.tensors(torch.device("cpu"))
        assert all(isinstance(field, np.ndarray) for field in batch)
        assert all(isinstance(field, torch.Tensor) for field in tensors)
        assert rows_of(tensors) == rows_of(batch) == rows_of(tensors.arrays())
        assert tensors.reward.numpy().ctypes.data == batch.reward.ctypes.data


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 7, 49, 64, 100])
def test_the_largest_number_below_1_draws_the_newest_start(capacity: int) -> None:
    """A draw is ⌊u · count⌋ with u in [0, 1), and must not exceed the last start for any count."""

    class Always(np.random.Generator):
        value = 0.0

        def random(self, size: Any = None, *_: Any) -> Any:
            return np.full(size, self.value)

    world = World(capacity=capacity, num_envs=1, n_step=1)
    for _ in range(3 * capacity):
        world.step()
    generator, expected = Always(np.random.PCG64(0)), world.twin.transitions()
    for generator.value, row in ((0.0, expected[0]), (1.0 - 2.0**-53, expected[-1])):
        assert rows_of(world.replay.sample(2, generator)) == [row, row]
    counts = np.unique(np.geomspace(1, 1e9, 3_000).astype(np.int64))
    assert ((1.0 - 2.0**-53) * counts).astype(np.int64).tolist() == (counts - 1).tolist()


def test_a_batch_keeps_its_values_when_the_ring_goes_on() -> None:
    world = filled()
    batches = world.replay.sample_many(2, 16, torch.Generator().manual_seed(0))
    before = [rows_of(batch) for batch in batches]
    for _ in range(20):
        world.step()
    assert [rows_of(batch) for batch in batches] == before


def test_an_empty_replay_refuses_to_sample() -> None:
    world = World(capacity=2, num_envs=2, n_step=1)
    with pytest.raises(ValueError, match="no transition"):
        world.replay.sample(1)
    world.step()
    assert len(world.replay.sample(5).action) == 5
    world.cut()
    world.step()  # this step only resets, and takes the only row of the ring
    with pytest.raises(ValueError, match="no transition"):
        world.replay.sample_many(2, 4)


def test_grouped_batches_are_views_in_order() -> None:
    batch = filled().replay.sample(12, torch.Generator().manual_seed(0)).tensors(torch.device("cpu"))
    grouped, _ = match_noise(batch, Levels(), torch.zeros(3, 5))
    assert tuple(grouped.observation.shape) == (3, 4, 2)
    for whole, part in zip(batch, grouped, strict=True):
        assert torch.equal(part.flatten(0, 1), whole)
        assert part.data_ptr() == whole.data_ptr()


# ---- stored numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observations_and_rewards_are_stored_in_single_precision(dtype: type) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    replay = Replay(8, 2, 3, gamma=0.9)
    observations: np.ndarray = rng.standard_normal((4, 2, 3)).astype(dtype)
    rewards: np.ndarray = rng.standard_normal((3, 2)).astype(dtype)
    no = np.zeros(2, dtype=bool)
    replay.begin(observations[0])
    for t in range(3):
        replay.add(np.zeros(2, dtype=np.int64), rewards[t], no, no, observations[t + 1])
    batch = replay.gather(all_starts(replay))
    assert np.array_equal(batch.observation, observations[:3].reshape(6, 3).astype(np.float32))
    assert np.array_equal(batch.next_observation, observations[1:].reshape(6, 3).astype(np.float32))
    assert np.array_equal(batch.reward, rewards.reshape(6).astype(np.float32))


def test_what_was_added_may_be_overwritten_by_the_environment() -> None:
    """Vector environments may reuse their arrays."""
    replay = Replay(8, 1, 1)
    observation, reward, no = np.zeros((1, 1), dtype=np.float32), np.ones(1), np.zeros(1, dtype=bool)
    replay.begin(observation)
    for t in range(4):
        observation += 1
        reward[:] = t
        replay.add(np.array([t]), reward, no, no, observation)
    batch = replay.gather(all_starts(replay))
    assert batch.observation.flatten().tolist() == batch.reward.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("capacity", "num_envs", "inputs"), [(1000, 1, 4), (1000, 8, 4), (777, 5, 1), (500, 3, 128)])
def test_required_bytes_are_the_bytes_held(capacity: int, num_envs: int, inputs: int) -> None:
    replay = Replay(capacity, num_envs, inputs, n_step=3)
    held: dict[int, int] = {}
    arrays = 0
    parts = [*vars(replay).values(), *vars(replay._frames).values()]
    for value in parts:
        if isinstance(value, torch.Tensor):
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    for value in parts:
        if isinstance(value, np.ndarray) and not any(
            start <= value.__array_interface__["data"][0] < start + size for start, size in held.items()
        ):
            arrays += value.nbytes
    needed = required_bytes(capacity, num_envs, inputs)
    assert needed <= sum(held.values()) + arrays <= needed + 200 + 100 * num_envs  # one array per environment


# ---- state


def test_state_survives_a_checkpoint_file(tmp_path: Path) -> None:
    world = filled()
    save_checkpoint(tmp_path, 1, {"replay": world.replay.state()}, keep=1)
    path = latest_checkpoint(tmp_path)
    assert path is not None
    world.replay = world.make()
    world.replay.load_state(load_checkpoint(path)[1]["replay"])
    for _ in range(30):
        world.check()
        world.step(terminated=world.serial % 4 == 0)


def test_a_loaded_replay_shares_nothing_with_its_source() -> None:
    world = filled()
    world.step(truncated=True)
    original, world.replay = world.replay, world.make()
    world.replay.load_state(original.state())
    before = copy.deepcopy(original.state())
    world.cut()
    for _ in range(30):
        world.step(terminated=world.serial % 4 == 0)
        world.check()
    for name, value in original.state().items():
        assert np.array_equal(value, before[name]), name


@pytest.mark.parametrize("other", [(13, 1, 2), (12, 1, 3), (12, 2, 2), (11, 2, 2)])
def test_state_of_another_size_is_refused(other: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Replay(12, 1, 2).load_state(Replay(*other).state())


def test_state_of_as_many_rows_for_other_environments_is_refused() -> None:
    """3 rows of 2 environments and 2 rows of 3 have the same number of entries."""
    with pytest.raises(ValueError):
        Replay(4, 2, 1).load_state(Replay(3, 3, 1).state())
