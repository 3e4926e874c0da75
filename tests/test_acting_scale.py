"""The scale of the acting noise: it multiplies σ, follows a fraction of changed actions, and changes nothing else."""

from dataclasses import replace
from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent

from agent.common.arrays import Place
from agent.common.errors import UserError
from agent.common.seeding import torch_generator
from agent.config.algorithm import AgentConfig
from agent.config.checks import without_effect
from agent.config.parsing import parse, to_plain
from agent.config.parts import ActionChangeConfig, NetworkConfig, NoiseConfig
from agent.config.run import TrainConfig, upgraded
from agent.learning.dqn import DQN
from agent.networks.build import build_network, scaled_numbers
from agent.noise.acting_scale import ActingScale

INPUTS, ACTIONS = 3, 4
CONFIG = AgentConfig(network=NetworkConfig((16, 12)), noise=NoiseConfig(mean_envs=0))


def make(config: AgentConfig = CONFIG, **changes: Any) -> DQN:
    config = replace(config, noise=replace(config.noise, **changes))
    return make_agent(build_network(config, INPUTS, ACTIONS, torch_generator(0, "initialisation")), config, ACTIONS, 0)


def observe(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=(rows, INPUTS)).astype(np.float32)


@pytest.mark.parametrize("form", ["factorised", "independent", "index"])
def test_scaled_noise_is_the_noise_of_a_network_with_larger_sigma(form: str) -> None:
    agent = make(form=form, learning="joint")
    x, noise = torch.from_numpy(observe(32)), torch.from_numpy(np.array(agent.acting_noise(np.ones(32, bool), 0)))
    factor = 3.0
    scale = ActingScale(scaled_numbers(agent.config, agent.network), Place("cpu"))
    scale.factor = factor
    scaled = torch.from_numpy(np.asarray(scale(noise.numpy())))
    with torch.no_grad():
        values = agent.network(x, scaled).q_values
        unscaled = agent.network(x, noise).q_values
        for name, parameter in agent.network.named_parameters():
            if "sigma" in name:
                parameter.mul_(factor)
        expected = agent.network(x, noise).q_values
    assert torch.allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(values, unscaled, rtol=1e-2)


@pytest.mark.parametrize("goal", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("sigma0", [0.02, 0.5, 5.0])
def test_the_noise_changes_the_given_fraction_of_actions(goal: float, sigma0: float) -> None:
    """Over 3,000 steps of 8 environments after 1,500 steps of adaptation: within 0.03 of the goal."""
    agent, begins = make(sigma0=sigma0), np.zeros(8, dtype=bool)
    changed = 0
    for step in range(4_500):
        x = observe(8, seed=step)
        action = agent.act(x, begins, change=goal)
        if step >= 1_500:
            with torch.no_grad():
                mean = agent.network(torch.from_numpy(x), None).q_values.argmax(dim=1).numpy()
            changed += int((action != mean).sum())
    assert changed / 24_000 == pytest.approx(goal, abs=0.03)


def test_without_a_fraction_the_noise_acts_as_it_is_learned() -> None:
    plain, scaled = make(), make()
    scaled.acting_scale.load_state({"log": 2.0, "calls": 0})
    x, begins = observe(64), np.zeros(64, dtype=bool)
    assert (scaled.act(x, begins) == plain.act(x, begins)).all()
    assert (scaled.act(x, begins, change=0.3) != plain.act(x, begins)).any()


def test_the_environments_of_the_mean_network_are_not_measured_and_not_scaled() -> None:
    """Three of four act with the mean network; the fourth changes a fifth of its actions, not four fifths."""
    agent, begins, changed = make(mean_envs=3), np.zeros(4, dtype=bool), np.zeros(4)
    for step in range(6_000):
        x = observe(4, seed=step)
        action = agent.act(x, begins, change=0.2)
        with torch.no_grad():
            mean = agent.network(torch.from_numpy(x), None).q_values.argmax(dim=1).numpy()
        if step >= 2_000:
            changed += action != mean
    assert (changed[:3] == 0).all()
    assert changed[3] / 4_000 == pytest.approx(0.2, abs=0.04)


def test_the_factor_has_limits() -> None:
    scale = ActingScale(np.ones(3, dtype=bool), Place("cpu"))
    for _ in range(1_000):
        scale.adapt(measured=0.0, goal=1.0)
    assert scale.factor == pytest.approx(exp(ActingScale.LIMIT))
    for _ in range(2_000):
        scale.adapt(measured=1.0, goal=0.0)
    assert scale.factor == pytest.approx(exp(-ActingScale.LIMIT))
    assert np.isfinite(scale(np.ones((2, 3), dtype=np.float32))).all()


def test_environments_that_only_reset_are_not_measured() -> None:
    """Here the second environment resets at every step, often at an observation of 0, where the noise decides."""
    agent, begins, resets = make(), np.zeros(2, dtype=bool), np.array([False, True])
    for step in range(100):
        agent.act(observe(2, step), begins, change=0.3, resets=~begins)
    assert agent.acting_scale.factor == 1.0
    changed = 0
    for step in range(4_500):
        x = observe(2, seed=step)
        x[1] = x[0] if step % 2 else 0.0
        action = agent.act(x, begins, change=0.2, resets=resets)
        if step >= 1_500:
            with torch.no_grad():
                mean = agent.network(torch.from_numpy(x), None).q_values.argmax(dim=1).numpy()
            changed += int(action[0] != mean[0])
    assert changed / 3_000 == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5, 8, 13, 21, 100, 201])
def test_a_quarter_of_the_steps_is_measured_at_every_place_of_an_episode(period: int) -> None:
    """Episodes of one length stay in step: if every fourth step was measured, it could be the same place each time."""
    scale, measured = ActingScale(np.ones(1, dtype=bool), Place("cpu")), np.zeros(period)
    for call in range(period * 800):
        scale(np.ones((1, 1), dtype=np.float32))
        measured[call % period] += scale.is_due()
    assert measured / 800 == pytest.approx(np.full(period, 0.25), abs=0.02)


def test_a_step_of_adaptation_by_hand() -> None:
    scale = ActingScale(np.array([True, False]), Place("cpu"))
    scale.adapt(measured=0.25, goal=0.5)  # log factor: 0.1 · 0.25
    assert scale.factor == pytest.approx(exp(0.025))
    assert scale(np.array([[2.0, 2.0]])) == pytest.approx(np.array([[2.0 * exp(0.025), 2.0]]))


def test_every_pass_has_one_form_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph is recorded anew for other shapes, and for None."""
    agent, forms = make(), set()
    policy = agent._policy

    def record(observation: np.ndarray, noise: Any) -> np.ndarray:
        forms.add((observation.shape, None if noise is None else (noise.shape, noise.dtype)))
        return policy(observation, noise)

    monkeypatch.setattr(agent, "_policy", record)
    for _ in range(20):
        agent.act(observe(8), np.zeros(8, dtype=bool), change=0.3)
    assert len(forms) == 1


def test_a_restored_agent_goes_on_with_the_same_scale() -> None:
    agent, other, begins = make(), make(), np.zeros(8, dtype=bool)
    for step in range(50):
        agent.act(observe(8, step), begins, change=0.5)
    other.load_state(agent.state())
    for step in range(50):
        assert (
            agent.act(observe(8, step), begins, change=0.5) == other.act(observe(8, step), begins, change=0.5)
        ).all()
    assert agent.acting_scale.factor == other.acting_scale.factor != 1.0


def test_a_checkpoint_of_before_has_no_scale() -> None:
    agent = make()
    state = agent.state()
    del state["acting_scale"]
    agent.load_state(state)
    assert agent.acting_scale.factor == 1.0


def test_a_network_without_noise_is_not_scaled() -> None:
    agent = make(enabled=False)
    x = observe(8)
    assert (agent.act(x, np.zeros(8, dtype=bool), change=0.3) == agent.act(x, np.zeros(8, dtype=bool))).all()


# ---- options


def test_the_fraction_falls_linearly() -> None:
    change = ActionChangeConfig(start=0.5, end=0.1, steps=100)
    assert [change.at(step) for step in (0, 50, 100, 1000)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert ActionChangeConfig(enabled=False).at(0) is None


def test_a_fraction_that_rises_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"change\.end=0\.2 is above agent\.noise\.change\.start=0\.1: .*set .*\.start to 0\.2 or more"
    ):
        replace(CONFIG, noise=NoiseConfig(change=ActionChangeConfig(start=0.1, end=0.2)))


@pytest.mark.parametrize(
    ("change", "override", "sentence"),
    [
        (ActionChangeConfig(enabled=False), "agent.noise.change.end=0.1", "agent.noise.change.enabled is false"),
        (ActionChangeConfig(start=0.1, end=0.1), "agent.noise.change.steps=9", "the fraction is 0.1 all along"),
    ],
)
def test_an_option_without_effect_is_told(change: ActionChangeConfig, override: str, sentence: str) -> None:
    config = TrainConfig()
    config = replace(config, agent=replace(config.agent, noise=replace(config.agent.noise, change=change)))
    assert list(without_effect(config, [override])) == [f"{override} does nothing: {sentence}"]


def test_a_run_of_before_goes_on_without_a_scale() -> None:
    saved = to_plain(TrainConfig())
    noise = saved["agent"]["noise"]
    del noise["change"]
    assert not parse(TrainConfig, upgraded(saved)).agent.noise.change.enabled
    assert "change" not in noise  # the mapping from the caller is not changed
