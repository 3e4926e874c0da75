"""The agent: updates against a naive twin, acting noise, exploration, targets, saving, and learning by noise alone."""

import copy
from dataclasses import replace
from itertools import combinations, permutations
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import make_agent, update_noise
from torch import Tensor, nn

from agent.common.arrays import Place
from agent.common.seeding import torch_generator
from agent.compute.compiled_gradient import CompiledGradient
from agent.config.algorithm import AgentConfig
from agent.config.parts import (
    CategoricalConfig,
    EpsilonConfig,
    ImplicitQuantileConfig,
    MunchausenConfig,
    NetworkConfig,
    NoiseConfig,
    QuantileConfig,
)
from agent.learning.adam import Adam
from agent.learning.dqn import DQN
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import Levels
from agent.networks import encoders
from agent.networks.build import build_network
from agent.networks.encoder_registry import ENCODERS, register_encoder
from agent.noise.acting_noise import ActingNoise
from agent.noise.distributions import NoiseModel
from agent.noise.streams import DeviceNoise, TableNoise
from agent.replay.ring import Batch, Replay

INPUTS, ACTIONS, ROWS = 3, 4, 8
SMALL = AgentConfig(
    network=NetworkConfig((6, 5), dueling=False, layer_norm=False),
    noise=NoiseConfig(form="factorised", learning="joint", draws=0, hold="step", mean_envs=0, mean_rows=0.0),
    double=True,
    loss="huber",
    lr=1e-2,
    adam_eps=1e-2,
    max_grad_norm=10.0,
    batch_size=ROWS,
    learning_starts=ROWS,
    target_every=1000,
    tau=1.0,
)


def with_noise(config: AgentConfig, **changes: Any) -> AgentConfig:
    return replace(config, noise=replace(config.noise, **changes))


def with_network(config: AgentConfig, **changes: Any) -> AgentConfig:
    return replace(config, network=replace(config.network, **changes))


PLAIN = with_noise(SMALL, enabled=False)


def make(
    config: AgentConfig,
    seed: int = 0,
    *,
    inputs: int = INPUTS,
    actions: int = ACTIONS,
    device: torch.device | str = "cpu",
) -> DQN:
    network = build_network(config, inputs, actions, torch_generator(seed, "initialisation"))
    return make_agent(network, config, actions, seed, device)


def make_batch(rows: int = ROWS, seed: int = 0, device: torch.device | str = "cpu") -> Batch:
    """Rows of every kind: one in four terminal (discount 0), rewards large enough for both branches of Huber's loss."""
    g = torch.Generator().manual_seed(seed)
    fields = (
        torch.randn(rows, INPUTS, generator=g),
        torch.randint(ACTIONS, (rows,), generator=g),
        2 * torch.randn(rows, generator=g),
        0.9 * (torch.arange(rows) % 4 > 0),
        torch.randn(rows, INPUTS, generator=g),
    )
    return Batch(*(field.to(device) for field in fields))


def observe(count: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).standard_normal((count, INPUTS), dtype=np.float32)


def parameters(agent: DQN) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in agent.network.state_dict().items()}


def target_parameters(agent: DQN) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in agent.target.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- the update against a twin: double precision, one row at a time, every noisy matrix formed


class Twin:
    """DQN as the papers write it. `order` assigns the draws of an update to prediction, target and selection."""

    def __init__(self, agent: DQN, order: tuple[int, ...]) -> None:
        self.config, self.order, self.updates = agent.config, order, 0
        self.online = {name: value.double().requires_grad_() for name, value in parameters(agent).items()}
        self.target = {name: value.double() for name, value in target_parameters(agent).items()}
        self.adam = torch.optim.Adam(self.online.values(), lr=agent.config.lr, eps=agent.config.adam_eps)

    def values(self, net: dict[str, Tensor], x: Tensor, noise: Tensor | None) -> Tensor:
        """q [A] of one observation [p] under one flat draw [size]."""
        numbers = noise

        def layer(name: str, x: Tensor) -> Tensor:
            nonlocal numbers
            weight, bias = net[f"{name}.weight"], net[f"{name}.bias"]
            if numbers is None:
                return weight @ x + bias
            q, p = weight.shape
            size = p if self.config.noise.form == "factorised" else p * q
            e_in, e_out, numbers = numbers[:size], numbers[size : size + q], numbers[size + q :]
            e_w = torch.outer(e_out, e_in) if size == p else e_in.view(q, p)
            weight, bias = weight + net[f"{name}.sigma_weight"] * e_w, bias + net[f"{name}.sigma_bias"] * e_out
            return weight @ x + bias

        def hidden(name: str, norm: str, x: Tensor) -> Tensor:
            y = layer(name, x)
            if self.config.network.layer_norm:
                y = F.layer_norm(y, y.shape, net[f"{norm}.weight"], net[f"{norm}.bias"])
            return y.clamp(min=0.0)

        def stream(name: str, x: Tensor) -> Tensor:
            return layer(f"{name}.output", hidden(f"{name}.hidden", f"{name}.norm", x))

        features = hidden("encoder.layers.0", "encoder.norms.0", x)
        advantage = stream("head.advantage", features)
        if not self.config.network.dueling:
            return advantage
        return stream("head.value", features) + advantage - advantage.mean()

    def update(self, batch: Batch, draws: Tensor | None) -> tuple[float, float]:
        """Loss and gradient norm; draws [uses, groups, size]."""
        config = self.config
        separate = config.noise.learning == "separate" and draws is not None
        goals = [self.goal(batch, row, None if separate else draws) for row in range(ROWS)]
        noise = [None if separate else self.noise_of(row, draws)[0] for row in range(ROWS)]
        loss = torch.stack([self.loss(batch, row, goals[row], noise[row]) for row in range(ROWS)]).mean()
        if not separate:
            norm = self.clip(loss, list(self.online.values()))
        else:
            assert draws is not None
            last = range(ROWS - draws.shape[1] * self.rows_per_draw(draws), ROWS)
            pick = lambda row: draws[0, (row - last.start) // self.rows_per_draw(draws)].double()  # noqa: E731
            noisy = torch.stack([self.loss(batch, row, goals[row], pick(row)) for row in last]).mean()
            norm = self.clip(loss, [value for name, value in self.online.items() if "sigma" not in name])
            self.clip(noisy, [value for name, value in self.online.items() if "sigma" in name])
        self.adam.step()
        self.updates += 1
        if self.updates % config.target_every == 0:
            for name, value in self.online.items():
                self.target[name] = (1 - config.tau) * self.target[name] + config.tau * value.detach()
        return float(loss.detach()), norm

    def goal(self, batch: Batch, row: int, draws: Tensor | None) -> Tensor:
        _, target, *selection = self.noise_of(row, draws)
        following = batch.next_observation[row].double()
        with torch.no_grad():
            after = self.values(self.target, following, target)
            chooser = self.values(self.online, following, selection[0]) if self.config.double else after
            return float(batch.reward[row]) + float(batch.discount[row]) * after[chooser.argmax()]

    def loss(self, batch: Batch, row: int, goal: Tensor, noise: Tensor | None) -> Tensor:
        error = (self.values(self.online, batch.observation[row].double(), noise)[batch.action[row]] - goal).abs()
        return 0.5 * error**2 if self.config.loss == "squared" or error < 1.0 else error - 0.5

    def clip(self, loss: Tensor, parameters: list[Tensor]) -> float:
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True
        ):
            parameter.grad = gradient
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))

    def rows_per_draw(self, draws: Tensor) -> int:
        noise = self.config.noise
        return 1 if noise.draws == 0 else round(ROWS * (1 - noise.mean_rows)) // draws.shape[1]

    def noise_of(self, row: int, draws: Tensor | None) -> list[Tensor | None]:
        if draws is None:
            return [None] * 3
        group = row * draws.shape[1] // ROWS
        return [draws[use, group].double() for use in self.order]


class Recorder:
    """Keeps a copy of every draw of the streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[Tensor] = []
        monkeypatch.setattr(TableNoise, "draw", self._wrap(TableNoise.draw))
        monkeypatch.setattr(DeviceNoise, "draw", self._wrap(DeviceNoise.draw))

    def _wrap(self, draw: Any) -> Any:
        def recorded(stream: Any, *shape: int) -> Any:
            result = draw(stream, *shape)
            if result is not None:
                self.drawn.append(torch.as_tensor(result).clone().reshape(-1))
            return result

        return recorded

    def take(self, uses: int, size: int) -> Tensor | None:
        """The draws since the last call, [uses, groups, size]."""
        flat, self.drawn = self.drawn, []
        return torch.cat(flat).view(uses, -1, size) if flat else None


VARIANTS = {
    "noisy": SMALL,
    "one network selects and evaluates": replace(SMALL, double=False),
    "dueling": with_network(SMALL, dueling=True),
    "layer norm": with_network(SMALL, dueling=True, layer_norm=True),
    "squared": replace(SMALL, loss="squared"),
    "shared noise": with_noise(SMALL, draws=1),
    "four groups": with_noise(SMALL, draws=4),
    "separate": with_noise(SMALL, learning="separate"),
    "separate, half the rows": with_noise(replace(SMALL, double=False), learning="separate", mean_rows=0.5),
    "separate, shared": with_noise(with_network(SMALL, dueling=True, layer_norm=True), learning="separate", draws=1),
    "separate, groups": with_noise(SMALL, learning="separate", draws=2, mean_rows=0.5),
    "separate, clipped": replace(with_noise(SMALL, learning="separate"), max_grad_norm=0.05),
    "separate, independent": with_noise(SMALL, learning="separate", form="independent", sigma0=0.3),
    "independent": with_noise(SMALL, form="independent", sigma0=0.3),
    "independent, shared": with_noise(SMALL, form="independent", sigma0=0.3, draws=1),
    "uniform, dueling, groups": with_noise(with_network(SMALL, dueling=True), distribution="uniform", draws=2),
    "clipped": replace(SMALL, max_grad_norm=0.05),
    "hard target": replace(SMALL, target_every=2),
    "Polyak": replace(SMALL, target_every=1, tau=0.3),
    "plain": PLAIN,
    "plain, one network": replace(PLAIN, double=False, target_every=2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_agree_with_the_twin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three updates losses, gradient norms, parameters and targets agree, and each use has a draw of its own.

    There is a twin for every assignment of the draws to prediction, target and selection, and exactly one must fit.
    """
    config = VARIANTS[name]
    agent, recorder = make(config, seed=3), Recorder(monkeypatch)
    separate = config.noise.learning == "separate"
    uses = 1 if separate else 3 if config.double else 2
    twins = [Twin(agent, order) for order in permutations(range(uses))]
    if not config.noise.enabled:
        twins = twins[:1]
    for step in range(3):
        batch = make_batch(seed=step)
        metrics = agent.update(batch)
        draws = recorder.take(uses, agent.noise.size)
        if draws is not None:
            assert draws.shape[1] == (config.noise.draws or ROWS - separate * int(ROWS * config.noise.mean_rows))
        expected = [(twin, *twin.update(batch, draws)) for twin in twins]
        twins = [twin for twin, loss, _ in expected if loss == pytest.approx(float(metrics.loss), rel=1e-4)]
        assert len(twins) == 1 or step == 0
        for twin, _, norm in expected:
            if twin in twins[:1]:
                assert norm == pytest.approx(float(metrics.grad_norm), rel=1e-3)
    (twin,) = twins
    for ours, theirs in ((parameters(agent), twin.online), (target_parameters(agent), twin.target)):
        for key, value in ours.items():
            torch.testing.assert_close(value.double(), theirs[key].detach(), rtol=1e-4, atol=2e-5, msg=key)
    moved = [
        float((value.double() - target_parameters(make(config, 3))[key]).abs().max()) for key, value in ours.items()
    ]
    assert config.target_every > 3 or min(moved) > 1e-3  # far above the tolerance


def test_one_update_by_hand() -> None:
    """One hidden unit, two actions; every number below was worked out on paper.

    h = relu(2x) and q = (h, −h), twice h in the target. s = 1, a = 0 → q = 2. s' = 3: the online network selects
    action 0 (6 > −6), the target network values it at 12; γ = ½ and R = 1 → 7. Error −5, Huber's gradient −1:
    ∂W₂₀ = −h = −2, ∂b₂₀ = −1, ∂W₁ = −1·1·x = −1, ∂b₁ = −1, all others 0; norm √7. Adam's first step is −lr·sgn.
    """
    config = replace(with_network(PLAIN, hidden=(1,)), lr=0.1, adam_eps=1e-12, max_grad_norm=1e3)
    agent = make(config, inputs=1, actions=2)
    names = [f"head.advantage.{layer}" for layer in ("hidden.weight", "hidden.bias", "output.weight", "output.bias")]
    online = [torch.tensor([[2.0]]), torch.zeros(1), torch.tensor([[1.0], [-1.0]]), torch.zeros(2)]
    agent.network.load_state_dict(dict(zip(names, online, strict=True)))
    agent.target.load_state_dict(dict(zip(names, [*online[:2], 2 * online[2], online[3]], strict=True)))
    number = torch.ones(1)
    batch = Batch(number.view(1, 1), torch.tensor([0]), number, 0.5 * number, 3 * number.view(1, 1))
    metrics = agent.update(batch)
    assert float(metrics.loss) == pytest.approx(4.5)
    assert float(metrics.grad_norm) == pytest.approx(sqrt(7))
    expected = [[[2.1]], [0.1], [[1.1], [-1.0]], [0.1, 0.0]]
    for name, values in zip(names, expected, strict=True):
        torch.testing.assert_close(parameters(agent)[name], torch.tensor(values))


def test_clipping_shortens_the_gradient_and_keeps_its_direction() -> None:
    """With a large Adam eps the first step is −lr/eps·gradient, so the gradient that Adam saw can be read off."""
    steps = {}
    for limit in (1e6, 0.01):
        agent = make(replace(SMALL, lr=1e4, adam_eps=1e4, max_grad_norm=limit))
        before = torch.cat([v.reshape(-1) for v in parameters(agent).values()])
        norm = float(agent.update(make_batch()).grad_norm)
        steps[limit] = torch.cat([v.reshape(-1) for v in parameters(agent).values()]) - before
        assert norm > 0.1  # the reported norm is that before clipping
    free, clipped = steps.values()
    assert float(free.norm()) == pytest.approx(norm, rel=1e-2)
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-2)
    assert float(F.cosine_similarity(free, clipped, dim=0)) > 0.999


def test_a_terminal_row_does_not_look_at_what_follows() -> None:
    batch = make_batch()
    other = batch._replace(next_observation=batch.next_observation.clone())
    other.next_observation[::4] += 100.0  # the terminal rows of make_batch
    a, b = make(SMALL), make(SMALL)
    assert float(a.update(batch).loss) == float(b.update(other).loss)
    other.next_observation[1] += 1.0
    assert float(make(SMALL).update(batch).loss) != float(make(SMALL).update(other).loss)


# ---- independent noise per use, in the statistics of losses


def symmetric(config: AgentConfig, rows: int) -> tuple[DQN, Batch, float]:
    """An agent with two actions of equal distribution, a batch (s' = s, R = 0, discount 1), and a value's variance."""
    agent = make(replace(with_network(config, hidden=(8,)), loss="squared", lr=1e-30), actions=2)
    state = agent.network.state_dict()
    for part in ("weight", "bias", "sigma_weight", "sigma_bias"):
        state[f"head.advantage.output.{part}"][:] = 1.0
    agent.network.load_state_dict(state)
    agent.target.load_state_dict(state)
    x = torch.ones(rows, INPUTS)
    batch = Batch(x, torch.zeros(rows, dtype=torch.int64), torch.zeros(rows), torch.ones(rows), x)
    with torch.no_grad():
        noise = agent.noise.draw(rows, generator=torch.Generator().manual_seed(9))
        return agent, batch, float(agent.network(x, noise).q_values[:, 0].var())


@pytest.mark.parametrize("double", [False, True])
def test_prediction_and_target_have_noise_of_their_own(double: bool) -> None:
    """With one network and one state, E ½(q_target − q)² is Var q for independent draws, and 0 for a common draw.

    There is one action only, so that nothing is selected.
    """
    rows = 40_000
    agent, batch, _ = symmetric(replace(SMALL, double=double), rows)
    one = make(agent.config, actions=1)
    x = batch.observation
    with torch.no_grad():
        noise = one.noise.draw(rows, generator=torch.Generator().manual_seed(9))
        variance = float(one.network(x, noise).q_values.var())
    losses = [float(one.update(batch).loss) for _ in range(4)]
    assert losses == pytest.approx([variance] * 4, rel=0.06)
    assert len(set(losses)) == 4  # redrawn after every update


def test_selection_has_noise_of_its_own() -> None:
    """Two actions differ in noise alone. The target values the selected one under another draw: there is no bias.

    With R = c the loss is ½(c² + 2·Var q) + c·bias. If the target's own draw selected, it would take the larger of
    its two values, as the agent with one network does, by design.
    """
    biases = []
    for double in (True, False):
        agent, batch, variance = symmetric(replace(SMALL, double=double), 40_000)
        c = sqrt(2 * variance)
        loss = float(agent.update(batch._replace(reward=torch.full_like(batch.reward, c))).loss)
        biases.append((loss - 2 * variance) / c / sqrt(variance))
    assert abs(biases[0]) < 0.03
    assert biases[1] > 0.2


def test_selection_does_not_share_the_predictions_noise() -> None:
    """The target values action 1 at c and action 0 at 0: E ½(c·[a' = 1] − q₀)² has no cross term beyond the mean.

    A common draw of prediction and selection makes [a' = 1] and q₀ correlated: the larger q₀, the rarer action 1.
    """
    rows, c = 40_000, 30.0
    agent, batch, variance = symmetric(SMALL, rows)
    state = {name: torch.zeros_like(value) for name, value in agent.target.state_dict().items()}
    state["head.advantage.output.bias"][1] = c
    agent.target.load_state_dict(state)
    with torch.no_grad():
        noise = agent.noise.draw(rows, generator=torch.Generator().manual_seed(9))
        mean = float(agent.network(batch.observation, noise).q_values[:, 0].mean())
    expected = 0.5 * (c**2 / 2 + variance + mean**2 - c * mean)
    assert float(agent.update(batch).loss) == pytest.approx(expected, rel=0.03)


def test_shared_noise_moves_all_rows_together() -> None:
    """With draws = 1 equal rows have equal values, so that the loss of an update is that of a single row."""
    agent, batch, variance = symmetric(with_noise(SMALL, draws=1), 64)
    losses = [float(agent.update(batch).loss) for _ in range(2000)]
    assert float(np.mean(losses)) == pytest.approx(variance, rel=0.3)
    assert float(np.std(losses)) > 0.8 * variance  # χ² of one degree of freedom, and no mean over rows


# ---- acting noise


def fingerprints(config: AgentConfig, device: torch.device | str = "cpu") -> DQN:
    """An agent with 64 actions that noise alone chooses: eight actions in a row identify a draw."""
    agent = make(replace(config, lr=1e-30), actions=64, device=device)
    state = agent.network.state_dict()
    agent.network.load_state_dict({k: v if "sigma" in k else torch.zeros_like(v) for k, v in state.items()})
    return agent


def acts(agent: DQN, begins: np.ndarray | None = None, count: int = 8) -> tuple[int, ...]:
    begins = np.zeros(count, dtype=bool) if begins is None else begins
    actions = agent.act(np.ones((count, INPUTS), dtype=np.float32), begins)
    return tuple(int(action) for action in actions)


FORMS = pytest.mark.parametrize("form", ["factorised", "independent"])
HOLDS = pytest.mark.parametrize("hold", ["step", "update", "episode"])


@FORMS
@HOLDS
def test_environments_explore_by_themselves(form: str, hold: str, device: torch.device) -> None:
    """64 environments with one observation take different actions."""
    agent = fingerprints(with_noise(SMALL, form=form, hold=hold), device)
    assert len(set(acts(agent, count=64))) > 30


@FORMS
def test_every_step_has_a_new_draw(form: str, device: torch.device) -> None:
    agent = fingerprints(with_noise(SMALL, form=form), device)
    seen = [acts(agent) for _ in range(20)]
    agent.update(make_batch(device=device))
    seen += [acts(agent) for _ in range(20)]
    assert len(set(seen)) == 40


def test_held_until_the_next_update() -> None:
    agent = fingerprints(with_noise(SMALL, hold="update"))
    seen: list[tuple[int, ...]] = []
    for step in range(10):
        agent.update(make_batch(seed=step))
        once = {acts(agent, np.full(8, begins)) for begins in (False, False, True, False)}
        assert len(once) == 1  # the begin of an episode changes nothing
        seen += once
    assert len(set(seen)) == 10


@HOLDS
def test_the_warm_up_never_acts_on_one_frozen_draw(hold: str) -> None:
    """A run that warms up by its policy explores with many noisy networks before the first update."""
    agent = fingerprints(with_noise(SMALL, hold=hold))
    begins = np.ones(8, dtype=bool)
    assert len({acts(agent, begins) for _ in range(10)}) == 10


def test_held_for_the_episode_of_each_environment() -> None:
    agent = fingerprints(with_noise(SMALL, hold="episode"))
    generator = np.random.Generator(np.random.PCG64(1))
    before, changes, begun = acts(agent, np.ones(8, dtype=bool)), 0, 0
    for step in range(100):
        begins = generator.random(8) < 0.3 if step % 2 else np.zeros(8, dtype=bool)
        if step % 5 == 0:
            agent.update(make_batch(seed=step))
        after = acts(agent, begins)
        moved = np.array(after) != np.array(before)
        assert not (moved & ~begins).any()
        changes, begun, before = changes + int(moved.sum()), begun + int(begins.sum()), after
    assert changes > 0.9 * begun > 50  # one draw in 64 gives the same action again


def test_episode_noise_may_start_in_the_middle() -> None:
    agent = fingerprints(with_noise(SMALL, hold="episode"))
    assert acts(agent) == acts(agent)  # as after a resume: no environment begins an episode
    assert len(set(acts(agent))) > 1


@HOLDS
def test_the_first_environments_act_by_the_mean_network(hold: str) -> None:
    agent = make(with_noise(SMALL, hold=hold, mean_envs=3, sigma0=5.0))
    observation = observe(8)
    with torch.no_grad():
        mean = agent.network(torch.from_numpy(observation), None).q_values.argmax(dim=1).numpy()
    different = np.zeros(8, dtype=int)
    for _ in range(50):
        different += agent.act(observation, np.ones(8, dtype=bool)) != mean
    assert (different[:3] == 0).all()
    assert (different[3:] > 0).all()


def test_a_single_environment_always_explores() -> None:
    agent = fingerprints(with_noise(SMALL, mean_envs=2))
    assert len({acts(agent, count=1) for _ in range(30)}) > 10


def test_acting_and_learning_draw_from_different_streams() -> None:
    """Acting does not change the noise of the next update, and an update does not change the noise of acting."""
    often, seldom = make(SMALL), make(SMALL)
    for _ in range(5):
        acts(often)
    assert float(often.update(make_batch()).loss) == float(seldom.update(make_batch()).loss)
    often, seldom = fingerprints(SMALL), fingerprints(SMALL)
    often.update(make_batch())
    assert acts(often) == acts(seldom)


def test_a_noisy_agent_acts_greedily_by_its_noisy_values(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, recorder = make(with_noise(SMALL, sigma0=2.0)), Recorder(monkeypatch)
    observation = observe(200)
    actions = agent.act(observation, np.zeros(200, dtype=bool))
    noise = recorder.take(1, agent.noise.size)
    assert noise is not None
    twin, net = Twin(agent, ()), {name: value.double() for name, value in parameters(agent).items()}
    for row, action in enumerate(actions):
        q_values = twin.values(net, torch.from_numpy(observation[row]).double(), noise[0, row].double())
        assert int(q_values.argmax()) == action


@pytest.mark.parametrize("acts_with", ["online", "target"])
def test_either_network_acts_with_the_weights_that_it_has(acts_with: Any, device: torch.device) -> None:
    """Under a draw the actions are those of the named network, and the other network has other ones."""
    config = replace(with_noise(SMALL, hold="episode"), lr=0.1, target_every=4, act_with=acts_with)
    agent, observation = make(config, device=device), observe(200)
    begins, ages = np.zeros(200, dtype=bool), set()
    for step in range(1, 12):
        agent.update(make_batch(seed=step, device=device))
        actions = torch.as_tensor(agent.act(observation, begins))
        noise = torch.as_tensor(agent.acting_noise.held, device=device)
        x = torch.from_numpy(observation).to(device)
        with torch.no_grad():
            online, target = (net(x, noise).q_values.argmax(dim=1).cpu() for net in (agent.network, agent.target))
        expected, other = (online, target) if acts_with == "online" else (target, online)
        assert torch.equal(actions, expected)
        ages.add(bool(torch.equal(actions, other)))
        assert torch.equal(online, target) == (step % 4 == 0)
    assert ages == {True, False}


# ---- without noise, and ε-greedy


def test_a_plain_agent_is_greedy_and_has_no_noise() -> None:
    agent = make(PLAIN)
    assert agent.noise.size == 0
    assert not any("sigma" in name for name in parameters(agent))
    observation = observe(200)
    with torch.no_grad():
        expected = agent.network(torch.from_numpy(observation), None).q_values.argmax(dim=1)
    for _ in range(2):
        assert agent.act(observation, np.zeros(200, dtype=bool)).tolist() == expected.tolist()


def test_zero_sigma_is_the_plain_agent() -> None:
    """Up to rounding, a noisy agent with σ = 0 acts as the plain one, and its μ learns as the plain parameters do."""
    noisy, plain = (
        make(with_noise(replace(SMALL, max_grad_norm=1e6), sigma0=0.0)),
        make(replace(PLAIN, max_grad_norm=1e6)),
    )
    assert same({k: v for k, v in parameters(noisy).items() if "sigma" not in k}, parameters(plain))
    a, b = noisy.update(make_batch()), plain.update(make_batch())
    assert float(a.loss) == pytest.approx(float(b.loss), rel=1e-5)
    for name, value in parameters(plain).items():
        torch.testing.assert_close(parameters(noisy)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
def test_one_coin_per_environment(epsilon: float) -> None:
    n = 40_000
    agent, observation = make(PLAIN), np.ones((n, INPUTS), dtype=np.float32)
    begins = np.zeros(n, dtype=bool)
    greedy = int(agent.act(observation, begins)[0])
    shares = np.bincount(agent.act(observation, begins, epsilon), minlength=ACTIONS) / n
    for action, share in enumerate(shares):
        expected = epsilon / ACTIONS + (1 - epsilon) * (action == greedy)
        assert abs(share - expected) <= 5 * sqrt(expected * (1 - expected) / n)


def test_coins_are_tossed_anew_at_every_step() -> None:
    agent, observation = make(PLAIN), np.ones((400, INPUTS), dtype=np.float32)
    a, b = (agent.act(observation, np.zeros(400, dtype=bool), 0.5) for _ in range(2))
    assert 0.2 < float((a != b).mean()) < 0.8


def test_epsilon_falls_to_its_end_and_stays() -> None:
    schedule = EpsilonConfig(start=1.0, end=0.1, steps=100)
    assert [schedule.at(step) for step in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    assert [EpsilonConfig().at(step) for step in (0, 1, 10)] == [0.0, 0.0, 0.0]


def test_random_actions_are_uniform() -> None:
    n = 40_000
    shares = np.bincount(make(SMALL).random_actions(n), minlength=ACTIONS) / n
    assert shares.shape == (ACTIONS,)
    assert float(np.abs(shares - 1 / ACTIONS).max()) < 5 * sqrt(0.25 * 0.75 / n)


# ---- target network and learning rate


@pytest.mark.parametrize(("tau", "every"), [(1.0, 3), (1.0, 1), (0.25, 1), (0.25, 2)])
def test_target_updates(tau: float, every: int) -> None:
    agent = make(replace(SMALL, tau=tau, target_every=every))
    assert same(target_parameters(agent), parameters(agent))
    expected = target_parameters(agent)
    for step in range(1, 8):
        agent.update(make_batch(seed=step))
        if step % every == 0:
            expected = {k: (1 - tau) * expected[k] + tau * v for k, v in parameters(agent).items()}
        for name, value in target_parameters(agent).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
            assert tau < 1.0 or torch.equal(value, expected[name])
        assert not same(target_parameters(agent), parameters(agent)) or (tau == 1.0 and step % every == 0)


def test_the_target_learns_nothing_itself() -> None:
    agent = make(SMALL)
    before = target_parameters(agent)
    agent.update(make_batch())
    assert same(target_parameters(agent), before)
    assert not same(parameters(agent), before)
    assert not any(parameter.requires_grad for parameter in agent.target.parameters())


def test_learning_rate_falls_linearly_and_is_used() -> None:
    agent = make(replace(SMALL, lr=0.1, lr_end=0.02, lr_updates=4, adam_eps=1e-12))
    rates, moves = [], []
    for _ in range(6):
        rates.append(agent.learning_rate())
        before = parameters(agent)["head.advantage.output.bias"]
        agent.update(make_batch())
        moves.append(float((parameters(agent)["head.advantage.output.bias"] - before).abs().max()))
    assert rates == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02, 0.02])
    assert moves[0] == pytest.approx(0.1, rel=1e-3)  # Adam's first step is the learning rate
    assert moves[5] < 0.04
    assert make(SMALL).learning_rate() == SMALL.lr


# ---- the parameters, their vector, and the module


def test_an_update_changes_what_the_module_says_and_no_name() -> None:
    agent = make(SMALL)
    names, x = list(agent.network.state_dict()), torch.from_numpy(observe(5))
    before = agent.network(x, None).q_values.detach().clone()
    agent.update(make_batch())
    assert not torch.equal(agent.network(x, None).q_values, before)
    assert list(agent.network.state_dict()) == names
    module = torch.cat([p.detach().reshape(-1) for p in agent.network.parameters()])
    assert torch.equal(agent.parameters, module)
    pointers = {p.untyped_storage().data_ptr() for p in agent.network.parameters()}
    assert pointers == {agent.parameters.untyped_storage().data_ptr()}


def test_every_parameter_learns() -> None:
    """Under Huber's loss and a full batch all μ and σ of weights and biases change."""
    agent = make(with_network(SMALL, dueling=True, layer_norm=True))
    before = parameters(agent)
    for step in range(5):
        agent.update(make_batch(seed=step))
    for name, value in parameters(agent).items():
        assert float((value != before[name]).float().mean()) > 0.5, name


def test_tensors_are_copies_under_the_modules_names() -> None:
    agent = make(SMALL)
    tensors = agent.tensors()
    assert same(tensors, parameters(agent))
    agent.update(make_batch())
    assert not same(tensors, parameters(agent))
    assert all(value.device.type == "cpu" and not value.requires_grad for value in tensors.values())


def test_is_finite_sees_one_bad_number() -> None:
    agent = make(SMALL)
    assert agent.is_finite()
    for bad in (float("nan"), float("inf")):
        agent = make(SMALL)
        state = agent.network.state_dict()
        state["head.advantage.output.bias"][1] = bad
        agent.network.load_state_dict(state)
        assert not agent.is_finite()


# ---- seeds, saving, looking


def live(agent: DQN, steps: int, start: int = 0, epsilon: float = 0.1) -> list[tuple[int, ...]]:
    """Acts and learns, and returns all actions. Episodes begin at various steps; every second step has an update."""
    result = []
    for step in range(start, start + steps):
        begins = np.array([(step + i) % 5 == 0 for i in range(8)])
        observation = observe(8) * (1 + step % 3)
        result.append(tuple(agent.act(observation, begins, epsilon).tolist()))
        if step % 2:
            agent.update(make_batch(seed=step, device=agent.device))
    return result


RUNS = pytest.mark.parametrize(
    "config",
    [
        SMALL,
        PLAIN,
        with_noise(SMALL, hold="update"),
        with_noise(SMALL, hold="episode"),
        replace(with_network(with_noise(SMALL, draws=2), dueling=True), target_every=3, tau=0.5),
        replace(with_noise(SMALL, form="independent"), lr_end=1e-4, lr_updates=20),
        replace(SMALL, act_with="target", target_every=3),
    ],
    ids=["step", "plain", "update", "episode", "dueling", "independent", "by the target network"],
)


@RUNS
def test_same_seed_same_run_bit_for_bit(config: AgentConfig, device: torch.device) -> None:
    a, b = make(config, 5, device=device), make(config, 5, device=device)
    assert live(a, 12) == live(b, 12)
    assert same(parameters(a), parameters(b))
    assert same(target_parameters(a), target_parameters(b))


def test_other_seeds_other_runs() -> None:
    firsts = [parameters(make(SMALL, seed)) for seed in range(4)]
    assert not any(same(a, b) for a, b in combinations(firsts, 2))
    agent = fingerprints(SMALL)
    other = make_agent(copy.deepcopy(agent.network), agent.config, agent.actions, 17)
    assert acts(agent) != acts(other)  # the parameters are equal, and the seeds of the agents differ


@RUNS
@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_loaded_agent_goes_on_bit_for_bit(config: AgentConfig, steps: int, device: torch.device) -> None:
    """An agent of another seed that has already learned takes over the whole state, including noise that is held."""
    agent, other = make(config, 1, device=device), make(config, 2, device=device)
    live(agent, steps)
    live(other, 5)
    other.load_state(copy.deepcopy(agent.state()))
    assert live(agent, 9, start=steps) == live(other, 9, start=steps)
    assert same(parameters(agent), parameters(other))
    assert same(target_parameters(agent), target_parameters(other))
    assert agent.updates == other.updates


def test_a_state_goes_from_the_cpu_to_any_device(device: torch.device) -> None:
    """A checkpoint has all its tensors on the CPU."""
    agent, other = make(SMALL, 1), make(SMALL, 1, device=device)
    live(agent, 6)
    other.load_state(copy.deepcopy(agent.state()))
    assert same(parameters(agent), parameters(other))
    live(other, 4)
    assert other.is_finite()


class Centred(nn.Module):
    """An encoder of the user's own with a buffer beside its parameters: it subtracts a running mean."""

    features = INPUTS
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(INPUTS))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.mean(dim=0), 0.1)
        return x - self.mean


class Frozen(nn.Module):
    """An encoder with a layer that does not learn, and with a layer that it does not use."""

    features = 5

    def __init__(self) -> None:
        super().__init__()
        self.fixed, self.unused = nn.Linear(INPUTS, 5).requires_grad_(False), nn.Linear(INPUTS, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fixed(x))


@pytest.fixture
def own_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENCODERS, "_factories", dict(ENCODERS._factories))
    register_encoder("centred", lambda parts: encoders.TrunkEncoder(Centred(), parts))
    register_encoder("frozen", lambda parts: encoders.TrunkEncoder(Frozen(), parts))


@pytest.mark.usefixtures("own_encoders")
def test_what_an_encoder_keeps_is_saved_and_reaches_the_target() -> None:
    config = replace(with_network(SMALL, encoder="centred"), target_every=4)
    agent, other = make(config, 1), make(config, 2)
    live(agent, 6)  # three updates, before the target network is updated
    other.load_state(copy.deepcopy(agent.state()))
    means = [net.get_buffer("encoder.trunk.mean") for net in (agent.network, agent.target)]
    assert not torch.equal(*means)
    assert live(agent, 2, start=6) == live(other, 2, start=6)  # the fourth update copies the network to the target
    assert torch.equal(*means)
    assert float(means[0].norm()) > 0.0
    live(agent, 9, start=8)
    live(other, 9, start=8)
    assert same(parameters(agent), parameters(other))
    assert same(target_parameters(agent), target_parameters(other))


@pytest.mark.usefixtures("own_encoders")
@pytest.mark.parametrize("kind", [AutogradGradient, CompiledGradient])
def test_what_an_encoder_fixes_or_leaves_out_stays(kind: type) -> None:
    agent = make(with_network(SMALL, encoder="frozen"))
    agent._gradient = kind(agent.network, agent.target, agent.parameters, agent.config)
    if isinstance(agent._gradient, CompiledGradient):
        agent._gradient._compiled = agent._gradient.pure  # type: ignore[assignment]
    before = parameters(agent)
    live(agent, 6)
    changed = {name for name, value in parameters(agent).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "trunk" not in name and "_scale" not in name}


def test_loading_is_not_sharing() -> None:
    agent, other = make(SMALL, 1), make(SMALL, 2)
    live(agent, 4)
    other.load_state(agent.state())
    before = parameters(agent)
    live(other, 4)
    assert same(parameters(agent), before)
    twin = make(SMALL, 1)
    live(twin, 4)
    assert live(agent, 4, start=4) == live(twin, 4, start=4)
    assert same(parameters(agent), parameters(twin))


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters"):
        make(SMALL).load_state(make(with_network(SMALL, hidden=(6, 6))).state())


@pytest.mark.usefixtures("own_encoders")
@pytest.mark.parametrize(
    "config", [SMALL, PLAIN, with_network(SMALL, encoder="centred")], ids=["noisy", "plain", "with a running mean"]
)
def test_looking_changes_nothing(config: AgentConfig) -> None:
    looked, other = make(config), make(config)
    for start in range(0, 9, 3):
        looked.diagnostics(make_batch(32), torch.Generator().manual_seed(start))
        assert live(looked, 3, start) == live(other, 3, start)
    assert same(parameters(looked), parameters(other))


def test_diagnostics_say_what_they_are_named() -> None:
    agent, batch = make(SMALL), make_batch(200)
    seen = {name: float(value) for name, value in agent.diagnostics(batch, torch.Generator().manual_seed(0)).items()}
    with torch.no_grad():
        q_values = agent.network(batch.observation, None).q_values
    assert seen["q/mean"] == pytest.approx(float(q_values.mean()), abs=1e-6)
    assert seen["q/max"] == pytest.approx(float(q_values.max()), abs=1e-6)
    assert 0.0 < seen["noise/action_change"] < 1.0
    assert seen["noise/q_std"] > 0.0
    names = {f"sigma/{name}" for name in agent.network.noisy_layers()}
    assert {name for name in seen if name.startswith("sigma/")} == names
    assert [seen[name] for name in names] == pytest.approx([0.5] * len(names))
    silent = make(with_noise(SMALL, sigma0=0.0)).diagnostics(batch, torch.Generator().manual_seed(0))
    assert float(silent["noise/action_change"]) == 0.0
    assert set(make(PLAIN).diagnostics(batch, torch.Generator())) == {"q/mean", "q/max"}


def test_diagnostics_draw_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent noise takes one number for each weight, and networks for images have millions of weights."""
    agent, batch = make(with_noise(SMALL, form="independent")), make_batch(200)
    monkeypatch.setattr("agent.learning.diagnostics.MOST_NOISE", 7 * agent.noise.size + 1)
    seen = agent.diagnostics(batch, torch.Generator().manual_seed(3))
    with torch.no_grad():
        mean = agent.network(batch.observation, None).q_values
        noise = agent.noise.draw(7, generator=torch.Generator().manual_seed(3))
        noisy = agent.network(batch.observation[:7], noise).q_values
    assert float(seen["q/mean"]) == pytest.approx(float(mean.mean()), abs=1e-6)
    assert float(seen["noise/q_std"]) == pytest.approx(float((noisy - mean[:7]).std()), abs=1e-6)
    monkeypatch.setattr("agent.learning.diagnostics.MOST_NOISE", 1)  # at least one row
    assert "noise/q_std" in agent.diagnostics(batch, torch.Generator())


def test_metrics_are_detached_numbers_of_their_own() -> None:
    agent = make(SMALL)
    first = agent.update(make_batch())
    assert first.priority is None
    values = [float(value) for value in first[:2]]
    second = agent.update(make_batch(seed=1))
    assert [float(value) for value in first[:2]] == values  # the second update has not overwritten them
    assert not any(torch.as_tensor(value).requires_grad for value in (*first[:2], *second[:2]))
    assert all(np.shape(value) == () for value in first[:2])


@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["noisy", "plain"])
def test_no_global_random_state_is_touched(config: AgentConfig) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    agent = make(config)
    live(agent, 6, epsilon=0.5)
    agent.random_actions(5)
    agent.diagnostics(make_batch(), torch.Generator())
    agent.load_state(copy.deepcopy(agent.state()))
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, numpy_after, strict=True))


# ---- learning


class Corridor:
    """E corridors of six places. At each, one action walks on; the other ends the episode with a small reward.

    Walking to the end earns ten times as much. Which action walks on differs from place to place, so that no habit
    gets far: a random policy arrives once in 64 episodes, and one that has learned of the small reward never. The
    step after an ending resets, as Gymnasium's NEXT_STEP does.
    """

    ONWARD = np.array([0, 1, 1, 0, 1, 0])
    LENGTH = len(ONWARD)

    def __init__(self, copies: int) -> None:
        self.place, self.over = np.zeros(copies, dtype=np.int64), np.zeros(copies, dtype=bool)

    def observe(self) -> np.ndarray:
        return np.eye(self.LENGTH, dtype=np.float32)[self.place]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and whether the episodes ended, each [E]."""
        onward = action == self.ONWARD[self.place]
        arrived = onward & (self.place == self.LENGTH - 1)
        reward = np.where(self.over, 0.0, np.where(arrived, 1.0, np.where(onward, 0.0, 0.1)))
        ended = (arrived | ~onward) & ~self.over
        self.place = np.where(self.over, 0, np.where(ended, self.place, self.place + 1))
        self.over = ended
        return reward, ended


def walks_to_the_end(config: AgentConfig, seed: int, copies: int = 32) -> bool:
    """Whether the mean network walks the whole corridor after 700 vector steps and 345 updates."""
    envs, agent = Corridor(copies), make(config, seed, inputs=Corridor.LENGTH, actions=2)
    replay, sampling = Replay(4_000, copies, Corridor.LENGTH, n_step=3, gamma=0.99), torch_generator(seed, "replay")
    replay.begin(envs.observe())
    begins, never = np.ones(copies, dtype=bool), np.zeros(copies, dtype=bool)
    for step in range(700):
        action = agent.act(envs.observe(), begins)
        begins = envs.over
        reward, ended = envs.step(action)
        replay.add(action, reward, ended, never, envs.observe())
        if step > 8 and step % 2:
            agent.update(replay.sample(config.batch_size, sampling))
    with torch.no_grad():
        q_values = agent.network(torch.eye(Corridor.LENGTH), None).q_values
    return bool((q_values.argmax(dim=1).numpy() == Corridor.ONWARD).all())


def test_learns_by_noise_alone_and_not_without_it() -> None:
    """Without ε and random warm-up, the runs differ in noise alone. All 20 seeds reach the end with it, 1 without."""
    config = replace(
        with_network(SMALL, hidden=(32, 32)), batch_size=32, learning_starts=32, lr=2e-3, adam_eps=1e-8, target_every=25
    )
    seeds = range(6)
    assert sum(walks_to_the_end(config, seed) for seed in seeds) >= 5
    assert sum(walks_to_the_end(with_noise(config, enabled=False), seed) for seed in seeds) <= 1
    assert sum(walks_to_the_end(with_noise(config, sigma0=0.0), seed) for seed in seeds) <= 1


def test_some_rows_teach_the_mean_network() -> None:
    """If the mean network learns from all rows, as a plain network with a noisy target does, σ gets no gradient."""
    taught, noisy = (make(with_noise(SMALL, mean_rows=share)) for share in (1.0, 0.0))
    before = {name: value.clone() for name, value in taught.network.state_dict().items()}
    for agent in (taught, noisy):
        agent.update(make_batch())
    moved = {name: not torch.equal(value, before[name]) for name, value in taught.network.state_dict().items()}
    assert not any(changed for name, changed in moved.items() if "sigma" in name)
    assert all(changed for name, changed in moved.items() if "sigma" not in name)
    assert any(not torch.equal(v, before[k]) for k, v in noisy.network.state_dict().items() if "sigma" in k)


def test_targets_are_clipped_to_what_can_be_reached() -> None:
    """A target beyond the range has the loss of a target at the end of the range."""
    clipped, free = (make(replace(SMALL, target_range=bounds)) for bounds in ((-0.5, 0.5), None))
    batch = make_batch()
    far = batch._replace(reward=torch.full_like(batch.reward, 9.0), discount=torch.zeros_like(batch.discount))
    end = far._replace(reward=torch.full_like(batch.reward, 0.5))
    expected = float(free.update(end).loss)
    assert float(clipped.update(far).loss) == expected
    assert float(make(SMALL).update(far).loss) > expected + 5.0


# ---- every head, target, form of noise and weight


FAMILY: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"categorical": CategoricalConfig(atoms=5, v_min=-3.0, v_max=3.0)},
    "quantile": {"quantile": QuantileConfig(count=4)},
    "implicit_quantile": {"implicit_quantile": ImplicitQuantileConfig(3, 2, 4, 5)},
}
SOFT = {"double": False, "munchausen": MunchausenConfig(enabled=True)}
TARGETS: dict[str, dict[str, Any]] = {"max": {"double": False}, "double": {"double": True}, "munchausen": SOFT}
NOISES: dict[str, dict[str, Any]] = {
    "plain": {"enabled": False},
    "shared": {"draws": 1},
    "groups": {"draws": 2, "mean_rows": 0.5},
    "rows": {"draws": 0},
    "independent, groups": {"draws": 4, "form": "independent"},
    "independent, rows": {"draws": 0, "form": "independent"},
}
family = pytest.mark.parametrize("head", FAMILY)


def member(head: str, target: str = "max", **noise: Any) -> AgentConfig:
    return with_noise(replace(SMALL, head=head, **FAMILY[head], **TARGETS[target]), **noise)


@family
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_every_combination_learns(
    device: torch.device, head: str, target: str, noise: str, dueling: bool, weighted: bool
) -> None:
    """After one update all numbers are finite and all parameters have changed; with weights there are priorities."""
    agent = make(with_network(member(head, target, **NOISES[noise]), dueling=dueling), device=device)
    before = parameters(agent)
    weight = torch.linspace(0.1, 1.0, ROWS, device=device) if weighted else None
    metrics = agent.update(make_batch(device=device), weight)
    assert agent.is_finite()
    assert np.isfinite(float(metrics.loss))
    assert float(metrics.grad_norm) > 0
    moved = {name for name, value in parameters(agent).items() if not torch.equal(value, before[name])}
    assert moved == set(before)
    if weighted:
        priority = torch.as_tensor(metrics.priority)
        assert priority.shape == (ROWS,)
        assert not priority.requires_grad
        assert bool((priority >= -1e-6).all())
        assert len(set(priority.tolist())) == ROWS
    else:
        assert metrics.priority is None
    seen = agent.diagnostics(make_batch(device=device), torch.Generator(device).manual_seed(0))
    assert all(bool(torch.isfinite(value)) for value in seen.values())
    assert {name for name in seen if name.startswith("sigma/")} == {f"sigma/{n}" for n in agent.network.noisy_layers()}


@family
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("count", [2, ROWS])
def test_grouped_draws_are_the_rows_draws(head: str, target: str, count: int) -> None:
    """A batch under k draws has the losses and priorities of its groups, each of which has its own draw."""
    agent = make(member(head, target, form="independent"))
    gradient = AutogradGradient(agent.network, agent.target, agent.parameters, agent.config)
    batch, g = make_batch(), torch.Generator().manual_seed(5)
    draws = torch.randn(3 if target == "double" else 2, count, agent.noise.size, generator=g)
    levels = Levels(torch.rand(ROWS, 3, generator=g), torch.rand(ROWS, 2, generator=g))
    weight = torch.rand(ROWS, generator=g)
    levels_of = lambda part: Levels(*(tau[part] for tau in levels)) if head == "implicit_quantile" else Levels()  # noqa: E731
    whole = gradient(batch, update_noise(draws), levels_of(slice(None)), weight)
    size, losses, priorities = ROWS // count, [], []
    for group in range(count):
        part = slice(group * size, (group + 1) * size)
        rows = Batch(*(field[part] for field in batch))
        one = gradient(rows, update_noise(draws[:, group : group + 1]), levels_of(part), weight[part])
        losses.append(float(one.loss))
        priorities += one.priority.tolist()
    assert float(whole.loss) == pytest.approx(float(np.mean(losses)), rel=1e-4)
    assert whole.priority.tolist() == pytest.approx(priorities, rel=1e-4, abs=1e-5)


def test_munchausen_targets_against_a_twin() -> None:
    """Vieillard et al. 2020, eq. 1, row by row in plain numbers; both networks of the target come from one draw."""
    agent = make(member("expected", "munchausen"))
    gradient = AutogradGradient(agent.network, agent.target, agent.parameters, agent.config)
    batch, draws = make_batch(), torch.randn(2, 1, agent.noise.size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter *= 0.1  # values so close that no action's log-probability is cut
        here, after = (agent.target(x, draws[1]).q_values.double() for x in (batch.observation, batch.next_observation))
        value = agent.network(batch.observation, draws[0]).q_values
    tau, alpha, errors, cut = 0.03, 0.9, [], 0
    for row in range(ROWS):
        action = int(batch.action[row])
        log_here = tau * torch.log(torch.softmax(here[row] / tau, 0))
        policy = torch.softmax(after[row] / tau, 0)
        soft = sum(float(p) * (float(q) - tau * float(p.log())) for p, q in zip(policy, after[row], strict=True))
        bonus = alpha * min(max(float(log_here[action]), -1.0), 0.0)
        cut += float(log_here[action]) < -1.0
        target = float(batch.reward[row]) + bonus + float(batch.discount[row]) * soft
        errors.append(abs(float(value[row, action]) - target))
    priority = gradient(batch, update_noise(draws), weight=torch.ones(ROWS)).priority
    assert priority.tolist() == pytest.approx(errors, rel=1e-4)


def test_levels_are_drawn_from_a_stream_of_their_own_and_saved() -> None:
    """Two agents of one seed draw the same; one restored in the middle goes on; each update draws anew."""
    drawn: list[Any] = []
    one, other = make(member("implicit_quantile")), make(member("implicit_quantile"))
    for agent in (one, other):
        drawn.append([agent._levels(ROWS) for _ in range(3)])
    assert all(torch.equal(a.prediction, b.prediction) for a, b in zip(*drawn, strict=True))
    assert not torch.equal(drawn[0][0].prediction, drawn[0][1].prediction)
    assert (drawn[0][0].prediction.shape, drawn[0][0].target.shape) == ((ROWS, 3), (ROWS, 2))
    third = make(member("implicit_quantile"), seed=9)
    third.load_state(copy.deepcopy(one.state()))
    for _ in range(3):
        metrics = [agent.update(make_batch(), torch.ones(ROWS)) for agent in (one, third)]
        assert torch.equal(metrics[0].priority, metrics[1].priority)
    assert same(parameters(one), parameters(third))
    assert make(member("quantile"))._levels(ROWS) == Levels()


@family
def test_acting_is_greedy_and_a_function_of_the_observation(head: str) -> None:
    agent = make(member(head, enabled=False))
    before = copy.deepcopy(agent.state()["quantiles_generator"])
    actions = [agent.act(observe(64), np.zeros(64, dtype=bool)) for _ in range(2)]
    expected = agent.network(torch.from_numpy(observe(64)), None).q_values.argmax(dim=1)
    assert actions[0].tolist() == actions[1].tolist() == expected.tolist()
    assert torch.equal(before, agent.state()["quantiles_generator"])


def test_the_optimiser_is_made_on_a_device_without_numpy() -> None:
    """torch's meta device refuses `numpy()` as CUDA does."""
    parameters = torch.zeros(3, device="meta")
    parameters.grad = torch.zeros(3, device="meta")
    adam = Adam(parameters, 1e-8)
    assert {value.device.type for value in adam.state.values()} == {"meta"}
    assert adam._steps is adam.state["step"]


def test_noise_that_is_held_is_resumed_on_another_device() -> None:
    noise = ActingNoise(NoiseModel(3, True), "episode", 0, np.random.SeedSequence(1), torch.device("cpu"))
    noise(np.ones(2, dtype=bool), 0)
    held = torch.as_tensor(noise.held)
    elsewhere = ActingNoise(NoiseModel(3, True), "episode", 0, np.random.SeedSequence(1), torch.device("cpu"))
    elsewhere._place = Place("meta")  # a device without generators
    elsewhere.load_state(noise.state() | {"held": held})
    assert isinstance(elsewhere.held, torch.Tensor)
    assert elsewhere.held.device.type == "meta"


def test_the_optimiser_counts_its_steps_in_its_state() -> None:
    parameters = torch.zeros(3)
    parameters.grad = torch.ones(3)
    adam = Adam(parameters, 1e-8)
    adam.set_rate(0.1)
    adam.step()
    adam.step()
    assert adam.state["step"] == 2.0
