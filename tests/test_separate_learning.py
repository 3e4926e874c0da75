"""agent.noise.learning=separate: the mean network learns without noise, and σ learns from noisy predictions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from making import make_agent
from torch import Tensor

from agent.common.errors import UserError
from agent.common.seeding import torch_generator
from agent.compute.compiled_gradient import CompiledGradient
from agent.compute.plan import TORCH, Plan
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.config.run import upgraded
from agent.learning.dqn import DQN
from agent.learning.gradient import AutogradGradient
from agent.networks.build import build_network
from agent.replay.batch import Batch

INPUTS, ACTIONS, ROWS = 3, 4, 16
NUMPY = Plan(backend="numpy", numpy_policy=True)
HEADS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"categorical": {"atoms": 6, "v_min": -3.0, "v_max": 4.0}},
    "quantile": {"quantile": {"count": 5}},
    "implicit_quantile": {"implicit_quantile": {"samples": 3, "target_samples": 2, "acting": 4, "cosines": 5}},
}


def config_of(head: str = "expected", **options: Any) -> AgentConfig:
    noise = {"learning": "separate", **options.pop("noise", {})}
    network = {"hidden": [6, 5], "layer_norm": True, "dueling": True}
    base = {"batch_size": ROWS, "learning_starts": ROWS, "target_every": 3, "head": head, **HEADS[head]}
    return parse(AgentConfig, {"network": network, "noise": noise, **base, **options})


def make(config: AgentConfig, plan: Plan = TORCH, seed: int = 1) -> DQN:
    network = build_network(config, INPUTS, ACTIONS, torch_generator(seed, "initialisation"))
    return make_agent(network, config, ACTIONS, seed, plan=plan)


def batch_of(seed: int, rows: int = ROWS) -> Batch[Tensor]:
    g = torch.Generator().manual_seed(seed)
    action, reward = torch.randint(ACTIONS, (rows,), generator=g), 2 * torch.randn(rows, generator=g)
    discount = 0.9 * (torch.arange(rows) % 4 > 0)
    now, after = torch.randn(2, rows, INPUTS, generator=g)
    return Batch(now, action, reward, discount, after)


def parameters(agent: DQN, sigma: bool) -> dict[str, Tensor]:
    named = agent.network.state_dict().items()
    return {name: value.clone() for name, value in named if ("sigma" in name) == sigma}


@pytest.mark.parametrize("plan", [TORCH, NUMPY], ids=["torch", "numpy"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clip", [10.0, 0.05])
def test_the_mean_network_learns_as_without_noise(plan: Plan, head: str, weighted: bool, clip: float) -> None:
    """After ten updates μ has the same bits as the parameters of an agent without noise, independently of σ."""
    if plan is NUMPY and head == "implicit_quantile":
        pytest.skip("NumPy does not compute implicit quantiles")
    noisy = make(config_of(head, max_grad_norm=clip), plan)
    plain = make(config_of(head, max_grad_norm=clip, noise={"enabled": False}), plan)
    rounding = 0 if clip == 10.0 else 1e-5  # the sum of the clipping norm has another order
    before, weight = parameters(noisy, sigma=True), torch.linspace(0.1, 1.0, ROWS) if weighted else None
    for step in range(10):
        one, other = (agent.update(batch_of(step), weight) for agent in (noisy, plain))
        assert float(one.loss) == pytest.approx(float(other.loss), rel=rounding)
        assert float(one.grad_norm) == pytest.approx(float(other.grad_norm), rel=1e-5)
        if weighted:
            np.testing.assert_allclose(np.asarray(one.priority), np.asarray(other.priority), rtol=rounding)
    learned, wanted = parameters(noisy, sigma=False), parameters(plain, sigma=False)
    assert learned.keys() == wanted.keys()
    for name, value in learned.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=rounding, msg=name)
    assert all(not torch.equal(value, before[name]) for name, value in parameters(noisy, sigma=True).items())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("options", [{}, {"draws": 1}, {"draws": 2, "form": "independent"}])
def test_one_compiled_function_gives_the_same_gradient(head: str, options: dict[str, Any]) -> None:
    """The pure function runs without the compiler, which has tests elsewhere."""
    config = config_of(head, noise=options)
    agent = make(config)
    noise, levels, weight = agent.update_noise(ROWS), agent._levels(ROWS), torch.linspace(0.1, 1.0, ROWS)
    arguments = agent.network, agent.target, agent.parameters, config
    wanted = AutogradGradient(*arguments)(batch_of(0), noise, levels, weight)
    assert agent.parameters.grad is not None
    draws = noise.tensors(torch.device("cpu"))
    seen, loss, norm, priority = CompiledGradient(*arguments).pure(agent.parameters, batch_of(0), draws, levels, weight)
    torch.testing.assert_close(seen, agent.parameters.grad, rtol=1e-4, atol=1e-6)
    assert (float(loss), float(norm)) == pytest.approx((float(wanted.loss), float(wanted.grad_norm)), rel=1e-5)
    torch.testing.assert_close(priority, torch.as_tensor(wanted.priority))


@pytest.mark.parametrize(("mean_rows", "draws", "shape"), [(0.5, 0, 8), (0.25, 0, 12), (0.0, 1, 1), (0.5, 4, 4)])
def test_targets_have_no_noise_and_sigma_has_one_draw(mean_rows: float, draws: int, shape: int) -> None:
    agent = make(config_of(noise={"mean_rows": mean_rows, "draws": draws}))
    noise = agent.update_noise(ROWS)
    assert noise[:3] == (None, None, None)
    assert noise.sigma is not None
    assert noise.sigma.shape == (shape, agent.noise.size)
    assert not np.array_equal(np.asarray(noise.sigma), np.asarray(agent.update_noise(ROWS).sigma))


@pytest.mark.parametrize("plan", [TORCH, NUMPY], ids=["torch", "numpy"])
def test_sigma_stays_if_it_learns_from_no_row(plan: Plan) -> None:
    agent = make(config_of(noise={"mean_rows": 1.0}), plan)
    before = parameters(agent, sigma=True)
    for step in range(3):
        agent.update(batch_of(step))
    assert all(torch.equal(value, before[name]) for name, value in parameters(agent, sigma=True).items())


@pytest.mark.parametrize("plan", [TORCH, NUMPY], ids=["torch", "numpy"])
def test_noise_falls_where_the_replay_has_transitions(plan: Plan) -> None:
    """All transitions lie near one state. The spread of the noisy values falls most there, and least far away."""
    config = config_of(noise={"mean_rows": 0.5}, lr=3e-3, network={"hidden": [32, 32], "layer_norm": False})
    agent = make(config, plan)
    known, far = torch.tensor([[1.0, 0.5, -0.5]]), torch.tensor([[-0.5, 1.0, 1.0]])
    draws = agent.noise.draw(400, generator=torch.Generator().manual_seed(0))

    def spread(state: Tensor) -> float:
        with torch.no_grad():
            return float(agent.network(state.expand(400, -1), draws).q_values.std(dim=0).mean())

    at_first = [spread(state) for state in (known, far)]
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        near = known + 0.05 * torch.randn(ROWS, INPUTS, generator=g)
        action = torch.randint(ACTIONS, (ROWS,), generator=g)
        agent.update(Batch(near, action, torch.zeros(ROWS), torch.zeros(ROWS), near))
    kept = [spread(state) / first for state, first in zip((known, far), at_first, strict=True)]
    assert kept[0] < 0.5
    assert kept[1] > 1.5 * kept[0]


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"form": "index"}, ["agent.noise.form=index", "agent.noise.learning=joint"]),
        ({"share": True}, ["agent.noise.share=true", "agent.noise.learning=joint"]),
        ({"draws": 3}, ["agent.noise.draws is 3", "8 rows"]),
        ({"learning": "both"}, ["noise.learning is 'both'", "separate, joint"]),
    ],
)
def test_a_combination_without_sense_is_refused(noise: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        config_of(noise=noise)
    assert all(word in str(caught.value) for word in words)


def test_runs_of_earlier_releases_learn_jointly() -> None:
    saved = {"agent": {"noise": {"enabled": True, "form": "index"}}}
    noise = upgraded(saved)["agent"]["noise"]  # type: ignore[index]
    assert noise == {"enabled": True, "form": "index", "learning": "joint", "change": {"enabled": False}}
    assert replace(parse(AgentConfig, {"noise": noise}).noise, form="factorised").learning == "joint"
