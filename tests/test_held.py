"""The network that acts: it has the weights of the step at which they were last copied, and a resumed one as well."""

from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent, plan_of
from torch import nn

from agent.common.observation import ObservationSpec
from agent.compute.plan import Plan
from agent.config.algorithm import AgentConfig
from agent.config.checks import without_effect
from agent.config.parsing import parse
from agent.config.parts import NetworkConfig, NoiseConfig
from agent.config.run import TrainConfig
from agent.learning.dqn import DQN
from agent.networks.build import build_network
from agent.replay.batch import Batch
from agent.running.build import build_player
from agent.running.distributed.chunk import Setup
from envs.make import load_task

E, A = 3, 4
SPEC = ObservationSpec((5,))
BEGINS = np.zeros(E, bool)


def agent_of(every: int, device: torch.device | str = "cpu", plan: Plan | None = None, **options: Any) -> DQN:
    config = AgentConfig(network=NetworkConfig(hidden=(8, 8)), acting_every=every, lr=0.05, batch_size=16, **options)
    network = build_network(config, SPEC, A, torch.Generator().manual_seed(0))
    return make_agent(network, config, A, 0, device, plan)


def batch(random: np.random.Generator) -> Batch[np.ndarray]:
    def floats(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    action, discount = random.integers(A, size=16), np.full(16, 0.9, np.float32)
    return Batch(floats(16, 5), action, 5.0 * floats(16), discount, floats(16, 5))


@pytest.mark.parametrize("by", ["numpy", "torch"])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_acting_has_the_weights_of_the_last_copy(device: torch.device, every: int, by: str) -> None:
    """Beside a twin without noise that keeps the values of each step by hand; an update follows each step."""
    if by == "numpy" and device.type != "cpu":
        pytest.skip("NumPy computes on the CPU alone")
    agent = agent_of(every, device, None if by == "numpy" else Plan(), noise=NoiseConfig(enabled=False))
    random, kept, newest = np.random.default_rng(1), None, 0
    for step in range(24):
        observation = random.standard_normal((E, 5), dtype=np.float32)
        if step % every == 0:
            kept = {name: value.detach().clone() for name, value in agent.network.state_dict().items()}
        now = agent.network(torch.from_numpy(observation).to(device), None).q_values.argmax(1).tolist()
        action = agent.act(observation, BEGINS).tolist()
        assert kept is not None
        values = torch.func.functional_call(agent.network, kept, (torch.from_numpy(observation).to(device), None))
        assert action == values.q_values.argmax(1).tolist()
        newest += action == now
        agent.update(batch(random))
    assert (newest == 24) == (every == 1), "the newest weights act otherwise now and then"


@pytest.mark.parametrize("scaled", [False, True])
def test_a_restored_agent_acts_on_as_the_saved_one_does(scaled: bool) -> None:
    """Saved in the middle of a hold, when the online network has other weights."""
    agents, random = [agent_of(4), agent_of(4)], np.random.default_rng(2)
    change = 0.4 if scaled else None
    observations, batches = random.standard_normal((30, E, 5), dtype=np.float32), [batch(random) for _ in range(30)]
    for i in range(10):
        agents[0].act(observations[i], BEGINS, change=change)
        agents[0].update(batches[i])
    agents[1].load_state(agents[0].state())
    for i in range(10, 30):
        first, second = (agent.act(observations[i], BEGINS, change=change) for agent in agents)
        assert np.array_equal(first, second)
        for agent in agents:
            agent.update(batches[i])


def test_buffers_of_an_encoder_are_held_as_well() -> None:
    """A trunk that counts in a buffer: the acting copy has the count of the step at which it was copied."""
    agent = agent_of(3)
    agent.network.register_buffer("count", torch.zeros(()))
    held = DQN(agent.network, agent.config, A, 0)
    seen = []
    for _ in range(7):
        held.act(np.zeros((E, 5), np.float32), BEGINS)
        seen.append(float(held._acting.network.get_buffer("count")))
        agent.network.get_buffer("count").add_(1.0)
    assert seen == [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 6.0]


def test_the_acting_copy_shares_no_memory_and_does_not_learn() -> None:
    agent = agent_of(2)
    assert plan_of(agent.network).numpy_policy
    online = {parameter.data_ptr() for parameter in agent.network.parameters()}
    copies: nn.Module = agent._acting.network
    assert not online & {parameter.data_ptr() for parameter in copies.parameters()}
    assert not any(parameter.requires_grad for parameter in copies.parameters())
    assert agent_of(1)._acting.network is not copies
    plain = agent_of(1)
    assert plain._acting.network is plain.network
    assert plain.state()["acting_network"] == {}


def test_an_actor_holds_its_weights_for_a_chunk_alone() -> None:
    tree = {"num_envs": 2, "agent": {"acting_every": 5}, "collect": {"engine": "ray", "actors": 2}}
    config = parse(TrainConfig, tree)
    setup = Setup(config, load_task("CartPole-v1", {}), None, (1, 1))
    assert setup.config_of(1, 0).agent.acting_every == 1
    assert build_player(setup.config_of(0, 0), setup.task, 0)._acting.state() == {}
    (line,) = without_effect(config, ["agent.acting_every=5"])
    assert line.endswith(" does nothing: with collect=ray an actor holds its weights for a chunk, see collect.chunk")
    local = parse(TrainConfig, {"agent": {"acting_every": 5}})
    assert not list(without_effect(local, ["agent.acting_every=5"]))
