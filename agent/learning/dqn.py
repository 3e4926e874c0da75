"""The agent: it acts, updates itself, and saves its state for checkpoints.

DQN (Mnih et al. 2015) with double Q-learning (van Hasselt et al. 2016) and noisy networks (Fortunato et al. 2018).
Plain DQN is the same code with plain linear layers and an ε-greedy schedule; C51, QR-DQN and IQN are other heads.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from agent.common.arrays import Array, Place, as_tensor
from agent.common.schedule import linear
from agent.common.seeding import numpy_generator, restore, seed_sequence, state_of, torch_generator
from agent.common.state import State
from agent.config.algorithm import AgentConfig
from agent.learning.adam import Adam
from agent.learning.diagnostics import diagnostics
from agent.learning.gradient import AutogradGradient, MakeGradient, UpdateMetrics
from agent.learning.loss import NO_LEVELS, Levels, UpdateNoise
from agent.learning.policy import MakePolicy, TorchPolicy
from agent.networks.build import noise_model, scaled_numbers
from agent.networks.q_network import QNetwork, flatten_parameters, persistent_buffers
from agent.noise.acting_noise import ActingNoise
from agent.noise.acting_scale import ActingScale
from agent.noise.streams import noise_stream
from agent.replay.batch import Batch


class DQN:
    """A value-based agent that explores with the noise of its own network.

    With `agent.noise.learning=separate` the mean network learns without noise, and σ from noisy predictions. With
    `joint` an update uses three independent draws, for prediction, target and (with double Q-learning) action
    selection; with `agent.noise.share` they are one draw. Acting uses a new draw at each step, with one row for each
    environment; `agent.noise.hold` holds a draw for longer. `agent.act_with` selects the network that acts.

    Args:
        network: the action values, on the CPU; the agent owns it and moves it to `device`.
        config: the algorithm.
        actions: the number of actions.
        seed: the seed of the agent's random streams: noise for acting and updates, exploration, quantile levels.
        device: the device on which the agent acts and learns.
        policy: makes the greedy policy of the network.
        gradient: makes the function that computes the gradient.
        least_exploring: how many environments never act with the mean network; 0 for an actor, since others explore.
    """

    def __init__(
        self,
        network: QNetwork,
        config: AgentConfig,
        actions: int,
        seed: int,
        device: torch.device | str = "cpu",
        policy: MakePolicy = TorchPolicy,
        gradient: MakeGradient = AutogradGradient,
        least_exploring: int = 1,
    ) -> None:
        self.config, self.actions, self.device = config, actions, torch.device(device)
        self.network = network.to(self.device)
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.noise = noise_model(config, network)
        self.parameters = flatten_parameters(self.network)
        self._target_parameters = flatten_parameters(self.target)
        self._buffers = [persistent_buffers(net) for net in (self.network, self.target)]
        self._policy = policy(self.target if config.act_with == "target" else self.network)
        self._gradient = gradient(self.network, self.target, self.parameters, config)
        self._adam = Adam(self.parameters, config.adam_eps)
        hold, mean_envs, acting = config.noise.hold, config.noise.acting_mean_envs, seed_sequence(seed, "acting")
        self.acting_noise = ActingNoise(self.noise, hold, mean_envs, acting, self.device, least_exploring)
        self.acting_scale = ActingScale(scaled_numbers(config, network), Place(self.device))
        self._update_stream = noise_stream(self.noise, seed_sequence(seed, "update"), self.device)
        self._explore_generator = numpy_generator(seed, "exploration")
        self._quantiles_generator = torch_generator(seed, "quantiles", device=self.device)
        self.updates = 0

    # ---- acting

    def act(
        self,
        observation: np.ndarray,
        begins: np.ndarray,
        epsilon: float = 0.0,
        change: float | None = None,
        resets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Chooses actions [E] for observations [E, *shape], in the dtype of the replay.

        Args:
            observation: one row per environment; each environment has its own draw of noise.
            begins: bool [E], which environments begin an episode with this observation.
            epsilon: the probability of a uniform action, one coin per environment.
            change: the fraction of greedy actions that the noise shall change; None leaves its scale as it is learned.
            resets: bool [E], which environments only reset in this step and ignore their action; None: none.
        """
        noise = self.acting_noise(begins, self.updates)
        if noise is None or change is None:
            action = self._policy(observation, noise)
        else:
            action = self._act_scaled(observation, noise, change, resets)
        if epsilon > 0.0:
            coins = self._explore_generator.random(len(action)) < epsilon
            action = np.where(coins, self.random_actions(len(action), observation), action)
        return action

    def _act_scaled(
        self, observation: np.ndarray, noise: Array, change: float, resets: np.ndarray | None
    ) -> np.ndarray:
        """Actions [E] with scaled noise. The environments that explore, and do not only reset, adapt the scale."""
        scaled = self.acting_scale(noise)
        action = self._policy(observation, scaled)
        if self.acting_scale.is_due() and (explores := self.acting_noise.exploring(len(action), resets)).any():
            mean = self._policy(observation, scaled * 0.0)  # zeros, not None: a CUDA graph has one form of arguments
            self.acting_scale.adapt(float((action != mean)[explores].mean()), change)
        return action

    def random_actions(self, count: int, observation: np.ndarray | None = None) -> np.ndarray:
        """Uniform actions [count]; with masks, among those that the observations [count, *shape] allow."""
        if (masking := self.network.masking) is not None and observation is not None:
            allowed = masking.allowed(observation)
            rank = self._explore_generator.integers(allowed.sum(axis=1))
            chosen: np.ndarray = (allowed.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
            return chosen
        return self._explore_generator.integers(self.actions, size=count)

    # ---- learning

    def update(self, batch: Batch[Array], weight: Array | None = None) -> UpdateMetrics:
        """Makes one gradient step on a batch, and updates the target network every `agent.target_every` updates.

        Args:
            batch: B transitions.
            weight: [B], the weight of each row's loss in the mean; with weights the metrics hold priorities.
        """
        self.before_update()
        metrics = self.learn(batch, weight)
        self.after_update()
        return metrics

    def before_update(self) -> None:
        """Sets the learning rate: the part of an update that the host computes before `learn`."""
        self._adam.set_rate(self.learning_rate())

    def learn(self, batch: Batch[Array], weight: Array | None = None) -> UpdateMetrics:
        """The part of an update that the device computes, from the draws to the optimiser. A CUDA graph can hold it."""
        rows = len(batch.action)
        metrics = self._gradient(batch, self.update_noise(rows), self._levels(rows), weight)
        self._adam.step()
        return metrics

    def update_noise(self, rows: int) -> UpdateNoise[Array]:
        """Draws the noise for one update on a batch of `rows` rows; `agent.noise` has the options."""
        noise, uses = self.config.noise, 3 if self.config.double else 2
        if noise.learning == "separate":
            learning = rows - noise.count_mean_rows(rows)
            return UpdateNoise(sigma=self._update_stream.draw(noise.draws or learning) if learning else None)
        groups = noise.draws or rows
        repeat = (noise.repeat,) if noise.repeat > 1 else ()
        draws = self._update_stream.draw(1 if noise.share else uses, groups, *repeat)
        if draws is None:
            return UpdateNoise()
        if mean_rows := noise.count_mean_rows(groups):
            draws[0, :mean_rows] = 0.0  # these rows train the mean network
        return UpdateNoise(*(uses * [draws[0]] if noise.share else draws))

    def after_update(self) -> None:
        """Counts the update and, when it is due, moves the target network towards the online network."""
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            with torch.no_grad():
                self._target_parameters.lerp_(self.parameters, self.config.tau)  # τ = 1: a copy
                for name, value in self._buffers[1].items():  # the buffers of an encoder
                    value.copy_(self._buffers[0][name])

    def generators(self) -> list[torch.Generator]:
        """The generators on the device from which `learn` draws."""
        return [*self._update_stream.generators(), self._quantiles_generator]

    def _levels(self, rows: int) -> Levels:
        """Draws levels τ ~ U(0, 1) for prediction and target of each row, if the head has implicit quantiles."""
        if (counts := self.network.head.level_counts) is None:
            return NO_LEVELS
        size, generator = (rows, sum(counts)), self._quantiles_generator
        drawn = torch.rand(size, generator=generator, device=self.device, dtype=torch.float32)
        return Levels(drawn[:, : counts[0]], drawn[:, counts[0] :])

    def learning_rate(self) -> float:
        """The learning rate of this update: constant, or linear from lr to lr_end over lr_updates."""
        config = self.config
        if config.lr_end is None:
            return config.lr
        return linear(config.lr, config.lr_end, self.updates, config.lr_updates)

    def is_finite(self) -> bool:
        """Whether every parameter and buffer is finite. Waits for the device."""
        return all(bool(torch.isfinite(values).all()) for values in (self.parameters, *self._buffers[0].values()))

    def diagnostics(self, batch: Batch[Array], generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars that describe the agent on a batch; see agent/learning/diagnostics.py."""
        return diagnostics(self.network, self.noise, as_tensor(batch.observation, self.device), generator)

    # ---- saving

    def state(self) -> dict[str, object]:
        """The state that a checkpoint holds, as tensors and plain values."""
        return {
            "parameters": self.parameters,
            "target_parameters": self._target_parameters,
            "buffers": self._buffers,
            "adam": dict(self._adam.state),
            "updates": self.updates,
            "acting": self.acting_noise.state(),
            "acting_scale": self.acting_scale.state(),
            "update": self._update_stream.state(),
            "explore_generator": state_of(self._explore_generator),
            "quantiles_generator": state_of(self._quantiles_generator),
        }

    def load_state(self, state: State) -> None:
        """Restores `state`, which may come from another device.

        Raises:
            ValueError: if it belongs to a network of another size.
        """
        if state["parameters"].shape != self.parameters.shape:
            raise ValueError(f"{state['parameters'].numel()} parameters, expected {self.parameters.numel()}")
        with torch.no_grad():
            self.parameters.copy_(state["parameters"])
            self._target_parameters.copy_(state["target_parameters"])
            for name, value in self._adam.state.items():
                value.copy_(state["adam"][name])
            for ours, given in zip(self._buffers, state["buffers"], strict=True):
                for name, value in ours.items():
                    value.copy_(given[name])
        self.updates = state["updates"]
        self.acting_noise.load_state(state["acting"])
        if "acting_scale" in state:  # until 0.1 nothing was scaled
            self.acting_scale.load_state(state["acting_scale"])
        self._update_stream.load_state(state["update"])
        restore(self._explore_generator, state["explore_generator"])
        restore(self._quantiles_generator, state["quantiles_generator"])

    def tensors(self) -> dict[str, Tensor]:
        """The network's parameters and buffers by name, as float32 copies on the CPU, for a saved agent."""
        tensors = self.network.state_dict().items()
        return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in tensors}
