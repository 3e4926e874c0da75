"""Tianshou's DQN and Rainbow, as a line of JSON: python benchmarks/peers/run_tianshou.py --workload a --variant noisy.

At its best: Collector, buffer and algorithm without the trainer around them (its progress bar and statistics cost time
of their own), fused Adam, environments without Gymnasium's checks. `noisy` is its DQN with its noisy layers, drawn anew
at each update as its Rainbow does; its layers are silent in evaluation mode, so it collects in training mode.
"""

import harness
import numpy as np
import torch
from harness import make_env, optimiser_steps
from networks import ATOMS, QNetwork, RainbowNetwork
from tianshou.algorithm.modelfree.c51 import C51Policy
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.rainbow import RainbowDQN
from tianshou.algorithm.optim import OptimizerFactory
from tianshou.data import Collector, PrioritizedVectorReplayBuffer, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.discrete import NoisyLinear
from tianshou.utils.torch_utils import policy_within_training_step
from torch import nn
from workloads import NOISY, PLAIN, RAINBOW, Workload


class FusedAdam(OptimizerFactory):
    def _create_optimizer_for_params(self, params) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=1e-3, fused=True)


class Model(nn.Module):
    """A network in the form that Tianshou calls: arrays in, (values, state) out."""

    def __init__(self, network: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.network, self.softmax = network, softmax

    def forward(self, obs, state=None, info=None):
        values = self.network(torch.as_tensor(obs))
        return (values.softmax(-1) if self.softmax else values), state


class NoisyDQN(DQN):
    """Tianshou's DQN with new noise at each update, as in its Rainbow, whose target network is noisy too."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.model_old = self.model_old.module

    def _update_with_batch(self, batch):
        RainbowDQN._sample_noise(self.policy.model)
        RainbowDQN._sample_noise(self.model_old)
        return super()._update_with_batch(batch)


class Tianshou:
    def __init__(self, workload: Workload, variant: str) -> None:
        np.random.seed(0)  # noqa: NPY002 - its collector and buffer draw from there
        torch.manual_seed(0)
        vector_steps, self.gradient_steps = workload.cycle
        self.round, self.batch = vector_steps * workload.num_envs, workload.batch
        envs = DummyVectorEnv([lambda: make_env(workload)] * workload.num_envs)
        one = make_env(workload)  # the vector class has the spaces of the innermost environment, below the wrappers
        self.algorithm = algorithm(workload, variant, one.observation_space, one.action_space)
        one.close()
        sizes = {"total_size": workload.replay, "buffer_num": workload.num_envs}
        if workload.trunk == "nature":
            sizes["ignore_obs_next"] = True  # the buffer then keeps one copy of each stack
        if variant == RAINBOW:
            self.buffer = PrioritizedVectorReplayBuffer(**sizes, alpha=0.5, beta=0.4)
        else:
            self.buffer = VectorReplayBuffer(**sizes)
        self.collector = Collector(
            self.algorithm, envs, self.buffer, exploration_noise=True, raise_on_nan_in_buffer=False
        )
        self.collector.reset()
        self.algorithm.train()
        # The random steps are whole rounds, as the runner counts them, and no update comes before their end.
        self.collector.collect(n_step=-(-workload.starts // self.round) * self.round, random=True)

    def advance(self, steps: int) -> None:
        with policy_within_training_step(self.algorithm.policy):
            for _ in range(-(-steps // self.round)):
                self.collector.collect(n_step=self.round)
                for _ in range(self.gradient_steps):
                    self.algorithm.update(buffer=self.buffer, sample_size=self.batch)

    def updates(self) -> int:
        return optimiser_steps(self.algorithm.optim._optim)


def algorithm(workload: Workload, variant: str, observation_space, action_space):
    shape, actions = observation_space.shape, int(action_space.n)
    linear = nn.Linear if variant == PLAIN else NoisyLinear
    common_options = {"optim": FusedAdam(), "gamma": 0.99, "target_update_freq": workload.target_updates}
    if variant == RAINBOW:
        model = Model(RainbowNetwork(workload, shape, actions, linear), softmax=True)
        policy = C51Policy(model=model, action_space=action_space, num_atoms=ATOMS)
        return RainbowDQN(policy=policy, n_step_return_horizon=3, **common_options)
    model = Model(QNetwork(workload, shape, actions, linear), softmax=False)
    epsilon = 0.1 if variant == PLAIN else 0.0
    policy = DiscreteQLearningPolicy(model=model, action_space=action_space, eps_training=epsilon)
    kind = NoisyDQN if variant == NOISY else DQN
    return kind(policy=policy, is_double=False, huber_loss_delta=1.0, **common_options)


if __name__ == "__main__":
    harness.run("tianshou", "tianshou", Tianshou)
