"""The setup of actors: their shares of the environments, their seeds and their ε; no Ray is needed."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from agent.common.errors import UserError
from agent.config.checks import without_effect
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.running.build import build_acting_agent, build_rings
from agent.running.distributed.actor import Actor
from agent.running.distributed.actor_pool import ActorPool, ActorSlot
from agent.running.distributed.chunk import Chunk, Failure, Setup, ladder, split_evenly
from agent.running.distributed.collector import RayCollector
from agent.running.distributed.weights import Publisher, weights_of
from envs.failure import BrokenEnvironmentError
from envs.make import load_task


def config(**collect: Any) -> TrainConfig:
    tree = {"num_envs": 5, "collect": {"engine": "ray", "actors": 3, "chunk": 4, **collect}}
    tree["agent"] = {"learning_starts": 64, "noise": {"mean_envs": 3}, "epsilon": {"start": 0.0, "end": 0.0}}
    return parse(TrainConfig, tree)


def test_environments_are_shared_out_evenly() -> None:
    assert split_evenly(5, 3) == (2, 2, 1)
    assert split_evenly(8, 8) == (1,) * 8
    with pytest.raises(UserError, match=r"collect\.actors is 6 and num_envs is 5"):
        config(actors=6)


def test_each_incarnation_of_each_actor_has_a_seed_of_its_own_and_always_the_same() -> None:
    def seeds() -> list[int]:
        setup = Setup(config(), load_task("CartPole-v1", {}), None, (2, 2, 1))
        return [setup.config_of(actor, incarnation).seed for actor in range(3) for incarnation in range(3)]

    assert len({0, *seeds()}) == 10
    assert seeds() == seeds()


def test_the_environments_of_the_mean_network_are_the_first_of_all() -> None:
    setup = Setup(config(), load_task("CartPole-v1", {}), None, (2, 2, 1))
    assert [setup.config_of(actor, 0).agent.noise.mean_envs for actor in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("learning", ["separate", "joint"])
@pytest.mark.parametrize(("mean_envs", "shares"), [(4, (8,)), (4, (4, 4)), (4, (1,) * 8), (9, (2, 2, 1)), (0, (2, 1))])
def test_as_many_environments_as_without_actors_act_with_the_mean_network(
    learning: str, mean_envs: int, shares: tuple[int, ...]
) -> None:
    """The mean network acts in all environments but one at most, and this limit counts for all actors together."""
    given, task = config(), load_task("CartPole-v1", {})
    noise = replace(given.agent.noise, mean_envs=mean_envs, learning=learning)  # type: ignore[arg-type]
    given = replace(given, num_envs=sum(shares), agent=replace(given.agent, noise=noise))
    setup, exploring = Setup(given, task, None, shares), []
    for actor, share in enumerate(shares):
        player = build_acting_agent(setup.config_of(actor, 0), task, 0)
        drawn = player.acting_noise(np.ones(share, dtype=bool), 0)
        exploring += np.asarray(drawn).any(axis=1).tolist()
        for _ in range(100):  # no warning, although some actors have no environment that explores
            player.act(np.zeros((share, 4), dtype=np.float32), np.zeros(share, dtype=bool), change=0.2)
    mean = min(mean_envs, sum(shares) - 1)
    assert exploring == [False] * mean + [True] * (sum(shares) - mean)


def test_actors_act_with_the_weights_that_they_get_and_not_with_a_target_network() -> None:
    """The target network of an actor keeps its first weights."""
    local = config()
    setup = Setup(
        replace(local, agent=replace(local.agent, act_with="target")), load_task("CartPole-v1", {}), None, (5,)
    )
    assert setup.config_of(0, 0).agent.act_with == "online"


def test_the_logged_epsilon_of_a_ladder_is_the_mean_of_the_actors() -> None:
    def metrics(**collect: Any) -> dict[str, float]:
        nothing = SimpleNamespace(metrics=dict)
        collector = SimpleNamespace(
            config=config(**collect), _measurements=nothing, _total_restarts=lambda: 0, _scales=lambda: [1.0]
        )
        return RayCollector.metrics(collector)  # type: ignore[arg-type]

    assert metrics(ladder=True, actors=3)["train/epsilon"] == pytest.approx((0.4 + 0.4**4.5 + 0.4**8) / 3)
    assert "train/epsilon" not in metrics(actors=3)


def test_the_ladder_is_that_of_ape_x() -> None:
    """The values of ε go from 0.4 to 0.4⁸ (Horgan et al. 2018, §4), and are constant from the first step on."""
    assert ladder(0, 1) == pytest.approx(0.4)
    assert [ladder(i, 3) for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])
    setup = Setup(config(ladder=True), load_task("CartPole-v1", {}), None, (2, 2, 1))
    epsilon = setup.config_of(2, 0).agent.epsilon
    assert epsilon.at(0) == epsilon.at(10**6) == pytest.approx(0.4**8)


def test_a_chunk_is_what_was_played_in_order_and_the_weights_are_those_that_were_given() -> None:
    """Two actors with the same seeds play the same steps by the same weights, and other steps by other weights."""
    task = load_task("CartPole-v1", {})
    setup = Setup(config(), task, None, (2, 2, 1))
    weights = weights_of(build_acting_agent(setup.config_of(0, 0), task, 0))
    others = {name: -value for name, value in weights.items()}

    def play(given: Any) -> list[Chunk]:
        actor = Actor(setup, 1, 0)
        chunks = [actor.play(1_000, 7, given) for _ in range(5)]
        assert all(isinstance(chunk, Chunk) for chunk in chunks)
        return chunks  # type: ignore[return-value]

    chunks = play(weights)
    assert [(chunk.actor, chunk.incarnation, chunk.sequence, chunk.version) for chunk in chunks] == [
        (1, 0, i, 7) for i in range(5)
    ]
    assert [chunk.first is None for chunk in chunks] == [False, True, True, True, True]
    assert all(chunk.action.shape == (4, 2) and chunk.observation.shape == (4, 2, 4) for chunk in chunks)
    ended = sum(int((chunk.terminated | chunk.truncated).sum()) for chunk in chunks[:-1])
    assert sum(sum(chunk.steps) for chunk in chunks) <= 40
    assert sum(len(chunk.episodes) for chunk in chunks[:-1]) == ended

    def actions(of: list[Chunk]) -> np.ndarray:
        return np.concatenate([chunk.action for chunk in of])

    assert np.array_equal(actions(chunks), actions(play(weights)))
    assert not np.array_equal(actions(chunks), actions(play(others)))


class Slow(gym.Env[np.ndarray, int]):
    """A simulator whose steps take 20 ms."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)

    def reset(self, **_: Any) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        time.sleep(0.02)
        return np.zeros(2, np.float32), 1.0, False, False, {}


def test_a_slow_actor_hands_over_what_it_has_long_before_it_is_taken_to_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """With sync=true it plays whole chunks, since their ends may not depend on the time."""
    monkeypatch.setitem(gym.registry, "Slow-v0", EnvSpec("Slow-v0", Slow))
    task = load_task("Slow-v0", {})

    def lengths(**collect: Any) -> list[int]:
        tree = {"env": {"id": "Slow-v0"}, "num_envs": 1, "collect": {"engine": "ray", "actors": 1, **collect}}
        setup = Setup(parse(TrainConfig, tree), task, None, (1,))
        actor, weights = Actor(setup, 0, 0), weights_of(build_acting_agent(setup.config_of(0, 0), task, 0))
        chunks = [actor.play(0, 0, weights) for _ in range(2)]
        return [len(chunk.steps) for chunk in chunks if isinstance(chunk, Chunk)]

    assert lengths(timeout=0.01) == [1, 1]  # at least one step, however long it takes
    assert all(1 <= length <= 5 for length in lengths(timeout=0.4)), "0.1 seconds"
    assert lengths(timeout=60.0, chunk=6) == [6, 6]
    assert lengths(timeout=0.01, chunk=6, sync=True) == [6, 6]


def fake_cluster(local: bool) -> Any:
    """A cluster whose references are lists, and whose actors are None."""
    actors = SimpleNamespace(remote=lambda *arguments: None)
    ray = SimpleNamespace(
        put=lambda value: [value], remote=lambda **options: lambda cls: actors, kill=lambda *_, **__: 0
    )
    return SimpleNamespace(ray=ray, local=local, actor_cpus=1)


def test_weights_are_sent_once_to_each_process_within_the_call_or_through_the_store() -> None:
    task = load_task("CartPole-v1", {})
    setup = Setup(config(), task, None, (2, 2, 1))
    agent = build_acting_agent(setup.config_of(0, 0), task, 0)

    for local, kind in ((True, dict), (False, list)):
        publisher = Publisher(fake_cluster(local))
        publisher.publish(agent, 16)
        assert publisher.version == agent.updates
        assert isinstance(publisher.newer_than(-1), kind)
        assert publisher.newer_than(agent.updates) is None
        first = publisher.newer_than(-1)
        agent.updates += 15
        publisher.publish(agent, 16)
        assert publisher.newer_than(-1) is first
        agent.updates += 1
        publisher.publish(agent, 16)
        assert publisher.version == agent.updates
        assert publisher.newer_than(-1) is not first
    large = build_acting_agent(parse(TrainConfig, {"agent": {"network": {"hidden": [1024, 1024]}}}), task, 0)
    publisher = Publisher(fake_cluster(local=True))
    publisher.publish(large, 16)
    assert isinstance(publisher.newer_than(-1), list), "a call has at most a mebibyte"


def test_a_process_gets_weights_with_its_first_call_and_then_only_newer_ones() -> None:
    task, tracker = load_task("CartPole-v1", {}), SimpleNamespace(console=SimpleNamespace(line=lambda text: None))
    agent = build_acting_agent(config(), task, 0)
    collector = RayCollector(config(publish=2), task, fake_cluster(True), agent, None, tracker)  # type: ignore[arg-type]
    collector.begin()
    given: list[bool] = []
    pool = collector.pool
    pool.call = lambda slot, *arguments: (slot.calls.append(0), given.append(arguments[2] is not None))  # type: ignore

    def sent() -> list[bool]:
        given.clear()
        collector.send()
        for slot in pool.slots:
            slot.calls.clear()
        return given

    assert sent() == [True, False] * 3
    agent.updates += 1
    assert sent() == [False, False] * 3
    agent.updates += 1
    assert sent() == [True, False] * 3
    pool._restart(pool.slots[1], "a test")
    assert sent() == [False, False, True, False, False, False]


def test_a_call_without_weights_plays_by_those_of_the_last_one() -> None:
    task = load_task("CartPole-v1", {})
    setup = Setup(config(), task, None, (2, 2, 1))
    weights = weights_of(build_acting_agent(setup.config_of(0, 0), task, 0))
    others = {name: -value for name, value in weights.items()}

    def actions(*calls: Any) -> np.ndarray:
        actor = Actor(setup, 1, 0)
        chunks = [actor.play(1_000, version, given) for version, given in calls]
        return np.concatenate([chunk.action for chunk in chunks if isinstance(chunk, Chunk)])

    sent = actions((1, others), (1, others), (2, weights), (2, weights), (2, weights))
    assert np.array_equal(actions((1, others), (1, None), (2, weights), (2, None), (2, None)), sent)
    assert not np.array_equal(actions((1, others), (1, None), (1, None), (1, None), (1, None)), sent)


def test_an_actor_begins_with_the_scale_of_the_noise_that_it_is_given() -> None:
    """From this scale it moves by 10 % at most for each of the four measurements of two chunks."""
    task = load_task("CartPole-v1", {})
    setup = Setup(config(), task, None, (2, 2, 1))
    actor = Actor(setup, 1, 0, acting_scale=20.0)
    weights = weights_of(build_acting_agent(setup.config_of(0, 0), task, 0))
    for _ in range(2):
        chunk = actor.play(1_000, 7, weights)
    assert isinstance(chunk, Chunk)
    assert chunk.acting_scale != 20.0
    assert chunk.acting_scale == pytest.approx(20.0, rel=0.5)


GAMMA, N = 0.9, 3


def prioritised(**changes: Any) -> TrainConfig:
    agent = {"n_step": N, "gamma": GAMMA, "replay_size": 400, "batch_size": 8, "priority": {"enabled": True}, **changes}
    return parse(TrainConfig, {"num_envs": 5, "agent": agent, "collect": {"engine": "ray", "actors": 3, "chunk": 12}})


def played(setup: Setup, weights: Any, count: int) -> list[Chunk]:
    actor = Actor(setup, 1, 0)
    chunks = [actor.play(1_000, 7, weights) for _ in range(count)]
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    return chunks  # type: ignore[return-value]


def by_hand(chunks: list[Chunk], player: DQN) -> np.ndarray:
    """The errors |δ| [steps, E] of double Q-learning by one network, transition by transition; NaN where there is none.

    There is none for a window that goes beyond its chunk, and for a row that only resets.
    """
    first = chunks[0].first
    assert first is not None
    observation = np.concatenate([first[None], *(chunk.observation for chunk in chunks)])
    ended = np.concatenate([chunk.terminated | chunk.truncated for chunk in chunks])
    died, reward, action = (
        np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("terminated", "reward", "action")
    )
    steps, result = chunks[0].action.shape[0], np.full(ended.shape, np.nan)

    def value(at: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return player.network(torch.from_numpy(at[None]), None).q_values[0].numpy()

    for t, e in np.ndindex(*ended.shape):
        end = (t // steps + 1) * steps  # of the chunk
        if t and ended[t - 1, e]:
            continue
        total, last = 0.0, False
        for k in range(N):
            if t + k >= end:
                break
            total += GAMMA**k * reward[t + k, e]
            if last := bool(ended[t + k, e]):
                break
        else:
            k = N - 1
        if not last and t + N > end:
            continue
        after = 0.0 if died[t + k, e] else GAMMA ** (k + 1) * value(observation[t + k + 1, e]).max()
        result[t, e] = abs(total + after - value(observation[t, e])[action[t, e]])
    return result


def test_first_priorities_are_the_errors_of_the_actors_own_network() -> None:
    task = load_task("CartPole-v1", {})
    setup = Setup(prioritised(), task, None, (2, 2, 1))
    player = build_acting_agent(setup.config_of(0, 0), task, 0)
    chunks = played(setup, weights_of(player), 6)
    expected, found = by_hand(chunks, player), np.concatenate([chunk.priority for chunk in chunks])  # type: ignore[arg-type]
    assert 0.0 < np.isnan(expected).mean() < 0.4
    assert len({*expected[~np.isnan(expected)].round(4)}) > 50
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = Setup(prioritised(priority={"enabled": False}), task, None, (2, 2, 1))
    assert played(plain, weights_of(player), 1)[0].priority is None


@pytest.mark.parametrize("size", [400, 40])  # a ring has two fifths of it: room for all chunks, or for fewer than two
def test_the_learner_stores_them_and_the_rest_gets_the_largest(size: int) -> None:
    task, config = load_task("CartPole-v1", {}), prioritised(replay_size=size)
    setup = Setup(config, task, None, (2, 2, 1))
    player = build_acting_agent(setup.config_of(0, 0), task, 0)
    rings: Any = build_rings(config, task, (2, 2, 1))
    tracker: Any = Tracked()
    collector = RayCollector(config, task, None, player, rings, tracker)  # type: ignore[arg-type]
    stored = np.full((0, 2), np.nan)
    largest = 1.0
    for chunk in played(setup, weights_of(player), 4):
        assert chunk.priority is not None
        raised = (chunk.priority.astype(np.float64) + 1e-6) ** config.agent.priority.exponent
        stored = np.concatenate([stored, np.where(np.isnan(raised), largest, raised)])
        collector._store(chunk)
        largest = max(largest, np.nanmax(raised[-(rings.rings[1].rows - 1) :]))  # the rows that are still in the ring
    ring = rings.rings[1]
    leaves = np.array(ring._tree.leaves).reshape(-1, 2)
    held = min(ring.rows - 1, len(stored))
    rows = (ring.head - held + np.arange(held)) % ring.rows
    starts = leaves[rows] > 0.0
    np.testing.assert_allclose(leaves[rows][starts], stored[-held:][starts], rtol=1e-6)
    assert starts.mean() > 0.8
    assert np.count_nonzero(leaves) == ring.count == starts.sum()
    assert ring._largest[0] == pytest.approx(largest)
    ring.prioritise(ring.head, np.ones((held, 2)))
    assert np.count_nonzero(ring._tree.leaves) == ring.count, "a row that only resets can be drawn"


class Tracked:
    """A tracker that keeps nothing."""

    def log(self, step: int, metrics: Any) -> None: ...

    def line(self, text: str) -> None: ...

    @property
    def console(self) -> Tracked:
        return self


def test_options_that_nothing_reads_are_named() -> None:
    def told(config: TrainConfig, word: str) -> bool:
        return any(sentence.startswith(word) for sentence in without_effect(config, [word]))

    assert told(TrainConfig(), "collect.actors=3")
    assert not told(config(), "collect.actors=3")
    assert told(config(sync=True), "collect.publish=3")
    assert told(config(), "overlap=on")
    assert told(config(), "agent.act_with=target")
    assert not told(TrainConfig(), "agent.act_with=target")
    assert told(config(address="auto"), "collect.memory=1")


class Interrupting(gym.Env[Any, Any]):
    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == 40:
            raise KeyboardInterrupt
        return np.zeros(3, np.float32), 0.0, False, False, {}


def test_an_environment_that_raises_keyboard_interrupt_fails_like_any_other() -> None:
    gym.register("Test/Interrupting-v0", entry_point=Interrupting)
    try:
        task = load_task("Test/Interrupting-v0", {})
        given = replace(config(), env=replace(config().env, id="Test/Interrupting-v0"))
        actor = Actor(Setup(given, task, None, (1,)), 0, 0)
        results = [actor.play(0, 0, None) for _ in range(1 + 40 // given.collect.chunk)]
    finally:
        gym.registry.pop("Test/Interrupting-v0")
    sentences = [result.sentence for result in results if isinstance(result, Failure)]
    assert sentences == ["Test/Interrupting-v0 failed (KeyboardInterrupt)"]


class DyingRay:
    """The parts of Ray that a pool of one actor needs. The actor's processes end after `lives` chunks each."""

    exceptions = SimpleNamespace(
        RayError=type("RayError", (Exception,), {}), RayTaskError=type("RayTaskError", (Exception,), {})
    )

    def __init__(self, lives: list[int]) -> None:
        self.lives, self.incarnation = lives, -1
        self.acting_scales: list[object] = []

    def remote(self, **options: object) -> Any:
        def play(*arguments: object) -> tuple[int, int]:
            self.sequence += 1
            return self.incarnation, self.sequence

        def begin(*arguments: object) -> Any:
            self.incarnation, self.sequence = self.incarnation + 1, -1
            self.acting_scales.append(arguments[-1])
            return SimpleNamespace(play=SimpleNamespace(remote=play))

        return lambda cls: SimpleNamespace(remote=begin)

    def put(self, value: object) -> object:
        return value

    def kill(self, handle: object, no_restart: bool) -> None: ...

    def wait(self, references: list[Any], num_returns: int = 1, timeout: float = 0.0) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: tuple[int, int]) -> Any:
        incarnation, sequence = reference
        if sequence >= self.lives[incarnation]:
            raise self.exceptions.RayError("The actor died. It was unreachable.")
        return SimpleNamespace(actor=0, incarnation=incarnation, sequence=sequence, acting_scale=2.0 + incarnation)


class ReadyRay(DyingRay):
    """Every call is done at once, and Ray returns the newest calls first."""

    def remote(self, **options: object) -> Any:
        def begin(setup: object, number: int, incarnation: int, scale: float) -> Any:
            sequence = count()
            return SimpleNamespace(play=SimpleNamespace(remote=lambda *_: (number, incarnation, next(sequence))))

        return lambda cls: SimpleNamespace(remote=begin)

    def wait(self, references: list[Any], num_returns: int = 1, timeout: float = 0.0) -> tuple[list[Any], list[Any]]:
        return references[::-1][:num_returns], []

    def get(self, reference: Any) -> Any:
        actor, incarnation, sequence = reference
        return SimpleNamespace(actor=actor, incarnation=incarnation, sequence=sequence, acting_scale=1.0)


def test_all_actors_give_equally_many_chunks_if_the_learner_is_the_limit() -> None:
    ray: Any = ReadyRay([])
    pool = ActorPool(ray, None, [0] * 5, [1.0] * 5, 60.0, lambda line: None)  # type: ignore[arg-type]
    taken = [0] * 5
    for _ in range(100):
        for slot in pool.slots:
            while len(slot.calls) < 2:
                pool.call(slot)
        chunk = next(pool.results(lambda: False))
        assert not isinstance(chunk, ActorSlot)
        taken[chunk.actor] += 1
    assert taken == [20] * 5


@pytest.mark.parametrize(
    ("lives", "starts", "times"),
    [
        ([0, 0, 0], 3, "3 times in a row"),
        ([2, 0, 0], 3, "3 times in a row"),
        ([3] * 8, 8, "8 times in a row before it gave 64 chunks"),  # three chunks per start are too few
        ([3] * 7 + [64] + [3] * 8, 16, "8 times in a row before it gave 64 chunks"),
        ([100] * 20 + [0] * 2, 22, "3 times in a row"),  # as on a machine that is often taken away
    ],
)
def test_the_restarts_of_an_actor_are_bounded(lives: list[int], starts: int, times: str) -> None:
    ray: Any = DyingRay(lives)
    pool = ActorPool(ray, None, [0], [0.5], 60.0, lambda line: None)  # type: ignore[arg-type]

    def play() -> None:
        while True:
            pool.call(pool.slots[0])
            next(iter(pool.results(lambda: False)))

    with pytest.raises(BrokenEnvironmentError, match=f"actor 0 failed {times}: its process ended .The actor died."):
        play()
    assert (ray.incarnation + 1, pool.restarts) == (starts, starts - 1)
    scales = [0.5]  # each process begins with the factor of the last chunk before its start
    for incarnation, life in enumerate(lives[: starts - 1]):
        scales.append(2.0 + incarnation if life else scales[-1])
    assert ray.acting_scales == scales
