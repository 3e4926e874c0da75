"""SBX's DQN (Stable-Baselines3 on JAX), as a line of JSON: python benchmarks/peers/run_sbx.py --workload a.

At its best: environments without its Monitor and without Gymnasium's checks, no logging, and all updates of a round in
one compiled loop, as it makes them by itself. Its own policy has hidden layers of one width and no small convolution;
the network below has those of the workload. It has no noisy layers and no Rainbow. XLA's threads are its own: the
process is kept on as many processors as it may have threads.
"""

import os

import harness

if hasattr(os, "sched_setaffinity"):  # before JAX starts its threads, which inherit it
    count = int(os.environ.get("OMP_NUM_THREADS", "1"))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])

import flax.linen as nn
import jax
import jax.numpy as jnp
from sbx import DQN
from sbx.common.type_aliases import RLTrainState
from sbx.dqn.policies import DQNPolicy
from stable import Stable
from workloads import Workload

#: Features, width of the square kernel, and stride of each convolution.
CONVOLUTIONS = {"none": (), "minatar": ((16, 3, 1),), "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1))}


class Network(nn.Module):
    """Convolutions on [B, channels, height, width], linear layers, ReLU."""

    actions: int
    hidden: tuple[int, ...]
    trunk: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32) / (255.0 if self.trunk == "nature" else 1.0)
        if self.trunk != "none":
            x = x.transpose(0, 2, 3, 1)
        for features, width, stride in CONVOLUTIONS[self.trunk]:
            x = nn.relu(nn.Conv(features, (width, width), (stride, stride), padding="VALID")(x))
        x = x.reshape(len(x), -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.actions)(x)


class Policy(DQNPolicy):
    """SBX's policy on the workload's network."""

    def __init__(self, *arguments, network: tuple[tuple[int, ...], str], **options) -> None:
        super().__init__(*arguments, **options)
        self._network = network

    def build(self, key, lr_schedule):
        key = super().build(key, lr_schedule)
        self.qf = Network(int(self.action_space.n), *self._network)
        parameters = self.qf.init(jax.random.PRNGKey(0), jnp.array([self.observation_space.sample()]))
        self.qf_state = RLTrainState.create(
            apply_fn=jax.jit(self.qf.apply),
            params=parameters,
            target_params=parameters,
            tx=self.optimizer_class(learning_rate=lr_schedule(1), **self.optimizer_kwargs),
        )
        return key


class StableBaselinesJax(Stable):
    def __init__(self, workload: Workload, variant: str) -> None:
        super().__init__(DQN, Policy, workload, policy_kwargs={"network": (workload.hidden, workload.trunk)})

    def updates(self) -> int:
        return int(self.model.policy.qf_state.step)


if __name__ == "__main__":
    harness.run("sbx", "sbx-rl", StableBaselinesJax)
